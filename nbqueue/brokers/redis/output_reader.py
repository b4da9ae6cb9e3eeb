"""What runs print, on its way to a client: how far it was handed out, and how much more the client can take."""

from __future__ import annotations

from collections.abc import Callable

from nbqueue.core.audience import OUTPUT_NOTE_BYTES, OUTPUT_WINDOW_BYTES
from nbqueue.core.exchange import OutputNote


class _Position:
    """Where the client stands in the output of one run."""

    __slots__ = ("cursor", "end", "is_asked")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor  #: the next event
        self.end = 0  #: events that the broker has spoken of
        self.is_asked = False  #: some are being read


class OutputReader:
    """Hands out what is pushed if it goes on where the last ended; what is missing is read from the broker."""

    def __init__(self, ask: Callable[[bytes, int, int], None], tell: Callable[[OutputNote], None]) -> None:
        """Use *ask* for a page of a run's output (from which event, how many bytes), and *tell* for all that is new."""
        self._ask = ask
        self._tell = tell
        self._positions: dict[bytes, _Position] = {}  # of runs that have printed anything
        self._behind: set[bytes] = set()  # these wait for room
        self._sent_bytes = self._acked_bytes = 0

    def follow(self, run_id: bytes, cursor: int) -> None:
        """The client wants the run's output from event *cursor* on."""
        if cursor > 0 or run_id in self._positions:
            self._position(run_id).cursor = max(cursor, 0)

    def expect(self, run_id: bytes, end: int) -> None:
        """The broker has had so many events of the run."""
        if end or run_id in self._positions:
            position = self._position(run_id)
            position.end = max(position.end, end)
            position.cursor = min(position.cursor, position.end)
            self._read_on(run_id, position)

    def is_complete(self, run_id: bytes) -> bool:
        """Whether everything that the broker has spoken of was handed out."""
        position = self._positions.get(run_id)
        return position is None or position.cursor >= position.end

    def take_pushed(self, note: OutputNote) -> None:
        """The broker says what was printed; without events if that was too much to say."""
        position = self._position(note.run_id)
        position.end = max(position.end, note.until)
        if position.is_asked:
            return  # what comes first is under way
        if note.events and note.cursor <= position.cursor < note.until and self._has_room:
            self._hand_out(position, note)
        self._read_on(note.run_id, position)

    def take_page(self, run_id: bytes, note: OutputNote | None) -> None:
        """The answer to what was asked; None: the broker does not know the run any more."""
        position = self._positions.get(run_id)
        if position is None:
            return
        position.is_asked = False
        if note is None:
            self.drop(run_id)
            return
        if note.cursor <= position.cursor <= note.until:  # else another part is wanted meanwhile
            self._hand_out(position, note)
        self._read_on(run_id, position)

    def ack(self, size_bytes: int) -> None:
        """The client has received so many bytes of output in all."""
        self._acked_bytes = min(max(self._acked_bytes, size_bytes), self._sent_bytes)
        if self._behind and self._has_room:
            behind, self._behind = self._behind, set()
            for run_id in behind:
                self._read_on(run_id, self._position(run_id))

    def drop(self, run_id: bytes) -> None:
        """The client does not want the run's output any more."""
        self._positions.pop(run_id, None)
        self._behind.discard(run_id)

    def begin_anew(self) -> None:
        """The server is another one, and may have lost the last events."""
        for position in self._positions.values():
            position.end = 0

    def _position(self, run_id: bytes) -> _Position:
        position = self._positions.get(run_id)
        if position is None:
            position = self._positions[run_id] = _Position(0)
        return position

    @property
    def _has_room(self) -> bool:
        return self._sent_bytes - self._acked_bytes < OUTPUT_WINDOW_BYTES

    def _hand_out(self, position: _Position, note: OutputNote) -> None:
        events = [event for event in note.events if event.number >= position.cursor]
        size = note.size_bytes if len(events) == len(note.events) else sum(event.cost_bytes for event in events)
        self._sent_bytes += size
        cursor, position.cursor = position.cursor, note.until
        self._tell(OutputNote(run_id=note.run_id, cursor=cursor, until=note.until, events=events, size_bytes=size))

    def _read_on(self, run_id: bytes, position: _Position) -> None:
        if position.is_asked or position.cursor >= position.end:
            return
        if not self._has_room:
            self._behind.add(run_id)
            return
        position.is_asked = True
        room = OUTPUT_WINDOW_BYTES - (self._sent_bytes - self._acked_bytes)
        self._ask(run_id, position.cursor, min(room, OUTPUT_NOTE_BYTES))
