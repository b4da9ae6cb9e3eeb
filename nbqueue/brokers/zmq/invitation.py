"""A line that lets another machine work for this user's hub, once it is pasted there.

It holds a key that was made for it and is forgotten here at once; the hub lets that key in as a worker, if it comes in
time. The line feeds it to the worker's standard input, so that it never stands on a command line, where everybody on
that machine could read it.
"""

from __future__ import annotations

import base64
import binascii
import os
import select
import shlex
import socket
import time
from pathlib import Path

import msgspec

from nbqueue.brokers.zmq.curve import Credentials, new_pair
from nbqueue.brokers.zmq.embedded import find_hub
from nbqueue.errors import BrokerUnavailable, KeyFileError
from nbqueue.wire.messages import Invite, Invited

SCHEME = "nbqueue+invite:"
ANSWER_TIMEOUT_S = 5.0


class Invitation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an invited worker is told. A secret."""

    url: str
    credentials: Credentials
    tags: tuple[str, ...] = ()
    slots: int | None = None

    @property
    def text(self) -> str:
        """As one word."""
        return SCHEME + base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()

    @property
    def line(self) -> str:
        """As a line for a shell."""
        return f"echo {shlex.quote(self.text)} | nbqueue-worker --invite -"

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """What `text` was made of.

        Raises:
            KeyFileError: It is no invitation; the message does not repeat it.
        """
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(text.strip().removeprefix(SCHEME)), type=cls)
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            raise KeyFileError(
                "that is no invitation: paste the whole line that nbqueue.invite() has printed"
            ) from None


def invite_worker(folder: Path, name: str, *, ttl_s: float, tags: tuple[str, ...], slots: int | None) -> Invitation:
    """Have this user's hub expect one more worker.

    Raises:
        BrokerUnavailable: No hub runs, or it serves its own machine only.
    """
    own = new_pair()
    answer = _ask(folder, name, Invite(1, own.public, ttl_s))
    if answer.error:
        raise BrokerUnavailable(f"nobody can be invited: {answer.error}")
    credentials = Credentials(role="worker", server=answer.server_key, own=own)
    return Invitation(url=_reachable(answer.endpoint), credentials=credentials, tags=tags, slots=slots)


def _ask(folder: Path, name: str, question: Invite) -> Invited:
    broker = find_hub(folder, name)
    if broker is None:
        raise BrokerUnavailable(
            "no hub runs that other machines can reach: start one with `nbqueue hub --bind tcp://0.0.0.0:PORT`"
        )
    port = broker.open_client(os.urandom(16))
    try:
        port.say(question)
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while (remaining_s := deadline - time.monotonic()) > 0:
            select.select([port.fileno()], [], [], remaining_s)
            for message in port.receive():
                if isinstance(message, Invited):
                    return message
        raise BrokerUnavailable("the hub does not answer: `nbqueue stop` ends it")
    finally:
        port.close()


def _reachable(endpoint: str) -> str:
    """The hub's address as another machine would use it: a hub that listens everywhere is known by its main address."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return f"tcp://{_main_address()}:{port}" if host in ("0.0.0.0", "[::]") else endpoint  # noqa: S104 -- no bind


def _main_address() -> str:
    """The address from which this machine would speak to the outside; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
