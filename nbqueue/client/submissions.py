"""What a client has handed over and the broker has not confirmed yet: how much that may be, and what to offer again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto

import msgspec

from nbqueue.brokers.base import ClientPort
from nbqueue.client.condition import Condition
from nbqueue.core.exchange import Receipt
from nbqueue.core.task import Block, RunSpec

#: Items and bytes on their way to the broker that it has not confirmed; whoever sends more waits.
CREDIT_ITEMS = 100_000
CREDIT_BYTES = 64 * 2**20


class Standing(Enum):
    """How a run stands after a receipt."""

    UNDER_WAY = auto()  #: more is to come, or to be confirmed
    ACCEPTED = auto()  #: all that was handed over is the broker's
    TURNED_AWAY = auto()  #: the broker had no room for it, for too long


class _Submission(msgspec.Struct, kw_only=True):
    """Items that the broker has not confirmed yet."""

    spec: RunSpec
    function: bytes
    blocks: deque[Block]
    closed: bool
    is_known: bool = False  #: the broker has the run
    full_since: float | None = None


class Submissions:
    """Submissions of one connection. Whoever reads tells what the broker says; anybody may hand over."""

    def __init__(self, *, timeout_s: float) -> None:
        """Offer items to a full broker for *timeout_s* seconds."""
        self._timeout_s = timeout_s
        self._credit = _Credit()
        self._open: dict[bytes, _Submission] = {}
        self._refused: dict[bytes, _Submission] = {}  # those for which the broker had no room

    def __contains__(self, run_id: bytes) -> bool:
        return run_id in self._open

    @property
    def has_refused(self) -> bool:
        """Whether anything is to be offered again."""
        return bool(self._refused)

    def reserve(self, blocks: Sequence[Block], *, wait: bool) -> None:
        """Wait until so much more may be on its way, unless told not to; one hand-over is always allowed.

        Raises:
            BrokerUnavailable: The broker is gone.
        """
        self._credit.take(*_weight(blocks), wait=wait)

    def wait_for_room(self, *, wait: bool) -> None:
        """`reserve` for what will be reserved soon, when it is known how much it is."""
        if self._credit.is_used_up:
            self._credit.take(0, 0, wait=wait)

    def add(self, spec: RunSpec, function: bytes, blocks: Sequence[Block], *, closed: bool) -> None:
        """A run is handed over, for which room was reserved."""
        self._open[spec.run_id] = _Submission(spec=spec, function=function, blocks=deque(blocks), closed=closed)

    def extend(self, run_id: bytes, blocks: Sequence[Block], *, closed: bool) -> bool:
        """More items of a run are handed over; whether they are to be sent now."""
        submission = self._open.get(run_id)
        if submission is None:  # the run was given up
            self._credit.give_back(*_weight(blocks))
            return False
        submission.blocks.extend(blocks)
        submission.closed = submission.closed or closed
        return submission.full_since is None

    def take(self, receipt: Receipt, now: float) -> Standing:
        """The broker has answered."""
        submission = self._open.get(receipt.run_id)
        if submission is None:
            return Standing.UNDER_WAY
        submission.is_known = submission.is_known or (receipt.known and not receipt.is_full) or receipt.total > 0
        while submission.blocks and submission.blocks[0].stop <= receipt.total:
            self._credit.give_back(*_weight([submission.blocks.popleft()]))
        if receipt.is_full:
            return self._turn_away(submission, now)
        if submission.blocks:
            return Standing.UNDER_WAY
        submission.full_since = None
        self._refused.pop(receipt.run_id, None)
        if submission.closed:
            del self._open[receipt.run_id]
        return Standing.ACCEPTED

    def _turn_away(self, submission: _Submission, now: float) -> Standing:
        """There is no room: offer the items again later, for so long as the timeout allows."""
        if submission.full_since is None:
            submission.full_since = now
            self._refused[submission.spec.run_id] = submission
        return Standing.TURNED_AWAY if now - submission.full_since > self._timeout_s else Standing.UNDER_WAY

    def offer_again(self, port: ClientPort) -> None:
        """Send once more what the broker had no room for."""
        for submission in self._refused.values():
            spec, blocks, closed = submission.spec, list(submission.blocks), submission.closed
            if submission.is_known:
                port.feed(spec.run_id, blocks=blocks, closed=closed)
            else:
                port.submit(spec, function=submission.function, blocks=blocks, closed=closed)

    def drop(self, run_id: bytes) -> None:
        """The run is over, or given up."""
        submission = self._open.pop(run_id, None)
        self._refused.pop(run_id, None)
        if submission is not None:
            self._credit.give_back(*_weight(submission.blocks))

    def fail(self, error: BaseException) -> None:
        """Nothing will be confirmed any more."""
        self._credit.fail(error)


class _Credit:
    """Bounds what is on its way to the broker."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._items = 0
        self._bytes = 0
        self._error: BaseException | None = None

    @property
    def is_used_up(self) -> bool:
        """Whether `take` would wait, or raise."""
        return self._error is not None or self._is_used_up(0, 0)

    def take(self, items: int, size: int, *, wait: bool) -> None:
        """See `Submissions.reserve`."""
        with self._changed:
            while wait and self._error is None and self._items and self._is_used_up(items, size):
                self._changed.wait(0.1)
            if self._error is not None:
                raise self._error
            self._items += items
            self._bytes += size

    def give_back(self, items: int, size: int) -> None:
        """The broker has confirmed, or the hand-over was given up."""
        with self._changed:
            self._items -= items
            self._bytes -= size
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Whoever waits need not wait any longer."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _is_used_up(self, items: int, size: int) -> bool:
        return self._items + items > CREDIT_ITEMS or self._bytes + size > CREDIT_BYTES


def _weight(blocks: Sequence[Block] | deque[Block]) -> tuple[int, int]:
    items = size = 0
    for block in blocks:
        items += block.stop - block.start
        size += len(block.payload)
    return items, size
