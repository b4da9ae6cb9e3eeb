"""Messages to bytes and back, with size limits.

A transport frame list is ``[MAGIC, message, message, ...]``: the magic carries the protocol version, so that a peer of
another version is told so in one sentence instead of being misunderstood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from nbqueue.errors import ProtocolError
from nbqueue.wire.messages import PROTOCOL_VERSION

#: First frame of everything we send.
MAGIC = b"NBQ%d" % PROTOCOL_VERSION
#: Larger payloads travel as files (wire.blobs), so no honest message comes near this.
MAX_MESSAGE_BYTES = 64 * 2**20
#: Messages in one transport message.
MAX_MESSAGES = 4096

Message = TypeVar("Message")

_encode = msgspec.msgpack.Encoder().encode


def encode(message: msgspec.Struct) -> bytes:
    """The bytes of one message."""
    return _encode(message)


def encode_frames(messages: Iterable[msgspec.Struct]) -> list[bytes]:
    """``[MAGIC, message, ...]`` for a transport that keeps frames apart."""
    return [MAGIC, *map(_encode, messages)]


class Decoder(Generic[Message]):
    """Decodes the messages of one direction."""

    def __init__(self, message_types: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(message_types)

    def decode(self, data: bytes | memoryview) -> Message:
        """One message.

        Raises:
            ProtocolError: The bytes are no message of this direction, or too many.
        """
        if len(data) > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"a message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
        try:
            message: Message = self._decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not a message of ours: {error}") from None
        return message

    def decode_frames(self, frames: Sequence[bytes]) -> list[Message]:
        """All messages of one transport message.

        Raises:
            ProtocolError: Another protocol version, or not our protocol at all.
        """
        if not frames or len(frames) > MAX_MESSAGES + 1:
            raise ProtocolError(f"{len(frames)} frames")
        check_magic(frames[0])
        return [self.decode(frame) for frame in frames[1:]]


def check_magic(magic: bytes) -> None:
    """Raise `ProtocolError` with one sentence unless *magic* is ours."""
    if magic == MAGIC:
        return
    if magic[:3] == b"NBQ" and magic[3:].isdigit():
        raise ProtocolError(
            f"the other side speaks protocol {magic[3:].decode()}, this one {PROTOCOL_VERSION}: "
            "install the same nbqueue on both, then run `nbqueue stop`"
        )
    raise ProtocolError("the other side does not speak the nbqueue protocol")
