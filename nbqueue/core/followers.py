"""The clients of a broker: how far each has read the logs that it follows, and what to send it next."""

from __future__ import annotations

from collections.abc import Iterator

from nbqueue.core.exchange import Note
from nbqueue.core.run import Run
from nbqueue.core.task import Entry

#: Entries and bytes of logs on their way to one client that it has not acknowledged.
NOTE_WINDOW_ENTRIES = 4096
NOTE_WINDOW_BYTES = 32 * 2**20


class Client:
    """A client's position in the logs that it follows, and how much of them is under way to it."""

    __slots__ = ("acked_bytes", "acked_entries", "cursors", "seen_at", "sent_bytes", "sent_entries")

    def __init__(self, now: float) -> None:
        self.seen_at = now
        self.cursors: dict[bytes, int] = {}
        self.sent_entries = self.acked_entries = 0
        self.sent_bytes = self.acked_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether more may be sent before it has acknowledged what was."""
        return (
            self.sent_entries - self.acked_entries < NOTE_WINDOW_ENTRIES
            and self.sent_bytes - self.acked_bytes < NOTE_WINDOW_BYTES
        )


def notes_for(client: Client, run: Run, *, slots: int, unserved: str, output_end: int) -> Iterator[Note]:
    """All that the client may be told of the run now, piece by piece; its position moves along."""
    run_id = run.spec.run_id
    while True:
        cursor = client.cursors[run_id]
        entries = _next_entries(client, run, cursor)
        client.cursors[run_id] = cursor + len(entries)
        is_told_all = client.cursors[run_id] == len(run.log)
        yield Note(
            run_id=run_id,
            cursor=cursor,
            entries=entries,
            counts=run.counts(),
            finished=run.is_finished and is_told_all,
            slots=slots,
            work_s=run.work_s,
            unserved=unserved,
            remarks=list(run.remarks),
            output_end=output_end,
        )
        if is_told_all or not client.has_room:
            return


def _next_entries(client: Client, run: Run, cursor: int) -> list[Entry]:
    entries: list[Entry] = []
    size = 0
    while client.has_room and cursor + len(entries) < len(run.log) and size < NOTE_WINDOW_BYTES // 8:
        entry = run.log[cursor + len(entries)]
        entries.append(entry)
        size += len(entry.payload)
        client.sent_entries += 1
        client.sent_bytes += len(entry.payload)
    return entries
