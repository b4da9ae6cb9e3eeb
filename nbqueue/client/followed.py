"""The runs of one connection: those of which news are wanted, and those whose results are."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any, NamedTuple, Self

from nbqueue.client.run import ClientRun, Told


class Nobody:
    """Stands for a handle where a run is followed for its news alone."""

    calls_back = False

    def on_over(self) -> None:
        """Whoever waits looks at the run."""


class Followed(NamedTuple):
    """A run that goes on, and who is told of its end."""

    run: ClientRun
    handle: Told


class HandleRef(weakref.ref[Any]):
    """Puts itself down when the handle is gone.

    It does so in C: an interrupt that fell into a finalizer in Python would be reported and lost.
    """

    __slots__ = ("run_id",)

    run_id: bytes

    def __new__(cls, handle: Any, run_id: bytes, gone: deque[HandleRef]) -> Self:
        """Watch *handle*, that of the run *run_id*."""
        self = super().__new__(cls, handle, gone.append)
        self.run_id = run_id
        return self

    def __init__(self, handle: Any, run_id: bytes, gone: deque[HandleRef]) -> None:
        """Put itself into *gone*."""
        super().__init__(handle, gone.append)  # type: ignore[call-arg]  # of `object`, says its stub


class WantedResults:
    """Runs whose results are wanted: as long as there is their handle, or for good. May be used by any thread."""

    def __init__(self) -> None:
        self._handles: dict[bytes, HandleRef] = {}
        self._gone: deque[HandleRef] = deque()

    def watch(self, handle: Any, run_id: bytes) -> None:
        """They are wanted as long as there is the handle."""
        self._handles[run_id] = HandleRef(handle, run_id, self._gone)

    def unwatch(self, run_id: bytes) -> None:
        """They are wanted even when the handle is gone."""
        self._handles.pop(run_id, None)

    @property
    def unwanted(self) -> int:
        """Of how many runs the handles are gone."""
        return len(self._gone)

    def take_unwanted(self) -> list[bytes]:
        """These runs, once."""
        gone = [self._gone.popleft().run_id for _ in range(len(self._gone))]
        return [run_id for run_id in gone if self._handles.pop(run_id, None) is not None]
