"""What a port sleeps on: its connections to the server, and a bell that any thread may ring."""

from __future__ import annotations

import contextlib
import os
import selectors

from nbqueue.brokers.redis.channel import Channel


class Watch:
    """One descriptor for several; belongs to one thread, `ring` excepted."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wanted: dict[Channel, int] = {}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._has_rung = False

    def fileno(self) -> int:
        """Readable when the bell has rung or a connection has what it is watched for."""
        return int(self._selector.fileno())

    def want(self, channel: Channel, *, answers: bool) -> None:
        """Watch *channel* for *answers* from now on, and for room as long as something is unsent."""
        events = selectors.EVENT_READ * answers | selectors.EVENT_WRITE * channel.has_unsent
        before = self._wanted.get(channel, 0)
        if events == before:
            return
        self._wanted[channel] = events
        if not before:
            self._selector.register(channel, events)
        elif events:
            self._selector.modify(channel, events)
        else:
            self._selector.unregister(channel)

    def drop(self, channel: Channel) -> None:
        """Watch it no longer, before it is closed."""
        if self._wanted.pop(channel, 0):
            self._selector.unregister(channel)

    def wait(self, timeout_s: float) -> None:
        """Until `fileno` is readable, or so long."""
        self._selector.select(timeout_s)

    def ring(self) -> None:
        """Make `fileno` readable; may be called by any thread."""
        with contextlib.suppress(OSError):  # full of wake-ups already, or closed
            os.write(self._writer, b"!")
        self._has_rung = True  # not before: who finds nothing to read would take the next wake-up for none

    def hush(self) -> None:
        """The bell was heard."""
        if not self._has_rung:
            return
        self._has_rung = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        """Free the descriptors."""
        self._selector.close()
        os.close(self._reader)
        writer, self._writer = self._writer, -1
        os.close(writer)
