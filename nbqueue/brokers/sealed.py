"""Any broker, with everything sealed that passes through it.

Put around a broker whose server others may read or write to. A client's port seals functions and arguments and opens
results; a worker's port opens functions and arguments, before a slot hears of them, and seals results. Both are used in
processes (the client's, the supervisor's) in which no task runs, so tasks never meet the key. What a broker makes up by
itself (states, counts, the order of things) is not sealed: who can write to it can delay, repeat or delete work, but
never have code of his own unpickled, or pass off one result as another.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from nbqueue.brokers.base import Broker, ClientPort, WorkerPort
from nbqueue.brokers.passing import PassingClientPort
from nbqueue.brokers.sealed_orders import OrderOpener, seal_order
from nbqueue.brokers.sealed_output import open_output, seal_output
from nbqueue.core.exchange import Delivery, Note, WorkerInfo
from nbqueue.core.orders import Answer, Order, OrderFor
from nbqueue.core.output import OutputEvent
from nbqueue.core.routing import Route, serves
from nbqueue.core.states import State
from nbqueue.core.task import Block, Entry, Failed, Outcome, RunSpec, Succeeded
from nbqueue.errors import KeyFileError, SealBroken
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.failure import pack_failure
from nbqueue.wire.messages import Carry, Deliver, Forgotten, NoteMessage, OutputMessage, ToClientPeer, ToWorkerPeer
from nbqueue.wire.seal import Header, Kind, Sealer, UnknownKey

logger = logging.getLogger(__name__)

#: A broker that lost a report gives its items again soon; an item that succeeded here longer ago is a replay.
REDELIVERY_S = 3600.0
#: Reports of finished items that a worker remembers.
SPANS_REMEMBERED = 100_000
#: Claims that have ended, for reports that come again.
CLAIMS_REMEMBERED = 1000
#: A refused claim of more items than this, which cannot be genuine, is handed back instead of answered one by one.
MAX_REFUSED_ITEMS = 1000


class SealedBroker(Broker):
    """A broker that sees sealed bytes only."""

    def __init__(self, broker: Broker, sealer: Sealer) -> None:
        """Seal for *broker* with the keys of *sealer*."""
        self._broker = broker
        self._sealer = sealer
        self._specs: dict[bytes, RunSpec] = {}  # of runs that may still be fed, through whichever port

    @property
    def blobs(self) -> BlobStore | None:
        """None: what is not in the message could not be sealed with it."""
        return None

    def open_client(self, client_id: bytes) -> ClientPort:
        """Connect a client."""
        return SealedClientPort(self._broker.open_client(client_id), self._sealer, self._specs, client_id)

    def open_worker(self, info: WorkerInfo) -> WorkerPort:
        """Connect and register a supervisor."""
        return SealedWorkerPort(self._broker.open_worker(info), self._sealer, info)


class SealedClientPort(PassingClientPort):
    """Seals what a client hands over, and opens what comes back."""

    def __init__(self, port: ClientPort, sealer: Sealer, specs: dict[bytes, RunSpec], client_id: bytes) -> None:
        super().__init__(port)
        self._client_id = client_id
        self._sealer = sealer
        self._specs = specs
        self._last_function = (b"", b"")  # its digest and what was sealed
        self._overhead_bytes = 0  # by which received payloads were longer than what the client saw of them

    def receive(self) -> list[ToClientPeer]:
        """See `ClientPort.receive`; results that are not genuine arrive as failures that say so."""
        return [self._open_message(message) for message in self._port.receive()]

    def submit(self, spec: RunSpec, *, function: bytes | None, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.submit`."""
        self._specs[spec.run_id] = spec
        sealed = None if function is None else self._seal_function(spec.function, function)
        self._port.submit(spec, function=sealed, blocks=self._seal_blocks(spec, blocks), closed=closed)

    def submit_now(self, spec: RunSpec, *, function: bytes, blocks: Sequence[Block], closed: bool) -> bool:
        """See `ClientPort.submit_now`; nothing is sealed in vain while the port has something to do."""
        if not self._port.is_idle:
            return False
        self._specs[spec.run_id] = spec
        sealed, sealed_blocks = self._seal_function(spec.function, function), self._seal_blocks(spec, blocks)
        return self._port.submit_now(spec, function=sealed, blocks=sealed_blocks, closed=closed)

    def _seal_function(self, digest: bytes, function: bytes) -> bytes:
        """Without a limit in time, so once for all runs: nobody runs it but for a task that has one."""
        if self._last_function[0] != digest:
            self._last_function = digest, self._sealer.seal(Header(kind="function", function=digest), function)
        return self._last_function[1]

    def feed(self, run_id: bytes, *, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.feed`."""
        spec = self._specs.get(run_id)
        sealed = self._seal_blocks(spec, blocks) if spec is not None else []  # None: finished or forgotten
        self._port.feed(run_id, blocks=sealed, closed=closed)

    def _seal_blocks(self, spec: RunSpec, blocks: Sequence[Block]) -> list[Block]:
        not_after = self._sealer.clock() + spec.options.countdown_s + self._sealer.lifetime_s
        return [
            Block(block.start, block.stop, self._sealer.seal(_task_header(spec, block, not_after), block.payload))
            for block in blocks
        ]

    def _open_message(self, message: ToClientPeer) -> ToClientPeer:
        match message:
            case NoteMessage(note):
                return NoteMessage(self._open_note(note))
            case OutputMessage(output):
                return OutputMessage(open_output(self._sealer, output))
            case _:
                return message

    def _open_note(self, note: Note) -> Note:
        if note.finished or not note.known:
            self._specs.pop(note.run_id, None)
        if not note.entries:
            return note
        return msgspec.structs.replace(note, entries=[self._open_entry(note.run_id, entry) for entry in note.entries])

    def _open_entry(self, run_id: bytes, entry: Entry) -> Entry:
        if entry.state not in (State.SUCCESS, State.FAILURE):
            return entry if not entry.payload else msgspec.structs.replace(entry, payload=b"")
        try:
            body = self._open_result(run_id, entry)
        except SealBroken as error:
            logger.warning("result refused", extra={"run": run_id.hex(), "item": entry.start, "reason": str(error)})
            refusal = SealBroken(f"a result of worker {entry.worker!r} was refused unread: {error}")
            body = pack_failure(refusal, where=f"worker {entry.worker}", with_pickles=False)
            entry = msgspec.structs.replace(entry, state=State.FAILURE, offset=0)
        self._overhead_bytes += len(entry.payload) - len(body)
        return msgspec.structs.replace(entry, payload=body)

    def _open_result(self, run_id: bytes, entry: Entry) -> bytes:
        kind: Kind = "result" if entry.state is State.SUCCESS else "failure"
        opened = self._sealer.open(entry.payload, kind=kind, run_id=run_id, start=entry.start - entry.offset)
        header = opened.header
        # A success counts from whatever attempt; one that was handed back is uncounted, and may succeed all the same.
        is_right = header.attempt <= entry.attempt + 1 if kind == "result" else header.attempt == entry.attempt
        if not is_right or not header.start <= entry.start < entry.stop <= header.stop:
            raise SealBroken("its seal is genuine but for other items or another attempt")
        return opened.body

    def ack(self, *, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        """See `ClientPort.ack`; the broker counts sealed bytes, which notes of output speak of already."""
        self._port.ack(entries=entries, size_bytes=size_bytes + self._overhead_bytes, output_bytes=output_bytes)

    def forget(self, run_ids: Sequence[bytes]) -> None:
        """See `ClientPort.forget`."""
        for run_id in run_ids:
            self._specs.pop(run_id, None)
        self._port.forget(run_ids)

    def command(self, request: int, order: Order, *, worker_ids: Sequence[bytes] | None = None) -> None:
        """See `ClientPort.command`."""
        sealed = seal_order(self._sealer, self._client_id, request, order, worker_ids)
        self._port.command(request, sealed, worker_ids=worker_ids)


class SealedWorkerPort(WorkerPort):
    """Opens what a supervisor is to run, and seals what becomes of it."""

    def __init__(self, port: WorkerPort, sealer: Sealer, info: WorkerInfo) -> None:
        self._port = port
        self._sealer = sealer
        self._offer = info.offer
        self._orders = OrderOpener(sealer, info.worker_id)
        self._functions: set[bytes] = set()  # whose bodies were genuine
        self._claims: dict[int, _Claim] = {}
        self._ended: OrderedDict[int, _Claim] = OrderedDict()  # a report may be repeated
        self._finished = _FinishedItems()

    def fileno(self) -> int:
        """See `Port.fileno`."""
        return self._port.fileno()

    def flush(self) -> None:
        """See `Port.flush`."""
        self._port.flush()

    def receive(self) -> list[ToWorkerPeer]:
        """See `WorkerPort.receive`; deliveries that are not genuine are answered here and go no further.

        Raises:
            KeyFileError: The very first is sealed with another key: this worker was given the wrong one.
        """
        messages: list[ToWorkerPeer] = []
        for message in self._port.receive():
            match message:
                case Deliver(delivery):
                    opened = self._open_or_refuse(delivery)
                    if opened is not None:
                        messages.append(Deliver(opened))
                case Forgotten(functions):
                    self._functions.difference_update(functions.digests)
                    messages.append(message)
                case Carry(order):
                    messages += self._open_order(order)
                case _:
                    messages.append(message)
        return messages

    def _open_order(self, order: OrderFor) -> list[Carry]:
        try:
            return [Carry(self._orders.open(order))]
        except SealBroken as error:  # whoever gave it waits for an answer in vain, and is told so
            logger.warning("order refused", extra={"client": order.client_id.hex(), "reason": str(error)})
            return []

    def _open_or_refuse(self, delivery: Delivery) -> Delivery | None:
        claim = self._claims[delivery.token] = _Claim(delivery.run_id, delivery.digest, delivery.attempt)
        try:
            return self._open(delivery, claim)
        except UnknownKey as error:
            if not self._functions:
                self.commit(delivery.token, delivery.run_id, [], final=True)  # for a worker that has the key
                raise KeyFileError(f"this worker was given the wrong key: a task came, and {error}") from None
            self._refuse(delivery, error)
        except SealBroken as error:
            self._refuse(delivery, error)
        return None

    def _open(self, delivery: Delivery, claim: _Claim) -> Delivery:
        function = delivery.function
        if function is not None:
            function = self._sealer.open(function, kind="function", function=delivery.digest).body
            self._functions.add(delivery.digest)
        elif delivery.digest not in self._functions:
            raise SealBroken("its function was refused before")
        blocks = [self._open_block(delivery, block, claim) for block in delivery.blocks]
        _check_cover(delivery)
        self._finished.check(delivery, self._sealer.clock())
        return msgspec.structs.replace(delivery, function=function, blocks=blocks)

    def _open_block(self, delivery: Delivery, block: Block, claim: _Claim) -> Block:
        opened = self._sealer.open(
            block.payload,
            kind="task",
            run_id=delivery.run_id,
            function=delivery.digest,
            start=block.start,
            stop=block.stop,
        )
        if not serves(self._offer, Route(opened.header.queue, opened.header.tags)):
            raise SealBroken("its seal is genuine but for workers of another queue or with other tags")
        claim.is_encrypted = claim.is_encrypted or opened.is_encrypted
        return Block(block.start, block.stop, opened.body)

    def _refuse(self, delivery: Delivery, error: SealBroken) -> None:
        """Answer for a claim that is not genuine: whoever waits for it, if anybody does, is told why."""
        extra = {"run": delivery.run_id.hex(), "first": delivery.start, "stop": delivery.stop, "reason": str(error)}
        logger.error("task refused", extra=extra)
        items = range(delivery.start, delivery.stop)
        refusal = SealBroken(f"the task was refused unread by a worker: {error}")
        record = pack_failure(refusal, with_pickles=False)
        refused = len(items) <= MAX_REFUSED_ITEMS
        outcomes = [Failed(item, record, retryable=False, wall_s=0.0) for item in items] if refused else []
        self.commit(delivery.token, delivery.run_id, outcomes, final=True)

    def heartbeat(self, running: Sequence[tuple[int, int]]) -> None:
        """See `WorkerPort.heartbeat`."""
        self._port.heartbeat(running)

    def started(self, token: int, item: int) -> None:
        """See `WorkerPort.started`."""
        self._port.started(token, item)

    def commit(self, token: int, run_id: bytes, outcomes: Sequence[Outcome], *, final: bool) -> None:
        """See `WorkerPort.commit`."""
        claim = self._claims.get(token) or self._ended.get(token)
        if claim is not None:
            outcomes = [self._seal(claim, outcome) for outcome in outcomes]
        self._port.commit(token, run_id, outcomes, final=final)
        if final and token in self._claims:
            self._ended[token] = self._claims.pop(token)
            if len(self._ended) > CLAIMS_REMEMBERED:
                self._ended.popitem(last=False)

    def output(self, token: int, events: Sequence[OutputEvent]) -> None:
        """See `WorkerPort.output`."""
        claim = self._claims.get(token) or self._ended.get(token)
        if claim is not None:
            self._port.output(token, seal_output(self._sealer, claim.run_id, events, encrypt=claim.is_encrypted))

    def resize(self, *, slots: int, prefetch: int) -> None:
        """See `WorkerPort.resize`."""
        self._port.resize(slots=slots, prefetch=prefetch)

    def answer(self, client_id: bytes, answer: Answer) -> None:
        """See `WorkerPort.answer`."""
        self._port.answer(client_id, answer)

    def remark(self, run_id: bytes, text: str) -> None:
        """See `WorkerPort.remark`."""
        self._port.remark(run_id, text)

    def _seal(self, claim: _Claim, outcome: Outcome) -> Outcome:
        match outcome:
            case Succeeded(start, stop, payload):
                self._finished.add(claim.run_id, start, stop, self._sealer.clock())
                return msgspec.structs.replace(
                    outcome, payload=self._seal_result(claim, "result", start, stop, payload)
                )
            case Failed(item, record):
                sealed = self._seal_result(claim, "failure", item, item + 1, record)
                return msgspec.structs.replace(outcome, record=sealed)
            case _:
                return outcome

    def _seal_result(self, claim: _Claim, kind: Kind, start: int, stop: int, payload: bytes) -> bytes:
        """Without a limit in time: it can only be the result of this very item."""
        header = Header(
            kind=kind,
            run_id=claim.run_id,
            function=claim.function,
            start=start,
            stop=stop,
            attempt=claim.attempt,
        )
        return self._sealer.seal(header, payload, encrypt=claim.is_encrypted)

    def close(self) -> None:
        """See `Port.close`."""
        self._port.close()


class _Claim:
    """What must be known of a claim to seal its results."""

    __slots__ = ("attempt", "function", "is_encrypted", "run_id")

    def __init__(self, run_id: bytes, function: bytes, attempt: int) -> None:
        self.run_id = run_id
        self.function = function
        self.attempt = attempt
        self.is_encrypted = False  #: its arguments were: so are its results


class _FinishedItems:
    """Items that succeeded here of late, so that a replay is told from a repetition."""

    def __init__(self) -> None:
        self._runs: OrderedDict[bytes, list[tuple[int, int, float]]] = OrderedDict()  # spans: start, stop, when
        self._count = 0

    def add(self, run_id: bytes, start: int, stop: int, now: float) -> None:
        """Note that the items succeeded."""
        spans = self._runs.setdefault(run_id, [])
        self._runs.move_to_end(run_id)
        insort(spans, (start, stop, now))
        self._count += 1
        while self._count > SPANS_REMEMBERED:
            _, forgotten = self._runs.popitem(last=False)
            self._count -= len(forgotten)

    def check(self, delivery: Delivery, now: float) -> None:
        """Raise `SealBroken` if items of the claim succeeded here too long ago to be given again in good faith."""
        spans = self._runs.get(delivery.run_id, [])
        for index in range(bisect_left(spans, (delivery.stop,)) - 1, -1, -1):
            _, stop, at = spans[index]
            if stop <= delivery.start:
                return
            if now - at > REDELIVERY_S:
                raise SealBroken("it is genuine but was run here long ago: it is a replay")


def _task_header(spec: RunSpec, block: Block, not_after: float) -> Header:
    return Header(
        kind="task",
        queue=spec.options.queue,
        tags=spec.options.tags,
        run_id=spec.run_id,
        function=spec.function,
        start=block.start,
        stop=block.stop,
        not_after=not_after,
    )


def _check_cover(delivery: Delivery) -> None:
    """Raise `SealBroken` unless the blocks, which are genuine, hold all items of the claim, in order."""
    position = delivery.start
    for block in delivery.blocks:
        if not block.start <= position < block.stop:
            raise SealBroken("its parts are genuine but do not belong together")
        position = block.stop
    if position < delivery.stop or delivery.stop <= delivery.start:
        raise SealBroken("it is genuine but parts of it are missing")
