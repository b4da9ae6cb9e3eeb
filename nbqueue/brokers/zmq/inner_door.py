"""The way in for a supervisor that lives in the hub's own process: the same messages, and neither socket nor copy.

What the hub says is heard at once, inside the hub's own call: the slot that it is meant for should not wait for another
turn of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from nbqueue.brokers.base import WorkerPort
from nbqueue.brokers.zmq.bell import Bell
from nbqueue.brokers.zmq.broker import ZmqWorkerPort
from nbqueue.brokers.zmq.doors import Host, Peer
from nbqueue.core.exchange import WorkerInfo
from nbqueue.wire.messages import PROTOCOL_VERSION, Hello
from nbqueue.wire.versions import own_versions


def open_inner_door(host: Host, info: WorkerInfo, on_message: Callable[[], None]) -> WorkerPort:
    """Register a supervisor with the hub in whose loop it runs; *on_message* is called when it should `receive`."""
    return ZmqWorkerPort(_InnerLink(host, info.worker_id, on_message), info)


class _InnerLine:
    """The hub's way to the supervisor."""

    def __init__(self, on_message: Callable[[], None]) -> None:
        self.messages: list[Any] = []
        self._on_message = on_message

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """See `Line.send`."""
        self.messages += messages
        self._on_message()

    def close(self) -> None:
        """See `Line.close`: nobody is there to hang up on."""


class _InnerLink:
    """The supervisor's way to the hub."""

    def __init__(self, host: Host, identity: bytes, on_message: Callable[[], None]) -> None:
        self._host = host
        self._line = _InnerLine(on_message)
        self._bell = Bell()  # never rings
        self._peer = Peer(self._line, granted="worker")  # it need not know the hub's token
        mine = own_versions()
        self._unsent: list[Any] = [Hello(PROTOCOL_VERSION, b"", "worker", mine.python, identity, mine.cloudpickle)]
        self._is_open = True

    def fileno(self) -> int:
        return self._bell.fileno()

    def send(self, message: msgspec.Struct) -> None:
        self._unsent.append(message)

    def send_now(self, message: msgspec.Struct) -> bool:
        return False  # it is for other threads, and here is only one

    def flush(self) -> None:
        if self._unsent:
            messages, self._unsent = self._unsent, []
            self._host.take(self._peer, messages)

    def receive(self) -> list[Any]:
        messages, self._line.messages = self._line.messages, []
        return messages

    def close(self, farewell: msgspec.Struct | None = None) -> None:
        if self._is_open:
            self._is_open = False
            if farewell is not None:
                self._unsent.append(farewell)
            self.flush()
            self._host.take_loss(self._peer)  # nothing more will be sent to it
            self._bell.close()
