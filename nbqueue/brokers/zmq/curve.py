"""Who may speak to a hub over TCP: CURVE keys with a role each, and a self-test that strangers are turned away.

CURVE authenticates and encrypts every message. To know the server's public key lets nobody in: only peers whose own
public key is known get through, and what they may do stands beside that key. libzmq asks an authenticator (ZAP, RFC 27)
for it, and would let everybody in who speaks CURVE if it found none, hence ``ZAP_ENFORCE_DOMAIN`` and the test at the
start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import zmq
from zmq.utils import z85

from nbqueue.errors import BrokerUnavailable, KeyFileError
from nbqueue.wire.keyfile import default_key_file, read_private, write_private

logger = logging.getLogger(__name__)

Role = Literal["client", "worker"]

#: A stranger must be turned away within this time.
SELF_TEST_S = 2.0
#: Before this one, a stranger could stall the server (CVE-2020-15166).
OLDEST_LIBZMQ = (4, 3, 3)

KEY_BYTES = 32
_DOMAIN = b"nbqueue"
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """One end's keys, in the letters of Z85."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"<KeyPair {self.public[:8]}>"


def new_pair() -> KeyPair:
    """A fresh pair of keys."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public=public.decode(), secret=secret.decode())


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer needs to speak to a hub: who the hub is, and the peer's own keys, which give it its role."""

    role: Role
    server: str  #: the hub's public key
    own: KeyPair


class HubKeys(msgspec.Struct, frozen=True, kw_only=True):
    """All keys of a hub that listens on TCP."""

    server: KeyPair
    client: KeyPair
    worker: KeyPair

    def credentials(self, role: Role, own: KeyPair | None = None) -> Credentials:
        """What to give to peers of this role."""
        pair = own or (self.client if role == "client" else self.worker)
        return Credentials(role=role, server=self.server.public, own=pair)


def make_hub_keys(folder: Path) -> list[Path]:
    """Write the keys of a new hub: one file for the hub, one for its clients, one for its workers.

    Raises:
        KeyFileError: They cannot be written, or there are some already.
    """
    keys = HubKeys(server=new_pair(), client=new_pair(), worker=new_pair())
    files = {
        folder / "hub.key": msgspec.json.encode(keys),
        folder / "client.key": msgspec.json.encode(keys.credentials("client")),
        folder / "worker.key": msgspec.json.encode(keys.credentials("worker")),
    }
    for path, data in files.items():
        if not write_private(path, data + b"\n"):
            raise KeyFileError(f"there are keys in {folder} already: workers and clients may have copies of them")
    return list(files)


def read_hub_keys(path: Path) -> HubKeys:
    """The keys of a hub. Raises `KeyFileError`."""
    return _decode(path, _hub_keys, "`nbqueue hub --make-keys` writes them")


def read_credentials(path: Path) -> Credentials:
    """What a peer was given. Raises `KeyFileError`."""
    return _decode(path, _credentials, "copy it from the hub's machine, where `nbqueue hub --make-keys` has written it")


def find_credentials(role: Role, token: str, path: Path | None) -> Credentials:
    """The keys of a peer: from an invitation, the file that it names, or the usual place.

    Raises:
        KeyFileError: There are none.
    """
    if token:
        try:
            return _credentials.decode(token.encode())
        except msgspec.MsgspecError:
            raise KeyFileError("the token does not hold the keys for a hub") from None
    return read_credentials(path or default_key_file().parent / "hub" / f"{role}.key")


def encode_credentials(credentials: Credentials) -> str:
    """As `find_credentials` takes them; a secret."""
    return msgspec.json.encode(credentials).decode()


_hub_keys = msgspec.json.Decoder(HubKeys)
_credentials = msgspec.json.Decoder(Credentials)
_Content = TypeVar("_Content")


def _decode(path: Path, decoder: msgspec.json.Decoder[_Content], advice: str) -> _Content:
    try:
        return decoder.decode(read_private(path, advice))
    except msgspec.MsgspecError:
        raise KeyFileError(f"the file {path} does not hold what it should: {advice}") from None


# -- sockets -----------------------------------------------------------------------------------------------------------


def check_libzmq() -> None:
    """Raise `BrokerUnavailable` unless this libzmq can be trusted with an open port."""
    if not zmq.has("curve"):
        raise BrokerUnavailable("this pyzmq was built without CURVE, and nothing else may leave the machine")
    if zmq.zmq_version_info() < OLDEST_LIBZMQ:
        raise BrokerUnavailable(f"libzmq {zmq.zmq_version()} is too old for an open port: install a newer pyzmq")


def serve_curve(socket: Socket, server: KeyPair) -> None:
    """Let only those in whom the context's `Gatekeeper` knows; call it before ``bind``."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, server.secret.encode())
    socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def use_curve(socket: Socket, credentials: Credentials) -> None:
    """Speak to that hub and no other; call it before ``connect``."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, credentials.server.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, credentials.own.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, credentials.own.secret.encode())


def descriptor_of(socket: Socket) -> int:
    """Becomes readable when something has happened, once: then use the socket until it has nothing more."""
    descriptor = socket.getsockopt(zmq.FD)
    assert isinstance(descriptor, int)
    return descriptor


def has_arrived(socket: Socket) -> bool:
    """Whether something can be received."""
    events = socket.getsockopt(zmq.EVENTS)
    assert isinstance(events, int)
    return bool(events & zmq.POLLIN)


class Gatekeeper:
    """Answers libzmq's question whether a key may come in (ZAP), and as what.

    The answer goes with every message of the connection, so a role cannot be claimed, only held.
    """

    def __init__(self, context: Context, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guests: dict[bytes, _Guest] = {}
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ZAP_ENDPOINT)
        self.refused = 0
        self.is_on_duty = False  #: after the self-test, strangers are worth a line in the log

    def fileno(self) -> int:
        """Edge-triggered: call `answer` until it returns False."""
        return descriptor_of(self._socket)

    def admit(self, public: str, role: Role, *, ttl_s: float | None = None) -> None:
        """Let a key in, for good or until its time is up; whoever has come by then may come again.

        Raises:
            ValueError: It is no key, or not a new one.
        """
        until = None if ttl_s is None else self._clock() + ttl_s
        key = z85.decode(public)
        if len(key) != KEY_BYTES or key in self._guests:
            raise ValueError("a new key of 32 bytes is needed, in the letters of Z85")
        self._guests[key] = _Guest(role, until)

    def answer(self) -> bool:
        """Answer one question; False when there is none."""
        try:
            frames = self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return False
        self._socket.send_multipart(self._verdict(frames))
        return True

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()

    def _verdict(self, frames: list[bytes]) -> list[bytes]:
        version, request, domain, address, _, mechanism, *credentials = [*frames, *[b""] * 6]
        guest = self._guests.get(credentials[0]) if (mechanism, domain) == (b"CURVE", _DOMAIN) else None
        if guest is None or not guest.may_enter(self._clock()):
            self.refused += 1
            if self.is_on_duty:
                logger.warning("stranger refused", extra={"address": address.decode(errors="replace")})
            return [version, request, b"400", b"no such key", b"", b""]
        guest.until = None
        return [version, request, b"200", b"OK", guest.role.encode(), b""]


class _Guest:
    def __init__(self, role: Role, until: float | None) -> None:
        self.role = role
        self.until = until

    def may_enter(self, now: float) -> bool:
        return self.until is None or now <= self.until


def self_test(endpoint: str, server: str, turn: Callable[[float], None]) -> None:
    """Make sure that a stranger who knows the server's key is turned away.

    Args:
        endpoint: Where the server listens.
        server: Its public key.
        turn: Lets the server work for up to so many seconds.

    Raises:
        BrokerUnavailable: He was let in, or the server did not decide in time.
    """
    context: Context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    use_curve(socket, Credentials(role="client", server=server, own=new_pair()))
    monitor = socket.get_monitor_socket()
    try:
        socket.connect(endpoint)
        event = _await_verdict(monitor, turn)
    finally:
        socket.disable_monitor()
        monitor.close()
        socket.close()
        context.destroy(linger=0)
    if event not in (zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
        raise BrokerUnavailable(
            f"the hub would let strangers in at {endpoint}, or does not answer them: it is not started ({event})"
        )


def _await_verdict(monitor: Socket, turn: Callable[[float], None]) -> int | None:
    from zmq.utils.monitor import recv_monitor_message

    wanted = (
        zmq.Event.HANDSHAKE_SUCCEEDED,
        zmq.Event.HANDSHAKE_FAILED_AUTH,
        zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
        zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
    )
    deadline = time.monotonic() + SELF_TEST_S
    while time.monotonic() < deadline:
        turn(0.01)
        while monitor.poll(0):
            event = int(recv_monitor_message(monitor)["event"])
            if event in wanted:
                return event
    return None
