"""Items that have handles of their own, each of which sees its item as if it were a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from nbqueue.client.condition import Condition
from nbqueue.client.output import Listener, RunOutput
from nbqueue.client.run import ClientRun, Told
from nbqueue.core.output import OutputEvent
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Entry
from nbqueue.errors import UnknownTask
from nbqueue.wire.blobs import BlobStore

_WAITS, _RUNS = Counts(total=1, closed=True), Counts(total=1, closed=True, running=1)
_ENDED = {
    State.SUCCESS: Counts(total=1, closed=True, done=1),
    State.REVOKED: Counts(total=1, closed=True, revoked=1),
}
_FAILED = Counts(total=1, closed=True, failed=1)


class OneItem:
    """One item of a run, as a handle sees it; see `ClientRun`."""

    __slots__ = ("_handle", "_whole", "argument", "entry", "finished_at", "item", "started_at")

    is_whole = False

    def __init__(self, whole: ClientRun, item: int, argument: Any = None) -> None:
        self._whole = whole
        self.item = item
        self._handle: Told | None = None
        self.argument = argument  #: until it has succeeded
        self.entry: Entry | None = None
        self.started_at = time.monotonic()
        self.finished_at: float | None = None

    # -- its end -------------------------------------------------------------------------------------------------------

    def join(self, handle: Told) -> None:
        """From now on it is an item of the run, and *handle* is told of its end."""
        self._handle = handle
        self._whole.members[self.item] = self

    @property
    def handle(self) -> Told | None:
        """Who is to be told of its end."""
        return self._handle

    def end(self, entry: Entry) -> Told | None:
        """It has ended like this; who is to be told."""
        self.entry = entry
        self.finished_at = self._whole.heard_at
        if entry.state is State.SUCCESS:
            self.argument = None
        return self.let_go()

    def let_go(self) -> Told | None:
        """Nothing more will happen to it; who is to be told, if that was not done."""
        handle, self._handle = self._handle, None
        return handle

    # -- the whole run's -----------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> bytes:
        """That of the whole run."""
        return self._whole.run_id

    @property
    def label(self) -> str:
        """What cards show."""
        return self._whole.label

    @property
    def changed(self) -> Condition:
        """Notified with every arrival."""
        return self._whole.changed

    @property
    def slots(self) -> int:
        """Of those that may run it."""
        return self._whole.slots

    @property
    def unserved(self) -> str:
        """Why nobody who is connected could ever run it."""
        return self._whole.unserved

    @property
    def remarks(self) -> list[str]:
        """What workers have to say."""
        return self._whole.remarks

    # -- its own -------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """As `current_task().id` has it."""
        return f"{self._whole.run_id.hex()}.{self.item}"

    @property
    def error(self) -> BaseException | None:
        """Why no more news will come, if it has not ended."""
        if self.entry is not None:
            return None
        if self._whole.is_finished:
            return UnknownTask(f"the result of item {self.item} was handed out by its map, which keeps none")
        return self._whole.error

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.entry is not None or self._whole.is_over

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call, until its end."""
        return (self.finished_at or self._whole.finished_at or time.monotonic()) - self.started_at

    @property
    def counts(self) -> Counts:
        """What has become of it. Whether it runs is inferred: items are taken in order."""
        if self.entry is not None:
            return _ENDED.get(self.entry.state, _FAILED)
        counts = self._whole.counts
        return _RUNS if self.item < counts.ended + counts.running else _WAITS

    @property
    def work_s(self) -> float:
        """Seconds that it ran."""
        return sum(entry.wall_s for entry in self.entries())

    @property
    def failures(self) -> list[Entry]:
        """How it failed, if it did."""
        return [entry for entry in self.entries() if entry.state is not State.SUCCESS]

    @property
    def first_failure(self) -> Entry | None:
        """The same, if it was not revoked."""
        return next((entry for entry in self.failures if entry.state is not State.REVOKED), None)

    @property
    def output(self) -> ItemOutput:
        """What it prints."""
        return ItemOutput(self._whole.output, self.item)

    def entry_of(self, item: int) -> Entry | None:
        """How it ended; None while it has not."""
        return self.entry

    def entries(self) -> list[Entry]:
        """The same as a list, with its share of what was measured together."""
        entry = self.entry
        if entry is None:
            return []
        share = 1 / (entry.stop - entry.start)
        offset = entry.offset + self.item - entry.start
        own = {"start": 0, "stop": 1, "offset": offset, "wall_s": entry.wall_s * share, "cpu_s": entry.cpu_s * share}
        return [msgspec.structs.replace(entry, **own)]

    def value(self, item: int, blobs: BlobStore | None) -> Any:
        """What it returned."""
        assert self.entry is not None, "it has ended"
        return self._whole.values(self.entry, blobs).get(self.entry.offset + self.item - self.entry.start)

    def on_broker(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Its place in the run, if it has joined it."""
        return [(self.item, self.item + 1)] if self._whole.members.get(self.item) is self else []


class ItemOutput:
    """The part of a run's output that is one item's; see `RunOutput`."""

    def __init__(self, output: RunOutput, item: int) -> None:
        self._output = output
        self._item = item

    def listen(self, listener: Listener) -> None:
        """From now on, and from the beginning, show it there."""
        self._output.listen(_Selection(listener, self._item))

    def stop_listening(self, listener: Listener) -> None:
        """Show it there no more."""
        self._output.stop_listening(_Selection(listener, self._item))

    def settle(self) -> None:
        """Wait a moment for what is still on its way."""
        self._output.settle()

    def finish_showing(self) -> None:
        """Wait a moment for the listeners."""
        self._output.finish_showing()

    def text(self, stream: str, item: int | None = None) -> str:
        """What was written to *stream*."""
        return self._output.text(stream, self._item)

    def lines(self, item: int | None = None, *, follow: bool) -> Iterator[str]:
        """Lines of both streams."""
        return self._output.lines(self._item, follow=follow)


class _Selection(msgspec.Struct, frozen=True):
    """Passes on what one item prints; equal to another one that does the same."""

    listener: Any
    item: int

    def take(self, events: Sequence[OutputEvent]) -> None:
        own = [event for event in events if event.item == self.item]
        if own:
            self.listener.take(own)

    def settle(self) -> None:
        self.listener.settle()
