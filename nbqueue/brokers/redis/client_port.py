"""A client's port: what it follows, how far it has read, and how much more it can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nbqueue.brokers.base import ClientPort
from nbqueue.brokers.redis import operations
from nbqueue.brokers.redis.follow import Follow
from nbqueue.brokers.redis.operations import Crew, News, TakenItems
from nbqueue.brokers.redis.output_reader import OutputReader
from nbqueue.brokers.redis.session import Operation, Session
from nbqueue.core.audience import OUTPUT_WINDOW_BYTES
from nbqueue.core.exchange import Note, OutputNote, Receipt
from nbqueue.core.followers import NOTE_WINDOW_BYTES, NOTE_WINDOW_ENTRIES
from nbqueue.core.orders import Order
from nbqueue.core.progress import Counts
from nbqueue.core.routing import DEFAULT_OFFER, Offer, Route
from nbqueue.core.task import GENTLY, Block, Entry, Manner, RunSpec, TaskOptions
from nbqueue.wire.messages import (
    Answered,
    Inspected,
    NoteMessage,
    OutputMessage,
    Pong,
    Purged,
    ReceiptMessage,
    ToClientPeer,
    WereAsked,
    WorkersStarted,
)

#: Of a log, so much is read in one go.
PAGE_BYTES = 4 * 2**20
#: A function is brought again unless the server has it; one that is small always, in case it was forgotten meanwhile.
SMALL_FUNCTION_BYTES = 2048
BROUGHT_REMEMBERED = 4096
#: When workers come or go, so many runs are asked after; a message that is late can delay, never hang.
ASKED_AFTER = 512
#: What is still to be said when a port is closed has so long.
FAREWELL_S = 5.0


class RedisClientPort(ClientPort):
    """See `ClientPort`. A note is handed out when it goes on where the last one ended; else the log is read."""

    def __init__(self, client_id: bytes, open_session: Callable[[RedisClientPort], Session]) -> None:
        self._id = client_id
        self._crew = Crew()
        self._follows: dict[bytes, Follow] = {}
        self._behind: dict[bytes, Follow] = {}
        self._read: set[bytes] = set()  # finished runs of which everything was handed out
        self._printed = OutputReader(self._read_output, self._tell_output)
        self._messages: list[ToClientPeer] = []
        self._brought: set[bytes] = set()  # functions that the server has
        self._last_kind: tuple[bytes, str, bytes, TaskOptions] | None = None
        self._last_asked = b""
        self._sent_entries = self._acked_entries = 0
        self._sent_bytes = self._acked_bytes = 0
        self._taken_bytes = 0  # of output, since the server was last told so
        self._is_open = True
        self._session = open_session(self)
        self._session.greet()

    def fileno(self) -> int:
        """See `Port.fileno`."""
        return self._session.fileno()

    def receive(self) -> list[ToClientPeer]:
        """See `ClientPort.receive`."""
        self._session.pump()
        messages, self._messages = self._messages, []
        return messages

    def flush(self) -> None:
        """See `Port.flush`."""
        self._session.flush()

    # -- asking --------------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """See `ClientPort.is_idle`."""
        return self._session.is_idle

    def submit(self, spec: RunSpec, *, function: bytes | None, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.submit`."""
        self._session.ask(self._submission(spec, function, blocks, closed=closed))

    def submit_now(self, spec: RunSpec, *, function: bytes, blocks: Sequence[Block], closed: bool) -> bool:
        """See `ClientPort.submit_now`."""
        return self.is_idle and self._session.ask_now(self._submission(spec, function, blocks, closed=closed))

    def _submission(self, spec: RunSpec, function: bytes | None, blocks: Sequence[Block], *, closed: bool) -> Operation:
        if spec.run_id not in self._follows:
            self._follows[spec.run_id] = Follow(0, spec.options.route)
        # More items of a run that is not closed may follow this at once, so it must not be refused for its function.
        is_left_out = closed and spec.function in self._brought and len(function or b"") > SMALL_FUNCTION_BYTES
        kind = (spec.function, spec.label, spec.environment, spec.options)
        if kind != self._last_kind:
            self._last_kind, self._last_asked = kind, operations.asked(self._id, spec)
        body = operations.submit(
            self._id, spec, self._last_asked, None if is_left_out else function, blocks, closed=closed
        )

        def answered(taken: TakenItems) -> None:
            if is_left_out and not taken.known:  # the last run that used the function was forgotten meanwhile
                self._brought.discard(spec.function)
                self._session.ask(self._submission(spec, function, blocks, closed=closed))
                return
            if len(self._brought) >= BROUGHT_REMEMBERED:
                self._brought.clear()
            if taken.known and not taken.is_full:
                self._brought.add(spec.function)
            self._give_receipt(spec.run_id, taken)

        return self._offer(spec.run_id, body, answered)

    def feed(self, run_id: bytes, *, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.feed`."""
        body = operations.feed(self._id, run_id, blocks, closed=closed)
        self._session.ask(self._offer(run_id, body, lambda taken: self._give_receipt(run_id, taken)))

    def _offer(self, run_id: bytes, body: bytes, answered: Callable[[TakenItems], None]) -> Operation:
        def refused() -> None:
            self._messages.append(ReceiptMessage(Receipt(run_id=run_id, total=0, is_full=True)))

        return Operation("submit", body, lambda reply: answered(operations.decode_taken(reply)), refused)

    def _give_receipt(self, run_id: bytes, taken: TakenItems) -> None:
        receipt = Receipt(run_id=run_id, total=taken.total, is_full=taken.is_full, known=taken.known, slots=taken.slots)
        self._messages.append(ReceiptMessage(receipt))

    def attach(self, run_id: bytes, *, cursor: int, output_cursor: int = 0) -> None:
        """See `ClientPort.attach`."""
        follow = self._follows.get(run_id)
        if follow is None:
            follow = self._follows[run_id] = Follow(cursor, None)
        follow.move_to(cursor)
        self._printed.follow(run_id, output_cursor)
        self._ask_for_more(run_id, follow)

    def ack(self, *, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        """See `ClientPort.ack`."""
        self._acked_entries = min(max(self._acked_entries, entries), self._sent_entries)
        self._acked_bytes = min(max(self._acked_bytes, size_bytes), self._sent_bytes)
        self._printed.ack(output_bytes)
        if self._behind and self._has_room():
            behind, self._behind = self._behind, {}
            for run_id, follow in behind.items():
                follow.is_behind = False
                self._ask_for_more(run_id, follow)

    def revoke(self, run_id: bytes, *, start: int, stop: int, manner: Manner = GENTLY) -> None:
        """See `ClientPort.revoke`."""
        self._session.ask(Operation("client", operations.revoke(run_id, start, stop, manner)))

    def forget(self, run_ids: Sequence[bytes]) -> None:
        """See `ClientPort.forget`."""
        for run_id in run_ids:
            self._drop(run_id)
            self._read.discard(run_id)
        self._session.ask(Operation("client", operations.encode(["d", self._id, list(run_ids)])))

    def ping(self) -> None:
        """See `ClientPort.ping`."""
        if self._read:
            self._session.ask(Operation("client", operations.encode(["r", self._id, list(self._read)])))
            self._read.clear()

        def answered(reply: bytes) -> None:
            self._messages.append(Pong(b"redis", operations.decode_flag(reply)))

        self._session.ask(Operation("client", operations.encode(["p", self._id]), answered))

    def inspect(self) -> None:
        """See `ClientPort.inspect`."""

        def answered(reply: bytes) -> None:
            info = self._session.info
            self._messages.append(Inspected(operations.inspection(reply), info.pid, info.uptime_s))

        self._session.ask(Operation("client", operations.encode(["i"]), answered))

    def purge(self, request: int, queue: str) -> None:
        """See `ClientPort.purge`."""

        def answered(reply: bytes) -> None:
            self._messages.append(Purged(request, operations.decode_count(reply)))

        self._session.ask(Operation("client", operations.encode(["u", queue]), answered))

    def command(self, request: int, order: Order, *, worker_ids: Sequence[bytes] | None = None) -> None:
        """See `ClientPort.command`."""

        def answered(reply: bytes) -> None:
            self._messages.append(WereAsked(operations.decode_asked(reply)))

        self._session.ask(Operation("client", operations.order(self._id, request, order, worker_ids), answered))

    def start_workers(
        self,
        request: int,
        slots: int,
        *,
        python: str | None = None,
        in_addition: bool = False,
        offer: Offer = DEFAULT_OFFER,
    ) -> None:
        """Answered at once: a server starts no processes; workers join it from wherever they are started."""
        error = "Redis starts no workers: run `nbqueue-worker` with the address of this broker" if in_addition else ""
        # Never 0: that would mean that none will ever come.
        self._messages.append(WorkersStarted(request, max(self._crew.slots, 1), error))
        self._session.wake()

    def stop_workers(self, request: int) -> None:
        """Nothing: it started none."""

    def close(self) -> None:
        """Say what is still to be said, and goodbye; may be called twice."""
        if self._is_open:
            self._is_open = False
            self._session.ask(Operation("client", operations.encode(["g", self._id])))
            self._session.part(FAREWELL_S)

    # -- hearing (called by the session) -------------------------------------------------------------------------------

    def greetings(self) -> list[Operation]:
        """See `session.Listener`."""
        self._taken_bytes = 0
        return [Operation("client", operations.encode(["h", self._id]), self._take_crew)]

    def on_reconnected(self, *, is_same_server: bool) -> None:
        """See `session.Listener`: what was told meanwhile is read from the logs."""
        if not is_same_server:
            self._brought.clear()
            self._printed.begin_anew()
        for run_id, follow in list(self._follows.items()):
            if not is_same_server:
                follow.begin_anew()
            self._ask_for_more(run_id, follow)

    def on_entry(self, entry: bytes) -> None:
        """See `session.Listener`; what the first letters mean stands in lua/clients.lua."""
        letter, body = entry[:1], memoryview(entry)[1:]
        if letter == b"n":
            for news in operations.decode_all_news(body):
                follow = self._follows.get(news.run_id)
                if follow is not None:
                    self._take_news(follow, news)
        elif letter == b"e":
            self._take_printed(operations.decode_all_printed(body))
        elif letter == b"a":
            self._messages.append(Answered(operations.decode_answer(body)))
        elif letter == b"w":
            self._session.ask(Operation("client", operations.encode(["o"]), self._take_new_crew))

    def _take_printed(self, notes: Sequence[OutputNote]) -> None:
        for note in notes:
            if note.run_id in self._follows:
                self._printed.take_pushed(note)
                self._end_if_all_was_told(note.run_id)
        self._taken_bytes += sum(note.size_bytes for note in notes)
        if self._taken_bytes >= OUTPUT_WINDOW_BYTES // 4:
            self._session.ask(Operation("client", operations.encode(["k", self._id, self._taken_bytes])))
            self._taken_bytes = 0

    def _take_crew(self, reply: bytes) -> None:
        self._crew = Crew(operations.decode_crew(reply))

    def _take_new_crew(self, reply: bytes) -> None:
        self._take_crew(reply)
        for run_id, follow in list(self._follows.items())[-ASKED_AFTER:]:
            self._ask_for_more(run_id, follow)

    def _take_news(self, follow: Follow, news: News) -> None:
        follow.route = Route(news.queue, news.tags)
        self._printed.expect(news.run_id, news.output_end)
        if follow.is_asked:
            follow.is_stale = True  # what is under way may be older
        elif news.cursor <= follow.cursor <= news.cursor + len(news.entries):
            self._hand_out(follow, news)
        elif follow.cursor < news.length:
            self._ask_for_more(news.run_id, follow)

    def _hand_out(self, follow: Follow, news: News) -> None:
        """Tell what fits into the window; the rest is read later."""
        if not self._has_room():
            self._wait_for_room(news.run_id, follow)
            return
        entries: list[Entry] = []
        shown = follow.shown
        for entry in news.entries[follow.cursor - news.cursor :]:
            if not self._has_room():
                break
            for part in follow.next_of(entry):
                entries.append(part)
                self._sent_entries += 1
                self._sent_bytes += len(part.payload)
        is_told_all = follow.cursor >= news.length
        is_over = news.counts.ended == news.counts.total
        assert follow.route is not None
        note = Note(
            run_id=news.run_id,
            cursor=shown,
            entries=entries,
            counts=news.counts,
            finished=news.finished and is_told_all,
            slots=self._crew.slots_for(follow.route),
            work_s=news.work_s,
            unserved="" if is_over else self._crew.why_unserved(follow.route),
            remarks=news.remarks,
            output_end=news.output_end,
        )
        self._messages.append(NoteMessage(note))
        if note.finished:
            follow.is_over = True
            self._end_if_all_was_told(news.run_id)
        elif not is_told_all:
            self._ask_for_more(news.run_id, follow)

    def _end_if_all_was_told(self, run_id: bytes) -> None:
        if self._follows[run_id].is_over and self._printed.is_complete(run_id):
            self._drop(run_id)
            self._read.add(run_id)

    def _read_output(self, run_id: bytes, cursor: int, size_bytes: int) -> None:
        def answered(reply: bytes) -> None:
            page = operations.decode_printed(reply)
            self._printed.take_page(run_id, None if isinstance(page, bool) else page)
            if run_id in self._follows:
                self._end_if_all_was_told(run_id)

        body = operations.read_output(self._id, run_id, cursor, size_bytes=size_bytes)
        self._session.ask(Operation("client", body, answered))

    def _tell_output(self, note: OutputNote) -> None:
        self._messages.append(OutputMessage(note))

    def _ask_for_more(self, run_id: bytes, follow: Follow) -> None:
        """Read the log from where this client stands, as far as it has room."""
        if follow.is_asked:
            follow.is_stale = True
            return
        if not self._has_room():
            self._wait_for_room(run_id, follow)
            return
        follow.is_asked, follow.is_stale = True, False
        body = operations.read(
            self._id,
            run_id,
            follow.cursor,
            entries=NOTE_WINDOW_ENTRIES - (self._sent_entries - self._acked_entries),
            size_bytes=min(NOTE_WINDOW_BYTES - (self._sent_bytes - self._acked_bytes), PAGE_BYTES),
        )
        self._session.ask(Operation("client", body, lambda reply: self._take_page(run_id, follow, reply)))

    def _take_page(self, run_id: bytes, follow: Follow, reply: bytes) -> None:
        if self._follows.get(run_id) is not follow:
            return  # forgotten meanwhile
        follow.is_asked = False
        news = operations.decode_news(reply)
        if isinstance(news, bool):
            self._drop(run_id)
            note = Note(run_id=run_id, cursor=follow.shown, entries=[], counts=Counts(total=0), known=False)
            self._messages.append(NoteMessage(note))
            return
        follow.route = Route(news.queue, news.tags)
        self._printed.expect(run_id, news.output_end)
        if follow.cursor > news.length:
            follow.move_to(news.cursor)  # there is no such entry: it is followed from the end
        if news.cursor > follow.cursor:
            self._ask_for_more(run_id, follow)  # it is to be read from an earlier one on, as was said meanwhile
            return
        self._hand_out(follow, news)
        if follow.is_stale and run_id in self._follows:
            self._ask_for_more(run_id, follow)

    def _wait_for_room(self, run_id: bytes, follow: Follow) -> None:
        follow.is_behind = True
        self._behind[run_id] = follow

    def _drop(self, run_id: bytes) -> None:
        self._follows.pop(run_id, None)
        self._behind.pop(run_id, None)
        self._printed.drop(run_id)

    def _has_room(self) -> bool:
        return (
            self._sent_entries - self._acked_entries < NOTE_WINDOW_ENTRIES
            and self._sent_bytes - self._acked_bytes < NOTE_WINDOW_BYTES
        )
