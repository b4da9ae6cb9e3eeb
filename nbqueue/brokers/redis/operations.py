"""Operations as the scripts read them, and their answers as values. The other half of each is in lua/."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgpack
import msgspec

from nbqueue.core.dispatcher import Limits
from nbqueue.core.exchange import HeldClaims, OutputNote, WorkerInfo
from nbqueue.core.inspection import ChunkView, Inspection, QueueView, RunView, WorkerView
from nbqueue.core.orders import Answer, Asked, Order
from nbqueue.core.output import OutputEvent
from nbqueue.core.progress import Counts
from nbqueue.core.routing import Offer, Route, serves, why_unserved
from nbqueue.core.task import Block, Entry, Manner, Outcome, RunSpec, TaskOptions
from nbqueue.wire.messages import ToWorkerPeer

_pack = msgpack.Packer(use_bin_type=False).pack
_encode_struct = msgspec.msgpack.Encoder().encode
_pack_limits = struct.Struct(">ddddd").pack


def circumstances(limits: Limits, ear: bytes, client_id: bytes) -> bytes:
    """What every script is told beside operations.

    Args:
        limits: Of the broker.
        ear: Eight bytes which tell the caller's list of news from those of its former connections.
        client_id: Of the client that calls; empty for a supervisor.
    """
    seed = random.getrandbits(30)
    figures = _pack_limits(limits.lease_s, limits.client_lease_s, limits.max_items, limits.max_bytes, seed)
    return figures + ear + client_id


def encode(operation: list[Any]) -> bytes:
    """The bytes of an operation: its parts, one after the other. Lua has no bytes but strings, which both become."""
    return _without_head(_pack(msgspec.to_builtins(operation, builtin_types=(bytes,))))


def _without_head(packed: bytes | None) -> bytes:
    """The parts of a list of less than 16 elements."""
    assert packed is not None
    return packed[1:]


class News(msgspec.Struct, frozen=True, array_like=True):
    """What happened to a run: a note before it is known who may run it and how much the client can take."""

    run_id: bytes
    cursor: int
    entries: list[Entry]
    counts: Counts
    finished: bool
    work_s: float
    length: int  #: of the log
    queue: str
    tags: tuple[str, ...]
    remarks: list[str]
    output_end: int  #: events of output that the run has had


class TakenItems(msgspec.Struct, frozen=True, array_like=True):
    """The answer to items."""

    total: int
    is_full: bool
    known: bool
    slots: int  #: of those who may run it


class CrewMember(msgspec.Struct, frozen=True, array_like=True):
    """What one supervisor can do."""

    slots: int
    offer: Offer


class _WorkerSeen(msgspec.Struct, frozen=True, array_like=True):
    info: WorkerInfo
    claims: int
    running: list[str]
    done: int
    seen_s_ago: float


class _RunSeen(msgspec.Struct, frozen=True, array_like=True):
    run_id: bytes
    label: str
    counts: Counts
    age_s: float
    finished: bool
    queue: str
    tags: tuple[str, ...]
    priority: int
    scheduled: int


class _ChunkSeen(msgspec.Struct, frozen=True, array_like=True):
    worker: str
    run_id: bytes
    label: str
    start: int
    stop: int
    attempt: int
    item: int | None
    held_s: float


class _QueueSeen(msgspec.Struct, frozen=True, array_like=True):
    name: str
    waiting: int
    scheduled: int
    running: int


class _Seen(msgspec.Struct, frozen=True, array_like=True):
    workers: list[_WorkerSeen]
    runs: list[_RunSeen]
    clients: int
    refused_events: int
    payload_bytes: int
    chunks: list[_ChunkSeen]
    queues: list[_QueueSeen]
    run_count: int


decode_news = msgspec.msgpack.Decoder(News | bool).decode
decode_all_news = msgspec.msgpack.Decoder(list[News]).decode
decode_printed = msgspec.msgpack.Decoder(OutputNote | bool).decode
decode_all_printed = msgspec.msgpack.Decoder(list[OutputNote]).decode
decode_taken = msgspec.msgpack.Decoder(TakenItems).decode
decode_crew = msgspec.msgpack.Decoder(list[CrewMember]).decode
decode_asked = msgspec.msgpack.Decoder(Asked).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_count = msgspec.msgpack.Decoder(int).decode
decode_flag = msgspec.msgpack.Decoder(bool).decode
decode_held = msgspec.msgpack.Decoder(HeldClaims | bool).decode
decode_worker_messages = msgspec.msgpack.Decoder(list[ToWorkerPeer]).decode
_decode_seen = msgspec.msgpack.Decoder(_Seen).decode


class Crew:
    """All supervisors, as far as they matter to who waits for them."""

    def __init__(self, members: Sequence[CrewMember] = ()) -> None:
        self._members = members
        self._slots: dict[Route, int] = {}  # for each route that was asked for

    @property
    def slots(self) -> int:
        """Of all of them."""
        return sum(member.slots for member in self._members)

    def slots_for(self, route: Route) -> int:
        """Of those who may run what asks for *route*."""
        found = self._slots.get(route)
        if found is None:
            found = self._slots[route] = sum(member.slots for member in self._members if serves(member.offer, route))
        return found

    def why_unserved(self, route: Route) -> str:
        """See `routing.why_unserved`."""
        return why_unserved(route, [member.offer for member in self._members])


# -- clients -----------------------------------------------------------------------------------------------------------


def asked(client_id: bytes, spec: RunSpec) -> bytes:
    """What runs of one kind have in common; the server reads it once for all of them."""
    kind = [spec.function, spec.label, spec.environment, client_id, _options(spec.options)]
    return bytes(_pack(msgspec.to_builtins(kind, builtin_types=(bytes,))))


def submit(
    client_id: bytes, spec: RunSpec, kind: bytes, function: bytes | None, blocks: Sequence[Block], *, closed: bool
) -> bytes:
    """A run and its first items; *kind* is what `asked` has made of it."""
    family = [spec.parent or False, spec.parent_item, spec.depth] if spec.parent or spec.depth else False
    flat = [(block.start, block.stop, block.payload) for block in blocks]
    return _without_head(_pack(["s", client_id, spec.run_id, kind, function, flat, closed, family]))


def _options(options: TaskOptions) -> list[Any]:
    retry = options.retry
    return [
        retry.max_retries,
        retry.backoff_s,
        retry.backoff_max_s,
        retry.jitter,
        options.max_lost,
        options.strict_fence,
        options.priority,
        options.countdown_s,
        False if options.expires_s is None else options.expires_s,
        options.chunksize or False,
        options.result_expires_s,
        options.queue,
        options.tags,
        _encode_struct(options.limits),
    ]


def feed(client_id: bytes, run_id: bytes, blocks: Sequence[Block], *, closed: bool) -> bytes:
    """More items of a run."""
    return encode(["f", client_id, run_id, blocks, closed])


def read(client_id: bytes, run_id: bytes, cursor: int, *, entries: int, size_bytes: int) -> bytes:
    """Follow a run, and so much of its log from *cursor* on."""
    return encode(["a", client_id, run_id, cursor, entries, size_bytes])


def read_output(client_id: bytes, run_id: bytes, cursor: int, *, size_bytes: int) -> bytes:
    """So much of a run's output, from event *cursor* on."""
    return encode(["e", client_id, run_id, cursor, size_bytes])


def inspection(reply: bytes) -> Inspection:
    """What the broker told of itself."""
    seen = _decode_seen(reply)
    crew = Crew([CrewMember(worker.info.slots, worker.info.offer) for worker in seen.workers])
    return Inspection(
        workers=[_worker_view(worker) for worker in seen.workers],
        runs=[_run_view(run, crew) for run in sorted(seen.runs, key=lambda run: run.age_s, reverse=True)],
        clients=seen.clients,
        refused_events=seen.refused_events,
        payload_bytes=seen.payload_bytes,
        chunks=[ChunkView(**msgspec.structs.asdict(chunk)) for chunk in seen.chunks],
        queues=_queue_views(seen),
        run_count=seen.run_count,
    )


def _queue_views(seen: _Seen) -> list[QueueView]:
    sums = {queue.name: queue for queue in seen.queues}
    offered = {name for worker in seen.workers for name in worker.info.offer.queues}
    views = []
    for name in sorted(sums.keys() | offered):
        serving = [worker.info for worker in seen.workers if name in worker.info.offer.queues]
        found = sums.get(name, _QueueSeen(name, 0, 0, 0))
        views.append(
            QueueView(**msgspec.structs.asdict(found), workers=len(serving), slots=sum(info.slots for info in serving))
        )
    return views


def _worker_view(seen: _WorkerSeen) -> WorkerView:
    info = seen.info
    return WorkerView(
        worker_id=info.worker_id,
        name=info.name,
        host=info.host,
        pid=info.pid,
        slots=info.slots,
        claims=seen.claims,
        running=seen.running,
        done=seen.done,
        seen_s_ago=seen.seen_s_ago,
        offer=info.offer,
        versions=info.versions,
    )


def _run_view(seen: _RunSeen, crew: Crew) -> RunView:
    is_over = seen.counts.ended == seen.counts.total
    return RunView(
        run_id=seen.run_id,
        label=seen.label,
        counts=seen.counts,
        age_s=seen.age_s,
        finished=seen.finished,
        queue=seen.queue,
        tags=seen.tags,
        priority=seen.priority,
        scheduled=seen.scheduled,
        unserved="" if is_over else crew.why_unserved(Route(seen.queue, seen.tags)),
    )


def revoke(run_id: bytes, start: int, stop: int, manner: Manner) -> bytes:
    """Stop items."""
    return encode(["v", run_id, start, stop, _encode_struct(manner)])


def order(client_id: bytes, request: int, given: Order, worker_ids: Sequence[bytes] | None) -> bytes:
    """An order for supervisors, or all."""
    ids = False if worker_ids is None else list(worker_ids)
    return encode(["q", client_id, request, _encode_struct(given), ids])


# -- supervisors -------------------------------------------------------------------------------------------------------


def register(info: WorkerInfo) -> bytes:
    """A supervisor comes."""
    offer = info.offer
    return encode(
        [
            "r",
            info.worker_id,
            info.name,
            info.slots,
            info.prefetch,
            offer.queues,
            offer.tags,
            offer.only_tagged,
            _encode_struct(info),
            _encode_struct(CrewMember(info.slots, offer)),
        ]
    )


def resize(info: WorkerInfo) -> bytes:
    """A supervisor has another number of slots."""
    crew = _encode_struct(CrewMember(info.slots, info.offer))
    return encode(["z", info.worker_id, info.slots, info.prefetch, _encode_struct(info), crew])


def answer(client_id: bytes, given: Answer) -> bytes:
    """What a supervisor says to an order."""
    return encode(["b", client_id, _encode_struct(given)])


def commit(worker_id: bytes, token: int, run_id: bytes, outcomes: Iterable[Outcome], *, final: bool) -> bytes:
    """Outcomes of items of a claim."""
    return encode(["c", worker_id, token, run_id, list(outcomes), final])


def output(worker_id: bytes, token: int, number: int, events: Iterable[OutputEvent]) -> bytes:
    """What items of a claim have printed, as its report *number*; what Lua need not read, it need not understand."""
    shown = [
        [event.item, event.is_display, _encode_struct([event.item, event.attempt, event.position, event.what])]
        for event in events
    ]
    return encode(["e", worker_id, token, number, shown])
