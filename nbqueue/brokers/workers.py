"""What a hub asks of whoever starts workers for it. Imports nothing, so that they are started before all else."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class WorkerExit(NamedTuple):
    """A local supervisor's process ended."""

    key: str  #: of the request that started it
    pid: int
    slots: int
    reason: str


class LocalWorkers(Protocol):
    """Starts supervisors on this machine; they die with the hub."""

    @property
    def slots(self) -> int:
        """Slots of all processes that live, connected or not."""

    def start(self, key: str, slots: int, python: str | None) -> None:
        """Start a supervisor for the request *key*; what goes wrong comes out of `exits`."""

    def exits(self) -> list[WorkerExit]:
        """Processes that ended since the last call and were not asked to."""

    def stop(self, key: str | None = None) -> None:
        """Stop the supervisors of one request, or all."""
