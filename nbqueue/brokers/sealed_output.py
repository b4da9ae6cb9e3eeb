"""Seals what tasks print, for `sealed`: who can write to a broker shall not put words, or pictures, into a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import msgspec

from nbqueue.core.exchange import OutputNote
from nbqueue.core.output import Clear, Display, OutputEvent, Sealed, Text
from nbqueue.errors import SealBroken
from nbqueue.wire.seal import Header, Sealer

logger = logging.getLogger(__name__)


class _Shown(msgspec.Struct, frozen=True, array_like=True):
    position: int
    what: Text | Display | Clear


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Shown).decode


def seal_output(sealer: Sealer, run_id: bytes, events: Iterable[OutputEvent], *, encrypt: bool) -> list[OutputEvent]:
    """The events as the broker sees them."""
    return [_sealed(sealer, run_id, event, encrypt=encrypt) for event in events]


def _sealed(sealer: Sealer, run_id: bytes, event: OutputEvent, *, encrypt: bool) -> OutputEvent:
    if isinstance(event.what, Sealed):
        return event
    header = Header(kind="output", run_id=run_id, start=event.item, stop=event.item + 1, attempt=event.attempt)
    body = sealer.seal(header, _encode([event.position, event.what]), encrypt=encrypt)
    return msgspec.structs.replace(event, what=Sealed(body, event.is_display))


def open_output(sealer: Sealer, note: OutputNote) -> OutputNote:
    """The events as a client may see them; those that are not genuine are left out."""
    return msgspec.structs.replace(note, events=list(_genuine(sealer, note)))


def _genuine(sealer: Sealer, note: OutputNote) -> Iterator[OutputEvent]:
    for event in note.events:
        try:
            body = event.what.body if isinstance(event.what, Sealed) else b""
            place = {"run_id": note.run_id, "start": event.item, "attempt": event.attempt}
            shown = _decode(sealer.open(body, kind="output", **place).body)
        except SealBroken as error:
            extra = {"run": note.run_id.hex(), "item": event.item, "reason": str(error)}
            logger.warning("output refused", extra=extra)
        else:
            yield msgspec.structs.replace(event, position=shown.position, what=shown.what)
