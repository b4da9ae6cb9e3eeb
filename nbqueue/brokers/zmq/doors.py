"""Where peers come in: connections, with no idea of what is said on them.

A door finds out who speaks and hands whole packets to its `Host`, the hub. There is one for this machine (a unix
socket); what a hub says to a peer goes through the peer's `Line`.
"""

from __future__ import annotations

import math
import os
import selectors
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from nbqueue.errors import BrokerUnavailable, ProtocolError
from nbqueue.wire.codec import OutOfStep
from nbqueue.wire.messages import FromPeer
from nbqueue.wire.stream import Stream

_BACKLOG = 512


class Line(Protocol):
    """The way to one peer."""

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """Send in one packet, or keep it until there is room; never blocks, never raises."""

    def close(self) -> None:
        """Send what was kept if there is room, and hang up; may be called twice."""


class Peer:
    """Somebody who speaks to the hub; nobody in particular before a good greeting."""

    __slots__ = ("bad_packets", "granted", "identity", "line", "outbox", "role", "send_at")

    def __init__(self, line: Line, *, granted: str = "") -> None:
        self.line = line
        self.granted = granted  #: the only role that its key allows; empty: it must know the hub's token
        self.identity = b""
        self.role = ""
        self.bad_packets = 0
        self.outbox: list[msgspec.Struct] = []
        self.send_at = math.inf  #: when the outbox is to be sent at the latest

    def __repr__(self) -> str:
        return f"<Peer {self.role or 'unknown'} {self.identity.hex()[:8]}>"


class Host(Protocol):
    """Who lives behind the doors."""

    def take(self, peer: Peer, messages: list[FromPeer]) -> None:
        """A peer has spoken."""

    def take_rubbish(self, peer: Peer, reason: str) -> None:
        """A peer has sent what is no message."""

    def take_loss(self, peer: Peer) -> None:
        """A peer's connection ended, with or without a farewell."""


class LocalDoor:
    """A listening unix socket; file permissions decide who may connect."""

    def __init__(self, path: Path, host: Host, selector: selectors.BaseSelector) -> None:
        """Listen at *path*; what happens is announced in *selector*, as a callback in a key's data.

        Raises:
            BrokerUnavailable: The socket cannot be made.
        """
        self._host = host
        self._selector = selector
        self._lines: set[_LocalLine] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)  # of a hub that was killed: whoever starts one has its lock
            self._listener.bind(os.fspath(path))
            path.chmod(0o600)
            self._listener.listen(_BACKLOG)
        except OSError as error:
            self._listener.close()
            raise BrokerUnavailable(f"the hub cannot listen at {path}: {error.strerror}") from error
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        self._selector.unregister(self._listener)
        self._listener.close()
        for line in list(self._lines):
            line.close()

    def _accept(self, events: int) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return  # it has changed its mind, or we are out of descriptors: it will try again
        self._lines.add(_LocalLine(connected, self._host, self._selector, self._lines.discard))


class _LocalLine:
    """One connection through a `LocalDoor`."""

    def __init__(
        self,
        connected: socket.socket,
        host: Host,
        selector: selectors.BaseSelector,
        on_closed: Callable[[_LocalLine], None],
    ) -> None:
        self._stream: Stream[FromPeer] = Stream(connected, FromPeer)
        self._host = host
        self._selector = selector
        self._on_closed = on_closed
        self._peer = Peer(self)
        self._waits_for_room = False
        selector.register(self._stream, selectors.EVENT_READ, self._on_ready)

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """See `Line.send`."""
        if self._stream.is_open:
            try:
                self._stream.send(messages)
            except OSError:
                return  # the next read says so
            self._watch()

    def close(self) -> None:
        """See `Line.close`."""
        if self._stream.is_open:
            self._selector.unregister(self._stream)
            self._stream.close()
            self._on_closed(self)

    def _on_ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ:
            self._read()

    def _flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            return  # the next read says so
        self._watch()

    def _watch(self) -> None:
        """Ask to be told when there is room again, as long as something waits for it."""
        if self._stream.has_unsent is not self._waits_for_room:
            self._waits_for_room = self._stream.has_unsent
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._waits_for_room else 0)
            self._selector.modify(self._stream, wanted, self._on_ready)

    def _read(self) -> None:
        is_connected = self._stream.read()
        while self._stream.is_open:
            try:
                messages = self._stream.next()
            except OutOfStep as error:
                self._host.take_rubbish(self._peer, str(error))
                is_connected = False
                break
            except ProtocolError as error:
                self._host.take_rubbish(self._peer, str(error))
                continue
            if messages is None:
                break
            self._host.take(self._peer, messages)
        if not is_connected:
            self.close()
            self._host.take_loss(self._peer)
