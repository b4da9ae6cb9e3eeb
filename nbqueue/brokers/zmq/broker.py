"""The two ends that speak to a hub: a client's port and a supervisor's."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from nbqueue.brokers.base import Broker, BrokerEnded, ClientPort, WorkerPort
from nbqueue.brokers.zmq.connection import Connection
from nbqueue.core.exchange import WorkerInfo
from nbqueue.core.orders import Answer, Order
from nbqueue.core.output import OutputEvent
from nbqueue.core.routing import DEFAULT_OFFER, Offer
from nbqueue.core.task import GENTLY, Block, Manner, Outcome, RunSpec
from nbqueue.errors import BrokerUnavailable, EnvironmentMismatch, ProtocolError
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.codec import encode
from nbqueue.wire.messages import (
    PROTOCOL_VERSION,
    Ack,
    Attach,
    Command,
    Commit,
    Feed,
    Forget,
    Goodbye,
    Heartbeat,
    Hello,
    Inspect,
    Leave,
    Output,
    Ping,
    Pong,
    Purge,
    Refused,
    Register,
    Remark,
    Report,
    Resized,
    Revoke,
    Shutdown,
    Started,
    StartWorkers,
    StopWorkers,
    Submit,
    ToClientPeer,
    ToWorkerPeer,
    Welcome,
)
from nbqueue.wire.stream import Stream
from nbqueue.wire.versions import own_versions

#: A hub on the same machine answers within this time, or something is wrong with it.
HELLO_TIMEOUT_S = 5.0
#: So long a hub that has no room is waited for when a port is closed.
FAREWELL_S = 1.0
#: Messages that travel in one packet at most.
FLUSH_MESSAGES = 64
#: Larger packets are not sent from other threads: the socket might take only a part.
SEND_NOW_BYTES = 16 * 1024


class ZmqBroker(Broker):
    """A running hub."""

    def __init__(self, connection: Connection) -> None:
        """Use the hub that *connection* describes."""
        self._connection = connection
        self._blobs = BlobStore([Path(root) for root in connection.blob_roots])

    @property
    def connection(self) -> Connection:
        """Where the hub is."""
        return self._connection

    @property
    def blobs(self) -> BlobStore | None:
        """Folders that hub, workers and clients of this machine share."""
        return self._blobs if self._connection.blob_roots else None

    def open_client(self, client_id: bytes) -> ZmqClientPort:
        """Connect a client."""
        return ZmqClientPort(self._link(client_id, "client", ToClientPeer))

    def open_worker(self, info: WorkerInfo) -> ZmqWorkerPort:
        """Connect and register a supervisor."""
        return ZmqWorkerPort(self._link(info.worker_id, "worker", ToWorkerPeer), info)

    def _link(self, identity: bytes, role: str, message_types: Any) -> _Link:
        link = _Link(self._connection, identity, role, message_types)
        link.say_hello()
        return link


class _Link:
    """A connection to a hub, and its greeting."""

    def __init__(self, connection: Connection, identity: bytes, role: str, message_types: Any) -> None:
        self._connection = connection
        self._identity = identity
        self._role = role
        self._stream: Stream[Any] = Stream(self._connect(), message_types)
        # The descriptor that users wait for: readable, too, when what could not be sent yet can be.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stream, selectors.EVENT_READ)
        self._waits_for_room = False
        self._is_welcome = False
        self._early: list[Any] = []
        self._unsent: list[msgspec.Struct] = []
        self._sending = threading.Lock()

    def _connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(HELLO_TIMEOUT_S)
        try:
            connected.connect(self._connection.endpoint)
        except OSError as error:
            connected.close()
            has_ended = isinstance(error, ConnectionRefusedError | FileNotFoundError)
            raise (BrokerEnded if has_ended else BrokerUnavailable)(
                f"the hub at {self._connection.endpoint} cannot be reached: {error.strerror or error}"
            ) from error
        return connected

    def fileno(self) -> int:
        return self._selector.fileno()

    def say_hello(self) -> None:
        """Introduce this side and wait for the answer.

        Raises:
            BrokerEnded: The hub ended meanwhile.
            BrokerUnavailable: No answer, or this is not the hub that the connection file describes.
            EnvironmentMismatch: Versions do not fit.
        """
        try:
            mine = own_versions()
            self.send(
                Hello(
                    PROTOCOL_VERSION,
                    self._connection.token,
                    self._role,
                    mine.python,
                    self._identity,
                    mine.cloudpickle,
                )
            )
            deadline = time.monotonic() + HELLO_TIMEOUT_S
            self.flush()
            while (remaining_s := deadline - time.monotonic()) > 0:
                messages = self.receive()
                self._early += [message for message in messages if not isinstance(message, Welcome)]
                if len(self._early) < len(messages):
                    self._is_welcome = True
                    return
                self._selector.select(remaining_s)
            raise BrokerUnavailable(
                f"the hub (pid {self._connection.pid}) does not answer: `nbqueue stop` ends it, its log is "
                f"{self._connection.log}"
            )
        except BaseException:
            self.close()
            raise

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message for the next `flush`: what is said in one breath travels in one packet."""
        self._unsent.append(message)
        if len(self._unsent) >= FLUSH_MESSAGES:
            self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as there is room; never blocks."""
        if not self._unsent and not self._stream.has_unsent and not self._waits_for_room:
            return
        try:
            with self._sending:
                self._stream.flush()
                messages, self._unsent = self._unsent, []
                self._stream.send(messages)
        except OSError:
            return  # the hub is gone; reading says so, after its last words
        if self._stream.has_unsent is not self._waits_for_room:
            self._waits_for_room = self._stream.has_unsent
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._waits_for_room else 0)
            self._selector.modify(self._stream, wanted)

    def send_now(self, message: msgspec.Struct) -> bool:
        """Send a small message at once, from any thread, unless others are queued; whether it was sent."""
        packet = encode([message])
        if len(packet) > SEND_NOW_BYTES:
            return False
        with self._sending:
            return not self._unsent and self._stream.send_now(packet)

    def receive(self) -> list[Any]:
        """All that has arrived."""
        messages, self._early = self._early, []
        is_connected = self._stream.read()
        try:
            while (packet := self._stream.next()) is not None:
                for message in packet:
                    self._check(message)
                messages += packet
        except ProtocolError as error:
            raise EnvironmentMismatch(str(error)) from None
        if not is_connected and not messages:
            raise (BrokerUnavailable if self._is_welcome else BrokerEnded)(
                f"the hub (pid {self._connection.pid}) died, and its runs with it; its log is {self._connection.log}"
            )
        return messages

    def _check(self, message: object) -> None:
        if isinstance(message, Refused):
            error = EnvironmentMismatch if message.kind == "environment" else BrokerUnavailable
            raise error(f"the hub refused this {self._role}: {message.reason}")
        if isinstance(message, Welcome | Pong) and message.epoch != self._connection.epoch:
            raise BrokerUnavailable("the hub was replaced by another one, and its runs are gone")

    def close(self, farewell: msgspec.Struct | None = None) -> None:
        """Say goodbye and free the socket; may be called twice."""
        if not self._stream.is_open:
            return
        if farewell is not None:
            self.send(farewell)
            self.flush()
            if self._stream.has_unsent:
                self._stream.drain(timeout_s=FAREWELL_S)
        self._selector.close()
        self._stream.close()


class HubLink(Protocol):
    """What a port needs of a connection to a hub."""

    def fileno(self) -> int:
        """Readable as long as `receive` or `flush` has something to do."""

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message for the next `flush`."""

    def send_now(self, message: msgspec.Struct) -> bool:
        """Send a small message at once, from any thread; False when that is not possible, and nothing has happened."""

    def flush(self) -> None:
        """Send what is queued."""

    def receive(self) -> list[Any]:
        """All that has arrived."""

    def close(self, farewell: msgspec.Struct | None = None) -> None:
        """Say goodbye and free the connection."""


class ZmqClientPort(ClientPort):
    """A client's port to a hub."""

    def __init__(self, link: HubLink) -> None:
        self._link = link

    def fileno(self) -> int:
        """See `Port.fileno`."""
        return self._link.fileno()

    def receive(self) -> list[ToClientPeer]:
        """See `ClientPort.receive`."""
        return self._link.receive()

    def flush(self) -> None:
        """See `Port.flush`."""
        self._link.flush()

    def submit(self, spec: RunSpec, *, function: bytes | None, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.submit`."""
        self._link.send(Submit(spec, function, list(blocks), closed))

    def submit_now(self, spec: RunSpec, *, function: bytes, blocks: Sequence[Block], closed: bool) -> bool:
        """See `ClientPort.submit_now`."""
        return self._link.send_now(Submit(spec, function, list(blocks), closed))

    def feed(self, run_id: bytes, *, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.feed`."""
        self._link.send(Feed(run_id, list(blocks), closed))

    def attach(self, run_id: bytes, *, cursor: int, output_cursor: int = 0) -> None:
        """See `ClientPort.attach`."""
        self._link.send(Attach(run_id, cursor, output_cursor))

    def ack(self, *, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        """See `ClientPort.ack`."""
        self._link.send(Ack(entries, size_bytes, output_bytes))

    def revoke(self, run_id: bytes, *, start: int, stop: int, manner: Manner = GENTLY) -> None:
        """See `ClientPort.revoke`."""
        self._link.send(Revoke(run_id, start, stop, manner))

    def forget(self, run_ids: Sequence[bytes]) -> None:
        """See `ClientPort.forget`."""
        self._link.send(Forget(list(run_ids)))

    def ping(self) -> None:
        """See `ClientPort.ping`."""
        self._link.send(Ping())

    def inspect(self) -> None:
        """See `ClientPort.inspect`."""
        self._link.send(Inspect())

    def purge(self, request: int, queue: str) -> None:
        """See `ClientPort.purge`."""
        self._link.send(Purge(request, queue))

    def command(self, request: int, order: Order, *, worker_ids: Sequence[bytes] | None = None) -> None:
        """See `ClientPort.command`."""
        self._link.send(Command(request, order, None if worker_ids is None else list(worker_ids)))

    def start_workers(
        self,
        request: int,
        slots: int,
        *,
        python: str | None = None,
        in_addition: bool = False,
        offer: Offer = DEFAULT_OFFER,
    ) -> None:
        """See `ClientPort.start_workers`."""
        self._link.send(StartWorkers(request, slots, python, in_addition, offer))

    def stop_workers(self, request: int) -> None:
        """See `ClientPort.stop_workers`."""
        self._link.send(StopWorkers(request))

    def say(self, message: msgspec.Struct) -> None:
        """Send something that is no client's everyday business."""
        self._link.send(message)
        self._link.flush()

    def shut_down(self) -> None:
        """Stop the hub and its workers."""
        self._link.send(Shutdown())

    def close(self) -> None:
        """Say goodbye; may be called twice."""
        self._link.close(Goodbye())


class ZmqWorkerPort(WorkerPort):
    """A supervisor's port to a hub."""

    def __init__(self, link: HubLink, info: WorkerInfo) -> None:
        self._link = link
        link.send(Register(info))

    def fileno(self) -> int:
        """See `Port.fileno`."""
        return self._link.fileno()

    def receive(self) -> list[ToWorkerPeer]:
        """See `WorkerPort.receive`."""
        return self._link.receive()

    def flush(self) -> None:
        """See `Port.flush`."""
        self._link.flush()

    def heartbeat(self, running: Sequence[tuple[int, int]]) -> None:
        """See `WorkerPort.heartbeat`."""
        self._link.send(Heartbeat(list(running)))

    def started(self, token: int, item: int) -> None:
        """See `WorkerPort.started`."""
        self._link.send(Started(token, item))

    def commit(self, token: int, run_id: bytes, outcomes: Sequence[Outcome], *, final: bool) -> None:
        """See `WorkerPort.commit`."""
        self._link.send(Commit(token, run_id, list(outcomes), final))

    def resize(self, *, slots: int, prefetch: int) -> None:
        """See `WorkerPort.resize`."""
        self._link.send(Resized(slots, prefetch))

    def answer(self, client_id: bytes, answer: Answer) -> None:
        """See `WorkerPort.answer`."""
        self._link.send(Report(client_id, answer))

    def remark(self, run_id: bytes, text: str) -> None:
        """See `WorkerPort.remark`."""
        self._link.send(Remark(run_id, text))

    def output(self, token: int, events: Sequence[OutputEvent]) -> None:
        """See `WorkerPort.output`."""
        self._link.send(Output(token, list(events)))

    def close(self) -> None:
        """Take leave in good order; may be called twice."""
        self._link.close(Leave())
