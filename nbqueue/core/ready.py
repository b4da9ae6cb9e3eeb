"""Runs of which items wait, and which of them is served next."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from nbqueue.core.routing import Route
from nbqueue.core.run import Run


class Lane(NamedTuple):
    """Runs that are of equal standing for every supervisor."""

    priority: int
    route: Route


class Ready(NamedTuple):
    """The run that is next."""

    run: Run
    owner: bytes
    lane: Lane


class ReadyRuns:
    """Highest priority first, clients in turn, each client's oldest run first; among those that can be served."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[bytes, dict[bytes, tuple[int, Run]]]] = {}  # lane -> owner -> run -> number
        self._turns: dict[bytes, int] = {}  # of the owners that wait: who has the lowest is next
        self._runs: dict[bytes, int] = {}  # of each owner, how many
        self._number = 0

    def __len__(self) -> int:
        return sum(self._runs.values())

    def add(self, run: Run, owner: bytes) -> None:
        """Items of the run wait; one that is known keeps its place."""
        lane = Lane(run.spec.options.priority, run.route)
        runs = self._lanes.setdefault(lane, {}).setdefault(owner, {})
        if run.spec.run_id in runs:
            return
        runs[run.spec.run_id] = self._next(), run
        self._runs[owner] = self._runs.get(owner, 0) + 1
        if owner not in self._turns:
            self._turns[owner] = self._next()

    def head(self, passed_over: Container[Route]) -> Ready | None:
        """Who is next, of those whose route is not *passed_over*."""
        best: Ready | None = None
        best_rank = (0, 0, 0)
        for lane, owners in self._lanes.items():
            if lane.route in passed_over:
                continue
            owner = min(owners, key=self._turns.__getitem__)
            number, run = next(iter(owners[owner].values()))
            rank = (-lane.priority, self._turns[owner], number)
            if best is None or rank < best_rank:
                best, best_rank = Ready(run, owner, lane), rank
        return best

    def end_turn(self, owner: bytes) -> None:
        """The owner was served: all others come before it does again."""
        self._turns[owner] = self._next()

    def drop(self, ready: Ready) -> None:
        """Nothing of the run waits any more."""
        self._remove(ready.lane, ready.owner, ready.run.spec.run_id)

    def discard(self, run: Run, owner: bytes) -> None:
        """The run is forgotten, whether it is here or not."""
        lane = Lane(run.spec.options.priority, run.route)
        if run.spec.run_id in self._lanes.get(lane, {}).get(owner, {}):
            self._remove(lane, owner, run.spec.run_id)

    def _remove(self, lane: Lane, owner: bytes, run_id: bytes) -> None:
        owners = self._lanes[lane]
        del owners[owner][run_id]
        if not owners[owner]:
            del owners[owner]
        if not owners:
            del self._lanes[lane]
        self._runs[owner] -= 1
        if not self._runs[owner]:
            del self._runs[owner], self._turns[owner]

    def _next(self) -> int:
        self._number += 1
        return self._number
