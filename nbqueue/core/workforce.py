"""The supervisors that are connected, and which of them should be given a piece of work."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from nbqueue.core.exchange import WorkerInfo
from nbqueue.core.routing import Route, breadth, serves, why_unserved
from nbqueue.core.run import Claim


class Worker:
    """A supervisor as the broker sees it."""

    __slots__ = ("breadth", "claims", "done", "functions", "info", "seen_at")

    def __init__(self, info: WorkerInfo, now: float) -> None:
        self.info = info
        self.seen_at = now
        self.claims: dict[int, Claim] = {}
        self.functions: set[bytes] = set()  #: digests of those that it has
        self.done = 0
        self.breadth = breadth(info.offer)

    @property
    def free_slots(self) -> int:
        """Chunks it could take; negative when it has fetched some ahead."""
        return self.info.slots - len(self.claims)


class Workforce:
    """All supervisors. Who serves which route is worked out once, until somebody comes or goes."""

    def __init__(self) -> None:
        self._workers: dict[bytes, Worker] = {}
        self._serving: dict[Route, list[Worker]] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __contains__(self, worker_id: bytes) -> bool:
        return worker_id in self._workers

    def get(self, worker_id: bytes) -> Worker | None:
        """The supervisor; None when there is none of this id."""
        return self._workers.get(worker_id)

    def join(self, info: WorkerInfo, now: float) -> None:
        """A supervisor comes."""
        self._workers[info.worker_id] = Worker(info, now)
        self._serving.clear()

    def part(self, worker_id: bytes) -> Worker | None:
        """A supervisor goes; None when there was none of this id."""
        worker = self._workers.pop(worker_id, None)
        self._serving.clear()
        return worker

    def resize(self, worker_id: bytes, *, slots: int, prefetch: int) -> None:
        """A supervisor has another number of slots."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.info = msgspec.structs.replace(worker.info, slots=slots, prefetch=prefetch)

    @property
    def slots(self) -> int:
        """Slots of all supervisors."""
        return sum(worker.info.slots for worker in self)

    def serving(self, route: Route) -> list[Worker]:
        """Those that may run what asks for *route*."""
        found = self._serving.get(route)
        if found is None:
            found = self._serving[route] = [worker for worker in self if serves(worker.info.offer, route)]
        return found

    def slots_for(self, route: Route) -> int:
        """Slots of those that may run what asks for *route*."""
        return sum(worker.info.slots for worker in self.serving(route))

    def pick(self, route: Route) -> Worker | None:
        """Who should be given such work: somebody idle, of those who can do least else, and has most room of these."""
        candidates = self.serving(route)
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        return max(candidates, key=_suitability)

    def why_unserved(self, route: Route) -> str:
        """One sentence on why nobody who is connected could ever run this; empty when somebody could."""
        return "" if self.serving(route) else why_unserved(route, [worker.info.offer for worker in self])

    def holder_of(self, token: int) -> Worker | None:
        """Who holds this claim."""
        return next((worker for worker in self if token in worker.claims), None)


def _suitability(worker: Worker) -> tuple[bool, int, int]:
    free_slots = worker.free_slots
    return free_slots > 0, -worker.breadth, free_slots
