"""ZeroMQ sockets with the options that we rely on, and their errors translated once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from nbqueue.errors import BrokerUnavailable
from nbqueue.wire.codec import MAX_MESSAGE_BYTES

#: Never reached: flow control is ours (credits, windows). A last guard against a peer gone mad.
HIGH_WATER_MARK = 10_000


def router(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """The hub's socket, bound to *endpoint*.

    ``ROUTER_MANDATORY`` makes a send to a vanished peer an error instead of silence, ``ROUTER_HANDOVER`` lets a peer
    that reconnects have its name back. ZMTP heartbeats stay off: with a high-water mark they can abort the process
    (libzmq#3937).
    """
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.BACKLOG, 512)
    _limit(socket)
    with translate_zmq_errors(endpoint):
        socket.bind(endpoint)
    return socket


def dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, identity: bytes) -> zmq.Socket[bytes]:
    """A peer's socket, connected to *endpoint*; *identity* is its routing id."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 1000)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    _limit(socket)
    with translate_zmq_errors(endpoint):
        socket.connect(endpoint)
    return socket


def _limit(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)


@contextmanager
def translate_zmq_errors(endpoint: str) -> Iterator[None]:
    """Raise `BrokerUnavailable` instead of any error of ZeroMQ."""
    try:
        yield
    except zmq.ZMQError as error:
        raise BrokerUnavailable(f"the hub at {endpoint} cannot be reached: {error}") from error
