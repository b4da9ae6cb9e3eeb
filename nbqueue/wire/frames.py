"""How a slot's own words stand among what its children and its C code write, so that all can be put in order.

A slot has two pipes, for descriptors 1 and 2. Anything may write into them. What Python code prints goes in as
*frames*: a mark that nobody else knows, a header, and the text. Each frame has a number, and a *tick* of that number is
written into the other pipe; so whatever else stands in either pipe is known to come before or after it. Frames are
written in one piece (not more than PIPE_BUF bytes), so that nobody's words can fall into them.
"""

from __future__ import annotations

import os
import select
import struct
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

MARK_BYTES = 16
_HEADER = struct.Struct("<QQBHI")  # number, item, kind, length of what follows, pieces after this one
#: What fits into a frame.
ROOM_BYTES = select.PIPE_BUF - MARK_BYTES - _HEADER.size

#: Kinds of frames: only the time passes; text; a message.
TICK, TEXT, MESSAGE = range(3)


def new_mark() -> bytes:
    """A mark for one slot, which no text contains by chance."""
    return os.urandom(MARK_BYTES)


def tick(mark: bytes, number: int, item: int) -> bytes:
    """What is written into the other pipe, before the frames of this number."""
    return mark + _HEADER.pack(number, item, TICK, 0, 0)


def frames(mark: bytes, number: int, item: int, kind: int, data: bytes) -> Iterator[bytes]:
    """Data in as many frames as it needs, each to be written in one piece."""
    left = max(len(data) - 1, 0) // ROOM_BYTES
    for start in range(0, len(data), ROOM_BYTES):
        piece = data[start : start + ROOM_BYTES]
        yield mark + _HEADER.pack(number, item, kind, len(piece), left) + piece
        left -= 1


class Piece(NamedTuple):
    """What was written, in order."""

    stream: int  #: 0: stdout, 1: stderr
    kind: int  #: TEXT or MESSAGE
    data: bytes
    item: int | None  #: None: it was not the slot's Python code that wrote it, nor did that write anything after it


class _Frame(NamedTuple):
    number: int
    item: int
    kind: int
    left: int
    data: bytes


class Sorter:
    """Puts what was read from the two pipes of a slot into the order in which it was written."""

    def __init__(self) -> None:
        self.mark = b""  #: set once it is known
        self._buffers = [bytearray(), bytearray()]
        self._read: list[deque[bytes | _Frame]] = [deque(), deque()]
        self._open: int | None = None  # the stream that holds more frames of the number just taken
        self._message: list[bytes] = []

    @property
    def has_more(self) -> bool:
        """Whether something was read that nobody has taken."""
        return any(self._read) or any(self._buffers)

    def feed(self, stream: int, data: bytes) -> None:
        """Take in what was read from a pipe."""
        self._buffers[stream] += data
        self._parse(stream)

    def take(self, *, all_of_it: bool = False) -> Iterator[Piece]:
        """What is known to come next; *all_of_it*: nothing more will come, so whatever is there."""
        while True:
            for stream in (0, 1) if self._open is None else (self._open,):
                yield from self._take_words(stream)
            found = self._next_frame(is_last_chance=all_of_it)
            if found is not None:
                yield from self._take_frame(*found)
            elif self._open is not None and all_of_it:
                self._open = None  # a signal fell between two of them
            else:
                break
        if all_of_it:
            for stream, buffer in enumerate(self._buffers):
                if buffer:
                    yield Piece(stream, TEXT, bytes(buffer), None)
                    buffer.clear()

    def _take_words(self, stream: int) -> Iterator[Piece]:
        """What others than the slot's Python code have written before the next frame."""
        queue = self._read[stream]
        while queue:
            words = queue[0]
            if isinstance(words, _Frame):
                return
            queue.popleft()
            after = queue[0] if queue else None
            yield Piece(stream, TEXT, words, after.item if isinstance(after, _Frame) else None)

    def _next_frame(self, *, is_last_chance: bool) -> tuple[int, _Frame] | None:
        """The frame of the lowest number that is still to come, and its stream; it is not taken out.

        Ticks of that number are. None when it cannot be known yet.
        """
        heads = [
            (queue[0].number, queue[0].kind == TICK, stream, queue[0])
            for stream, queue in enumerate(self._read)
            if queue and isinstance(queue[0], _Frame) and self._open in (None, stream)
        ]
        if not heads or (len(heads) < 2 and self._open is None and not is_last_chance):
            return None
        number, _, stream, head = min(heads)
        for other_number, _, other, _ in heads:
            if other_number == number and other != stream:
                self._read[other].popleft()
        return stream, head

    def _take_frame(self, stream: int, found: _Frame) -> Iterator[Piece]:
        self._read[stream].popleft()
        self._open = stream if found.left else None
        if found.kind == TEXT:
            yield Piece(stream, TEXT, found.data, found.item)
        elif found.kind == MESSAGE:
            self._message.append(found.data)
            if not found.left:
                message, self._message = b"".join(self._message), []
                yield Piece(stream, MESSAGE, message, found.item)

    def _parse(self, stream: int) -> None:
        """Move what is complete from the buffer into the queue."""
        buffer, queue, mark = self._buffers[stream], self._read[stream], self.mark
        start = 0
        while True:
            at = buffer.find(mark, start) if mark else -1
            words_end = at if at >= 0 else len(buffer) - _overlap(buffer, mark)
            if words_end > start:
                queue.append(bytes(buffer[start:words_end]))
            start = max(start, words_end)
            if at < 0 or len(buffer) < at + MARK_BYTES + _HEADER.size:
                break
            number, item, kind, length, left = _HEADER.unpack_from(buffer, at + MARK_BYTES)
            end = at + MARK_BYTES + _HEADER.size + length
            if len(buffer) < end:
                break
            queue.append(_Frame(number, item, kind, left, bytes(buffer[end - length : end])))
            start = end
        del buffer[:start]


def _overlap(buffer: bytearray, mark: bytes) -> int:
    """How many of the last bytes could be the beginning of a mark."""
    for length in range(min(len(mark) - 1, len(buffer)), 0, -1):
        if buffer.endswith(mark[:length]):
            return length
    return 0
