"""One run as the client knows it: folded from the broker's log, read by any thread."""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from nbqueue.client.condition import Condition
from nbqueue.client.output import Output, RunOutput
from nbqueue.core.exchange import Note
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Entry
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.payload import PackedValues


class Learner(Protocol):
    """Learns from runs what the tasks of a function are like."""

    def learn(self, entry: Entry) -> None:
        """Some have ended."""

    def has_printed(self) -> None:
        """One of them has."""


class SeenRun(Protocol):
    """A run, or an item of one, as its handle sees it; see `ClientRun`."""

    @property
    def run_id(self) -> bytes:
        """The broker's name for it, or for that of which it is an item."""

    @property
    def id(self) -> str:
        """What users know it by."""

    @property
    def label(self) -> str:
        """What cards show."""

    @property
    def is_whole(self) -> bool:
        """Whether it is no item of another one."""

    @property
    def changed(self) -> Condition:
        """Its lock, notified with every arrival."""

    @property
    def counts(self) -> Counts:
        """What has become of its items."""

    @property
    def slots(self) -> int:
        """Of those that may run it."""

    @property
    def work_s(self) -> float:
        """Seconds that its items ran."""

    @property
    def unserved(self) -> str:
        """Why nobody who is connected could ever run what waits."""

    @property
    def remarks(self) -> list[str]:
        """What workers have to say."""

    @property
    def error(self) -> BaseException | None:
        """Why no more news will come, if so."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call, until its end."""

    @property
    def failures(self) -> list[Entry]:
        """How items ended that did not succeed."""

    @property
    def first_failure(self) -> Entry | None:
        """The first of these that is no revoke."""

    @property
    def output(self) -> Output:
        """What its tasks print."""

    def entry_of(self, item: int) -> Entry | None:
        """The entry that tells how *item* ended; None while it has not, or when it was let go."""

    def entries(self) -> list[Entry]:
        """All entries so far, in item order."""

    def value(self, item: int, blobs: BlobStore | None) -> Any:
        """What *item*, which has succeeded, returned."""

    def on_broker(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The items *start* to *stop* as the broker numbers them."""


class Told(Protocol):
    """A handle, as whoever reads the news sees it."""

    @property
    def calls_back(self) -> bool:
        """Whether `on_over` runs code of the user, so that only the I/O thread may call it."""

    def on_over(self) -> None:
        """What it is the handle of has ended, one way or the other."""


class Member(Protocol):
    """An item that has a handle of its own."""

    argument: Any  #: until it has succeeded
    item: int  #: its number

    @property
    def handle(self) -> Told | None:
        """Who is to be told of its end; None: that was done."""

    def end(self, entry: Entry) -> Told | None:
        """It has ended like this; who is to be told."""

    def let_go(self) -> Told | None:
        """Nothing more will happen to it; who is to be told, if that was not done."""


class ClientRun:
    """Entries of a run's log as they arrive.

    Whoever reads what the broker says writes, everybody looks; `changed` is notified with every arrival. Entries are
    kept packed, so a million small results stay small.
    """

    is_whole = True  #: not a part of another one
    is_from_its_begin = True  #: its log was read from the first entry on

    def __init__(self, run_id: bytes, label: str, *, total: int = 0, closed: bool = False) -> None:
        """Follow a run of which *total* items are known; *closed*: there will be no more."""
        self.run_id = run_id
        self.label = label
        self.changed = Condition()
        self.cursor = 0  #: entries of the log that were read
        self.counts = Counts(total=total, closed=closed)
        self.slots = 0
        self.work_s = 0.0
        self.unserved = ""  #: why nobody who is connected could ever run what waits
        self.remarks: list[str] = []
        self.is_finished = False
        self.error: BaseException | None = None  #: why no more news will come, if so
        self.heard_at = self.started_at = time.monotonic()
        self.finished_at: float | None = None
        self.failures: list[Entry] = []
        self.first_failure: Entry | None = None  #: that is no revoke
        self.arrived: list[int] = []  #: first items of the entries, in order of arrival
        self.output = RunOutput(self.changed)
        self.on_success: Callable[[int, int], None] | None = None  #: called with a range of items, by who writes
        self.learner: Learner | None = None
        self.members: dict[int, Member] = {}  #: items that have handles of their own, and have not ended
        self._ended: list[Told] = []
        self._entries: dict[int, Entry] = {}
        self._starts: list[int] = []

    # -- who writes ----------------------------------------------------------------------------------------------------

    def fold(self, note: Note) -> None:
        """Take in news; what was heard before is passed over, what comes too early is left for a repetition."""
        with self.changed:
            self.heard_at = time.monotonic()
            if note.cursor > self.cursor:
                return
            for entry in note.entries[self.cursor - note.cursor :]:
                self._add(entry)
            self.counts = self._up_to_date(self._read(note.counts), is_last=note.finished)
            self.slots = note.slots
            self.work_s = note.work_s
            self.unserved = note.unserved
            self.remarks = note.remarks
            self.output.expect(note.output_end, is_over=note.finished)
            if note.output_end and self.learner is not None:
                self.learner.has_printed()
            if note.finished and not self.is_finished and note.cursor + len(note.entries) <= self.cursor:
                self.is_finished = True
                self.finished_at = self.heard_at
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """No more news will come."""
        with self.changed:
            if not self.is_finished and self.error is None:
                self.error = error
                self.finished_at = time.monotonic()
                self.output.give_up()
                self._ended += filter(None, (member.let_go() for member in self.members.values()))
                self.members.clear()
                self.changed.notify_all()

    def take_ended(self) -> list[Told]:
        """Handles of members that have ended since the last time."""
        if not self._ended:
            return []
        ended, self._ended = self._ended, []
        return ended

    def expect(self, total: int, *, closed: bool) -> None:
        """The client itself knows of so many items before the broker says so."""
        with self.changed:
            if total > self.counts.total or (closed and not self.counts.closed):
                total = max(total, self.counts.total)
                self.counts = msgspec.structs.replace(self.counts, total=total, closed=closed or self.counts.closed)

    def _up_to_date(self, counts: Counts, *, is_last: bool) -> Counts:
        """What is `expect`ed stays so: the broker may have said this before it had heard of the last items."""
        if is_last or counts.closed or not self.counts.closed:
            return counts
        return msgspec.structs.replace(counts, total=max(counts.total, self.counts.total), closed=True)

    def _add(self, entry: Entry) -> None:
        self.cursor += 1
        self._file(entry)
        if self.learner is not None:
            self.learner.learn(entry)
        if self.members:
            self._end_members(entry)
        if self.on_success is not None and entry.state is State.SUCCESS:
            self.on_success(entry.start, entry.stop)

    def end_known(self, member: Member) -> None:
        """Tell a member that has just joined how its item has ended, if it has, or that nobody will ever know."""
        entry = self.entry_of(member.item)
        if entry is not None or self.is_over:
            self.members.pop(member.item, None)
            handle = member.let_go() if entry is None else member.end(entry)
            if handle is not None:
                self._ended.append(handle)

    def _end_members(self, entry: Entry) -> None:
        for item in range(entry.start, entry.stop):
            member = self.members.pop(item, None)  # which knows the run: in a circle they would stay for long
            if member is not None and (handle := member.end(entry)) is not None:
                self._ended.append(handle)

    def _read(self, counts: Counts) -> Counts:
        """The counts as they are shown."""
        return counts

    def on_broker(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The items *start* to *stop* as the broker numbers them."""
        return [(start, stop)]

    def _file(self, entry: Entry) -> None:
        self._entries[entry.start] = entry
        if self._starts and entry.start < self._starts[-1]:
            insort(self._starts, entry.start)
        else:
            self._starts.append(entry.start)
        self.arrived.append(entry.start)
        if entry.state is not State.SUCCESS:
            self.failures.append(entry)
            if self.first_failure is None and entry.state is not State.REVOKED:
                self.first_failure = entry

    # -- readers -------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """What users know it by."""
        return self.run_id.hex()

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.is_finished or self.error is not None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call, until its end."""
        return (self.finished_at or time.monotonic()) - self.started_at

    def entry_of(self, item: int) -> Entry | None:
        """The entry that tells how *item* ended; None while it has not, or when it was let go."""
        entry = self._entries.get(item)
        if entry is not None:
            return entry
        with self.changed:
            position = bisect_right(self._starts, item) - 1
            if position < 0:
                return None
            entry = self._entries[self._starts[position]]
            return entry if entry.start <= item < entry.stop else None

    def value(self, item: int, blobs: BlobStore | None) -> Any:
        """What *item*, which has succeeded, returned."""
        entry = self.entry_of(item)
        assert entry is not None, "a finished run has told of all its items"
        return self.values(entry, blobs).get(entry.offset + item - entry.start)

    def values(self, entry: Entry, blobs: BlobStore | None) -> PackedValues:
        """What the items of an entry returned."""
        return PackedValues(entry.payload, blobs)

    def entries(self) -> list[Entry]:
        """All entries so far, in item order."""
        return [self._entries[start] for start in self._starts]

    def let_go(self, entry: Entry) -> None:
        """Free an entry whose values were all handed out and will not be asked for again."""
        with self.changed:
            if self._entries.pop(entry.start, None) is not None:
                position = bisect_right(self._starts, entry.start) - 1
                del self._starts[position]
