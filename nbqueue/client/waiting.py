"""Waiting without going deaf: what has to be looked after in the thread that waits, such as clicks in a notebook."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from nbqueue.brokers.nesting import NEST


class Attendant(Protocol):
    """Looks after what only the waiting thread can."""

    def attend(self) -> float | None:
        """Do what is due.

        Returns:
            Seconds until it should be called again; None when this wait needs no attendant.
        """

    def attending_loop(self) -> AbstractContextManager[None]:
        """The same while an event loop runs instead of waiting."""

    def occasion(self) -> object:
        """Which cell runs now; in a script always the same."""

    def draw(self, handle: Any) -> bool:
        """Show *handle*, because it is a cell's value; False where there is no better way than its ``repr``."""


class NoAttendant:
    """There is nothing to look after: in scripts, and in threads."""

    def attend(self) -> float | None:
        """Nothing is ever due."""
        return None

    def attending_loop(self) -> AbstractContextManager[None]:
        """Nothing is ever due."""
        return contextlib.nullcontext()

    def occasion(self) -> object:
        """There are no cells."""
        return None

    def draw(self, handle: Any) -> bool:
        """There is no cell."""
        return False


def slices(attendant: Attendant, deadline: float | None) -> Iterator[float | None]:
    """How long to wait, again and again, with the attendant's work done in between.

    Args:
        attendant: Called before every wait.
        deadline: On the monotonic clock; None: never.

    Yields:
        Seconds (None: as long as it takes), until the deadline has passed; 0 once if it already has.
    """
    with NEST.waiting():
        while True:
            pause = attendant.attend()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield left if pause is None else pause if left is None else min(pause, left)
            if deadline is not None and time.monotonic() >= deadline:
                return


def wait_until(is_reached: Callable[[float | None], bool], attendant: Attendant, timeout: float | None) -> bool:
    """Wait for something.

    Args:
        is_reached: Waits for so many seconds at most (None: as long as it takes); whether it came.
        attendant: Called while it has not.
        timeout: Seconds in all.

    Returns:
        Whether it came in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    return any(is_reached(pause) for pause in slices(attendant, deadline))
