"""The output of a broker's runs, and who follows it: apart from results, which output must never hold up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from nbqueue.core.exchange import OutputNote, ToClient
from nbqueue.core.output import OutputEvent, OutputLog

#: Output on its way to one client that it has not acknowledged.
OUTPUT_WINDOW_BYTES = 2 * 2**20
#: Output in one message.
OUTPUT_NOTE_BYTES = 256 * 2**10


class _Listener:
    """A client's position in the outputs that it follows, and how much of them is under way to it."""

    __slots__ = ("acked_bytes", "cursors", "sent_bytes")

    def __init__(self) -> None:
        self.cursors: dict[bytes, int] = {}
        self.sent_bytes = self.acked_bytes = 0

    @property
    def has_room(self) -> bool:
        return self.sent_bytes - self.acked_bytes < OUTPUT_WINDOW_BYTES


class Audience:
    """Keeps the output of all runs, bounded, and tells those who follow it as much as they can take."""

    def __init__(self) -> None:
        self._logs: dict[bytes, OutputLog] = {}
        self._listeners: dict[bytes, _Listener] = {}
        self._dirty: dict[bytes, None] = {}

    # -- reading -------------------------------------------------------------------------------------------------------

    def end(self, run_id: bytes) -> int:
        """How many events the run has had."""
        log = self._logs.get(run_id)
        return 0 if log is None else log.end

    def size_bytes(self, run_id: bytes) -> int:
        """What is kept of the run's output."""
        log = self._logs.get(run_id)
        return 0 if log is None else log.size_bytes

    # -- changes -------------------------------------------------------------------------------------------------------

    def take(self, run_id: bytes, events: Iterable[OutputEvent], worker: str) -> None:
        """A worker has reported output of the run."""
        for event in events:
            log = self._logs.setdefault(run_id, OutputLog())
            log.add(msgspec.structs.replace(event, number=log.end, worker=worker))
            self._dirty[run_id] = None

    def follow(self, client_id: bytes, run_id: bytes, cursor: int) -> None:
        """The client follows the run's output from event *cursor* on."""
        self._listeners.setdefault(client_id, _Listener()).cursors[run_id] = min(max(cursor, 0), self.end(run_id))
        if run_id in self._logs:
            self._dirty[run_id] = None

    def ack(self, client_id: bytes, size_bytes: int) -> None:
        """The client has received so many bytes of output in all since it said hello."""
        listener = self._listeners.get(client_id)
        if listener is None:
            return
        had_room = listener.has_room
        listener.acked_bytes = min(max(listener.acked_bytes, size_bytes), listener.sent_bytes)
        if listener.has_room and not had_room:
            self._dirty.update((run_id, None) for run_id in listener.cursors if run_id in self._logs)

    def hello(self, client_id: bytes) -> None:
        """A client begins anew: nothing is under way to it."""
        listener = self._listeners.get(client_id)
        if listener is not None:
            listener.sent_bytes = listener.acked_bytes = 0

    def goodbye(self, client_id: bytes) -> None:
        """A client leaves."""
        self._listeners.pop(client_id, None)

    def stop_following(self, run_id: bytes) -> None:
        """No client wants the run's output any more."""
        for listener in self._listeners.values():
            listener.cursors.pop(run_id, None)

    def forget(self, run_id: bytes) -> None:
        """The run is forgotten."""
        self._logs.pop(run_id, None)
        self._dirty.pop(run_id, None)
        self.stop_following(run_id)

    # -- effects -------------------------------------------------------------------------------------------------------

    def take_effects(self) -> Iterator[ToClient]:
        """What the clients are to be told now."""
        dirty, self._dirty = self._dirty, {}
        for run_id in dirty:
            log = self._logs[run_id]
            for client_id, listener in self._listeners.items():
                yield from (ToClient(client_id, note) for note in _notes(listener, run_id, log))


def _notes(listener: _Listener, run_id: bytes, log: OutputLog) -> Iterator[OutputNote]:
    while listener.has_room and (cursor := listener.cursors.get(run_id, log.end)) < log.end:
        events: Sequence[OutputEvent] = log.since(cursor, max_bytes=OUTPUT_NOTE_BYTES)
        size = sum(event.cost_bytes for event in events)
        until = events[-1].number + 1 if events else log.end
        listener.cursors[run_id] = until
        listener.sent_bytes += size
        yield OutputNote(run_id=run_id, cursor=cursor, until=until, events=list(events), size_bytes=size)
