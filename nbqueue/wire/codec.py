"""Messages to packets of bytes and back, with size limits.

A *packet* is what one side says in one breath: ``MAGIC + length of the body (u32, little endian) + body``; the body is
a msgpack list of messages. The magic carries the protocol version, so that a peer of another version is told so in one
sentence instead of being misunderstood; the length keeps a byte stream in step even when a body makes no sense.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from nbqueue.errors import ProtocolError
from nbqueue.wire.messages import PROTOCOL_VERSION

#: First bytes of everything we send.
MAGIC = b"NBQ%d" % PROTOCOL_VERSION
#: Larger payloads travel as files (wire.blobs), so no honest packet comes near this.
MAX_PACKET_BYTES = 64 * 2**20
#: Messages in one packet.
MAX_MESSAGES = 4096

_HEADER = struct.Struct("<4sI")

Message = TypeVar("Message")

_encoder = msgspec.msgpack.Encoder()


def encode(messages: Sequence[msgspec.Struct], *, max_bytes: int = MAX_PACKET_BYTES) -> bytearray:
    """One packet with these messages.

    Raises:
        ProtocolError: They are larger than a packet may be.
    """
    packet = bytearray(_HEADER.size)
    _encoder.encode_into(messages, packet, _HEADER.size)
    size = len(packet) - _HEADER.size
    if size > max_bytes:
        raise ProtocolError(f"a packet of {size} bytes is over the limit of {max_bytes}")
    _HEADER.pack_into(packet, 0, MAGIC, size)
    return packet


class PacketReader(Generic[Message]):
    """Finds the messages of one direction in a stream of bytes, however it is cut."""

    def __init__(self, message_types: Any, *, max_bytes: int = MAX_PACKET_BYTES) -> None:
        """Read messages of the union *message_types*, in packets of up to *max_bytes*; everything else is refused."""
        self._max_bytes = max_bytes
        self._decoder = msgspec.msgpack.Decoder(list[message_types])
        self._data: bytes | bytearray = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
            return
        if not isinstance(self._data, bytearray):
            self._data = bytearray(self._data)
        del self._data[: self._at]
        self._at = 0
        self._data += data

    def next(self) -> list[Message] | None:
        """The messages of the next packet; None while it is not complete.

        Raises:
            OutOfStep: The bytes are no packet of ours: whatever follows cannot be read either.
            ProtocolError: The packet's body makes no sense; it is passed over.
        """
        if self._at == len(self._data):
            return None
        start = self._at + _HEADER.size
        if start > len(self._data):
            if self._data[self._at : self._at + len(MAGIC)] != MAGIC[: len(self._data) - self._at]:
                raise OutOfStep(_why_not_ours(bytes(self._data[self._at :])))
            return None
        magic, length = _HEADER.unpack_from(self._data, self._at)
        if magic != MAGIC:
            raise OutOfStep(_why_not_ours(bytes(self._data[self._at : self._at + 64])))
        if length > self._max_bytes:
            raise OutOfStep(f"a packet of {length} bytes is over the limit of {self._max_bytes}")
        if start + length > len(self._data):
            return None
        self._at = start + length
        with memoryview(self._data) as view, view[start : self._at] as body:
            return self._decode(body)

    def _decode(self, body: memoryview) -> list[Message]:
        try:
            messages: list[Message] = self._decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not a message of ours: {error}") from None
        if len(messages) > MAX_MESSAGES:
            raise ProtocolError(f"{len(messages)} messages in one packet, more than {MAX_MESSAGES}")
        return messages


class OutOfStep(ProtocolError):
    """The bytes do not follow our protocol, and there is no telling where the next packet begins."""


def _why_not_ours(data: bytes) -> str:
    if data[:3] == b"NBQ" and data[3:4].isdigit():
        version = data[3:4].decode()
        return (
            f"the other side speaks protocol {version}, this one {PROTOCOL_VERSION}: "
            "install the same nbqueue on both, then run `nbqueue stop`"
        )
    return "the other side does not speak the nbqueue protocol"
