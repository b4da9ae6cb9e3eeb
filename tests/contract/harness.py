"""A broker with clients and workers whose calls return only when the broker has carried them out."""

import itertools
from collections import deque
from collections.abc import Iterator

import pytest

from nbqueue.core.dispatcher import Limits
from nbqueue.core.exchange import Delivery, HeldClaims, Note, OutputNote, Receipt, WorkerInfo
from nbqueue.core.inspection import Inspection
from nbqueue.core.orders import Answer, Asked, Order, OrderFor
from nbqueue.core.output import OutputEvent, Text
from nbqueue.core.progress import Counts
from nbqueue.core.routing import Offer, with_address
from nbqueue.core.run import StopHolder
from nbqueue.core.states import State
from nbqueue.core.task import (
    GENTLY,
    Block,
    Entry,
    Failed,
    Killed,
    Manner,
    Outcome,
    Released,
    RunSpec,
    Stopped,
    Succeeded,
    TaskOptions,
)
from nbqueue.wire.messages import (
    Answered,
    Carry,
    Deliver,
    Forgotten,
    Held,
    Inspected,
    NoteMessage,
    OutputMessage,
    Pong,
    Purged,
    ReceiptMessage,
    Stop,
    ToClientPeer,
    Welcome,
    WereAsked,
)
from tests.contract.transports import TRANSPORTS, FakeClock


class Client:
    """A client of the broker that keeps everything it was ever told."""

    def __init__(self, transport, client_id: bytes, ids: Iterator[int], *, acknowledges: bool = True):
        self.id = client_id
        self._transport = transport
        self._acknowledges = acknowledges
        self._port = transport.open_client(client_id)
        self._ids = ids
        self._logs: dict[bytes, list[Entry]] = {}
        self._last: dict[bytes, Note] = {}
        self._answers: deque[Receipt | Inspection | int | Asked] = deque()
        self._requests = itertools.count(1)
        self.heard: list[Answer] = []
        self.notes: list[Note] = []
        self.outputs: list[OutputNote] = []
        self.told: list[Note | OutputNote] = []  #: both, in the order of their arrival
        self.pongs: list[Pong] = []

    # -- asking --------------------------------------------------------------------------------------------------------

    def submit(self, items: int = 1, **more) -> bytes:
        """Submit a run that the broker must accept; returns its id. Takes what `offer` takes."""
        run_id = more.pop("run_id", None) or self.new_run_id()
        receipt = self.offer(run_id, items, **more)
        assert (run_id, items, False) == (receipt.run_id, receipt.total, receipt.is_full)
        return run_id

    def offer(
        self,
        run_id: bytes,
        items: int,
        *,
        function: bytes = b"digest",
        body: bytes | None = b"function",
        label: str = "work",
        closed: bool = True,
        blocks: list[Block] | None = None,
        **options,
    ) -> Receipt:
        """Submit a run; returns the broker's answer. *options* are those of `TaskOptions`."""
        family = {name: options.pop(name) for name in ("parent", "parent_item", "depth") if name in options}
        spec = RunSpec(run_id=run_id, function=function, label=label, options=TaskOptions(**options), **family)
        if blocks is None:
            blocks = [Block(0, items, b"payload of 0:%d" % items)] if items else []
        self._port.submit(spec, function=body, blocks=blocks, closed=closed)
        return self._next_answer()

    def feed(self, run_id: bytes, start: int, stop: int, *, closed: bool = False) -> Receipt:
        """Append items; returns the broker's answer."""
        blocks = [Block(start, stop, b"payload of %d:%d" % (start, stop))] if start < stop else []
        self._port.feed(run_id, blocks=blocks, closed=closed)
        return self._next_answer()

    def inspect(self) -> Inspection:
        """What the broker tells about itself."""
        self._port.inspect()
        return self._next_answer()

    def purge(self, queue: str = "default") -> int:
        """Revoke what waits in a queue; how many items that were."""
        self._port.purge(next(self._requests), queue)
        return self._next_answer()

    def command(self, order: Order, worker_ids: list[bytes] | None = None) -> Asked:
        """Give an order to supervisors; who was asked."""
        request = next(self._requests)
        self._port.command(request, order, worker_ids=worker_ids)
        asked = self._next_answer()
        assert request == asked.request
        return asked

    def answers(self, asked: Asked) -> list[Answer]:
        """What was heard from those who were asked, so far."""
        self.settle()
        return [answer for answer in self.heard if answer.request == asked.request]

    def attach(self, run_id: bytes, *, cursor: int = 0, output_cursor: int = 0) -> None:
        self._port.attach(run_id, cursor=cursor, output_cursor=output_cursor)
        self.settle()

    def revoke(self, run_id: bytes, start: int = 0, stop: int = 2**62, manner: Manner = GENTLY) -> None:
        self._port.revoke(run_id, start=start, stop=stop, manner=manner)
        self.settle()

    def forget(self, *run_ids: bytes) -> None:
        self._port.forget(run_ids)
        self.settle()

    def acknowledge(self, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        self._port.ack(entries=entries, size_bytes=size_bytes, output_bytes=output_bytes)
        self.settle()

    def close(self) -> None:
        self._port.close()

    def new_run_id(self) -> bytes:
        return next(self._ids).to_bytes(16, "big")

    # -- hearing -------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Return when the broker has handled everything that was sent, and everything it says to it was heard."""
        has_news = True
        while has_news:
            self._port.ping()
            has_news = self._take(self._transport.receive_from_client_port(self._port))
            if has_news and self._acknowledges:
                entries = sum(len(note.entries) for note in self.notes)
                size = sum(len(entry.payload) for note in self.notes for entry in note.entries)
                output = sum(note.size_bytes for note in self.outputs)
                self._port.ack(entries=entries, size_bytes=size, output_bytes=output)

    def _take(self, messages: list[ToClientPeer]) -> bool:
        has_news = False
        for message in messages:
            match message:
                case NoteMessage(note):
                    has_news = has_news or bool(note.entries)
                    self.told.append(note)
                    self._fold(note)
                case OutputMessage(output):
                    has_news = True
                    self.told.append(output)
                    self.outputs.append(output)
                case ReceiptMessage(answer) | Inspected(answer) | Purged(items=answer) | WereAsked(answer):
                    self._answers.append(answer)
                case Answered(answer):
                    self.heard.append(answer)
                case Pong():
                    self.pongs.append(message)
                case _:
                    pytest.fail(f"unexpected {message}")
        return has_news

    def _fold(self, note: Note) -> None:
        """As a real client does: what it has is passed over, what comes too early is left for a repetition."""
        self.notes.append(note)
        log = self._logs.setdefault(note.run_id, [])
        if note.cursor <= len(log):
            log.extend(note.entries[len(log) - note.cursor :])
            self._last[note.run_id] = note

    def _next_answer(self):
        self.settle()
        [answer] = self._answers
        self._answers.clear()
        return answer

    # -- knowing -------------------------------------------------------------------------------------------------------

    def log(self, run_id: bytes) -> list[Entry]:
        """All entries of the run's log so far."""
        self.settle()
        return self._logs.get(run_id, [])

    def entry(self, run_id: bytes, item: int = 0) -> Entry:
        """How the item ended; it must have, exactly once."""
        [entry] = [entry for entry in self.log(run_id) if entry.start <= item < entry.stop]
        return entry

    def ends(self, run_id: bytes) -> dict[int, State]:
        """The state of each item that has ended; fails if one is in the log twice."""
        ends: dict[int, State] = {}
        for entry in self.log(run_id):
            for item in range(entry.start, entry.stop):
                assert item not in ends, f"item {item} ended twice"
                ends[item] = entry.state
        return ends

    def note(self, run_id: bytes) -> Note:
        """The last news of the run."""
        self.settle()
        return self._last[run_id]

    def printed(self, run_id: bytes) -> list[OutputEvent]:
        """The run's output as far as it has come."""
        self.settle()
        return [event for note in self.outputs if note.run_id == run_id for event in note.events]

    def counts(self, run_id: bytes) -> Counts:
        """The run's counts as the broker has them now."""
        [view] = [view for view in self.inspect().runs if view.run_id == run_id]
        return view.counts


class Worker:
    """A supervisor that runs nothing and reports what a test tells it to."""

    def __init__(self, transport, info: WorkerInfo):
        self.info = info
        self.id = info.worker_id
        self._transport = transport
        self._port = transport.open_worker(info)
        self._unread: deque[Delivery] = deque()
        self._held: list[HeldClaims] = []
        self.deliveries: list[Delivery] = []
        self.stops: list[StopHolder] = []
        self.forgotten: list[bytes] = []
        self.orders: list[OrderFor] = []
        self.settle()

    def settle(self) -> None:
        """Return when the broker has handled everything that was sent, and everything it says to it was heard."""
        for message in self._transport.receive_from_worker_port(self._port):
            match message:
                case Deliver(delivery):
                    self._unread.append(delivery)
                    self.deliveries.append(delivery)
                case Stop(holder):
                    self.stops.append(holder)
                case Forgotten(functions):
                    self.forgotten += functions.digests
                case Held(claims):
                    self._held.append(claims)
                case Carry(order):
                    self.orders.append(order)
                case Welcome():
                    pass
                case _:
                    pytest.fail(f"unexpected {message}")

    def claims(self) -> list[Delivery]:
        """What was delivered since the last look; maybe nothing."""
        self.settle()
        deliveries = list(self._unread)
        self._unread.clear()
        return deliveries

    def claim(self) -> Delivery:
        """The one delivery since the last look."""
        [delivery] = self.claims()
        return delivery

    def told_to_stop(self) -> list[StopHolder]:
        """All that it was ever told to stop."""
        self.settle()
        return self.stops

    def heartbeat(self, *running: tuple[int, int]) -> HeldClaims:
        self._port.heartbeat(running)
        self.settle()
        return self._held[-1]

    def started(self, delivery: Delivery, item: int | None = None) -> None:
        self._port.started(delivery.token, delivery.start if item is None else item)
        self.settle()

    def told(self) -> list[OrderFor]:
        """All orders that it was ever given."""
        self.settle()
        return self.orders

    def answer(self, order: OrderFor, text: str) -> None:
        self._port.answer(order.client_id, Answer(order.request, self.info.worker_id, text))
        self.settle()

    def resize(self, slots: int, prefetch: int = 0) -> None:
        self._port.resize(slots=slots, prefetch=prefetch)
        self.settle()

    def remark(self, run_id: bytes, text: str) -> None:
        self._port.remark(run_id, text)
        self.settle()

    def commit(self, delivery: Delivery, *outcomes: Outcome, final: bool = True) -> None:
        self._port.commit(delivery.token, delivery.run_id, outcomes, final=final)
        self.settle()

    def print(self, delivery: Delivery, text: str, *, item: int | None = None, position: int = 0) -> None:
        item = delivery.start if item is None else item
        self.report_output(delivery, OutputEvent(item, delivery.attempt, position, Text("stdout", text)))

    def report_output(self, delivery: Delivery, *events: OutputEvent) -> None:
        self._port.output(delivery.token, events)
        self.settle()

    def succeed(
        self,
        delivery: Delivery,
        start: int | None = None,
        stop: int | None = None,
        *,
        payload: bytes = b"value",
        wall_s: float = 1.0,
        cpu_s: float = 0.0,
        peak_bytes: int = 0,
        final: bool = True,
    ) -> None:
        start = delivery.start if start is None else start
        stop = delivery.stop if stop is None else stop
        self.commit(delivery, Succeeded(start, stop, payload, wall_s, cpu_s, peak_bytes), final=final)

    def fail(
        self,
        delivery: Delivery,
        *,
        record: bytes = b"record",
        retryable: bool = False,
        final: bool = True,
        retry_after_s: float | None = None,
        max_retries: int | None = None,
    ):
        failed = Failed(delivery.start, record, retryable, 1.0, 0.0, retry_after_s, max_retries)
        self.commit(delivery, failed, final=final)

    def kill(self, delivery: Delivery, *, reason: str = "SIGSEGV", peak_bytes: int = 0) -> None:
        """The slot died while it ran the first item."""
        self.commit(delivery, Killed(delivery.start, reason, peak_bytes))

    def stop(self, delivery: Delivery, *, how: str = "SIGINT", peak_bytes: int = 0) -> None:
        self.commit(delivery, Stopped(delivery.start, delivery.stop, how, peak_bytes))

    def release(self, delivery: Delivery) -> None:
        self.commit(delivery, Released(delivery.start, delivery.stop))

    def leave(self) -> None:
        """Stop in good order."""
        self._port.close()
        self._transport.await_farewell(self.info.worker_id)

    def close(self) -> None:
        self._port.close()


class BrokerHarness:
    """A broker, its clock, and the ports that a test has opened on it."""

    def __init__(self, kind: str, limits: Limits | None = None):
        self.clock = FakeClock()
        self.limits = limits or Limits()
        self._transport = TRANSPORTS[kind](self.clock, limits)
        self._clients: list[Client] = []
        self._workers: list[Worker] = []
        self._ids = itertools.count(1)
        self._is_closed = False
        self.tick()

    def client(self, *, acknowledges: bool = True) -> Client:
        """A new client; one that does not acknowledge must be given its room by `Client.acknowledge`."""
        client_id = b"client %d" % len(self._clients)
        self._clients.append(Client(self._transport, client_id.ljust(16, b"."), self._ids, acknowledges=acknowledges))
        return self._clients[-1]

    def reopen(self, client: Client) -> Client:
        """The same client in a new session, after its connection broke; nothing is remembered."""
        self._transport.cut(client._port)
        self._clients[self._clients.index(client)] = again = Client(self._transport, client.id, self._ids)
        return again

    def worker(self, slots: int = 1, prefetch: int = 0, **offer) -> Worker:
        """A new supervisor, registered; *offer* is what it takes on: queues, tags, only_tagged."""
        number = len(self._workers)
        worker_id = (b"worker %d" % number).ljust(16, b".")
        info = WorkerInfo(
            worker_id=worker_id,
            name=f"w{number}",
            host="here",
            pid=10_000 + number,
            slots=slots,
            prefetch=prefetch,
            offer=with_address(Offer(**offer), worker_id),
        )
        self._workers.append(Worker(self._transport, info))
        return self._workers[-1]

    def tick(self) -> None:
        """The broker looks at the clock."""
        self._transport.tick()

    def elapse(self, seconds: float, *, heard: tuple[Worker, ...] = (), silent: tuple[Client, ...] = ()) -> None:
        """Time passes under the broker's eyes: workers live if they are *heard*, clients unless they are *silent*."""
        while seconds > 0:
            self.clock.advance(min(1.0, seconds))
            seconds -= 1.0
            for worker in heard:
                worker.heartbeat()
            for client in self._clients:
                if client not in silent:
                    client.settle()
            self.tick()

    def close(self) -> None:
        """Free everything; may be called twice."""
        if not self._is_closed:
            self._is_closed = True
            for port in (*self._clients, *self._workers):
                port.close()
            self._transport.close()
