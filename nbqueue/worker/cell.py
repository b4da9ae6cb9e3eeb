"""A few shared numbers between a supervisor and a slot: what the slot runs now, and what it must not run.

Reading and writing them costs 30 ns, so the slot can name every item before it runs it; that makes blame exact and lets
the supervisor aim a signal at one item.
"""

from __future__ import annotations

import mmap
import signal
import tempfile
import time
from typing import IO

#: The signal that asks a slot to report what it has finished; whoever does not know it ignores it.
PLEASE_REPORT = signal.SIGURG
#: Ranges of items to be stopped that a cell has room for.
MAX_STOPS = 1000
_TOKEN, _ITEM, _SINCE_NS, _AIM, _SOFT, _REFUSED, _STOP_TOKEN, _STOP_COUNT, _STOPS = range(9)
_BYTES = 8 * (_STOPS + 2 * MAX_STOPS)
#: What the slot wrote before this time is seen here, and what was written here before it is seen by the slot.
_SETTLE_S = 0.001


class Cell:
    """Shared 64-bit numbers."""

    def __init__(self, descriptor: int) -> None:
        """Map the file behind *descriptor*, which may be closed afterwards."""
        self._map = mmap.mmap(descriptor, _BYTES)
        self.numbers = memoryview(self._map).cast("Q")  #: for the slot's inner loop

    @staticmethod
    def make_file() -> IO[bytes]:
        """A nameless file for one cell."""
        file = tempfile.TemporaryFile(buffering=0)
        file.truncate(_BYTES)
        return file

    # -- the slot's side -----------------------------------------------------------------------------------------------

    def begin(self, token: int, item: int) -> None:
        """The slot begins to run *item* of the claim *token*."""
        self.numbers[_ITEM] = item
        self.numbers[_SINCE_NS] = time.monotonic_ns()
        self.numbers[_SOFT] = self.numbers[_REFUSED] = 0
        self.numbers[_TOKEN] = token

    def note_start(self) -> None:
        """The current item begins, of a claim that has limits; waits as `wait_while_aimed_at` does."""
        self.numbers[_SINCE_NS] = time.monotonic_ns()
        if self.numbers[_AIM]:
            self.wait_while_aimed_at()

    def end(self) -> None:
        """The slot runs nothing."""
        self.numbers[_TOKEN] = 0

    def must_stop(self, token: int, item: int) -> bool:
        """Whether the supervisor wants this item stopped."""
        numbers = self.numbers
        if numbers[_STOP_TOKEN] != token:
            return False
        ends = range(_STOPS, _STOPS + 2 * numbers[_STOP_COUNT], 2)
        return any(numbers[place] <= item < numbers[place + 1] for place in ends)

    def is_past_soft_limit(self, item: int) -> bool:
        """Whether the supervisor says that this item has run for longer than its soft time limit."""
        return self.numbers[_SOFT] == item + 1

    def may_not_wait(self, item: int) -> bool:
        """Whether the supervisor says that this item may not wait for others."""
        return self.numbers[_REFUSED] == item + 1

    def wait_while_aimed_at(self) -> None:
        """Wait while the supervisor makes up its mind about a signal that is meant for an item that has ended."""
        while self.numbers[_AIM]:
            time.sleep(_SETTLE_S / 2)

    # -- the supervisor's side -----------------------------------------------------------------------------------------

    def current(self, token: int) -> int | None:
        """The item of the claim *token* that runs now; None when none does."""
        return self.numbers[_ITEM] if self.numbers[_TOKEN] == token else None

    def running_s(self) -> float:
        """For how long the current item has been running; only of claims with limits is each item's start noted."""
        return max(0, time.monotonic_ns() - self.numbers[_SINCE_NS]) / 1e9

    def aim(self, token: int, item: int) -> bool:
        """Hold the slot to *item* until `lower`, if it still runs it: a signal sent meanwhile hits no other item.

        Guarantees: After the pause either we see that the slot has gone on, or it sees that it is aimed at, and waits
        before its next item (provided that a stop is installed, or the claim has limits).
        """
        self.numbers[_AIM] = 1
        time.sleep(_SETTLE_S)
        if self.current(token) == item:
            return True
        self.numbers[_AIM] = 0
        return False

    def lower(self) -> None:
        """The slot may go on."""
        time.sleep(_SETTLE_S)  # the signal has arrived by then
        self.numbers[_AIM] = 0

    def say_soft_limit(self, item: int) -> None:
        """The item has run for longer than its soft time limit."""
        self.numbers[_SOFT] = item + 1

    def refuse_to_wait(self, item: int) -> None:
        """The item may not wait for others."""
        self.numbers[_REFUSED] = item + 1

    def ask_to_stop(self, token: int, start: int, stop: int) -> bool:
        """Items *start* to *stop* of the claim *token* are not to run; False when there is no room to say so."""
        numbers = self.numbers
        if numbers[_STOP_TOKEN] != token:
            self.forget_stops()
        count = numbers[_STOP_COUNT]
        if count == MAX_STOPS:
            return False
        numbers[_STOPS + 2 * count] = start
        numbers[_STOPS + 2 * count + 1] = stop
        numbers[_STOP_COUNT] = count + 1  # last, so that the slot never reads half a range
        numbers[_STOP_TOKEN] = token
        return True

    def forget_stops(self) -> None:
        """Make room; stops that still matter are to be said again."""
        self.numbers[_STOP_TOKEN] = 0
        self.numbers[_STOP_COUNT] = 0

    def keep_only(self, start: int, stop: int) -> None:
        """Make room as `forget_stops` does, but the items *start* to *stop* are not to run at any moment."""
        self.numbers[_STOPS] = start
        self.numbers[_STOPS + 1] = stop
        self.numbers[_STOP_COUNT] = 1

    def hold_back(self, token: int, start: int, stop: int) -> int | None:
        """Items *start* to *stop* of the claim *token* are not to run, unless the slot has begun them meanwhile.

        Returns:
            The item that it runs: those behind it, it will not. None: it runs none any more, or there was no room.
        """
        if not self.ask_to_stop(token, start, stop):
            return None
        time.sleep(_SETTLE_S)
        return self.current(token)

    def close(self) -> None:
        """Unmap."""
        self.numbers.release()
        self._map.close()


#: Index of the item number in `Cell.numbers`, for the slot's inner loop.
ITEM = _ITEM
#: Index of the claim whose items are to be stopped, likewise.
STOP_TOKEN = _STOP_TOKEN
