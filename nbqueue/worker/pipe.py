"""Messages over a stream socket between supervisor and slot: a length, then msgpack."""

from __future__ import annotations

import socket
import struct
from typing import Any, Generic, TypeVar

import msgspec

from nbqueue.wire.codec import Decoder, encode

Message = TypeVar("Message")

_LENGTH = struct.Struct("<I")
_READ_BYTES = 256 * 1024


class Pipe(Generic[Message]):
    """One end; *Message* is what arrives here."""

    def __init__(self, end: socket.socket, message_types: Any) -> None:
        self._socket = end
        self._decoder: Decoder[Message] = Decoder(message_types)
        self._buffer = bytearray()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Send a message, waiting until the other end has room.

        Raises:
            OSError: The other end is gone.
        """
        data = encode(message)
        self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> Message | None:
        """The next message, waiting for it; None when the other end is gone."""
        while (message := self._next()) is None:
            if not self._read():
                return None
        return message

    def receive_available(self) -> list[Message]:
        """The messages that one read brings; call it when the descriptor is readable. Empty also at the end."""
        self._read()
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _read(self) -> bool:
        try:
            data = self._socket.recv(_READ_BYTES)
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def _next(self) -> Message | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            message = self._decoder.decode(view[_LENGTH.size : end])
        del self._buffer[:end]
        return message
