"""Random histories of a whole broker, held to a model that knows the lifecycle of one item and nothing else.

The model never decides which item goes where: it follows the deliveries that it sees and refuses those that the
lifecycle forbids. What it must predict is every end, every count and every claim.
"""

import itertools
import os
import sys
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from nbqueue.core.retry import RetryPolicy
from nbqueue.core.routing import DEFAULT_OFFER, Offer, serves
from nbqueue.core.states import HELD, TERMINAL, WAITING, State
from nbqueue.core.task import Failed, Killed, Outcome, Released, Stopped, Succeeded, TaskOptions

LEASE_S = 15.0
#: Long enough to pass a lease in four steps, short enough that the broker never thinks that it slept.
STEP_S = 5.0
MAX_WORKERS = 6
#: Histories per broker; more for a long look: NBQUEUE_EXAMPLES=20 draws twenty times as many.
EXAMPLES = {"memory": 200, "sealed": 30, "zmq": 60, "tcp": 20, "redis": 40, "old-redis": 10}

options = st.builds(
    TaskOptions,
    retry=st.builds(
        RetryPolicy,
        max_retries=st.sampled_from([2, 1, 0]),
        backoff_s=st.sampled_from([0.0, 3.0]),
        jitter=st.just(False),
    ),
    max_lost=st.sampled_from([1, 0]),
    strict_fence=st.booleans(),
    priority=st.integers(0, 1),
    countdown_s=st.sampled_from([0.0, 0.0, 0.0, 4.0]),
    expires_s=st.sampled_from([None, None, None, 7.0]),
    chunksize=st.sampled_from([1, 2, 3, None]),
    queue=st.sampled_from(["default", "default", "other"]),
    tags=st.sampled_from([(), (), ("gpu",), ("big", "gpu")]),
)
offers = st.builds(
    Offer,
    queues=st.sampled_from([("default",), ("default", "other"), ("other",)]),
    tags=st.sampled_from([(), ("gpu",), ("big", "gpu")]),
    only_tagged=st.sampled_from([False, False, True]),
)
wall_times = st.sampled_from([1e-6, 0.01, 1.0])
numbers = st.integers(0, 10**6)  # picks one of what is there, however much that is
cuts = st.tuples(numbers, numbers)  # picks some of a delivery's items
no_results = [Killed, Stopped, Released]


@dataclass
class Item:
    """One item, as design/lifecycle.md tells its life."""

    rules: TaskOptions
    state: State
    due: float
    expires_at: float
    token: int = 0
    attempt: int = 0
    retries: int = 0
    lost: int = 0
    is_revoking: bool = False
    looked_at_expiry: bool = False
    result: tuple[bytes, int] = (b"", 0)

    @property
    def has_run(self) -> bool:
        return bool(self.retries or self.lost)

    def claim(self, token: int, attempt: int, now: float) -> None:
        assert now < self.expires_at or self.has_run, "an item was delivered too late"
        assert self.state is State.PENDING, f"an item that is {self.state.name} was delivered"
        assert self.attempt + 1 == attempt
        self.state, self.token, self.attempt = State.RECEIVED, token, attempt

    def start(self, token: int) -> None:
        if self.state is State.RECEIVED and self.token == token and not self.is_revoking:
            self.state = State.STARTED

    def revoke(self) -> None:
        if self.state in HELD:
            self.is_revoking = True
        elif self.state in WAITING:
            self.state = State.REVOKED

    def tell(self, outcome: Outcome, token: int, now: float, offset: int) -> None:
        """A supervisor reports; *token* is 0 unless it holds the claim that it speaks of."""
        if self.state in TERMINAL:
            return
        is_holder = self.state in HELD and self.token == token
        if isinstance(outcome, Succeeded):
            if is_holder or not self.rules.strict_fence:
                self.state, self.result = State.SUCCESS, (outcome.payload, offset)
        elif is_holder and self.is_revoking:
            self.state = State.REVOKED
        elif is_holder:
            self._tell_of_no_success(outcome, now)

    def _tell_of_no_success(self, outcome: Outcome, now: float) -> None:
        match outcome:
            case Failed(retryable=True) if self.retries < self.rules.retry.max_retries:
                self._wait(now + self.rules.retry.backoff_s * 2**self.retries)
                self.retries += 1
            case Failed(record=record):
                self.state, self.result = State.FAILURE, (record, 0)
            case Killed() if self.lost < self.rules.max_lost:
                self._wait(now + 5.0 * 4**self.lost)
                self.lost += 1
            case Killed():
                self.state = State.LOST
            case Released():
                self.attempt -= self.state is State.RECEIVED  # nobody has run it
                self.state, self.token = State.PENDING, 0
            case Stopped():
                pass  # nobody has asked for it

    def _wait(self, due: float) -> None:
        self.state, self.token, self.due = State.RETRY, 0, due

    def look_at_the_clock(self, now: float) -> None:
        if self.state in (State.SCHEDULED, State.RETRY) and now >= self.due:
            if self.state is State.RETRY and self.due >= self.expires_at:
                self.looked_at_expiry = True  # that moment came first, and found an item that did not wait for a slot
            self.state = State.PENDING

    def lose_holder(self, now: float) -> None:
        """Its supervisor is dead: blamed if it was running."""
        attempt, lost = self.attempt, Killed(0, "") if self.state is State.STARTED else Released(0, 1)
        self.tell(lost, self.token, now, 0)
        self.attempt = attempt  # who can tell what it did


@dataclass
class Run:
    owner: object
    options: TaskOptions
    closed: bool
    items: list[Item] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return self.closed and all(item.state in TERMINAL for item in self.items)

    def add(self, count: int, now: float) -> None:
        state = State.SCHEDULED if self.options.countdown_s else State.PENDING
        due, expires_at = now + self.options.countdown_s, now + (self.options.expires_s or 1e12)
        self.items += [Item(self.options, state, due, expires_at) for _ in range(count)]


@dataclass
class Claim:
    worker: object
    delivery: object
    is_open: bool = True


class BrokerMachine(RuleBasedStateMachine):
    """Clients, supervisors and time, in any order."""

    def __init__(self, open_broker):
        super().__init__()
        self.broker = open_broker(lease_s=LEASE_S)
        self.clients = []
        self.follows: dict[object, set[bytes]] = {}
        self.runs: dict[bytes, Run] = {}
        self.claims: dict[int, Claim] = {}  # of all times
        self.heard_at: dict[object, float] = {}  # of the supervisors that live
        self.workers = []
        self.looked_at = self.now
        self.serial = itertools.count()

    @property
    def now(self) -> float:
        return self.broker.clock.now

    # -- rules: clients ------------------------------------------------------------------------------------------------

    @initialize(slots=st.integers(1, 3), prefetch=st.integers(0, 1), options=options)
    def begin(self, slots, prefetch, options):
        self.clients = [self.broker.client(), self.broker.client()]
        self.follows = {client: set() for client in self.clients}
        self.a_worker_joins(slots, prefetch)
        self.a_run_is_submitted(0, 5, closed=False, options=options, times=1)

    @rule(number=numbers, count=st.integers(0, 5), closed=st.booleans(), options=options, times=st.integers(1, 2))
    def a_run_is_submitted(self, number, count, closed, options, times):
        client = pick(self.clients, number)
        run_id = client.new_run_id()
        self.runs[run_id] = Run(client, options, closed)
        self.runs[run_id].add(count, self.now)
        self.follows[client].add(run_id)
        for _ in range(times):
            chosen = {name: getattr(options, name) for name in TaskOptions.__struct_fields__}
            assert count == client.offer(run_id, count, closed=closed, **chosen).total
            self.observe()

    @precondition(lambda self: self.runs)
    @rule(number=numbers, overlap=st.integers(0, 2), count=st.integers(0, 3), closed=st.booleans())
    def items_are_fed(self, number, overlap, count, closed):
        run_id, run = pick(list(self.runs.items()), number)
        total = len(run.items)
        start = max(0, total - overlap)
        is_taken = not run.closed and start == total
        if is_taken:
            run.add(count, self.now)
        run.closed = run.closed or closed
        assert total + count * is_taken == run.owner.feed(run_id, start, start + count, closed=closed).total
        self.observe()

    @precondition(lambda self: self.runs)
    @rule(by=numbers, number=numbers, start=st.integers(0, 4), length=st.integers(1, 3), times=st.integers(1, 2))
    def items_are_revoked(self, by, number, start, length, times):
        run_id, run = pick(list(self.runs.items()), number)
        affected = run.items[start : start + length]
        for _ in range(times):
            for item in affected:
                item.revoke()
            pick(self.clients, by).revoke(run_id, start, start + length)
            self.observe()
        for index, item in enumerate(affected, start):
            if item.state in HELD:
                self.expect_told_to_stop(item.token, index)

    @precondition(lambda self: self.runs)
    @rule(by=numbers, number=numbers, cursor=st.integers(0, 9))
    def a_client_attaches(self, by, number, cursor):
        client, run_id = pick(self.clients, by), pick(list(self.runs), number)
        if run_id not in self.follows[client]:
            cursor = 0
        self.follows[client].add(run_id)
        client.attach(run_id, cursor=min(cursor, len(client.log(run_id))))
        self.observe()

    @rule(number=numbers)
    def a_client_loses_its_connection(self, number):
        client = pick(self.clients, number)
        again = self.broker.reopen(client)
        self.clients[self.clients.index(client)] = again
        self.follows[again] = self.follows.pop(client)
        for run in self.runs.values():
            run.owner = again if run.owner is client else run.owner
        for run_id in self.follows[again]:
            again.attach(run_id)
        self.observe()

    @precondition(lambda self: any(run.is_finished for run in self.runs.values()))
    @rule(by=numbers, number=numbers)
    def a_finished_run_is_forgotten(self, by, number):
        run_id = pick([run_id for run_id, run in self.runs.items() if run.is_finished], number)
        pick(self.clients, by).forget(run_id)
        del self.runs[run_id]
        for followed in self.follows.values():
            followed.discard(run_id)
        self.observe()

    # -- rules: supervisors --------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < MAX_WORKERS)
    @rule(slots=st.integers(1, 3), prefetch=st.integers(0, 1), offer=offers)
    def a_worker_joins(self, slots, prefetch, offer=DEFAULT_OFFER):
        worker = self.broker.worker(slots, prefetch, **msgspec.structs.asdict(offer))
        self.workers.append(worker)
        self.heard_at[worker] = self.now
        self.observe()

    @precondition(lambda self: self.claims)
    @rule(number=numbers, offset=numbers, by_heartbeat=st.booleans())
    def an_item_is_started(self, number, offset, by_heartbeat):
        claim = self.pick_claim(number, of_all_times=offset % 4 == 0)
        item = claim.delivery.start + offset % (claim.delivery.stop - claim.delivery.start)
        run = self.runs.get(claim.delivery.run_id)
        if run is not None and self.holds(claim):
            run.items[item].start(claim.delivery.token)
        self.hear(claim.worker)
        if by_heartbeat:
            self.expect_held(claim.worker, claim.worker.heartbeat((claim.delivery.token, item)))
        else:
            claim.worker.started(claim.delivery, item)
        self.observe()

    @precondition(lambda self: self.claims)
    @rule(number=numbers, cuts=cuts, final=st.booleans(), wall_s=wall_times)
    def items_succeed(self, number, cuts, final, wall_s):
        claim = self.pick_claim(number, of_all_times=cuts[0] % 3 == 0)
        start, stop = part(claim.delivery, cuts)
        payload = b"value %d" % next(self.serial)
        self.commit(claim, [Succeeded(start, stop, payload, wall_s * (stop - start))], final=final)

    @precondition(lambda self: self.claims)
    @rule(number=numbers, cuts=cuts, retryable=st.booleans(), final=st.booleans(), times=st.integers(1, 2))
    def items_fail(self, number, cuts, retryable, final, times):
        claim = self.pick_claim(number, of_all_times=cuts[0] % 3 == 0)
        record = b"record %d" % next(self.serial)
        outcomes = [Failed(item, record, retryable, 0.1) for item in range(*part(claim.delivery, cuts))]
        for _ in range(times):
            self.commit(claim, outcomes, final=final)

    @precondition(lambda self: self.claims)
    @rule(number=numbers, cuts=cuts, final=st.booleans(), times=st.integers(1, 2), kind=st.sampled_from(no_results))
    def items_end_without_result(self, number, cuts, final, times, kind):
        claim = self.pick_claim(number, of_all_times=cuts[0] % 3 == 0)
        start, stop = part(claim.delivery, cuts)
        outcome = Killed(start, "SIGKILL") if kind is Killed else kind(start, stop)
        for _ in range(times):
            self.commit(claim, [outcome], final=final)

    # -- rules: time ---------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 3.0, STEP_S]))
    def time_passes(self, seconds):
        self.let_pass(seconds, silent=None)

    @precondition(lambda self: self.heard_at)
    @rule(number=numbers)
    def a_worker_falls_silent(self, number):
        worker = pick(list(self.heard_at), number)
        while worker in self.heard_at:
            self.let_pass(STEP_S, silent=worker)

    @rule(seconds=st.sampled_from([20.0, 4000.0]))
    def the_machine_sleeps(self, seconds):
        self.broker.clock.advance(seconds)
        self.broker.tick()
        self.heard_at = dict.fromkeys(self.heard_at, self.now)
        self.observe()

    # -- acting --------------------------------------------------------------------------------------------------------

    def commit(self, claim, outcomes, *, final):
        run, delivery = self.runs.get(claim.delivery.run_id), claim.delivery
        token = delivery.token if self.holds(claim) else 0
        superseded = []
        for outcome in outcomes if run is not None else []:
            start, stop = span(outcome)
            for index in range(start, stop):
                item, holder = run.items[index], run.items[index].token
                was_held = item.state in HELD
                item.tell(outcome, token, self.now, index - start)
                if was_held and item.state is State.SUCCESS and holder != token:
                    superseded.append((holder, index))
        if final and self.holds(claim):
            claim.is_open = False
            for item in run.items[delivery.start : delivery.stop] if run is not None else []:
                item.tell(Released(0, 1), token, self.now, 0)
        self.hear(claim.worker)
        claim.worker.commit(delivery, *outcomes, final=final)
        for holder, index in superseded:
            self.expect_told_to_stop(holder, index)
        self.observe()

    def let_pass(self, seconds, *, silent):
        self.broker.clock.advance(seconds)
        for worker in list(self.heard_at):
            if worker is not silent:
                self.hear(worker)
                worker.heartbeat()
        self.broker.tick()
        self.observe()

    def hear(self, worker):
        if worker in self.heard_at:
            self.heard_at[worker] = self.now

    def holds(self, claim):
        return claim.is_open and claim.worker in self.heard_at

    def pick_claim(self, number, *, of_all_times):
        claims = [claim for claim in self.claims.values() if of_all_times or self.holds(claim)]
        return pick(claims or list(self.claims.values()), number)

    # -- the model follows ---------------------------------------------------------------------------------------------

    def observe(self):
        """Let time do its work in the broker and in the model, then compare them."""
        self.broker.tick()
        if self.now - self.looked_at > LEASE_S / 2:
            self.heard_at = dict.fromkeys(self.heard_at, self.now)
        self.looked_at = self.now
        for item in self.items():
            item.look_at_the_clock(self.now)
        dying = [worker for worker, heard_at in self.heard_at.items() if self.now - heard_at > LEASE_S]
        self.follow_deliveries(dying)
        self.follow_expiry()
        for worker in dying:
            self.lose(worker, list(self.claims.values()))
            del self.heard_at[worker]
        self.follow_refused_claims()
        self.compare_ends()
        self.compare_figures()

    def follow_deliveries(self, dying):
        arrived = [Claim(worker, delivery) for worker in self.workers for delivery in worker.claims()]
        for claim in sorted(arrived, key=lambda claim: claim.delivery.token):
            delivery = claim.delivery
            assert claim.worker in self.heard_at, "a dead supervisor was given work"
            assert delivery.token not in self.claims
            route = self.runs[delivery.run_id].options.route
            assert serves(claim.worker.info.offer, route), "a supervisor was given what it does not serve"
            for item in self.runs[delivery.run_id].items[delivery.start : delivery.stop]:
                former = self.claims.get(item.token)
                if former is not None and former.worker in dying:  # it died before this delivery was made
                    self.lose(former.worker, [former])
                item.claim(delivery.token, delivery.attempt, self.now)
            self.claims[delivery.token] = claim

    def follow_expiry(self):
        """Items expire when their time passes while they wait, or else when they would be claimed."""
        for item in self.items():
            if self.now >= item.expires_at and not item.looked_at_expiry:
                item.looked_at_expiry = True
                if item.state in (State.SCHEDULED, State.PENDING) and not item.has_run:
                    item.state = State.EXPIRED

    def follow_refused_claims(self):
        for run_id, run in self.runs.items():
            if any(item.state is State.PENDING and self.now >= item.expires_at for item in run.items):
                for index, state in run.owner.ends(run_id).items():
                    item = run.items[index]
                    if state is State.EXPIRED and item.state is State.PENDING and self.now >= item.expires_at:
                        assert not item.has_run
                        item.state = state

    def lose(self, worker, claims):
        for claim in claims:
            if claim.worker is worker and claim.is_open:
                claim.is_open = False
                run = self.runs.get(claim.delivery.run_id)
                for item in run.items[claim.delivery.start : claim.delivery.stop] if run is not None else []:
                    if item.state in HELD and item.token == claim.delivery.token:
                        item.lose_holder(self.now)

    def items(self):
        return [item for run in self.runs.values() for item in run.items]

    # -- comparing -----------------------------------------------------------------------------------------------------

    def compare_ends(self):
        """Each client has heard of every end of its runs, once, and of nothing else."""
        for client, followed in self.follows.items():
            for run_id in followed:
                items = self.runs[run_id].items
                expected = {index: item.state for index, item in enumerate(items) if item.state in TERMINAL}
                assert expected == client.ends(run_id)
                for entry in client.log(run_id):
                    for index in range(entry.start, entry.stop):
                        place = (entry.payload, entry.offset + index - entry.start) if entry.payload else (b"", 0)
                        assert items[index].result == place

    def compare_figures(self):
        """Counts, claims and credits are what they should be, and no slot idles while something waits."""
        inspection = self.clients[0].inspect()
        assert self.runs.keys() == {view.run_id for view in inspection.runs}
        for view in inspection.runs:
            run = self.runs[view.run_id]
            states = [item.state for item in run.items]
            counts = view.counts
            assert (len(states), run.closed, run.is_finished) == (counts.total, counts.closed, view.finished)
            assert states.count(State.SUCCESS) == counts.done
            assert sum(state in (State.FAILURE, State.LOST, State.EXPIRED) for state in states) == counts.failed
            assert states.count(State.REVOKED) == counts.revoked
            assert sum(state in HELD for state in states) == counts.running
        waiting = {
            run.options.route for run in self.runs.values() if any(item.state is State.PENDING for item in run.items)
        }
        assert {worker.info.worker_id for worker in self.heard_at} == {view.worker_id for view in inspection.workers}
        for worker in self.heard_at:
            [view] = [view for view in inspection.workers if view.worker_id == worker.info.worker_id]
            held = sum(claim.worker is worker and claim.is_open for claim in self.claims.values())
            assert held == view.claims <= worker.info.slots + worker.info.prefetch
            is_idle = held < worker.info.slots
            assert not (is_idle and any(serves(worker.info.offer, route) for route in waiting))

    def expect_held(self, worker, held):
        if worker in self.heard_at:
            mine = {token for token, claim in self.claims.items() if claim.worker is worker and claim.is_open}
            assert (True, mine) == (held.known, set(held.tokens))
        else:
            assert (False, []) == (held.known, held.tokens)

    def expect_told_to_stop(self, token, index):
        stops = self.claims[token].worker.told_to_stop()
        assert any(stop.token == token and stop.start <= index < stop.stop for stop in stops)

    def teardown(self):
        """Whatever happened, a fresh supervisor brings everything to its end."""
        try:
            if self.clients and sys.exception() is None:
                self.drain()
        finally:
            self.broker.close()

    def drain(self):
        for run_id, run in self.runs.items():
            run.closed = True
            run.owner.feed(run_id, 0, 0, closed=True)
        worker = self.broker.worker(slots=4, queues=("default", "other"), tags=("big", "gpu"))
        self.workers.append(worker)
        self.heard_at = {worker: self.now, **self.heard_at}
        self.observe()
        for _ in range(200):
            if all(run.is_finished for run in self.runs.values()):
                break
            for claim in [claim for claim in self.claims.values() if claim.worker is worker and claim.is_open]:
                value = Succeeded(claim.delivery.start, claim.delivery.stop, b"drained %d" % next(self.serial), 1.0)
                self.commit(claim, [value], final=True)
            self.broker.clock.advance(STEP_S)
            self.hear(worker)
            worker.heartbeat()
            self.observe()
        for client, followed in self.follows.items():
            for run_id in followed:
                assert client.note(run_id).finished
                assert len(self.runs[run_id].items) == len(client.ends(run_id))


def pick(choices, number):
    return choices[number % len(choices)]


def part(delivery, cuts):
    """Some of the items of a delivery, at least one; most often all of them."""
    if cuts[0] % 2:
        return delivery.start, delivery.stop
    start = delivery.start + cuts[0] % (delivery.stop - delivery.start)
    return start, start + 1 + cuts[1] % (delivery.stop - start)


def span(outcome):
    match outcome:
        case Failed(item=item) | Killed(item=item):
            return item, item + 1
        case _:
            return outcome.start, outcome.stop


@pytest.mark.timeout(300)
def test_whatever_happens_every_item_ends_once_and_as_the_lifecycle_says(kind, open_broker):
    examples = EXAMPLES[kind] * int(os.environ.get("NBQUEUE_EXAMPLES", "1"))
    run_state_machine_as_test(
        lambda: BrokerMachine(open_broker),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=False,
            print_blob=True,
            report_multiple_bugs=False,  # one is enough to look at, and found in minutes less
            suppress_health_check=list(HealthCheck),
        ),
    )
