"""Work that is submitted from inside a task: what the client must know of the task in whose process it runs.

The slot fills this in, the client reads it; neither knows the other.
"""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

#: A task inside a task inside a task …: a recursion that goes deeper has no end, or keeps too many processes waiting.
MAX_DEPTH = 32


class Parent(NamedTuple):
    """The task that runs in this process."""

    run_id: bytes
    item: int
    depth: int  #: 0 for one that was submitted outside of any task
    priority: int


class Inside(Protocol):
    """A slot, as the client in its process sees it."""

    def parent(self) -> Parent | None:
        """The task that runs here now; None between two."""

    def waiting(self) -> AbstractContextManager[None]:
        """While the task waits for others inside of this, its slot is lent to them."""


class _Nest:
    def __init__(self) -> None:
        self._inside: Inside | None = None
        self._pid = 0

    def use(self, inside: Inside) -> None:
        """This process is a slot."""
        self._inside = inside
        self._pid = os.getpid()

    @property
    def is_slot(self) -> bool:
        """Whether this process is a slot, or was started by a task."""
        return self._inside is not None

    def parent(self) -> Parent | None:
        """The task that runs here, or that has started this process by a fork; None outside of tasks."""
        return None if self._inside is None else self._inside.parent()

    def waiting(self) -> AbstractContextManager[None]:
        """Around every wait for other work."""
        if self._inside is None or self._pid != os.getpid():
            return contextlib.nullcontext()
        return self._inside.waiting()


NEST = _Nest()
