"""Messages over a unix stream socket that never blocks: how processes on this machine speak to each other.

ZeroMQ carries what leaves the machine. On it, its I/O threads would cost more than all the rest of a round trip
(docs/adr/0007).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from nbqueue.wire.codec import MAX_MESSAGES, MAX_PACKET_BYTES, PacketReader, encode

Message = TypeVar("Message")

#: More would have malloc map and unmap memory for every read.
_READ_BYTES = 64 * 1024


class Stream(Generic[Message]):
    """One end of a connection, which never blocks; *Message* is what arrives here."""

    def __init__(self, connected: socket.socket, message_types: Any, *, max_bytes: int = MAX_PACKET_BYTES) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._max_bytes = max_bytes
        self._reader: PacketReader[Message] = PacketReader(message_types, max_bytes=max_bytes)
        self._unsent = bytearray()
        self.is_open = True  #: `close` was not called

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until the socket is writable again; then call `flush`."""
        return bool(self._unsent)

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """Send messages, or keep what the socket has no room for.

        Raises:
            OSError: The other end is gone.
        """
        while len(messages) > MAX_MESSAGES:
            self._send_packet(encode(messages[:MAX_MESSAGES], max_bytes=self._max_bytes))
            messages = messages[MAX_MESSAGES:]
        self._send_packet(encode(messages, max_bytes=self._max_bytes))

    def send_now(self, packet: bytearray) -> bool:
        """Send a small packet at once and as a whole, or do nothing; whether it was sent."""
        if self._unsent:
            return False
        try:
            sent = self._socket.send(packet)
        except OSError:  # no room, or the other end is gone, which the next read says
            return False
        self._unsent += packet[sent:]  # nothing, on systems that take a small packet as a whole or not at all
        return True

    def flush(self) -> None:
        """Send what waits, as far as there is room. Raises as `send` does."""
        if self._unsent:
            del self._unsent[: self._try_to_send(self._unsent)]

    def read(self) -> bool:
        """Take in what has arrived, for `next`; False when the other end is gone."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._reader.feed(data)
        return bool(data)

    def next(self) -> list[Message] | None:
        """The messages of the next packet that was read; None when there is none. Raises as `PacketReader.next`."""
        return self._reader.next()

    def drain(self, *, timeout_s: float) -> None:
        """Send what waits, waiting for room up to *timeout_s* seconds; for last words."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(self._unsent)
        except OSError:
            pass  # nobody is there to hear it
        self._unsent.clear()

    def break_off(self) -> None:
        """End the connection, so that the other end hears of it; the socket is still to be closed."""
        with contextlib.suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self.is_open = False
        self._socket.close()

    def _send_packet(self, packet: bytearray) -> None:
        if self._unsent:
            self._unsent += packet
            return
        sent = self._try_to_send(packet)
        if sent < len(packet):
            del packet[:sent]
            self._unsent = packet

    def _try_to_send(self, data: bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
