"""A whole broker without its transport: runs, supervisors and clients, and every decision about them.

The memory broker and the hub feed it with calls and carry out the effects that it returns; it touches no socket, file,
thread or clock, so the same decisions can be tested a thousand times a second. A picture is in
docs/explanation/architecture.md.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import assert_never

import msgspec

from nbqueue.core.audience import Audience
from nbqueue.core.exchange import (
    ALL_ITEMS,
    Delivery,
    Discard,
    Effect,
    ForgetFunctions,
    HeldClaims,
    Note,
    Receipt,
    ToClient,
    ToWorker,
    WorkerInfo,
)
from nbqueue.core.followers import Client, notes_for
from nbqueue.core.functions import Functions
from nbqueue.core.inspection import Inspection
from nbqueue.core.ledger import Ledger
from nbqueue.core.machine import Event
from nbqueue.core.offspring import Offspring
from nbqueue.core.orders import Answer, Asked, Order, OrderFor
from nbqueue.core.output import OutputEvent
from nbqueue.core.progress import Counts
from nbqueue.core.ready import ReadyRuns
from nbqueue.core.routing import Route
from nbqueue.core.run import Claim, Ending, Run, Wake
from nbqueue.core.states import State, Trigger
from nbqueue.core.task import (
    GENTLY,
    Block,
    Failed,
    Killed,
    Manner,
    Outcome,
    Released,
    RunSpec,
    Stopped,
    Succeeded,
    item_count,
    makes_sense,
)
from nbqueue.core.views import chunk_views, queue_views, run_view, worker_view
from nbqueue.core.workforce import Worker, Workforce

_REVOKED_EARLY = "revoked before it started"
#: Runs that are shown to who looks at the broker, the newest ones.
RUNS_SHOWN = 10_000


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a broker takes on before it says that it is full."""

    max_items: int = 20_000_000  #: unfinished items
    max_bytes: int = 2 * 2**30  #: payloads of unfinished items, and results together
    lease_s: float = 15.0  #: a supervisor that is silent for longer is taken for dead
    client_silence_s: float = 10.0  #: a client that is silent for longer does not keep the broker alive
    client_lease_s: float = 60.0  #: a client that is silent for longer is forgotten (its runs go on)


class Dispatcher:
    """All state of a broker, changed only by its methods.

    Every method takes *now*, seconds on the broker's monotonic clock, and may produce effects, which `take_effects`
    hands out. All methods may be repeated safely. Not thread-safe.
    """

    def __init__(self, *, rng: random.Random, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._rng = rng
        self._runs: dict[bytes, Run] = {}
        self._owners: dict[bytes, bytes] = {}
        self._functions = Functions()
        self._workforce = Workforce()
        self._clients: dict[bytes, Client] = {}
        self._ready = ReadyRuns()
        self._wakes: list[tuple[float, int, bytes, int, int, Trigger]] = []
        self._wake_order = 0
        self._dirty: OrderedDict[bytes, Run] = OrderedDict()
        self._audience = Audience()
        self._effects: list[Effect] = []
        self._ledger = Ledger()
        self._offspring = Offspring()
        self._next_token = 1
        self._looked_at: float | None = None

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """Slots of all connected supervisors."""
        return self._workforce.slots

    @property
    def client_count(self) -> int:
        """Clients heard of within their lease."""
        return len(self._clients)

    def hears_clients(self, now: float) -> bool:
        """Whether any client was heard of lately; one that was killed falls silent at once."""
        return any(now - client.seen_at <= self.limits.client_silence_s for client in self._clients.values())

    @property
    def has_open_runs(self) -> bool:
        """Whether there is work, or a client that may still send some for a run that it has not closed."""
        return any(
            run.unfinished or (not run.closed and self._owners.get(run_id) in self._clients)
            for run_id, run in self._runs.items()
        )

    def knows_run(self, run_id: bytes) -> bool:
        """Whether the run was submitted and not forgotten."""
        return run_id in self._runs

    def knows_function(self, digest: bytes) -> bool:
        """Whether a run that is not forgotten uses the function."""
        return digest in self._functions

    def knows_worker(self, worker_id: bytes) -> bool:
        """Whether the supervisor is registered and not taken for dead."""
        return worker_id in self._workforce

    def run(self, run_id: bytes) -> Run:
        """The record of a known run."""
        return self._runs[run_id]

    def inspect(self, now: float) -> Inspection:
        """Everything that runs, in words and figures."""
        newest = islice(reversed(self._runs.values()), RUNS_SHOWN)
        return Inspection(
            workers=[worker_view(worker, self._runs, now) for worker in self._workforce],
            runs=[run_view(run, self._why_unserved(run), now) for run in newest][::-1],
            clients=len(self._clients),
            refused_events=sum(run.refused_events for run in self._runs.values()),
            payload_bytes=self._ledger.stored_bytes,
            chunks=chunk_views(self._workforce, self._runs, now),
            queues=queue_views(self._runs.values(), self._workforce),
            run_count=len(self._runs),
        )

    def _why_unserved(self, run: Run) -> str:
        return self._workforce.why_unserved(run.route) if run.unfinished else ""

    # -- what clients ask ----------------------------------------------------------------------------------------------

    def submit(
        self,
        client_id: bytes,
        spec: RunSpec,
        *,
        function: bytes | None,
        blocks: Sequence[Block],
        closed: bool,
        now: float,
    ) -> Receipt:
        """Accept a run, and follow it on behalf of the client; a run that is known already is only fed."""
        if spec.run_id in self._runs:
            return self.feed(client_id, spec.run_id, blocks=blocks, closed=closed, now=now)
        if self._is_full(blocks):
            return Receipt(run_id=spec.run_id, total=0, is_full=True)
        if not self._functions.use(spec.function, function):
            return Receipt(run_id=spec.run_id, total=0, known=False)
        run = self._runs[spec.run_id] = Run(spec, now=now)
        run.is_revoked = self._offspring.add(spec, self._runs.get(spec.parent))
        self._owners[spec.run_id] = client_id
        self._client(client_id, now).cursors[spec.run_id] = 0
        self._audience.follow(client_id, spec.run_id, 0)
        self._feed(run, blocks, closed=closed, now=now)
        return Receipt(run_id=spec.run_id, total=run.total, slots=self._workforce.slots_for(run.route))

    def feed(self, client_id: bytes, run_id: bytes, *, blocks: Sequence[Block], closed: bool, now: float) -> Receipt:
        """Append items to a run; items it has are passed over."""
        self._client(client_id, now)
        run = self._runs.get(run_id)
        if run is None:
            return Receipt(run_id=run_id, total=0, known=False)
        is_new = any(block.start >= run.total for block in blocks)
        if is_new and not run.closed and self._is_full(blocks):
            return Receipt(run_id=run_id, total=run.total, is_full=True)
        if not run.closed:
            self._feed(run, blocks, closed=closed, now=now)
        return Receipt(run_id=run_id, total=run.total, slots=self._workforce.slots_for(run.route))

    def _feed(self, run: Run, blocks: Sequence[Block], *, closed: bool, now: float) -> None:
        before = run.total
        self._add_wakes(run, run.feed(blocks, closed=closed, now=now))
        if run.is_revoked and run.total > before:
            self._apply(run, Event(Trigger.REVOKE, now), before, run.total, Ending(reason=_REVOKED_EARLY))
        expires_s = run.spec.options.expires_s
        if expires_s is not None and run.total > before:
            self._add_wake(now + expires_s, run, before, run.total, Trigger.EXPIRE)
        # What was fed the client knows; but not that nobody could run it.
        self._changed(run, now, tell=run.is_finished or run.is_revoked or self._why_unserved(run) != "")

    def _is_full(self, blocks: Sequence[Block]) -> bool:
        items = sum(block.stop - block.start for block in blocks)
        if self._ledger.open_items + items > self.limits.max_items:
            return True
        wanted = sum(len(block.payload) for block in blocks)
        return self._ledger.stored_bytes + wanted > self.limits.max_bytes and not self._evict(wanted)

    def _evict(self, wanted: int) -> bool:
        """Make room by forgetting finished runs that all their followers have read, oldest first."""
        for run_id, run in list(self._runs.items()):
            if self._ledger.stored_bytes + wanted <= self.limits.max_bytes:
                break
            followers = [client for client in self._clients.values() if run_id in client.cursors]
            if run.is_finished and all(client.cursors[run_id] == len(run.log) for client in followers):
                self._forget(run_id)
        return self._ledger.stored_bytes + wanted <= self.limits.max_bytes

    def attach(self, client_id: bytes, run_id: bytes, *, cursor: int, output_cursor: int = 0, now: float) -> None:
        """Follow a run from an entry of its log and an event of its output on; effects bring what is there already."""
        client = self._client(client_id, now)
        run = self._runs.get(run_id)
        if run is None:
            note = Note(run_id=run_id, cursor=cursor, entries=[], counts=Counts(total=0), known=False)
            self._effects.append(ToClient(client_id, note))
            return
        client.cursors[run_id] = min(max(cursor, 0), len(run.log))
        self._audience.follow(client_id, run_id, output_cursor)
        self._dirty[run_id] = run

    def ack(self, client_id: bytes, *, entries: int, size_bytes: int, output_bytes: int = 0, now: float) -> None:
        """The client has received this many entries, payload bytes and output in all since it said hello."""
        self._audience.ack(client_id, output_bytes)
        client = self._client(client_id, now)
        had_room = client.has_room
        client.acked_entries = min(max(client.acked_entries, entries), client.sent_entries)
        client.acked_bytes = min(max(client.acked_bytes, size_bytes), client.sent_bytes)
        if client.has_room and not had_room:
            for run_id in client.cursors:
                self._dirty[run_id] = self._runs[run_id]

    def hello(self, client_id: bytes, now: float) -> None:
        """A client begins, or begins anew after a break: nothing is under way to it."""
        self._audience.hello(client_id)
        client = self._client(client_id, now)
        client.sent_entries = client.acked_entries = 0
        client.sent_bytes = client.acked_bytes = 0

    def ping(self, client_id: bytes, now: float) -> bool:
        """A client lives. False: it had been forgotten and must attach to its runs again."""
        is_known = client_id in self._clients
        self._client(client_id, now)
        return is_known

    def goodbye(self, client_id: bytes) -> None:
        """A client leaves; its runs go on."""
        self._clients.pop(client_id, None)
        self._audience.goodbye(client_id)

    def revoke(self, run_id: bytes, *, start: int, stop: int, now: float, manner: Manner = GENTLY) -> None:
        """Stop the items *start* to *stop*: those that wait never start, those that run are stopped by their holder."""
        run = self._runs.get(run_id)
        if run is not None:
            run.is_revoked = run.is_revoked or (start == 0 and stop >= ALL_ITEMS)
            self._apply(run, Event(Trigger.REVOKE, now), start, stop, Ending(reason=_REVOKED_EARLY), manner)
            self._changed(run, now)
            for child in self._offspring.of(run_id, start, stop):
                self.revoke(child, start=0, stop=ALL_ITEMS, now=now, manner=manner)

    def purge(self, queue: str, now: float) -> int:
        """Revoke whatever waits in a queue; what runs goes on. How many items that were."""
        count = 0
        for run in self._runs.values():
            if run.spec.options.queue != queue:
                continue
            for start, stop in run.waiting_ranges():
                count += stop - start
                self._apply(run, Event(Trigger.REVOKE, now), start, stop, Ending(reason=f"purged from queue {queue!r}"))
            self._changed(run, now, assign=False)
        return count

    def order(self, client_id: bytes, request: int, order: Order, worker_ids: Sequence[bytes] | None) -> Asked:
        """Ask supervisors, or all; they answer the client for themselves. Who was asked."""
        asked = [worker.info for worker in self._workforce if worker_ids is None or worker.info.worker_id in worker_ids]
        message = OrderFor(client_id, request, order)
        self._effects.extend(ToWorker(info.worker_id, message) for info in asked)
        return Asked(request, [(info.worker_id, info.name) for info in asked])

    def forget(self, run_id: bytes) -> None:
        """Nobody wants the results of this run any more; if it still goes on, they are kept until it expires."""
        for client in self._clients.values():
            client.cursors.pop(run_id, None)
        self._audience.stop_following(run_id)
        run = self._runs.get(run_id)
        if run is not None and run.is_finished:
            self._forget(run_id)

    def _forget(self, run_id: bytes) -> None:
        run = self._runs.pop(run_id)
        self._ledger.close(run_id)
        self._audience.forget(run_id)
        self._effects.append(Discard(run_id.hex()))
        self._ready.discard(run, self._owners.pop(run_id, b""))
        self._dirty.pop(run_id, None)
        self._offspring.forget(run.spec)
        for client in self._clients.values():
            client.cursors.pop(run_id, None)
        if self._functions.release(run.spec.function):
            self._forget_function(run.spec.function)

    def _forget_function(self, digest: bytes) -> None:
        self._effects.append(Discard(digest.hex(), digest))
        for worker in self._workforce:
            if digest in worker.functions:
                worker.functions.discard(digest)
                self._effects.append(ToWorker(worker.info.worker_id, ForgetFunctions([digest])))

    def _client(self, client_id: bytes, now: float) -> Client:
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = Client(now)
        client.seen_at = now
        return client

    # -- what supervisors report ---------------------------------------------------------------------------------------

    def register(self, info: WorkerInfo, now: float) -> None:
        """A supervisor begins; it may be given work from now on."""
        if info.worker_id not in self._workforce:
            self._workforce.join(info, now)
            self._slots_changed()
        self._assign(now)

    def heartbeat(self, worker_id: bytes, running: Iterable[tuple[int, int]], now: float) -> HeldClaims:
        """A supervisor lives, and runs these (token, item) right now."""
        worker = self._workforce.get(worker_id)
        if worker is None:
            return HeldClaims(tokens=[], known=False)
        worker.seen_at = now
        for token, item in running:
            self._start(worker, token, item, now)
        return HeldClaims(tokens=list(worker.claims))

    def started(self, worker_id: bytes, token: int, item: int, now: float) -> None:
        """A slot of the supervisor has begun to run the item."""
        worker = self._workforce.get(worker_id)
        if worker is not None:
            worker.seen_at = now
            self._start(worker, token, item, now)

    def _start(self, worker: Worker, token: int, item: int, now: float) -> None:
        claim = worker.claims.get(token)
        if claim is None or claim.run_id not in self._runs or not claim.start <= item < claim.stop:
            return
        run = self._runs[claim.run_id]
        if run.items[item].state is State.RECEIVED:
            run.apply(Event(Trigger.START, now, token), item, item + 1)
            self._dirty[claim.run_id] = run

    def commit(
        self, worker_id: bytes, token: int, run_id: bytes, outcomes: Sequence[Outcome], *, final: bool, now: float
    ) -> None:
        """Outcomes of items of a claim; *final*: the claim is over, what it did not report goes back to the queue.

        Guarantees: Safe to repeat. A success is taken from any claim that this broker ever gave, a failure only from
        the one that holds the item now.
        """
        worker = self._workforce.get(worker_id)
        if worker is not None:
            worker.seen_at = now
        if not 0 < token < self._next_token:
            return
        claim = worker.claims.get(token) if worker is not None else None
        run = self._runs.get(claim.run_id if claim is not None else run_id)
        if run is not None:
            name = worker.info.name if worker is not None else ""
            for outcome in outcomes:
                self._take_outcome(run, token if claim is not None else 0, outcome, name, now)
                if worker is not None:
                    worker.done += item_count(outcome)
        if final and claim is not None and worker is not None:
            del worker.claims[token]
            if run is not None and run.is_held:
                self._apply(run, Event(Trigger.RELEASE, now, token), claim.start, claim.stop)
        if run is not None:
            self._changed(run, now)
        elif final:
            self._assign(now)

    def output(self, worker_id: bytes, token: int, events: Iterable[OutputEvent], now: float) -> None:
        """What items of a claim have printed; what is not the claim's is dropped."""
        worker = self._workforce.get(worker_id)
        if worker is None:
            return
        worker.seen_at = now
        claim = worker.claims.get(token)
        if claim is not None and claim.run_id in self._runs:
            mine = [event for event in events if claim.start <= event.item < claim.stop]
            self._audience.take(claim.run_id, mine, worker.info.name)
            self._account_for(self._runs[claim.run_id])

    def _take_outcome(self, run: Run, token: int, outcome: Outcome, worker: str, now: float) -> None:
        if not makes_sense(outcome):
            run.refused_events += 1
            return
        match outcome:
            case Succeeded(start, stop, payload, wall_s, cpu_s, peak_bytes):
                ending = Ending(payload, start, "", worker, wall_s, cpu_s, stop - start, peak_bytes)
                self._functions.sizer(run.spec.function).learn(stop - start, wall_s)
                self._apply(run, Event(Trigger.SUCCEED, now, token), start, stop, ending)
            case Failed(item, record, retryable, wall_s, cpu_s, retry_after_s, max_retries, peak_bytes):
                ending = Ending(record, item, "", worker, wall_s, cpu_s, peak_bytes=peak_bytes)
                self._functions.sizer(run.spec.function).learn(1, wall_s)
                event = Event(Trigger.FAIL, now, token, retryable, self._rng.random(), retry_after_s, max_retries)
                self._apply(run, event, item, item + 1, ending)
            case Killed(item, reason, peak_bytes):
                ending = Ending(reason=reason, worker=worker, peak_bytes=peak_bytes)
                self._apply(run, Event(Trigger.KILL, now, token), item, item + 1, ending)
            case Stopped(start, stop, how, peak_bytes):
                ending = Ending(reason=how, worker=worker, count=stop - start, peak_bytes=peak_bytes)
                self._apply(run, Event(Trigger.STOPPED, now, token), start, stop, ending)
            case Released(start, stop):
                self._apply(run, Event(Trigger.RELEASE, now, token), start, stop)
            case _:
                assert_never(outcome)

    def resize(self, worker_id: bytes, *, slots: int, prefetch: int, now: float) -> None:
        """A supervisor has another number of slots; what it holds beyond them it will end, or hand back."""
        self._workforce.resize(worker_id, slots=max(slots, 0), prefetch=max(prefetch, 0))
        self._slots_changed()
        self._assign(now)

    def answer(self, client_id: bytes, answer: Answer) -> None:
        """A supervisor has carried out an order."""
        self._effects.append(ToClient(client_id, answer))

    def remark(self, run_id: bytes, text: str) -> None:
        """A supervisor has something to say to whoever follows the run."""
        run = self._runs.get(run_id)
        if run is not None and run.remark(text):
            self._dirty[run_id] = run

    def leave(self, worker_id: bytes, now: float) -> None:
        """A supervisor stops in good order; what it still holds goes back unblamed."""
        self._drop_worker(worker_id, reason="", blame=False, now=now)

    def lose(self, worker_id: bytes, reason: str, now: float) -> None:
        """A supervisor is dead: what it ran is blamed, what it only held is not."""
        self._drop_worker(worker_id, reason=reason, blame=True, now=now)

    def _drop_worker(self, worker_id: bytes, *, reason: str, blame: bool, now: float) -> None:
        worker = self._workforce.part(worker_id)
        if worker is None:
            return
        ending = Ending(reason=reason, worker=worker.info.name)
        for claim in reversed(worker.claims.values()):
            run = self._runs.get(claim.run_id)
            if run is None:
                continue
            for start, stop, item in reversed(run.items.segments(claim.start, claim.stop)):
                is_blamed = blame and item.state is State.STARTED
                trigger = Trigger.BLAME if is_blamed else Trigger.REAP
                self._apply(run, Event(trigger, now, claim.token), start, stop, ending)
            self._changed(run, now, assign=False)
        self._slots_changed()
        self._assign(now)

    def _slots_changed(self) -> None:
        """Whoever waits for a run wants to know that workers came or went."""
        self._dirty.update((run_id, run) for run_id, run in self._runs.items() if not run.is_finished)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Whatever time alone brings: what is due, who is silent, what has expired. Call it about once a second."""
        self._extend_leases_after_a_gap(now)
        while self._wakes and self._wakes[0][0] <= now:
            _, _, run_id, start, stop, trigger = heapq.heappop(self._wakes)
            run = self._runs.get(run_id)
            if run is not None:
                self._apply(run, Event(trigger, now), start, stop, Ending(reason="not started in time"))
                self._changed(run, now)
        for worker in list(self._workforce):
            if now - worker.seen_at > self.limits.lease_s:
                self.lose(
                    worker.info.worker_id, f"worker {worker.info.name} was silent for {now - worker.seen_at:.0f} s", now
                )
        for client_id, client in list(self._clients.items()):
            if now - client.seen_at > self.limits.client_lease_s:
                self.goodbye(client_id)
        for run_id, run in list(self._runs.items()):
            if run.finished_at is not None and now - run.finished_at > run.spec.options.result_expires_s:
                self._forget(run_id)

    def next_wake(self) -> float | None:
        """When `tick` has something to do at the latest because an item is due; None: nothing is."""
        return self._wakes[0][0] if self._wakes else None

    def _extend_leases_after_a_gap(self, now: float) -> None:
        """Grace: when the broker itself did not look for long, silence proves nothing about the others."""
        looked_at, self._looked_at = self._looked_at, now
        if looked_at is None or now - looked_at <= self.limits.lease_s / 2:
            return
        for worker in self._workforce:
            worker.seen_at = now
        for client in self._clients.values():
            client.seen_at = now

    def _add_wakes(self, run: Run, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            self._add_wake(wake.due, run, wake.start, wake.stop, Trigger.DUE)

    def _add_wake(self, due: float, run: Run, start: int, stop: int, trigger: Trigger) -> None:
        self._wake_order += 1
        heapq.heappush(self._wakes, (due, self._wake_order, run.spec.run_id, start, stop, trigger))

    # -- consequences --------------------------------------------------------------------------------------------------

    def _apply(
        self, run: Run, event: Event, start: int, stop: int, ending: Ending | None = None, manner: Manner = GENTLY
    ) -> None:
        stops, wakes = run.apply(event, start, stop, ending=ending or Ending())
        self._add_wakes(run, wakes)
        for order in stops:
            holder = self._workforce.holder_of(order.token)
            if holder is not None:
                order_so = msgspec.structs.replace(order, manner=manner)
                self._effects.append(ToWorker(holder.info.worker_id, order_so))

    def _changed(self, run: Run, now: float, *, assign: bool = True, tell: bool = True) -> None:
        """Bring everything that depends on the run up to date."""
        if tell:
            self._dirty[run.spec.run_id] = run
        self._account_for(run)
        if run.is_finished and run.finished_at is None:
            run.finished_at = now
        if run.waiting:
            self._ready.add(run, self._owners.get(run.spec.run_id, b""))
        if assign:
            self._assign(now)

    def _account_for(self, run: Run) -> None:
        output_bytes = self._audience.size_bytes(run.spec.run_id)
        self._ledger.note(run.spec.run_id, run.unfinished, run.payload_bytes + run.result_bytes + output_bytes)

    def _assign(self, now: float) -> None:
        """Give waiting items to slots in the order of `ReadyRuns`; a route without room does not stop the others."""
        passed_over: set[Route] = set()
        while len(self._workforce) and (ready := self._ready.head(passed_over)) is not None:
            run = ready.run
            worker = self._workforce.pick(run.route)
            size = self._claim_size(run)
            if worker is None or not self._has_room(worker, run, size):
                passed_over.add(run.route)
            elif self._claim(run, worker, size, now):
                self._ready.end_turn(ready.owner)
                if not run.waiting:
                    self._ready.drop(ready)
            else:
                self._ready.drop(ready)

    def _claim_size(self, run: Run) -> int:
        slots = self._workforce.slots_for(run.route)
        sizer = self._functions.sizer(run.spec.function)
        return max(1, run.spec.options.chunksize or sizer.size(waiting=max(run.waiting, 1), slots=max(slots, 1)))

    def _has_room(self, worker: Worker, run: Run, size: int) -> bool:
        """Whether the worker may take a chunk: it has a free slot, or the chunk is short and may be fetched ahead."""
        if worker.free_slots > 0:
            return True
        return self._functions.sizer(run.spec.function).is_short(size) and self._may_fetch_ahead(worker)

    def _claim(self, run: Run, worker: Worker, size: int, now: float) -> bool:
        """Give the worker a chunk of the run; False when nothing of it waits."""
        entries = len(run.log)
        claim = run.claim(size=size, token=self._next_token, worker_id=worker.info.worker_id, now=now)
        self._next_token += 1
        if len(run.log) > entries:  # items that were claimed too often, or have expired, end at their claim
            self._changed(run, now, assign=False)
        if claim is None:
            return False
        worker.claims[claim.token] = claim
        self._effects.append(ToWorker(worker.info.worker_id, self._delivery(run, claim, worker)))
        return True

    def _may_fetch_ahead(self, worker: Worker) -> bool:
        """Whether the worker may hold one more chunk than it has slots: only behind chunks that are short, too."""
        return worker.free_slots > -worker.info.prefetch and all(
            claim.run_id in self._runs
            and self._functions.sizer(self._runs[claim.run_id].spec.function).is_short(claim.stop - claim.start)
            for claim in worker.claims.values()
        )

    def _delivery(self, run: Run, claim: Claim, worker: Worker) -> Delivery:
        digest = run.spec.function
        is_new = digest not in worker.functions
        worker.functions.add(digest)
        return Delivery(
            token=claim.token,
            run_id=claim.run_id,
            label=run.spec.label,
            start=claim.start,
            stop=claim.stop,
            attempt=claim.attempt,
            digest=digest,
            function=self._functions.body(digest) if is_new else None,
            blocks=run.blocks(claim.start, claim.stop),
            environment=run.spec.environment,
            limits=run.spec.options.limits,
            depth=run.spec.depth,
            priority=run.spec.options.priority,
        )

    # -- effects -------------------------------------------------------------------------------------------------------

    def take_effects(self) -> list[Effect]:
        """What must be told to supervisors and clients because of the calls since the last time."""
        self._effects += self._audience.take_effects()
        dirty, self._dirty = self._dirty, OrderedDict()
        for run_id, run in dirty.items():
            for client_id, client in self._clients.items():
                if run_id in client.cursors and client.has_room:
                    slots, unserved = self._workforce.slots_for(run.route), self._why_unserved(run)
                    output_end = self._audience.end(run_id)
                    notes = notes_for(client, run, slots=slots, unserved=unserved, output_end=output_end)
                    self._effects.extend(ToClient(client_id, note) for note in notes)
        effects, self._effects = self._effects, []
        return effects
