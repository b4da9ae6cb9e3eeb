"""The broker's record of one run: its items, who holds them, and the log of how they ended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from nbqueue.core.machine import Command, Event, step
from nbqueue.core.progress import Counts
from nbqueue.core.ranges import RangeMap, RangeQueue
from nbqueue.core.states import WAITING, State, Trigger
from nbqueue.core.task import GENTLY, Block, Entry, Item, Manner, RunSpec

#: Remarks of one run that are kept, and how long each may be.
MAX_REMARKS = 8
MAX_REMARK_CHARS = 1000


class Claim(msgspec.Struct, frozen=True):
    """A supervisor's right to run the items *start* to *stop* of a run."""

    token: int
    run_id: bytes
    start: int
    stop: int
    attempt: int
    worker_id: bytes
    since: float = 0.0  #: broker clock


class StopHolder(msgspec.Struct, frozen=True):
    """The holder of *token* is to stop the items *start* to *stop*."""

    token: int
    start: int
    stop: int
    manner: Manner = GENTLY


class Wake(msgspec.Struct, frozen=True):
    """The items *start* to *stop* are due at *due* (broker clock)."""

    due: float
    start: int
    stop: int


class Ending(msgspec.Struct, frozen=True):
    """What is written into the log about items that an event brings to their end."""

    payload: bytes = b""
    first: int = 0  #: index of the item to which the payload's first value belongs
    reason: str = ""
    worker: str = ""
    wall_s: float = 0.0  #: for *count* items together
    cpu_s: float = 0.0
    count: int = 1
    peak_bytes: int = 0


NO_ENDING = Ending()


class Run:
    """One call of the user, as the broker sees it.

    Every change of an item goes through `apply`, and `_finish` alone writes terminal states into the log.
    """

    def __init__(self, spec: RunSpec, *, now: float) -> None:
        self.spec = spec
        self.route = spec.options.route
        self.submitted_at = now
        self.finished_at: float | None = None
        self.closed = False  #: no more items will come
        self.is_revoked = False  #: as a whole: items that still come are revoked, too
        self.items: RangeMap[Item] = RangeMap()
        self.log: list[Entry] = []
        self.work_s = 0.0
        self.payload_bytes = 0  #: of what waits or runs
        self.result_bytes = 0  #: of the log
        self.refused_events = 0
        self.remarks: list[str] = []  #: sentences for whoever follows it
        self._queue = RangeQueue()
        self._expiries: RangeMap[float] = RangeMap()  # filled only when items expire
        self._counts = [0] * len(State)
        self._ended = 0
        self._blocks: list[Block] = []
        self._block_starts: list[int] = []
        self._open_items: list[int] = []  # per block: items that have not ended

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Items submitted so far."""
        return len(self.items)

    @property
    def is_finished(self) -> bool:
        """Whether no item can change any more and none will come."""
        return self.closed and self._ended == len(self.items)

    @property
    def waiting(self) -> int:
        """Items that could be claimed now."""
        return self._counts[State.PENDING]

    @property
    def is_held(self) -> bool:
        """Whether any item is with a supervisor."""
        return bool(self._counts[State.RECEIVED] or self._counts[State.STARTED])

    @property
    def unfinished(self) -> int:
        """Items that have not ended."""
        return len(self.items) - self._ended

    def count(self, state: State) -> int:
        """Items in *state*."""
        return self._counts[state]

    def waiting_ranges(self) -> list[tuple[int, int]]:
        """Items that no supervisor has: queued, or waiting for their time."""
        if not self.unfinished:
            return []
        return [(start, stop) for start, stop, item in self.items.segments(0, self.total) if item.state in WAITING]

    def remark(self, text: str) -> bool:
        """Take note of a sentence for whoever follows the run; False when it is known, or there are enough."""
        if text in self.remarks or len(self.remarks) >= MAX_REMARKS:
            return False
        self.remarks.append(text[:MAX_REMARK_CHARS])
        return True

    def counts(self) -> Counts:
        """What became of the items, as the user sees it."""
        by_state = self._counts
        return Counts(
            total=self.total,
            closed=self.closed,
            done=by_state[State.SUCCESS],
            failed=by_state[State.FAILURE] + by_state[State.LOST] + by_state[State.EXPIRED],
            revoked=by_state[State.REVOKED],
            running=by_state[State.RECEIVED] + by_state[State.STARTED],
        )

    def blocks(self, start: int, stop: int) -> list[Block]:
        """The payload blocks that overlap the items *start* to *stop*."""
        first, last = self._block_span(start, stop)
        return self._blocks[first:last]

    # -- input ---------------------------------------------------------------------------------------------------------

    def feed(self, blocks: Sequence[Block], *, closed: bool, now: float) -> list[Wake]:
        """Append items; blocks that are already known are passed over.

        Returns:
            When the new items are due, if they were submitted with a countdown.
        """
        wakes = []
        for block in blocks:
            if block.start != self.total:
                continue
            if block.stop <= block.start:
                continue  # no client of ours sends that, but none may break the broker
            self._blocks.append(block)
            self._block_starts.append(block.start)
            self._open_items.append(block.stop - block.start)
            self.payload_bytes += len(block.payload)
            wakes += self._enqueue_new(block.start, block.stop, now)
        self.closed = self.closed or closed
        return wakes

    def _enqueue_new(self, start: int, stop: int, now: float) -> list[Wake]:
        if self.spec.options.expires_s is not None:
            self._expiries.append(stop - start, now + self.spec.options.expires_s)
        countdown_s = self.spec.options.countdown_s
        if countdown_s > 0:
            due = now + countdown_s
            self.items.append(stop - start, Item(State.SCHEDULED, due=due))
            self._counts[State.SCHEDULED] += stop - start
            return [Wake(due, start, stop)]
        self.items.append(stop - start, Item(State.PENDING))
        self._counts[State.PENDING] += stop - start
        self._queue.push_back(start, stop)
        return []

    # -- claims --------------------------------------------------------------------------------------------------------

    def claim(self, *, size: int, token: int, worker_id: bytes, now: float) -> Claim | None:
        """Take up to *size* waiting items of equal standing from the head of the queue.

        Returns:
            None when nothing waits any more.
        """
        while self._queue:
            start, stop = self._queue.head()
            start, stop, item = self.items.segments(start, min(stop, start + size))[0]
            self._queue.drop(stop - start)
            if item.state is not State.PENDING:
                continue  # ended while it waited
            if not item.has_run and self._expires_in(start, stop, now):
                continue
            self.apply(Event(Trigger.CLAIM, now, token), start, stop, ending=Ending(reason="claimed too often"))
            claimed = self.items[start]
            if claimed.state is State.RECEIVED:
                return Claim(token, self.spec.run_id, start, stop, claimed.attempt, worker_id, now)
        return None

    def _expires_in(self, start: int, stop: int, now: float) -> bool:
        """Whether items, which have never run, are past their time to start; they end then."""
        if not len(self._expiries) or now < self._expiries[start]:
            return False
        first, last, _ = self._expiries.segments(start, stop)[0]
        self.apply(Event(Trigger.EXPIRE, now), first, last, ending=Ending(reason="not started in time"))
        if last < stop:
            self._queue.push_front(last, stop)
        return True

    # -- events --------------------------------------------------------------------------------------------------------

    def apply(
        self, event: Event, start: int, stop: int, *, ending: Ending = NO_ENDING
    ) -> tuple[list[StopHolder], list[Wake]]:
        """Let *event* happen to the items *start* to *stop*; where it is not legal it is counted and ignored.

        Returns:
            The holders that must be told to stop, and when items that now wait are due.
        """
        stops: list[StopHolder] = []
        wakes: list[Wake] = []
        requeued: list[tuple[int, int]] = []
        for first, last, item in self.items.segments(start, stop):
            new, commands = step(item, event, self.spec.options)
            if new is not item:
                self.items.set(first, last, new)
                self._counts[item.state] -= last - first
                self._counts[new.state] += last - first
            for command in commands:
                match command:
                    case Command.FINISH:
                        self._finish(first, last, item, new.state, ending)
                    case Command.ENQUEUE_BACK:
                        self._queue.push_back(first, last)
                    case Command.ENQUEUE_FRONT:
                        requeued.append((first, last))
                    case Command.WAIT:
                        wakes.append(Wake(new.due, first, last))
                    case Command.STOP_HOLDER:
                        stops.append(StopHolder(item.token, first, last))
                    case Command.REFUSED:
                        self.refused_events += 1
        for first, last in reversed(requeued):
            self._queue.push_front(first, last)
        return stops, wakes

    def _finish(self, start: int, stop: int, item: Item, state: State, ending: Ending) -> None:
        """Write the end of items into the log: the only place where that happens."""
        share = (stop - start) / max(ending.count, 1)
        has_payload = state in (State.SUCCESS, State.FAILURE)
        entry = Entry(
            start,
            stop,
            state,
            payload=ending.payload if has_payload else b"",
            offset=start - ending.first if has_payload else 0,
            reason=ending.reason if state is not State.SUCCESS else "",
            attempt=item.attempt,
            worker=ending.worker,
            wall_s=ending.wall_s * share,
            cpu_s=ending.cpu_s * share,
            peak_bytes=ending.peak_bytes,
        )
        self.log.append(entry)
        self._ended += stop - start
        self.work_s += entry.wall_s
        self.result_bytes += len(entry.payload)
        self._free_blocks(start, stop)

    def _free_blocks(self, start: int, stop: int) -> None:
        first, last = self._block_span(start, stop)
        for index in range(first, last):
            block = self._blocks[index]
            self._open_items[index] -= min(stop, block.stop) - max(start, block.start)
            if self._open_items[index] == 0:
                self.payload_bytes -= len(block.payload)
                self._blocks[index] = Block(block.start, block.stop, b"")

    def _block_span(self, start: int, stop: int) -> tuple[int, int]:
        first = bisect_right(self._block_starts, start) - 1
        last = bisect_right(self._block_starts, stop - 1)
        return max(first, 0), last
