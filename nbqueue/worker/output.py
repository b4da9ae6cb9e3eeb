"""The supervisor's side of output capture: reads what a slot prints, and keeps it bounded until it is reported."""

from __future__ import annotations

import codecs
import os
import select
import sys

import msgspec

from nbqueue.core.exchange import Delivery
from nbqueue.core.output import STDERR, STDOUT, Clear, Display, OutputBatch, OutputEvent
from nbqueue.wire.frames import MESSAGE, Piece, Sorter
from nbqueue.worker.cell import ITEM, Cell

#: What a slot prints is reported as often, unless outcomes are reported, which it must not come after.
REPORT_S = 0.1
#: Last words of a process that died.
LAST_LINES, _LAST_CHARS = 50, 2**14
_READ_BYTES = 64 * 1024
#: Enough to empty pipes that were full; a slot that goes on printing must not hold up its supervisor.
_DRAIN_BYTES = 2**20
_STREAMS = STDOUT, STDERR

_decode_message = msgspec.msgpack.Decoder(Display | Clear).decode


def output_pipe() -> tuple[int, int]:
    """The two ends of a pipe for descriptor 1 or 2 of a slot: ours, which never blocks, and its."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return reader, writer


class SlotOutput:
    """What one slot prints."""

    def __init__(self, readers: tuple[int, int], cell: Cell) -> None:
        """Read the pipes *readers*; *cell* names the item that runs."""
        self.readers = readers
        self._poll = select.poll()  # to look into both at once: mostly there is nothing
        for reader in readers:
            self._poll.register(reader, select.POLLIN)
        self._cell = cell
        self._sorter = Sorter()
        self._batch = OutputBatch()
        self._delivery: Delivery | None = None
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in _STREAMS]
        self._last_words = ""
        self._reported_at = 0.0
        self._item = 0  #: that ran when the pipes were last read

    @property
    def last_lines(self) -> list[str]:
        """The end of what the slot wrote to stderr."""
        return self._last_words.splitlines()[-LAST_LINES:]

    @property
    def is_waiting(self) -> bool:
        """Whether something is to be reported."""
        return bool(self._batch)

    def is_due(self, now: float) -> bool:
        """Whether something is to be reported now."""
        return bool(self._batch) and now - self._reported_at >= REPORT_S

    def use_mark(self, mark: bytes) -> None:
        """The slot is up, and this is how its own words are known."""
        self._sorter.mark = mark

    def begin(self, delivery: Delivery) -> None:
        """From now on, what the slot prints is that of items of this delivery."""
        self._delivery = delivery
        self._batch.begin()
        for decoder in self._decoders:
            decoder.reset()

    def end(self) -> None:
        """The delivery is done; what still comes is nobody's."""
        self._delivery = None

    def read(self) -> int:
        """Read what is there, once; the number of bytes."""
        size = 0
        self._item = self._cell.numbers[ITEM]  # before the look at the pipes: what is there was written until now
        for reader, _ in self._poll.poll(0):
            data = _read(reader)
            if data:
                size += len(data)
                self._sorter.feed(self.readers.index(reader), data)
        if size:
            self._collect(all_of_it=False)
        return size

    def drain(self) -> None:
        """Read everything that was written until now."""
        size = self.read()
        total = size
        while size and total < _DRAIN_BYTES:
            size = self.read()
            total += size
        if self._sorter.has_more:
            self._collect(all_of_it=True)

    def take(self, now: float) -> list[OutputEvent]:
        """What is to be reported, and from now on is."""
        self._reported_at = now
        return self._batch.take()

    def close(self) -> None:
        """Let go of the pipes."""
        for reader in self.readers:
            os.close(reader)

    def _collect(self, *, all_of_it: bool) -> None:
        for piece in self._sorter.take(all_of_it=all_of_it):
            self._take_piece(piece)

    def _take_piece(self, piece: Piece) -> None:
        delivery = self._delivery
        if delivery is None:
            _write_to_log(piece)
            return
        item = self._item if piece.item is None else piece.item
        item = min(max(item, delivery.start), delivery.stop - 1)
        if piece.kind == MESSAGE:
            self._batch.show(item, delivery.attempt, _decode_message(piece.data))
            return
        text = self._decoders[piece.stream].decode(piece.data)
        self._batch.print(item, delivery.attempt, _STREAMS[piece.stream], text)
        if piece.stream == 1:
            self._last_words = (self._last_words + text)[-_LAST_CHARS:]  # a line may come in parts


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, _READ_BYTES)
    except BlockingIOError:
        return b""


def _write_to_log(piece: Piece) -> None:
    """What was printed outside of any task goes where the supervisor's own words go."""
    if piece.kind != MESSAGE:
        sys.stderr.write(piece.data.decode(errors="replace"))
        sys.stderr.flush()
