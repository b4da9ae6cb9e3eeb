"""Running again what has not succeeded: the arguments that are kept for it, and the run that takes its place."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import msgspec

from nbqueue.client.run import ClientRun
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Block, Entry
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.payload import PackedValues


class KeptArguments:
    """The packed arguments of items that have not succeeded, so that these can be run again.

    A block is let go as soon as all its items have succeeded. The caller holds the run's lock.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self._starts: list[int] = []
        self._open: dict[int, int] = {}  # items of a block that have not succeeded

    def add(self, block: Block) -> None:
        """Keep a block; they come in order."""
        self._blocks[block.start] = block
        self._starts.append(block.start)
        self._open[block.start] = block.stop - block.start

    def let_go(self, start: int, stop: int) -> None:
        """The items *start* to *stop* have succeeded."""
        position = max(0, bisect_right(self._starts, start) - 1)
        while position < len(self._starts) and self._starts[position] < stop:
            first = self._starts[position]
            block = self._blocks.get(first)
            if block is not None:
                self._open[first] -= max(0, min(stop, block.stop) - max(start, first))
                if self._open[first] <= 0:
                    del self._blocks[first], self._open[first]
            position += 1

    def values(self, items: Sequence[int], blobs: BlobStore | None) -> list[Any]:
        """The arguments of these items, which are in order and have not succeeded."""
        found: list[Any] = []
        unpacked: dict[int, PackedValues] = {}
        for item in items:
            first = self._starts[bisect_right(self._starts, item) - 1]
            if first not in unpacked:
                unpacked = {first: PackedValues(self._blocks[first].payload, blobs)}
            found.append(unpacked[first].get(item - first))
        return found


def unsuccessful(run: ClientRun) -> list[int]:
    """The items of a run that is over which have not succeeded, or of which it was never heard how they ended."""
    items: list[int] = []
    expected = 0
    for entry in run.entries():
        if entry.state is State.SUCCESS:
            items += range(expected, entry.start)
            expected = entry.stop
    return [*items, *range(expected, run.counts.total)]


class SecondRun(ClientRun):
    """Runs some items of a former run again, and stands for all of them.

    To the broker these items are a run of their own, numbered from 0. Whoever reads this run sees the former numbers,
    and the results that the former run has brought.
    """

    def __init__(self, run_id: bytes, label: str, *, former: ClientRun, items: Sequence[int]) -> None:
        """Take over the successes of *former*; *items* (in order) are those that run again."""
        super().__init__(run_id, label, total=former.counts.total, closed=True)
        self._items = items
        for entry in former.entries():
            if entry.state is State.SUCCESS:
                self._file(entry)
                self._kept = self._kept + entry.stop - entry.start
        self.counts = self._read(Counts(total=len(items)))

    _kept = 0

    def on_broker(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Those of the items *start* to *stop* that run again, as the broker numbers them."""
        first, last = bisect_right(self._items, start - 1), bisect_right(self._items, stop - 1)
        return [(first, last)] if first < last else []

    def _read(self, counts: Counts) -> Counts:
        return msgspec.structs.replace(counts, total=counts.total + self._kept, done=counts.done + self._kept)

    def _file(self, entry: Entry) -> None:
        if self.cursor == 0:  # of the former run
            super()._file(entry)
            return
        for piece in self._pieces(entry):
            super()._file(piece)

    def _pieces(self, entry: Entry) -> list[Entry]:
        """The entry under the former numbers, in which neighbours may lie apart."""
        pieces = []
        first = entry.start
        while first < entry.stop:
            last = first + 1
            while last < entry.stop and self._items[last] == self._items[first] + last - first:
                last += 1
            start, share = self._items[first], (last - first) / (entry.stop - entry.start)
            piece = msgspec.structs.replace(
                entry,
                start=start,
                stop=start + last - first,
                offset=entry.offset + first - entry.start,
                wall_s=entry.wall_s * share,
                cpu_s=entry.cpu_s * share,
            )
            pieces.append(piece)
            first = last
        return pieces
