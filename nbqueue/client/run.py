"""One run as the client knows it: folded from the broker's log, read by any thread."""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections.abc import Callable

import msgspec

from nbqueue.client.condition import Condition
from nbqueue.client.output import RunOutput
from nbqueue.core.exchange import Note
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Entry


class ClientRun:
    """Entries of a run's log as they arrive.

    Whoever reads what the broker says writes, everybody looks; `changed` is notified with every arrival. Entries are
    kept packed, so a million small results stay small.
    """

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
            self.counts = self._read(note.counts)
            self.slots = note.slots
            self.work_s = note.work_s
            self.unserved = note.unserved
            self.remarks = note.remarks
            self.output.expect(note.output_end, is_over=note.finished)
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
                self.changed.notify_all()

    def expect(self, total: int, *, closed: bool) -> None:
        """The client itself knows of so many items before the broker says so."""
        with self.changed:
            if total > self.counts.total or (closed and not self.counts.closed):
                total = max(total, self.counts.total)
                self.counts = msgspec.structs.replace(self.counts, total=total, closed=closed or self.counts.closed)

    def _add(self, entry: Entry) -> None:
        self.cursor += 1
        self._file(entry)
        if self.on_success is not None and entry.state is State.SUCCESS:
            self.on_success(entry.start, entry.stop)

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

    def entries(self) -> list[Entry]:
        """All entries so far, in item order."""
        return [self._entries[start] for start in self._starts]

    def let_go(self, entry: Entry) -> None:
        """Free an entry whose values were all handed out and will not be asked for again."""
        with self.changed:
            if self._entries.pop(entry.start, None) is not None:
                position = bisect_right(self._starts, entry.start) - 1
                del self._starts[position]
