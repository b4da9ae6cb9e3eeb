"""Payloads on their way between hosts: what lies in files of one host is packed in, and laid into files of the other.

Between the two, a message holds everything itself. The values stay packed: nothing is unpickled here.
"""

from __future__ import annotations

import msgspec

from nbqueue.core.exchange import Delivery, Note
from nbqueue.core.task import Block, Entry, Outcome, Succeeded
from nbqueue.errors import ProtocolError
from nbqueue.wire.blobs import INLINE_BYTES, BlobStore
from nbqueue.wire.function import FunctionBody
from nbqueue.wire.payload import map_packed

_encode_function = msgspec.msgpack.Encoder().encode
_decode_function = msgspec.msgpack.Decoder(FunctionBody).decode


class Luggage:
    """Packs and unpacks for one host, whose files are *blobs*."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    # -- leaving this host ---------------------------------------------------------------------------------------------

    def pack_block(self, block: Block) -> Block:
        """Arguments, with the contents of their files."""
        return Block(block.start, block.stop, self._pack(block.payload))

    def pack_function(self, body: bytes) -> bytes:
        """A function, with the content of its file."""
        function = _decoded(body)
        if function is None or not function.packed.startswith(b"F"):
            return body
        return _encode_function(msgspec.structs.replace(function, packed=self._content(function.packed)))

    def pack_outcome(self, outcome: Outcome) -> Outcome:
        """Results, with the contents of their files."""
        if not isinstance(outcome, Succeeded):
            return outcome
        return msgspec.structs.replace(outcome, payload=self._pack(outcome.payload))

    def pack_delivery(self, delivery: Delivery) -> Delivery:
        """A claim, with the contents of all files."""
        function = delivery.function if delivery.function is None else self.pack_function(delivery.function)
        blocks = [self.pack_block(block) for block in delivery.blocks]
        return msgspec.structs.replace(delivery, function=function, blocks=blocks)

    def pack_note(self, note: Note) -> Note:
        """Results, with the contents of their files."""
        return msgspec.structs.replace(note, entries=[self._pack_entry(entry) for entry in note.entries])

    def _pack_entry(self, entry: Entry) -> Entry:
        if entry.payload[:1] != b"E":  # a failure's record, or small values
            return entry
        return msgspec.structs.replace(entry, payload=self._pack(entry.payload))

    def _pack(self, payload: bytes) -> bytes:
        return map_packed(payload, lambda packed: self._content(packed) if packed.startswith(b"F") else packed)

    def _content(self, packed: bytes) -> bytes:
        return bytes(self._blobs.open(packed[1:].decode()))

    # -- arriving here -------------------------------------------------------------------------------------------------

    def unpack_block(self, block: Block, folder: str) -> Block:
        """Arguments, the large ones in files of *folder*."""
        return Block(block.start, block.stop, self._unpack(block.payload, folder))

    def unpack_function(self, body: bytes, folder: str) -> bytes:
        """A function, in a file if it is large."""
        function = _decoded(body)
        if function is None:
            return body
        packed = self._stored(function.packed, folder)
        return body if packed is function.packed else _encode_function(msgspec.structs.replace(function, packed=packed))

    def unpack_outcome(self, outcome: Outcome, folder: str) -> Outcome:
        """Results, the large ones in files of *folder*."""
        if not isinstance(outcome, Succeeded):
            return outcome
        return msgspec.structs.replace(outcome, payload=self._unpack(outcome.payload, folder))

    def unpack_delivery(self, delivery: Delivery) -> Delivery:
        """A claim, what is large in files: of its run, and of its function."""
        function, run = delivery.function, delivery.run_id.hex()
        if function is not None:
            function = self.unpack_function(function, delivery.digest.hex())
        blocks = [self.unpack_block(block, run) for block in delivery.blocks]
        return msgspec.structs.replace(delivery, function=function, blocks=blocks)

    def _unpack(self, payload: bytes, folder: str) -> bytes:
        return map_packed(payload, lambda packed: self._stored(packed, folder))

    def _stored(self, packed: bytes, folder: str) -> bytes:
        if packed.startswith(b"F"):
            raise ProtocolError("a peer on another host named a file of this one")
        if len(packed) <= INLINE_BYTES:
            return packed
        return b"F" + self._blobs.write(folder, [packed]).encode()


def _decoded(body: bytes) -> FunctionBody | None:
    """The function; None for what is none: whoever is to run it will say so."""
    try:
        return _decode_function(body)
    except msgspec.MsgspecError:
        return None
