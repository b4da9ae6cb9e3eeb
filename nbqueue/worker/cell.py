"""A few shared numbers between a supervisor and a slot: what the slot runs now, and what it must not run.

Reading and writing them costs 30 ns, so the slot can name every item before it runs it; that makes blame exact and lets
the supervisor aim a signal at one item.
"""

from __future__ import annotations

import mmap
import tempfile
from typing import IO

_BYTES = 64
_TOKEN, _ITEM, _STOP_TOKEN, _STOP_START, _STOP_STOP = range(5)


class Cell:
    """Five shared 64-bit numbers."""

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
        self.numbers[_TOKEN] = token

    def end(self) -> None:
        """The slot runs nothing."""
        self.numbers[_TOKEN] = 0

    def must_stop(self, token: int, item: int) -> bool:
        """Whether the supervisor wants this item stopped."""
        numbers = self.numbers
        return numbers[_STOP_TOKEN] == token and numbers[_STOP_START] <= item < numbers[_STOP_STOP]

    # -- the supervisor's side -----------------------------------------------------------------------------------------

    def current(self, token: int) -> int | None:
        """The item of the claim *token* that runs now; None when none does."""
        return self.numbers[_ITEM] if self.numbers[_TOKEN] == token else None

    def ask_to_stop(self, token: int, start: int, stop: int) -> None:
        """Items *start* to *stop* of the claim *token* are not to run."""
        numbers = self.numbers
        numbers[_STOP_TOKEN] = 0
        numbers[_STOP_START] = start
        numbers[_STOP_STOP] = stop
        numbers[_STOP_TOKEN] = token

    def close(self) -> None:
        """Unmap."""
        self.numbers.release()
        self._map.close()


#: Index of the item number in `Cell.numbers`, for the slot's inner loop.
ITEM = _ITEM
#: Index of the claim whose items are to be stopped, likewise.
STOP_TOKEN = _STOP_TOKEN
