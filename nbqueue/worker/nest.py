"""A slot's side of tasks inside tasks: whose child a submit is, and telling the supervisor that the task waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nbqueue.brokers.nesting import Parent
from nbqueue.wire.messages import Waits
from nbqueue.worker.context import SLATE


class SlotNest:
    """What the client in a slot's process is told of the slot."""

    def __init__(self, say: Callable[[Waits], None]) -> None:
        """Tell the supervisor by *say*, which may be called by any thread."""
        self._say = say
        self._lock = threading.Lock()
        self._waits = 0  # threads of the task that wait

    def parent(self) -> Parent | None:
        """The task that runs here now."""
        if SLATE.running is None:
            return None
        delivery, cell = SLATE.running
        item = cell.current(delivery.token)
        return None if item is None else Parent(delivery.run_id, item, delivery.depth, delivery.priority)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The task waits for others."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            self._waits += step
            is_first_or_last = self._waits == max(step, 0)
        if is_first_or_last:
            self._say(Waits(begins=step > 0))
