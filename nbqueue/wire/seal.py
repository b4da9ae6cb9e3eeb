"""Seals: the proof that bytes were written by someone who holds the key, for this very place and purpose.

Pickles run code when they are read, so what passed through a server that others may write to is verified before
anything of it is parsed. A sealed message is

    prefix: MAGIC, mode, key id | proof: MAC or salt | header length | header | body

In mode ``M`` the proof is a keyed BLAKE2b-256 over everything else; in mode ``E`` the body is encrypted with
ChaCha20-Poly1305, which authenticates the rest, under a key of its own that is derived from 24 random bytes, so that no
nonce can ever come twice. The header says what the body is and where it belongs: a genuine message in another place is
as good as a forged one. Pure: bytes in, bytes out. Reasons and measurements: docs/adr/0011.

Source: RFC 8439 (AEAD) and RFC 7693 (BLAKE2); that all of a message must be covered was learnt from the signers of
Celery (which leaves out the task's name) and Jupyter (which leaves out the buffers).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from nbqueue.errors import KeyFileError, SealBroken

MAGIC = b"NBS1"
KEY_BYTES = 32
#: A task may wait so long for a worker; what is older is taken for a replay.
LIFETIME_S = 7 * 86400.0

Kind = Literal["task", "function", "result", "failure", "output", "control"]

_MAC = b"M"
_ENCRYPTED = b"E"
_ID_BYTES = 8
_PREFIX_BYTES = len(MAGIC) + 1 + _ID_BYTES
_MAC_BYTES = 32
_SALT_BYTES = 24
_LENGTH = struct.Struct("<H")
_NONCE = bytes(12)  # the key is used once


class Header(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a sealed body is, and the only place where it counts."""

    kind: Kind
    namespace: str = ""  #: of the broker
    queue: str = ""  #: of a task
    tags: tuple[str, ...] = ()  #: of a task
    run_id: bytes = b""
    start: int = 0  #: first item
    stop: int = 0  #: item after the last
    function: bytes = b""  #: digest
    attempt: int = 0  #: of a result
    not_after: float = 0.0  #: UNIX time; 0: no limit


class SealingKey:
    """A secret, and the two keys and the name that are derived from it. Its repr shows the name only."""

    __slots__ = ("_mac", "cipher", "id", "secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise KeyFileError(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        self.secret = secret
        self.id = _derive(secret, b"nbqueue-id")[:_ID_BYTES]  #: not secret
        self._mac = hashlib.blake2b(key=_derive(secret, b"nbqueue-mac"), digest_size=_MAC_BYTES)
        self.cipher = _derive(secret, b"nbqueue-cipher")

    @property
    def name(self) -> str:
        """By which people, logs and errors know the key; not secret."""
        return self.id.hex()[:8]

    def mac(self, *parts: bytes | memoryview) -> bytes:
        """The proof that who wrote *parts* has this key."""
        mac = self._mac.copy()
        for part in parts:
            mac.update(part)
        return mac.digest()

    def __repr__(self) -> str:
        return f"<SealingKey {self.name}>"


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(key=secret, person=purpose.ljust(16, b"\0"), digest_size=32).digest()


class Sealer:
    """Seals with the first of its keys, and opens what any of them has sealed."""

    def __init__(
        self,
        keys: Sequence[SealingKey],
        *,
        namespace: str = "",
        encrypt: bool = False,
        lifetime_s: float = LIFETIME_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Seal for the broker *namespace*; tasks are good for *lifetime_s* seconds."""
        self._keys = {key.id: key for key in keys}
        self._key = keys[0]
        self.namespace = namespace
        self.encrypt = encrypt
        self.lifetime_s = lifetime_s
        self.clock = clock
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Header)
        if encrypt:
            _aead(self._key.cipher)  # says now, not with the first task, that the package is missing

    @property
    def key_names(self) -> list[str]:
        """Names of the keys, the one that seals first."""
        return [self._key.name, *(key.name for key in self._keys.values() if key is not self._key)]

    def seal(self, header: Header, body: bytes, *, encrypt: bool | None = None) -> bytes:
        """*body* with the proof that it belongs where *header* says; the namespace is added here.

        Args:
            header: All of it is authenticated.
            body: Opaque.
            encrypt: Hide the body as well; None: as this sealer does.
        """
        head = self._encoder.encode(msgspec.structs.replace(header, namespace=self.namespace))
        shown = _LENGTH.pack(len(head)) + head
        if self.encrypt if encrypt is None else encrypt:
            prefix = MAGIC + _ENCRYPTED + self._key.id + os.urandom(_SALT_BYTES) + shown
            encrypted: bytes = _cipher(self._key, prefix).encrypt(_NONCE, body, prefix)
            return prefix + encrypted
        prefix = MAGIC + _MAC + self._key.id
        return b"".join((prefix, self._key.mac(prefix, shown, body), shown, body))

    def open(self, data: bytes, *, kind: Kind, **place: Any) -> Opened:
        """The body of a sealed message, if all of it is genuine and it belongs here.

        Args:
            data: As `seal` made it, or anything.
            kind: What is expected.
            **place: Fields of the header that must have these values.

        Raises:
            UnknownKey: It names another key than ours.
            SealBroken: It was not sealed with one of our keys, was changed, belongs elsewhere, or is too old. Nothing
                of it but the key's name was parsed.
        """
        header, body, is_encrypted = self._verified(data)
        if msgspec.structs.replace(header, kind=kind, namespace=self.namespace, **place) != header:
            _check_place(header, kind=kind, namespace=self.namespace, **place)
        if header.not_after and self.clock() > header.not_after:
            raise SealBroken("its seal is genuine but too old: it may be a replay; submit the task again")
        return Opened(header, body, is_encrypted)

    def _verified(self, data: bytes) -> tuple[Header, bytes, bool]:
        if data[: len(MAGIC)] != MAGIC:
            raise SealBroken("it carries no seal")
        mode, key_id = data[len(MAGIC) : len(MAGIC) + 1], data[len(MAGIC) + 1 : _PREFIX_BYTES]
        key = self._keys.get(bytes(key_id))
        if key is None:
            raise UnknownKey(
                f"it was sealed with the key {key_id.hex()[:8]}, and this side has {' and '.join(self.key_names)}: "
                "`nbqueue key` tells how to carry a key to another machine"
            )
        if mode == _MAC:
            return (*self._check_mac(key, memoryview(data)), False)
        if mode == _ENCRYPTED:
            return (*self._decrypt(key, memoryview(data)), True)
        raise SealBroken("it carries a seal of an unknown kind")

    def _check_mac(self, key: SealingKey, view: memoryview) -> tuple[Header, bytes]:
        proof, rest = view[_PREFIX_BYTES : _PREFIX_BYTES + _MAC_BYTES], view[_PREFIX_BYTES + _MAC_BYTES :]
        if not hmac.compare_digest(proof, key.mac(view[:_PREFIX_BYTES], rest)):
            raise SealBroken("its seal does not fit: it was forged or changed on its way")
        (length,) = _LENGTH.unpack_from(rest)
        return self._header(rest[2 : 2 + length]), bytes(rest[2 + length :])

    def _header(self, data: bytes | memoryview) -> Header:
        """The header of a message that is genuine."""
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise SealBroken(f"it was sealed by another version of nbqueue: {error}") from None

    def _decrypt(self, key: SealingKey, view: memoryview) -> tuple[Header, bytes]:
        start = _PREFIX_BYTES + _SALT_BYTES
        if len(view) < start + _LENGTH.size:
            raise SealBroken("it is cut short")
        (length,) = _LENGTH.unpack_from(view, start)
        shown = bytes(view[: start + _LENGTH.size + length])
        try:
            body = _cipher(key, shown).decrypt(_NONCE, view[len(shown) :], shown)
        except _invalid_tag():
            raise SealBroken("its seal does not fit: it was forged or changed on its way") from None
        return self._header(shown[start + _LENGTH.size :]), body


class UnknownKey(SealBroken):
    """Sealed with another key: by a stranger, or by a friend to whom the key was not carried."""


class Opened(msgspec.Struct, frozen=True):
    """What was in a seal."""

    header: Header
    body: bytes
    is_encrypted: bool


def _check_place(header: Header, **place: Any) -> None:
    """Raise `SealBroken`, which says where *header* belongs, if that is elsewhere."""
    for name, wanted in place.items():
        found = getattr(header, name)
        if found != wanted:
            raise SealBroken(f"its seal is genuine but for {name} {_word(found)}, not {_word(wanted)}")


def _cipher(key: SealingKey, shown: bytes) -> Any:
    salt = shown[_PREFIX_BYTES : _PREFIX_BYTES + _SALT_BYTES]
    return _aead(hashlib.blake2b(salt, key=key.cipher, digest_size=32).digest())


def _aead(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    except ImportError:
        raise SealBroken("encrypted tasks need the package cryptography: pip install 'nbqueue[encrypt]'") from None
    return ChaCha20Poly1305(key)


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag


def _word(value: object) -> str:
    return value.hex()[:8] if isinstance(value, bytes) else repr(value)
