"""Any broker, for a client that does not accept every kind of result.

Results are judged as they arrive, before a handle sees them. What is not accepted becomes a failure of its item that
says so, as does what comes with a broken seal; all else is as it was (ADR 0018).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from nbqueue.brokers.base import Broker, ClientPort, WorkerPort
from nbqueue.brokers.passing import PassingClientPort
from nbqueue.core.exchange import Note, WorkerInfo
from nbqueue.core.serializers import Serializer
from nbqueue.core.states import State
from nbqueue.core.task import Entry
from nbqueue.errors import ContentDisallowed, NBQueueError
from nbqueue.wire.accept import check_accepted
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.failure import pack_failure, without_pickles
from nbqueue.wire.messages import NoteMessage, ToClientPeer

logger = logging.getLogger(__name__)


class AcceptingBroker(Broker):
    """A broker of whose results only some are accepted."""

    def __init__(self, broker: Broker, accept: Sequence[Serializer]) -> None:
        """Let results of *broker* pass that are packed with what is in *accept*."""
        self._broker = broker
        self._accept = accept

    @property
    def blobs(self) -> BlobStore | None:
        """See `Broker.blobs`."""
        return self._broker.blobs

    def open_client(self, client_id: bytes) -> ClientPort:
        """Connect a client."""
        return AcceptingClientPort(self._broker.open_client(client_id), self._accept, self._broker.blobs)

    def open_worker(self, info: WorkerInfo) -> WorkerPort:
        """Connect and register a supervisor."""
        return self._broker.open_worker(info)


class AcceptingClientPort(PassingClientPort):
    """Judges what a client hears."""

    def __init__(self, port: ClientPort, accept: Sequence[Serializer], blobs: BlobStore | None) -> None:
        super().__init__(port)
        self._accept = accept
        self._blobs = blobs
        self._withheld_bytes = 0  # by which received payloads were longer than what the client saw of them

    def receive(self) -> list[ToClientPeer]:
        """See `ClientPort.receive`; results that are not accepted arrive as failures that say so."""
        return [
            NoteMessage(self._judged(message.note)) if isinstance(message, NoteMessage) else message
            for message in self._port.receive()
        ]

    def ack(self, *, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        """See `ClientPort.ack`; the broker counts the bytes that came."""
        self._port.ack(entries=entries, size_bytes=size_bytes + self._withheld_bytes, output_bytes=output_bytes)

    def _judged(self, note: Note) -> Note:
        if not note.entries:
            return note
        return msgspec.structs.replace(note, entries=[self._judged_entry(entry) for entry in note.entries])

    def _judged_entry(self, entry: Entry) -> Entry:
        try:
            passed = self._passed(entry)
        except NBQueueError as error:
            logger.warning("result refused", extra={"item": entry.start, "worker": entry.worker, "reason": str(error)})
            refusal = ContentDisallowed(f"a result of worker {entry.worker!r} was refused unread: {error}")
            record = pack_failure(refusal, where=f"worker {entry.worker}", with_pickles=False)
            passed = msgspec.structs.replace(entry, state=State.FAILURE, payload=record, offset=0)
        self._withheld_bytes += len(entry.payload) - len(passed.payload)
        return passed

    def _passed(self, entry: Entry) -> Entry:
        """The entry as the client may see it.

        Raises:
            NBQueueError: It may not, or makes no sense.
        """
        match entry.state:
            case State.SUCCESS:
                check_accepted(entry.payload, self._accept, self._blobs)
                return entry
            case State.FAILURE if "cloudpickle" not in self._accept:
                return msgspec.structs.replace(entry, payload=without_pickles(entry.payload))
            case _:
                return entry
