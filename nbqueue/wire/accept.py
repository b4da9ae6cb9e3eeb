"""What a process accepts: to read a pickle can run code, to read JSON cannot.

The first byte of a packed value says which it is, so a payload is judged before any of it is read.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from nbqueue.core.serializers import Serializer
from nbqueue.errors import ContentDisallowed, ProtocolError
from nbqueue.wire.blobs import BlobStore

_decode_values = msgspec.msgpack.Decoder(list[bytes]).decode


def check_accepted(payload: bytes, accept: Collection[Serializer], blobs: BlobStore | None) -> None:
    """Refuse a block of values unless all of them were packed with what is accepted; none of them is read.

    Raises:
        ContentDisallowed: It was packed otherwise.
        ProtocolError: It is no block of values.
        BrokerUnavailable: A large value lies in a file that is gone.
    """
    for kind in _kinds(payload, blobs):
        serializer = _serializer_of(kind)
        if serializer not in accept:
            raise ContentDisallowed(f"it is packed with {serializer}, and only {' and '.join(accept)} is accepted here")


def _kinds(payload: bytes, blobs: BlobStore | None) -> set[bytes]:
    """How the values of a block are packed, by their first bytes; see `wire.payload`."""
    if payload[:1] != b"E":
        return {payload[:1]}
    try:
        values = _decode_values(memoryview(payload)[1:])
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a block of values: {error}") from None
    return {_kind_of(packed, blobs) for packed in values}


def _kind_of(packed: bytes, blobs: BlobStore | None) -> bytes:
    if packed[:1] != b"F":
        return packed[:1]
    if blobs is None:
        raise ProtocolError("a value lies in a file of another host")
    return bytes(blobs.open(str(packed[1:], "utf-8"))[:1])


def _serializer_of(kind: bytes) -> Serializer:
    match kind:
        case b"T":
            return "json"
        case b"L" | b"P" | b"B" | b"F":  # a file that names another one is none of ours, and would be followed
            return "cloudpickle"
        case _:
            raise ProtocolError(f"unknown payload kind {kind!r}")
