"""Holds running items to their limits, and the slots together to the memory that there is.

Time is read from the cell, where the slot notes when each item of a claim with limits begins. An item that has passed a
hard limit is killed with its process; what is then reported of it is its `Work.sentence`.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Sequence

from nbqueue.core.task import Failed, Killed
from nbqueue.errors import MemoryLimitExceeded, NBQueueError, ProcessLimitExceeded, TimeLimitExceeded
from nbqueue.worker import memory
from nbqueue.worker.limits import Budget, Overrun, WorkerLimits, must_hold, overrun, size_text, victim
from nbqueue.worker.slot_process import SlotProcess
from nbqueue.worker.work import Work

logger = logging.getLogger(__name__)

#: How often items with limits are looked at.
LOOK_S = 0.05
#: How often the memory of what an item has started is measured, if it has a limit.
MEASURE_S = 0.2
#: How often the memory of the machine is looked at while something runs.
GUARD_S = 0.5
#: Processes that one task may have at a time: more is a mistake that grows.
MAX_PROCESSES = 512
#: So many new threads on the machine are worth a look at who has started them.
_SUSPICIOUS_THREADS = 128

Slots = Sequence[SlotProcess[Work]]


class Warden:
    """Looks at the slots of one supervisor again and again."""

    def __init__(self, limits: WorkerLimits, *, name: str, now: float) -> None:
        """Hold the slots to *limits*; *name* is the worker's, for errors."""
        self._limits = limits
        self._name = name
        self._looked_at = self._measured_at = self._guarded_at = now
        self._threads = _threads()
        self.holding: Budget | None = None  #: memory that is nearly used up: nothing more may be begun

    def patience_s(self, slots: Slots) -> float:
        """How soon it must look again; infinite when nothing runs."""
        patience_s = math.inf if self.holding is None else MEASURE_S
        for slot in slots:
            if slot.work is not None:
                patience_s = min(patience_s, LOOK_S if slot.work.delivery.limits.is_any else MEASURE_S)
        return patience_s

    def look(self, slots: Slots, now: float) -> None:
        """Do what is due."""
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        is_time_to_measure = now - self._measured_at >= MEASURE_S
        if is_time_to_measure:
            self._measured_at = now
        for slot in slots:
            if slot.work is not None and slot.work.sentence is None and slot.work.delivery.limits.is_any:
                self._look_at(slot, slot.work, with_family=is_time_to_measure)
        if is_time_to_measure:
            self._look_for_bombs(slots)
        if now - self._guarded_at >= GUARD_S and (self.holding is not None or any(slot.work for slot in slots)):
            self._guarded_at = now
            self._guard(slots)

    # -- one item ------------------------------------------------------------------------------------------------------

    def _look_at(self, slot: SlotProcess[Work], work: Work, *, with_family: bool) -> None:
        limits, item = work.delivery.limits, work.running_item(slot.cell)
        if item is None or slot.pid is None:
            return
        held_bytes = None
        if limits.memory_bytes is not None:
            measured = memory.held_bytes(slot.pid, limit_bytes=limits.memory_bytes) if with_family else None
            held_bytes = memory.own_bytes(slot.pid) if measured is None else measured
            work.note_held(held_bytes)
        running_s = slot.cell.running_s()
        match overrun(limits, running_s=running_s, held_bytes=held_bytes):
            case Overrun.SOFT_TIME if work.soft_limit_told != item:
                work.soft_limit_told = item
                slot.cell.say_soft_limit(item)
                slot.signal(signal.SIGINT)
            case Overrun.TIME:
                error = f"it ran for longer than its time_limit of {limits.time_s:g} s, and its process was ended"
                self._sentence(slot, work, item, TimeLimitExceeded(error), running_s, retryable=limits.retry_time)
            case Overrun.MEMORY:
                assert limits.memory_bytes is not None
                assert held_bytes is not None
                error = (
                    f"it held {size_text(held_bytes)} of memory, more than its limit of "
                    f"{size_text(limits.memory_bytes)}, and its processes were ended"
                )
                self._sentence(slot, work, item, MemoryLimitExceeded(error), running_s, retryable=limits.retry_memory)

    def _sentence(
        self, slot: SlotProcess[Work], work: Work, item: int, error: NBQueueError, running_s: float, *, retryable: bool
    ) -> None:
        """End the slot because of what *item* did; nothing if it has just ended by itself."""
        from nbqueue.wire.failure import pack_failure

        where = f"worker {self._name}, attempt {work.delivery.attempt}"
        verdict = Failed(item, pack_failure(error, where=where, with_pickles=False), retryable, running_s)
        if slot.strike(work.delivery.token, item, signal.SIGKILL):
            work.sentence = verdict

    # -- all together --------------------------------------------------------------------------------------------------

    def _look_for_bombs(self, slots: Slots) -> None:
        """End tasks that start processes without end; they are counted only when the machine has many new threads."""
        threads = _threads()
        if threads - self._threads < _SUSPICIOUS_THREADS:
            self._threads = min(self._threads, threads)
            return
        counts = [
            (slot, memory.processes(slot.pid)) for slot in slots if slot.work is not None and slot.pid is not None
        ]
        for slot, count in counts:
            work = slot.work
            item = None if work is None else work.running_item(slot.cell)
            if count > MAX_PROCESSES and work is not None and work.sentence is None and item is not None:
                error = ProcessLimitExceeded(
                    f"it had {count} processes at a time, more than the {MAX_PROCESSES} that one task may have, "
                    "and all were ended"
                )
                self._sentence(slot, work, item, error, slot.cell.running_s(), retryable=False)
        if all(count < MAX_PROCESSES // 2 for _, count in counts):
            self._threads = threads  # they are somebody else's

    def _guard(self, slots: Slots) -> None:
        running = [slot for slot in slots if slot.work is not None and slot.pid is not None]
        budgets = memory.machine()
        held = [0] * len(running)
        if self._limits.memory_bytes is not None:
            everybody = [slot.pid for slot in slots if slot.pid is not None]
            used = sum(memory.held_bytes(pid, limit_bytes=0) for pid in everybody)
            budgets.append(Budget(f"the memory of worker {self._name}", self._limits.memory_bytes, used))
        holding = must_hold(budgets)
        if holding != self.holding and (holding is None or self.holding is None):
            logger.warning("memory short" if holding else "memory free again", extra={"budget": str(holding)})
        self.holding = holding
        if holding is None or any(slot.work is not None and slot.work.sentence is not None for slot in running):
            return  # what was ended last is still giving back its memory
        held = [memory.held_bytes(slot.pid, limit_bytes=0) for slot in running if slot.pid is not None]
        since = [slot.work.since for slot in running if slot.work is not None]
        found = victim(budgets, list(zip(held, since, strict=True)))
        if found is not None:
            self._end_largest(running[found[0]], found[1], held[found[0]])

    def _end_largest(self, slot: SlotProcess[Work], budget: Budget, held_bytes: int) -> None:
        work = slot.work
        item = None if work is None else work.running_item(slot.cell)
        if work is None or item is None:
            return
        work.note_held(held_bytes)
        reason = f"{budget}; the task, whose processes held {size_text(held_bytes)}, was ended before all others"
        if slot.strike(work.delivery.token, item, signal.SIGKILL):
            work.sentence = Killed(item, reason)


def _threads() -> int:
    """Threads of the whole machine; 0 where that cannot be known cheaply."""
    try:
        with open("/proc/loadavg", "rb") as file:
            return int(file.read().split()[3].partition(b"/")[2])
    except (OSError, ValueError, IndexError):
        return 0
