"""A conversation that survives its connections: packets of any size, each delivered once and in order.

Pure: packets in, frames out, and back. Every packet has a number; what the other side has not confirmed is kept, and
sent again when a new connection goes on where the last one broke. A small packet is one frame. A large one goes in
chunks, of which only a few are ever on their way unconfirmed, so that a big array fills neither a socket's memory nor
the line. Confirmations travel in the head of whatever is sent next; heartbeats see to it that something is.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable

from nbqueue.errors import ProtocolError

CHUNK_BYTES = 2**20
#: Chunks on their way that were not confirmed.
WINDOW = 8
#: A packet may not be larger: a peer must not fill our memory.
MAX_BYTES = 2 * 2**30
#: How a conversation is known, whatever connection it uses.
SESSION_BYTES = 16

_GREETING, _WHOLE, _CHUNK, _CONFIRM = b"G", b"W", b"C", b"K"
_HEAD = struct.Struct("<cQQ")  # kind, number of the packet, number of the last one received
_PART = struct.Struct("<QI")  # size of the packet, number of the chunk

Packet = bytes | bytearray


class Courier:
    """One end of a conversation."""

    def __init__(self, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._queued: deque[tuple[int, Packet]] = deque()  # the first may be partly sent
        self._sent: deque[tuple[int, Packet]] = deque()  # not confirmed
        self._last_number = 0
        self._next_chunk = 0
        self._chunks_under_way = 0
        self._chunks_to_confirm = 0
        self._arriving = bytearray()
        self._arrived_chunks = 0
        self.received = 0  #: number of the last packet that arrived

    # -- connections ---------------------------------------------------------------------------------------------------

    def greeting(self, session: bytes) -> bytes:
        """The first frame of a new connection, of either side."""
        return _HEAD.pack(_GREETING, 0, self.received) + session

    def go_on(self, received: int) -> None:
        """The other side has greeted through a new connection, and has packets up to *received*.

        Raises:
            ProtocolError: It has forgotten this conversation, or means another.
        """
        self._confirmed(received)
        unconfirmed = [number for number, _ in (*self._sent, *self._queued)]
        if (unconfirmed[0] if unconfirmed else self._last_number + 1) != received + 1:
            raise ProtocolError("the other side has forgotten this conversation")
        self._queued.extendleft(reversed(self._sent))
        self._sent.clear()
        self._next_chunk = self._chunks_under_way = self._chunks_to_confirm = self._arrived_chunks = 0
        self._arriving = bytearray()

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(self, packet: Packet) -> None:
        """Take on a packet; it goes out through `frames`.

        Raises:
            ProtocolError: It is too large.
        """
        if len(packet) > MAX_BYTES:
            raise ProtocolError(f"a message of {len(packet)} bytes is over the limit of {MAX_BYTES}")
        self._last_number += 1
        self._queued.append((self._last_number, packet))

    def frames(self) -> Iterable[bytes]:
        """What can be sent now. A frame counts as sent when the next one is asked for."""
        while self._chunks_to_confirm:
            yield _HEAD.pack(_CONFIRM, 0, self.received)
            self._chunks_to_confirm -= 1
        while self._queued:
            number, packet = self._queued[0]
            if len(packet) <= self._chunk_bytes:
                yield _HEAD.pack(_WHOLE, number, self.received) + packet
            else:
                if self._chunks_under_way >= WINDOW:
                    return
                yield self._chunk(number, packet)
                self._next_chunk += 1
                self._chunks_under_way += 1
                if self._next_chunk * self._chunk_bytes < len(packet):
                    continue
                self._next_chunk = 0
            self._sent.append(self._queued.popleft())

    def _chunk(self, number: int, packet: Packet) -> bytes:
        start = self._next_chunk * self._chunk_bytes
        heads = _HEAD.pack(_CHUNK, number, self.received) + _PART.pack(len(packet), self._next_chunk)
        with memoryview(packet) as view:
            return b"".join((heads, view[start : start + self._chunk_bytes]))

    def _confirmed(self, number: int) -> None:
        while self._sent and self._sent[0][0] <= number:
            self._sent.popleft()

    # -- receiving -----------------------------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> bytes | None:
        """Take in a frame; the packet that it completes, if it completes a new one.

        Raises:
            ProtocolError: It is no frame of ours, or one is missing.
        """
        kind, number, confirmed = _head(frame)
        self._confirmed(confirmed)
        body = memoryview(frame)[_HEAD.size :]
        match kind:
            case b"W":
                return self._arrived(number, bytes(body))
            case b"C":
                return self._take_chunk(number, body)
            case b"K":
                self._chunks_under_way = max(0, self._chunks_under_way - 1)
                return None
            case _:
                raise ProtocolError("a greeting within a conversation")

    def _arrived(self, number: int, packet: bytes) -> bytes | None:
        if number <= self.received:
            return None  # it was sent again because our confirmation was lost
        if number != self.received + 1:
            raise ProtocolError(f"message {self.received + 1} is missing")
        self.received = number
        return packet

    def _take_chunk(self, number: int, body: memoryview) -> bytes | None:
        if len(body) < _PART.size:
            raise ProtocolError("a piece of a message is cut short")
        size, chunk = _PART.unpack_from(body)
        if chunk == 0:
            self._arriving, self._arrived_chunks = bytearray(), 0
        if chunk != self._arrived_chunks or size > MAX_BYTES:
            raise ProtocolError("a piece of a message is missing, or it is too large")
        self._chunks_to_confirm += 1
        self._arrived_chunks += 1
        self._arriving += body[_PART.size :]
        if len(self._arriving) < size:
            return None
        packet, self._arriving = bytes(self._arriving), bytearray()
        return self._arrived(number, packet)


def read_greeting(frame: bytes) -> tuple[int, bytes]:
    """How far the other side has heard us, and which conversation it means.

    Raises:
        ProtocolError: The frame is no greeting.
    """
    kind, _, received = _head(frame)
    session = frame[_HEAD.size :]
    if kind != _GREETING or len(session) != SESSION_BYTES:
        raise ProtocolError("a conversation begins with a greeting")
    return received, session


def _head(frame: bytes) -> tuple[bytes, int, int]:
    if len(frame) < _HEAD.size:
        raise ProtocolError("the other side does not speak the nbqueue protocol")
    kind, number, received = _HEAD.unpack_from(frame)
    return kind, number, received
