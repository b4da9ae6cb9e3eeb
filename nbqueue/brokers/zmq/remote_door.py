"""The door for peers on other machines: one TCP port, CURVE, and conversations that survive their connections.

A connection says with its key who is at the other end (`curve`), and with its first frame which conversation it goes on
with (`courier`). Payloads that lie in files of this machine are packed in on their way out, and laid into files on
their way in (`wire.luggage`), so that the hub and its peers at home notice nothing.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable, Sequence

import msgspec
import zmq

from nbqueue.brokers.zmq.bell import Bell
from nbqueue.brokers.zmq.courier import CHUNK_BYTES, MAX_BYTES, Courier, read_greeting
from nbqueue.brokers.zmq.curve import (
    Context,
    Gatekeeper,
    HubKeys,
    Role,
    check_libzmq,
    descriptor_of,
    has_arrived,
    self_test,
    serve_curve,
)
from nbqueue.brokers.zmq.doors import Host, Peer
from nbqueue.errors import BrokerUnavailable, ProtocolError
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.codec import PacketReader, encode
from nbqueue.wire.luggage import Luggage
from nbqueue.wire.messages import Commit, Deliver, Feed, FromPeer, NoteMessage, Submit

logger = logging.getLogger(__name__)

#: Frames taken in before others have their turn.
BATCH = 64
#: A conversation that was silent for so long is forgotten.
SESSION_S = 300.0
#: Frames that a socket holds for one peer; beyond, they wait here.
HIGH_WATER_MARK = 64
#: The largest frame is a chunk and its head.
MAX_FRAME_BYTES = CHUNK_BYTES + 1024


class RemoteDoor:
    """Listens on TCP for peers that hold a key of this hub."""

    def __init__(
        self,
        endpoint: str,
        keys: HubKeys,
        host: Host,
        selector: selectors.BaseSelector,
        *,
        blobs: BlobStore | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen at *endpoint*, once a stranger was turned away there.

        Raises:
            BrokerUnavailable: The port cannot be had, or would not be safe.
        """
        check_libzmq()
        self._keys = keys
        self._host = host
        self._selector = selector
        self._clock = clock
        self.luggage = Luggage(blobs) if blobs is not None else None
        self._lines: dict[bytes, _RemoteLine] = {}  # by connection
        self._sessions: dict[bytes, _RemoteLine] = {}
        self._context: Context = zmq.Context()
        self._gatekeeper = Gatekeeper(self._context, clock=clock)
        self._gatekeeper.admit(keys.client.public, "client")
        self._gatekeeper.admit(keys.worker.public, "worker")
        self._socket = self._context.socket(zmq.ROUTER)
        self._bell = Bell()
        self._descriptors = (self._gatekeeper.fileno(), descriptor_of(self._socket), self._bell.fileno())
        for descriptor in self._descriptors:
            selector.register(descriptor, selectors.EVENT_READ, self._on_ready)
        try:
            self.endpoint = self._listen(endpoint)
            self_test(_reachable(self.endpoint), keys.server.public, self._serve_for)
            self._gatekeeper.is_on_duty = True
        except BaseException:
            self.close()
            raise

    def _listen(self, endpoint: str) -> str:
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.HANDSHAKE_IVL, 5000),
            (zmq.BACKLOG, 512),
            (zmq.SNDHWM, HIGH_WATER_MARK),
            (zmq.RCVHWM, HIGH_WATER_MARK),
            (zmq.MAXMSGSIZE, MAX_FRAME_BYTES),
            (zmq.TCP_MAXRT, 15_000),
        ):
            self._socket.setsockopt(option, value)
        serve_curve(self._socket, self._keys.server)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise BrokerUnavailable(f"the hub cannot listen at {endpoint}: {error}") from error
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def invite(self, public_key: str, *, role: Role, ttl_s: float) -> None:
        """Let one more key in, if it comes in time. Raises `ValueError` if it is none."""
        self._gatekeeper.admit(public_key, role, ttl_s=ttl_s)

    @property
    def server_key(self) -> str:
        """The hub's public key."""
        return self._keys.server.public

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        for descriptor in self._descriptors:
            self._selector.unregister(descriptor)
        self._gatekeeper.close()
        self._socket.close()
        self._context.destroy(linger=0)
        self._bell.close()

    # -- input ---------------------------------------------------------------------------------------------------------

    def _serve_for(self, seconds: float) -> None:
        time.sleep(seconds)
        self._on_ready(0)

    def _on_ready(self, events: int) -> None:
        self._bell.silence()
        while self._gatekeeper.answer():
            pass
        for _ in range(BATCH):
            try:
                connection, frame = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            except ValueError:  # not two frames: nobody of ours
                continue
            self._take(connection.bytes, str(frame.get("User-Id")), frame.bytes)
        self.look_again()

    def look_again(self) -> None:
        """Have the selector call us if something has arrived meanwhile, which the edge-triggered descriptor hides."""
        if has_arrived(self._socket):
            self._bell.ring()

    def _take(self, connection: bytes, role: str, frame: bytes) -> None:
        line = self._lines.get(connection)
        try:
            if line is None:
                self._greet(connection, role, frame)
            else:
                line.take(frame, self._clock())
        except ProtocolError as error:
            logger.warning("bad frame dropped", extra={"role": role, "reason": str(error)})
            if line is not None:
                self._host.take_rubbish(line.peer, str(error))

    def _greet(self, connection: bytes, role: str, frame: bytes) -> None:
        """A new connection: of somebody new, or of somebody who has lost the last one."""
        received, session = read_greeting(frame)
        now = self._clock()
        self._forget_silent_sessions(now)
        line = self._sessions.get(session)
        if line is None or line.peer.granted != role:
            line = self._sessions[session] = _RemoteLine(self, self._host, role, session)
        else:
            logger.info("peer came back", extra={"peer": repr(line.peer), "silent_s": round(now - line.heard_at, 1)})
            self._lines.pop(line.connection, None)
        line.connection, line.heard_at = connection, now
        self._lines[connection] = line
        self.send_frame(connection, line.courier.greeting(session))
        line.courier.go_on(received)
        line.pump()

    def _forget_silent_sessions(self, now: float) -> None:
        for line in list(self._sessions.values()):
            if now - line.heard_at > SESSION_S:
                self.drop(line)
                self._host.take_loss(line.peer)

    def drop(self, line: _RemoteLine) -> None:
        """The conversation is over."""
        self._lines.pop(line.connection, None)
        if self._sessions.get(line.session) is line:
            del self._sessions[line.session]

    def send_frame(self, connection: bytes, frame: bytes) -> bool:
        """Send a frame; False when there is no room for it, or nobody to take it, at this moment."""
        try:
            self._socket.send_multipart([connection, frame], zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True


class _RemoteLine:
    """One conversation with a peer on another machine."""

    def __init__(self, door: RemoteDoor, host: Host, role: str, session: bytes) -> None:
        self._door = door
        self._host = host
        self._reader: PacketReader[FromPeer] = PacketReader(FromPeer, max_bytes=MAX_BYTES)
        self.session = session
        self.connection = b""
        self.heard_at = 0.0
        self.courier = Courier()
        self.peer = Peer(self, granted=role)

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """See `Line.send`."""
        packed = [packed for message in messages if (packed := self._pack(message)) is not None]
        self.courier.send(encode(packed, max_bytes=MAX_BYTES))
        self.pump()
        self._door.look_again()

    def close(self) -> None:
        """See `Line.close`."""
        self._door.drop(self)

    def pump(self) -> None:
        """Send what can be sent; the rest follows when the peer is heard again."""
        for frame in self.courier.frames():
            if not self._door.send_frame(self.connection, frame):
                return

    def take(self, frame: bytes, now: float) -> None:
        """The peer has sent a frame of this conversation."""
        self.heard_at = now
        packet = self.courier.receive(frame)
        if packet is not None:
            self._reader.feed(packet)
            while (messages := self._reader.next()) is not None:
                self._host.take(self.peer, [self._unpack(message) for message in messages])
        else:
            self._host.take(self.peer, [])  # a piece of something large: it lives
        self.pump()

    def _pack(self, message: msgspec.Struct) -> msgspec.Struct | None:
        """The message with what lies in files of this host; None when it is gone, and so is whoever asked for it."""
        luggage = self._door.luggage
        try:
            match message:
                case Deliver(delivery) if luggage is not None:
                    return Deliver(luggage.pack_delivery(delivery))
                case NoteMessage(note) if luggage is not None:
                    return NoteMessage(luggage.pack_note(note))
                case _:
                    return message
        except BrokerUnavailable as error:
            logger.warning("payload is gone", extra={"peer": repr(self.peer), "reason": str(error)})
            return None

    def _unpack(self, message: FromPeer) -> FromPeer:
        """The message with what is large laid into files of this host."""
        luggage = self._door.luggage
        if luggage is None:
            return message
        match message:
            case Commit(run_id=run_id, outcomes=outcomes):
                unpacked = [luggage.unpack_outcome(outcome, run_id.hex()) for outcome in outcomes]
                return msgspec.structs.replace(message, outcomes=unpacked)
            case Submit(spec=spec, function=function, blocks=blocks):
                if function is not None:
                    function = luggage.unpack_function(function, spec.function.hex())
                blocks = [luggage.unpack_block(block, spec.run_id.hex()) for block in blocks]
                return msgspec.structs.replace(message, function=function, blocks=blocks)
            case Feed(run_id=run_id, blocks=blocks):
                blocks = [luggage.unpack_block(block, run_id.hex()) for block in blocks]
                return msgspec.structs.replace(message, blocks=blocks)
            case _:
                return message


def _reachable(endpoint: str) -> str:
    """The address at which this machine itself can reach what is bound to all addresses."""
    return endpoint.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104 -- nothing is bound here
