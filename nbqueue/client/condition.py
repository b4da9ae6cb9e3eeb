"""A condition that an interrupt cannot leave locked, or unlocked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any


class Condition(threading.Condition):
    """`threading.Condition`, entered at one stroke, and held again after each wait.

    The ``__enter__`` of the original is a Python function: Ctrl-C that falls behind its acquisition of the lock, but
    before the ``with`` statement has heard of it, leaves the lock taken for ever, and whoever else wants it hangs. Here
    `with` gets the lock's own methods, which are C.
    """

    if not TYPE_CHECKING:
        _lock: Any
        __enter__ = property(lambda self: self._lock.__enter__)
        __exit__ = property(lambda self: self._lock.__exit__)

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Condition.wait`.

        Ctrl-C that falls behind its release of the lock, but before the ``try`` that takes it back, would leave the
        ``with`` statement around it with a lock that is not its own: it fails, and the interrupt is never heard of.
        """
        # Python 3.11.0 to 3.11.4 do not tell; there is hardly ever more than one.
        depth = self._lock._recursion_count() if hasattr(self._lock, "_recursion_count") else 1  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            return super().wait(timeout)
        except BaseException:
            if not self._is_owned():  # type: ignore[attr-defined]  # of CPython
                self._acquire_restore((depth, threading.get_ident()))  # type: ignore[attr-defined]
            raise
