"""A slot's end of the stream socket to its supervisor: it has nothing else to do while it waits."""

from __future__ import annotations

import select
import socket
from typing import Any, Generic, TypeVar

import msgspec

from nbqueue.errors import ProtocolError
from nbqueue.wire.codec import PacketReader, encode

Message = TypeVar("Message")

#: A chunk of large values that came through a broker which has no files for them is one packet.
MAX_BYTES = 2 * 2**30
#: More would have malloc map and unmap memory for every read.
_READ_BYTES = 64 * 1024


class Pipe(Generic[Message]):
    """One end; *Message* is what arrives here."""

    def __init__(self, end: socket.socket, message_types: Any) -> None:
        self._socket = end
        self._reader: PacketReader[Message] = PacketReader(message_types, max_bytes=MAX_BYTES)
        self._received: list[Message] = []
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Send a message, waiting until the other end has room.

        Raises:
            OSError: The other end is gone.
        """
        self._socket.sendall(encode([message], max_bytes=MAX_BYTES))

    def receive(self) -> Message | None:
        """The next message, waiting for it; None when the other end is gone."""
        while not self._received:
            if not self._read():
                return None
        return self._received.pop(0)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _read(self) -> bool:
        try:
            self._poll.poll()  # a `recv` that waits is woken, too, when the other end has read what we sent
            data = self._socket.recv(_READ_BYTES)
        except OSError:
            return False
        self._reader.feed(data)
        try:
            while (messages := self._reader.next()) is not None:
                self._received += messages
        except ProtocolError:  # a task wrote into our descriptor: nothing that follows can be trusted
            self._socket.shutdown(socket.SHUT_RDWR)
            return False
        return bool(data)
