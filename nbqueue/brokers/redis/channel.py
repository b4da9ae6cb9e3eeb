"""One connection to the server that never blocks: commands go out when the socket takes them, replies come as they do.

redis-py connects, encrypts and logs in; then its socket is used directly, because a port must not block and must not
need a thread for every reply.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

import hiredis

from nbqueue.brokers.redis.server import AnyConnection

#: More would have malloc map and unmap memory for every read.
_READ_BYTES = 64 * 1024


def pack_command(*parts: str | float | bytes) -> bytes:
    """A command as it is sent."""
    return bytes(hiredis.pack_command(parts))  # type: ignore[arg-type] # its stub knows only commands of one part


class ChannelClosed(ConnectionError):
    """The server has gone, or the network."""


class Channel:
    """Commands out, replies in, in order."""

    def __init__(self, connection: AnyConnection) -> None:
        """Take over a *connection* on which no reply is outstanding."""
        self._connection = connection
        # redis-py has no public way to wait for several connections.
        self._socket: socket.socket = connection._sock  # type: ignore[assignment] # noqa: SLF001
        self._socket.setblocking(False)
        self._reader = hiredis.Reader()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """The socket."""
        return int(self._socket.fileno())

    @property
    def has_unsent(self) -> bool:
        """Whether the socket did not take everything yet."""
        return bool(self._unsent)

    def send(self, commands: bytes) -> None:
        """Send *commands*, packed, as far as the socket takes them now; `flush` sends the rest.

        Raises:
            ChannelClosed: The connection broke.
        """
        self._unsent += commands
        self.flush()

    def flush(self) -> None:
        """Send what is left. Raises as `send` does."""
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> list[Any]:
        """All replies that have arrived; an error reply is a `hiredis.ReplyError` in its place.

        Raises:
            ChannelClosed: The connection broke.
        """
        replies = []
        try:
            while True:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ChannelClosed("the server closed the connection")
                self._reader.feed(data)
                while (reply := self._reader.gets()) is not False:
                    replies.append(reply)
                if len(data) < _READ_BYTES and not isinstance(self._socket, ssl.SSLSocket):
                    return replies
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return replies
        except (OSError, hiredis.ProtocolError) as error:
            if replies:
                return replies  # the next call finds out
            raise ChannelClosed(str(error)) from error

    def close(self) -> None:
        """Free the socket; may be called twice."""
        with contextlib.suppress(Exception):
            self._connection.disconnect()
