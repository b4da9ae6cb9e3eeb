"""What a hub asks of whoever starts workers for it. Imports little, so that they are started before all else."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from nbqueue.core.routing import Offer


class WorkerExit(NamedTuple):
    """A local supervisor ended."""

    key: str  #: of the request that started it
    pid: int
    slots: int
    reason: str
    python: str | None  #: its interpreter; None: the usual one
    offer: Offer


class LocalWorkers(Protocol):
    """Starts supervisors on this machine, in the hub's process or in others; they die with the hub."""

    @property
    def look_at(self) -> float:
        """When `look` is to be called at the latest (monotonic clock)."""

    def look(self) -> None:
        """Do what time has brought; never waits."""

    @property
    def slots(self) -> int:
        """Slots of all that live, connected or not."""

    def owns(self, pid: int) -> bool:
        """Whether this process has one of them, and its end has not come out of `exits` yet."""

    def slots_offering(self, offer: Offer) -> int:
        """Slots of those that take on just this."""

    def start(self, key: str, slots: int, python: str | None, offer: Offer) -> None:
        """Start a supervisor for the request *key*; what goes wrong comes out of `exits`."""

    def exits(self) -> list[WorkerExit]:
        """Those that ended since the last call and were not asked to."""

    def resized(self, pid: int, slots: int) -> None:
        """A supervisor has changed its number of slots; not known here if it is not one of these."""

    def stop(self, key: str | None = None) -> None:
        """Stop the supervisors of one request, or all."""
