"""A condition that an interrupt cannot leave locked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any


class Condition(threading.Condition):
    """`threading.Condition`, entered at one stroke.

    The ``__enter__`` of the original is a Python function: Ctrl-C that falls behind its acquisition of the lock, but
    before the ``with`` statement has heard of it, leaves the lock taken for ever, and whoever else wants it hangs. Here
    `with` gets the lock's own methods, which are C.
    """

    if not TYPE_CHECKING:
        _lock: Any
        __enter__ = property(lambda self: self._lock.__enter__)
        __exit__ = property(lambda self: self._lock.__exit__)
