"""What tasks print and display, as numbered events, and how much of it is kept.

Whoever leaves something out does so silently: every event says how many bytes its attempt had printed before it, so
that a reader sees each hole and its size (`GapFinder`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

#: Of what one item prints, so much is kept from its beginning and as much from its end.
ITEM_TEXT_BYTES = 128 * 2**10
#: The same for all items of a run together.
RUN_TEXT_BYTES = 4 * 2**20
#: The same for what one item displays: pictures, tables.
ITEM_DISPLAY_BYTES = 8 * 2**20
RUN_DISPLAY_BYTES = 16 * 2**20
#: One text event holds at most so many bytes.
PIECE_BYTES = 8 * 2**10
#: An event costs so much memory beside what it holds.
OVERHEAD_BYTES = 128

STDOUT, STDERR = "stdout", "stderr"


class Text(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Something was written."""

    stream: str  #: "stdout" or "stderr"
    text: str


class Display(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A ``display_data`` or ``update_display_data`` of the Jupyter protocol; JSON throughout, bytes as base64."""

    data: dict[str, Any]  #: by MIME type
    metadata: dict[str, Any] = {}
    transient: dict[str, Any] = {}  #: holds the ``display_id``, if there is one
    update: bool = False


class Clear(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A ``clear_output``."""

    wait: bool = False


class Gap(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """So many bytes were left out here; made by readers only."""

    size_bytes: int


class Sealed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One of the others, on its way through a broker that shall not see it."""

    body: bytes
    is_display: bool = False


class OutputEvent(msgspec.Struct, frozen=True, array_like=True):
    """One thing that an attempt at an item printed or displayed."""

    item: int
    attempt: int
    position: int  #: bytes of text that this attempt had printed before, on both streams
    what: Text | Display | Clear | Gap | Sealed
    number: int = 0  #: within the run, given by the broker in the order of arrival
    worker: str = ""  #: name of the worker, added by the broker

    @property
    def text_bytes(self) -> int:
        """By how much it moves the position."""
        match self.what:
            case Text(text=text):
                return len(text.encode(errors="surrogatepass"))
            case Gap(size_bytes):
                return size_bytes
            case _:
                return 0

    @property
    def cost_bytes(self) -> int:
        """What it weighs in memory and on the wire."""
        match self.what:
            case Text(text=text):
                return OVERHEAD_BYTES + len(text)
            case Sealed(body):
                return OVERHEAD_BYTES + len(body)
            case Display():
                return OVERHEAD_BYTES + len(msgspec.msgpack.encode(self.what))
            case _:
                return OVERHEAD_BYTES

    @property
    def is_display(self) -> bool:
        """Whether it is large by nature, and counted apart from text."""
        return isinstance(self.what, Display) or (isinstance(self.what, Sealed) and self.what.is_display)


class Window:
    """Which parts of a growing sequence are kept: its beginning and its end. Knows sizes only."""

    __slots__ = ("_head_left", "_tail", "_tail_bytes", "_tail_limit")

    def __init__(self, head_bytes: int, tail_bytes: int) -> None:
        self._head_left = head_bytes
        self._tail_limit = tail_bytes
        self._tail: dict[int, int] = {}
        self._tail_bytes = 0

    def add(self, number: int, size: int) -> list[int]:
        """Take in the next one; the numbers of those to be dropped for it, oldest first. The newest always stays."""
        if not self._tail and size <= self._head_left:
            self._head_left -= size
            return []
        self._tail[number] = size
        self._tail_bytes += size
        dropped = []
        while self._tail_bytes > self._tail_limit and len(self._tail) > 1:
            oldest = next(iter(self._tail))
            self.discard(oldest)
            dropped.append(oldest)
        return dropped

    def discard(self, number: int) -> None:
        """It was dropped for another reason."""
        self._tail_bytes -= self._tail.pop(number, 0)


class OutputLog:
    """The output of one run, in order; of each item, and of the whole run, the beginning and the end are kept."""

    def __init__(self) -> None:
        self.end = 0  #: number of the next event
        self.size_bytes = 0  #: of what is kept
        self._events: dict[int, OutputEvent] = {}
        self._run_windows = {
            False: Window(RUN_TEXT_BYTES, RUN_TEXT_BYTES),
            True: Window(RUN_DISPLAY_BYTES, RUN_DISPLAY_BYTES),
        }
        self._item_windows: dict[tuple[int, bool], Window] = {}
        self._kept: dict[tuple[int, bool], int] = {}  # events of an item that are still here

    def add(self, event: OutputEvent) -> None:
        """Take in an event with a number that is `end` or, where some were missed, higher."""
        number, key = event.number, _key(event)
        self.end = number + 1
        self._events[number] = event
        cost = event.cost_bytes
        self.size_bytes += cost
        self._kept[key] = self._kept.get(key, 0) + 1
        limit = ITEM_DISPLAY_BYTES if key[1] else ITEM_TEXT_BYTES
        window = self._item_windows.get(key)
        if window is None:
            window = self._item_windows[key] = Window(limit, limit)
        for dropped in window.add(number, cost):
            self._run_windows[key[1]].discard(dropped)
            self._drop(dropped)
        for dropped in self._run_windows[key[1]].add(number, cost):
            self._item_windows[_key(self._events[dropped])].discard(dropped)
            self._drop(dropped)

    def _drop(self, number: int) -> None:
        event = self._events.pop(number)
        self.size_bytes -= event.cost_bytes
        key = _key(event)
        self._kept[key] -= 1
        if not self._kept[key]:
            del self._kept[key], self._item_windows[key]

    def since(self, number: int, *, max_bytes: int) -> list[OutputEvent]:
        """Events from *number* on: at least one if there is any, beyond that only as many as fit into *max_bytes*."""
        found: list[OutputEvent] = []
        size = 0
        for event in self._from(number):
            size += event.cost_bytes
            if found and size > max_bytes:
                break
            found.append(event)
        return found

    def _from(self, number: int) -> Iterator[OutputEvent]:
        if self.end - number <= len(self._events):
            return (self._events[index] for index in range(number, self.end) if index in self._events)
        return (event for index, event in self._events.items() if index >= number)

    def events(self, item: int | None = None) -> list[OutputEvent]:
        """All that is kept, of one item or of all."""
        return [event for event in self._events.values() if item is None or event.item == item]


def _key(event: OutputEvent) -> tuple[int, bool]:
    return event.item, event.is_display


class GapFinder:
    """Says where output was left out, to somebody who reads events in order."""

    def __init__(self) -> None:
        self._positions: dict[tuple[int, int], int] = {}

    def with_gaps(self, events: Iterable[OutputEvent]) -> Iterator[OutputEvent]:
        """The events, with a `Gap` wherever bytes are missing."""
        for event in events:
            attempt = event.item, event.attempt
            missing = event.position - self._positions.get(attempt, 0)
            if missing > 0:
                yield msgspec.structs.replace(event, position=event.position - missing, what=Gap(missing))
            self._positions[attempt] = event.position + event.text_bytes
            yield event


class OutputBatch:
    """Collects what a slot prints between two reports; bounded, whatever it prints."""

    def __init__(self) -> None:
        self._events: dict[int, OutputEvent] = {}
        self._window = Window(ITEM_TEXT_BYTES, ITEM_TEXT_BYTES)
        self._displays = Window(ITEM_DISPLAY_BYTES, ITEM_DISPLAY_BYTES)
        self._count = 0
        self._open: list[str] = []  # pieces of a text that may go on
        self._open_bytes = 0
        self._open_key: tuple[int, int, str] = (0, 0, "")
        self._attempt: tuple[int, int] = (-1, 0)
        self._position = 0

    def __bool__(self) -> bool:
        return bool(self._events or self._open)

    def begin(self) -> None:
        """What is printed from now on is that of other attempts."""
        self._close()
        self._attempt = -1, 0

    def print(self, item: int, attempt: int, stream: str, text: str) -> None:
        """The attempt at *item* wrote *text*."""
        key = item, attempt, stream
        while text:
            if key != self._open_key or self._open_bytes >= PIECE_BYTES:
                self._close()
                self._open_key = key
            piece, text = text[:PIECE_BYTES], text[PIECE_BYTES:]
            self._open.append(piece)
            self._open_bytes += len(piece)

    def show(self, item: int, attempt: int, what: Display | Clear) -> None:
        """The attempt at *item* displayed something."""
        self._close()
        self._add(item, attempt, what)

    def take(self) -> list[OutputEvent]:
        """All that was collected since the last time, or what of it is kept."""
        self._close()
        events, self._events = list(self._events.values()), {}
        self._window = Window(ITEM_TEXT_BYTES, ITEM_TEXT_BYTES)
        self._displays = Window(ITEM_DISPLAY_BYTES, ITEM_DISPLAY_BYTES)
        return events

    def _close(self) -> None:
        if self._open:
            item, attempt, stream = self._open_key
            text, self._open, self._open_bytes = "".join(self._open), [], 0
            self._add(item, attempt, Text(stream, text))

    def _add(self, item: int, attempt: int, what: Text | Display | Clear) -> None:
        if self._attempt != (item, attempt):
            self._attempt, self._position = (item, attempt), 0
        event = OutputEvent(item, attempt, self._position, what)
        self._position += event.text_bytes
        self._events[self._count] = event
        window = self._displays if isinstance(what, Display) else self._window
        for dropped in window.add(self._count, event.cost_bytes):
            del self._events[dropped]
        self._count += 1
