"""A broker inside one process: the reference implementation, and a double for tests."""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from nbqueue.brokers.base import Broker, ClientPort, WorkerPort, client_message, worker_message
from nbqueue.core.dispatcher import Dispatcher, Limits
from nbqueue.core.exchange import Discard, ToClient, ToWorker, WorkerInfo
from nbqueue.core.orders import Answer, Order
from nbqueue.core.output import OutputEvent
from nbqueue.core.routing import DEFAULT_OFFER, Offer
from nbqueue.core.task import GENTLY, Block, Manner, Outcome, RunSpec
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.messages import (
    Held,
    Inspected,
    Pong,
    Purged,
    ReceiptMessage,
    ToClientPeer,
    ToWorkerPeer,
    WereAsked,
    WorkersStarted,
)

Message = TypeVar("Message")


class _Mailbox(Generic[Message]):
    """Messages for one port, and a descriptor that says so."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        return self._reader

    def put(self, message: Message) -> None:
        self._messages.append(message)
        try:
            os.write(self._writer, b"!")
        except BlockingIOError:
            pass  # full of wake-ups already

    def take(self) -> list[Message]:
        try:
            while os.read(self._reader, 4096):
                pass
        except BlockingIOError:
            pass
        return [self._messages.popleft() for _ in range(len(self._messages))]  # others may put meanwhile

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class MemoryBroker(Broker):
    """The dispatcher behind a lock. Nothing survives the process; time passes only in `tick`."""

    def __init__(self, *, clock: Callable[[], float], rng: random.Random, limits: Limits | None = None) -> None:
        self._clock = clock
        self._dispatcher = Dispatcher(rng=rng, limits=limits)
        self._lock = threading.RLock()
        self._clients: dict[bytes, _Mailbox[ToClientPeer]] = {}
        self._workers: dict[bytes, _Mailbox[ToWorkerPeer]] = {}

    @property
    def blobs(self) -> BlobStore | None:
        """None: values stay inline."""
        return None

    def open_client(self, client_id: bytes) -> ClientPort:
        """Connect a client."""
        mailbox: _Mailbox[ToClientPeer] = _Mailbox()
        with self._lock:
            self._clients[client_id] = mailbox
            self._dispatcher.hello(client_id, self._clock())
        return _MemoryClientPort(self, client_id, mailbox)

    def open_worker(self, info: WorkerInfo) -> WorkerPort:
        """Register a supervisor."""
        mailbox: _Mailbox[ToWorkerPeer] = _Mailbox()
        with self._lock:
            self._workers[info.worker_id] = mailbox
            self.tell(lambda dispatcher, now: dispatcher.register(info, now))
        return _MemoryWorkerPort(self, info.worker_id, mailbox)

    def tick(self) -> None:
        """Let the broker see the clock."""
        self.tell(lambda dispatcher, now: dispatcher.tick(now))

    def tell(self, call: Callable[[Dispatcher, float], Message]) -> Message:
        """Call the dispatcher and carry out the effects."""
        with self._lock:
            answer = call(self._dispatcher, self._clock())
            for effect in self._dispatcher.take_effects():
                self._carry_out(effect)
            return answer

    def forget(self, run_id: bytes) -> None:
        """Nobody wants the run's results any more."""
        self.tell(lambda dispatcher, _now: dispatcher.forget(run_id))

    def detach_client(self, client_id: bytes) -> None:
        """The port is closed."""
        with self._lock:
            self._clients.pop(client_id, None)
            self._dispatcher.goodbye(client_id)

    def detach_worker(self, worker_id: bytes) -> None:
        """The port is closed in good order."""
        with self._lock:
            self._workers.pop(worker_id, None)
            self.tell(lambda dispatcher, now: dispatcher.leave(worker_id, now))

    def _carry_out(self, effect: ToWorker | ToClient | Discard) -> None:
        match effect:
            case ToClient(client_id, note_or_answer):
                if client_id in self._clients:
                    self._clients[client_id].put(client_message(note_or_answer))
            case ToWorker(worker_id, message):
                if worker_id in self._workers:
                    self._workers[worker_id].put(worker_message(message))
            case Discard():
                pass  # no payload is kept outside


class _MemoryClientPort(ClientPort):
    def __init__(self, broker: MemoryBroker, client_id: bytes, mailbox: _Mailbox[ToClientPeer]) -> None:
        self._broker = broker
        self._client_id = client_id
        self._mailbox = mailbox
        self._is_open = True

    def fileno(self) -> int:
        return self._mailbox.fileno()

    def receive(self) -> list[ToClientPeer]:
        return self._mailbox.take()

    def flush(self) -> None:
        pass  # every call is carried out when it returns

    def submit(self, spec: RunSpec, *, function: bytes | None, blocks: Sequence[Block], closed: bool) -> None:
        receipt = self._broker.tell(
            lambda dispatcher, now: dispatcher.submit(
                self._client_id, spec, function=function, blocks=blocks, closed=closed, now=now
            )
        )
        self._mailbox.put(ReceiptMessage(receipt))

    def feed(self, run_id: bytes, *, blocks: Sequence[Block], closed: bool) -> None:
        receipt = self._broker.tell(
            lambda dispatcher, now: dispatcher.feed(self._client_id, run_id, blocks=blocks, closed=closed, now=now)
        )
        self._mailbox.put(ReceiptMessage(receipt))

    def attach(self, run_id: bytes, *, cursor: int, output_cursor: int = 0) -> None:
        self._broker.tell(
            lambda dispatcher, now: dispatcher.attach(
                self._client_id, run_id, cursor=cursor, output_cursor=output_cursor, now=now
            )
        )

    def ack(self, *, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        self._broker.tell(
            lambda dispatcher, now: dispatcher.ack(
                self._client_id, entries=entries, size_bytes=size_bytes, output_bytes=output_bytes, now=now
            )
        )

    def revoke(self, run_id: bytes, *, start: int, stop: int, manner: Manner = GENTLY) -> None:
        self._broker.tell(
            lambda dispatcher, now: dispatcher.revoke(run_id, start=start, stop=stop, now=now, manner=manner)
        )

    def forget(self, run_ids: Sequence[bytes]) -> None:
        for run_id in run_ids:
            self._broker.forget(run_id)

    def ping(self) -> None:
        known = self._broker.tell(lambda dispatcher, now: dispatcher.ping(self._client_id, now))
        self._mailbox.put(Pong(b"memory", known))

    def inspect(self) -> None:
        inspection = self._broker.tell(lambda dispatcher, now: dispatcher.inspect(now))
        self._mailbox.put(Inspected(inspection, os.getpid(), 0.0))

    def purge(self, request: int, queue: str) -> None:
        items = self._broker.tell(lambda dispatcher, now: dispatcher.purge(queue, now))
        self._mailbox.put(Purged(request, items))

    def command(self, request: int, order: Order, *, worker_ids: Sequence[bytes] | None = None) -> None:
        asked = self._broker.tell(
            lambda dispatcher, _now: dispatcher.order(self._client_id, request, order, worker_ids)
        )
        self._mailbox.put(WereAsked(asked))

    def start_workers(
        self,
        request: int,
        slots: int,
        *,
        python: str | None = None,
        in_addition: bool = False,
        offer: Offer = DEFAULT_OFFER,
    ) -> None:
        self._mailbox.put(WorkersStarted(request, 0, "the memory broker starts no workers"))

    def stop_workers(self, request: int) -> None:
        pass  # it started none

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._broker.detach_client(self._client_id)
            self._mailbox.close()


class _MemoryWorkerPort(WorkerPort):
    def __init__(self, broker: MemoryBroker, worker_id: bytes, mailbox: _Mailbox[ToWorkerPeer]) -> None:
        self._broker = broker
        self._worker_id = worker_id
        self._mailbox = mailbox
        self._is_open = True

    def fileno(self) -> int:
        return self._mailbox.fileno()

    def receive(self) -> list[ToWorkerPeer]:
        return self._mailbox.take()

    def flush(self) -> None:
        pass  # every call is carried out when it returns

    def heartbeat(self, running: Sequence[tuple[int, int]]) -> None:
        held = self._broker.tell(lambda dispatcher, now: dispatcher.heartbeat(self._worker_id, running, now))
        self._mailbox.put(Held(held))

    def started(self, token: int, item: int) -> None:
        self._broker.tell(lambda dispatcher, now: dispatcher.started(self._worker_id, token, item, now))

    def commit(self, token: int, run_id: bytes, outcomes: Sequence[Outcome], *, final: bool) -> None:
        self._broker.tell(
            lambda dispatcher, now: dispatcher.commit(self._worker_id, token, run_id, outcomes, final=final, now=now)
        )

    def resize(self, *, slots: int, prefetch: int) -> None:
        self._broker.tell(
            lambda dispatcher, now: dispatcher.resize(self._worker_id, slots=slots, prefetch=prefetch, now=now)
        )

    def answer(self, client_id: bytes, answer: Answer) -> None:
        self._broker.tell(lambda dispatcher, _now: dispatcher.answer(client_id, answer))

    def remark(self, run_id: bytes, text: str) -> None:
        self._broker.tell(lambda dispatcher, _now: dispatcher.remark(run_id, text))

    def output(self, token: int, events: Sequence[OutputEvent]) -> None:
        self._broker.tell(lambda dispatcher, now: dispatcher.output(self._worker_id, token, events, now))

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._broker.detach_worker(self._worker_id)
            self._mailbox.close()
