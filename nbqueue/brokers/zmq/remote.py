"""A hub on another machine: how its workers and clients speak to it, whatever happens to the line."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import time
from typing import Any, Literal

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from nbqueue.brokers.base import Broker
from nbqueue.brokers.zmq.bell import Bell
from nbqueue.brokers.zmq.broker import ZmqClientPort, ZmqWorkerPort
from nbqueue.brokers.zmq.courier import MAX_BYTES, SESSION_BYTES, Courier, read_greeting
from nbqueue.brokers.zmq.curve import (
    Context,
    Credentials,
    Role,
    Socket,
    check_libzmq,
    descriptor_of,
    has_arrived,
    use_curve,
)
from nbqueue.brokers.zmq.remote_door import HIGH_WATER_MARK, MAX_FRAME_BYTES
from nbqueue.core.exchange import WorkerInfo
from nbqueue.errors import BrokerUnavailable, EnvironmentMismatch, KeyFileError, ProtocolError
from nbqueue.wire.blobs import BlobStore, blob_roots, sweep
from nbqueue.wire.codec import PacketReader, encode
from nbqueue.wire.luggage import Luggage
from nbqueue.wire.messages import (
    PROTOCOL_VERSION,
    Commit,
    Deliver,
    Forgotten,
    Hello,
    Pong,
    Refused,
    ToClientPeer,
    ToWorkerPeer,
    Welcome,
)
from nbqueue.wire.versions import own_versions

logger = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0
#: A hub answers heartbeats and pings, which come every 2 s; after this a new connection is tried.
SILENCE_S = 6.0
#: A new connection is given up for the next one after this, so that work goes on soon when the line is back.
RETRY_S = 3.0
#: So long a connection that was lost is tried again, by a worker that may be far away and by somebody who waits.
PATIENCE_S: dict[Role, float] = {"worker": 3600.0, "client": 120.0}


class RemoteBroker(Broker):
    """A hub that listens on TCP."""

    def __init__(self, endpoint: str, credentials: Credentials) -> None:
        """Use the hub at *endpoint*, ``tcp://host:port``."""
        check_libzmq()
        self._endpoint = endpoint
        self._credentials = credentials
        self._blobs: BlobStore | None = None

    @property
    def blobs(self) -> BlobStore | None:
        """A worker's own files, for its slots; a client has none."""
        if self._blobs is None and self._credentials.role == "worker":
            self._blobs = _own_blobs()
        return self._blobs

    def open_client(self, client_id: bytes) -> ZmqClientPort:
        """Connect a client."""
        return ZmqClientPort(self._link(client_id, "client", ToClientPeer))

    def open_worker(self, info: WorkerInfo) -> ZmqWorkerPort:
        """Connect and register a supervisor."""
        return ZmqWorkerPort(self._link(info.worker_id, "worker", ToWorkerPeer), info)

    def _link(self, identity: bytes, role: Role, message_types: Any) -> RemoteLink:
        if role != self._credentials.role:
            raise KeyFileError(f"this key is that of a {self._credentials.role}: a {role} needs another")
        cases = Suitcases(self.blobs) if self.blobs is not None else None
        link = RemoteLink(self._endpoint, self._credentials, identity, message_types, cases)
        link.say_hello()
        return link


class Suitcases:
    """A worker's share in carrying payloads between hosts, and the end of its files."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._luggage = Luggage(blobs)
        self._runs: dict[int, bytes] = {}  # of the claims that are here

    def unpack(self, message: Any) -> Any:
        """What has arrived, the large parts in files."""
        match message:
            case Deliver(delivery):
                self._runs[delivery.token] = delivery.run_id
                return Deliver(self._luggage.unpack_delivery(delivery))
            case Forgotten(functions):
                self._blobs.discard({digest.hex() for digest in functions.digests})
        return message

    def pack(self, message: Any) -> Any:
        """What leaves, with the contents of its files, which are then deleted."""
        if not isinstance(message, Commit):
            return message
        packed = [self._luggage.pack_outcome(outcome) for outcome in message.outcomes]
        run_id = self._runs.get(message.token)
        if message.final and run_id is not None:
            del self._runs[message.token]
            if run_id not in self._runs.values():
                self._blobs.discard({run_id.hex()})
        return msgspec.structs.replace(message, outcomes=packed)

    def close(self) -> None:
        """Delete all files."""
        self._blobs.destroy()


class RemoteLink:
    """A conversation with a hub, over one connection after the other."""

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials,
        identity: bytes,
        message_types: Any,
        cases: Suitcases | None,
    ) -> None:
        self._context: Context = zmq.Context()
        self._endpoint = endpoint
        self._credentials = credentials
        self._role = credentials.role
        self._identity = identity
        self._cases = cases
        self._session = os.urandom(SESSION_BYTES)
        self._courier = Courier()
        self._reader: PacketReader[Any] = PacketReader(message_types, max_bytes=MAX_BYTES)
        self._bell = Bell()
        self._selector = selectors.DefaultSelector()  # its descriptor is what users wait for
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._unsent: list[msgspec.Struct] = []
        self._early: list[Any] = []
        self._epoch = b""
        self._is_greeted = False
        self._connected_at = self._heard_at = time.monotonic()
        try:
            self._socket = self._connect()
        except BaseException:
            self._free()
            raise

    def fileno(self) -> int:
        """Readable as long as there is something to do."""
        return self._selector.fileno()

    # -- connections ---------------------------------------------------------------------------------------------------

    def _connect(self) -> Socket:
        """A new connection, whose first frame says which conversation goes on."""
        socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RECONNECT_IVL, -1),  # we do that, and say then who we are
            (zmq.CONNECT_TIMEOUT, int(SILENCE_S * 1000)),
            (zmq.HANDSHAKE_IVL, int(SILENCE_S * 1000)),
            (zmq.SNDHWM, HIGH_WATER_MARK),
            (zmq.RCVHWM, HIGH_WATER_MARK),
            (zmq.MAXMSGSIZE, MAX_FRAME_BYTES),
        ):
            socket.setsockopt(option, value)
        use_curve(socket, self._credentials)
        self._monitor = socket.get_monitor_socket(zmq.Event.HANDSHAKE_FAILED_AUTH)
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._hang_up(socket)
            raise BrokerUnavailable(f"{self._endpoint} is no address of a hub: {error}") from error
        with contextlib.suppress(zmq.Again):  # refused as fast as it was made: the monitor says why
            socket.send(self._courier.greeting(self._session), zmq.DONTWAIT)
        self._selector.register(descriptor_of(socket), selectors.EVENT_READ)
        self._is_greeted = False
        self._connected_at = time.monotonic()
        return socket

    def _hang_up(self, socket: Socket) -> None:
        socket.disable_monitor()
        self._monitor.close()
        socket.close()

    def _connect_again(self, now: float) -> None:
        silent_s = now - self._heard_at
        if silent_s > PATIENCE_S[self._role]:
            raise BrokerUnavailable(f"the hub at {self._endpoint} was not heard for {silent_s:.0f} s")
        logger.warning("hub silent, connecting again", extra={"hub": self._endpoint, "silent_s": round(silent_s, 1)})
        self._selector.unregister(descriptor_of(self._socket))
        self._hang_up(self._socket)
        self._socket = self._connect()

    def say_hello(self) -> None:
        """Introduce this side and wait for the answer.

        Raises:
            BrokerUnavailable: No answer.
            KeyFileError: The hub does not know our key.
            EnvironmentMismatch: Versions do not fit.
        """
        try:
            mine = own_versions()
            self.send(Hello(PROTOCOL_VERSION, b"", self._role, mine.python, self._identity, mine.cloudpickle))
            deadline = time.monotonic() + HELLO_TIMEOUT_S
            while (remaining_s := deadline - time.monotonic()) > 0:
                self.flush()
                messages = self.receive()
                self._early = [message for message in messages if not isinstance(message, Welcome)]
                if self._epoch:
                    return
                self._check_key()
                self._selector.select(min(remaining_s, 0.1))
            raise BrokerUnavailable(
                f"no hub answers at {self._endpoint}: does it run there with --bind, is the port open, and is the key "
                "from this hub?"
            )
        except BaseException:
            self.close()
            raise

    def _check_key(self) -> None:
        if self._monitor.poll(0):
            recv_monitor_message(self._monitor)
            raise KeyFileError(
                f"the hub at {self._endpoint} does not know this key: it is another hub's, or an invitation that has "
                "expired"
            )

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message for the next `flush`."""
        self._unsent.append(self._cases.pack(message) if self._cases is not None else message)

    def send_now(self, message: msgspec.Struct) -> Literal[False]:
        """Not from other threads: ZeroMQ's sockets belong to one."""
        return False

    def flush(self) -> None:
        """Send what is queued, as far as there is room; never blocks.

        Raises:
            BrokerUnavailable: The hub was not heard for very long.
        """
        if self._unsent:
            messages, self._unsent = self._unsent, []
            self._courier.send(encode(messages, max_bytes=MAX_BYTES))
        self._pump()
        now = time.monotonic()
        if now - self._heard_at > SILENCE_S and now - self._connected_at > RETRY_S:
            self._connect_again(now)

    def _pump(self) -> None:
        if self._is_greeted:
            for frame in self._courier.frames():
                try:
                    self._socket.send(frame, zmq.DONTWAIT)
                except zmq.Again:
                    break  # the next turn tries again
        self._look_again()

    def _look_again(self) -> None:
        """Ring if something has arrived meanwhile: the edge-triggered descriptor may not tell any more."""
        if has_arrived(self._socket):
            self._bell.ring()

    # -- receiving -----------------------------------------------------------------------------------------------------

    def receive(self) -> list[Any]:
        """All that has arrived."""
        self._bell.silence()
        messages, self._early = self._early, []
        while True:
            try:
                frame = self._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            messages += self._take(frame)
        self._pump()
        return messages

    def _take(self, frame: bytes) -> list[Any]:
        self._heard_at = time.monotonic()
        try:
            if not self._is_greeted:
                self._courier.go_on(read_greeting(frame)[0])
                self._is_greeted = True
                return []
            packet = self._courier.receive(frame)
        except ProtocolError as error:
            raise BrokerUnavailable(f"the hub at {self._endpoint} was started anew: {error}") from None
        return self._decode(packet) if packet is not None else []

    def _decode(self, packet: bytes) -> list[Any]:
        self._reader.feed(packet)
        try:
            messages = self._reader.next() or []
        except ProtocolError as error:
            raise EnvironmentMismatch(str(error)) from None
        for message in messages:
            self._check(message)
        return [self._cases.unpack(message) for message in messages] if self._cases is not None else messages

    def _check(self, message: object) -> None:
        if isinstance(message, Refused):
            error = EnvironmentMismatch if message.kind == "environment" else BrokerUnavailable
            raise error(f"the hub refused this {self._role}: {message.reason}")
        if isinstance(message, Welcome | Pong):
            self._epoch = self._epoch or message.epoch
            if message.epoch != self._epoch:
                raise BrokerUnavailable("the hub was replaced by another one, and its runs are gone")

    def close(self, farewell: msgspec.Struct | None = None) -> None:
        """Say goodbye and free the socket; may be called twice."""
        if self._socket.closed:
            return
        if farewell is not None:
            self._socket.setsockopt(zmq.LINGER, 1000)
            self.send(farewell)
            self.flush()
        self._hang_up(self._socket)
        self._free()

    def _free(self) -> None:
        """Let go of all but the socket, which is closed."""
        self._selector.close()
        self._context.term()  # waits for the farewell, no longer than the socket lingers
        self._bell.close()
        if self._cases is not None:
            self._cases.close()


def _own_blobs() -> BlobStore:
    """Private folders for the large payloads of this worker, on tmpfs if there is room; those of dead ones go."""
    sweep()
    blobs = BlobStore(blob_roots(f"worker-{os.getpid()}-{secrets.token_hex(4)}"))
    blobs.create()
    return blobs
