"""A task that comes alone, to an idle supervisor that has its function: what is most frequent, and what is else.

A broker may do this in another way than everything else; so all that could be different about such a task is told here.
"""

import math

import pytest

from nbqueue.core.retry import RetryPolicy
from nbqueue.core.states import State
from nbqueue.core.task import Block, Entry, RunSpec, Succeeded


@pytest.fixture
def client(broker):
    return broker.client()


@pytest.fixture
def worker(broker, client):
    """A supervisor that has the function, which another run uses, and a free slot."""
    worker = broker.worker(slots=2)
    client.submit()
    worker.claim()
    return worker


@pytest.mark.plain
def test_it_is_delivered_and_ends_as_if_there_were_many(client, worker):
    # Given a task that comes alone
    run_id = client.submit()
    delivery = worker.claim()
    payload_bytes = client.inspect().payload_bytes

    # When it succeeds
    worker.succeed(delivery, payload=b"four", wall_s=2.0, cpu_s=1.5, peak_bytes=1000)

    # Then everybody knows what he should
    assert (run_id, 0, 1, 1, None) == (
        delivery.run_id,
        delivery.start,
        delivery.stop,
        delivery.attempt,
        delivery.function,
    )
    assert [b"payload of 0:1"] == [block.payload for block in delivery.blocks]
    assert [Entry(0, 1, State.SUCCESS, b"four", 0, "", 1, "w0", 2.0, 1.5, 1000)] == client.log(run_id)
    note = client.note(run_id)
    assert (True, 2.0, 2, "", []) == (note.finished, note.work_s, note.slots, note.unserved, note.remarks)
    assert (1, 1, True, 0) == (note.counts.total, note.counts.done, note.counts.closed, note.counts.running)
    inspection = client.inspect()
    assert 2 * len(b"payload of 0:1") == payload_bytes
    assert len(b"payload of 0:1") + len(b"four") == inspection.payload_bytes
    assert [(1, 1)] == [(view.claims, view.done) for view in inspection.workers]
    assert {False, True} == {view.finished for view in inspection.runs}
    assert len(worker.heartbeat().tokens) == 1


def test_it_is_one_of_more_if_its_run_is_not_closed(client, worker):
    run_id = client.submit(closed=False)
    worker.succeed(worker.claim())
    unfinished = client.note(run_id).finished

    client.feed(run_id, 1, 2, closed=True)
    worker.succeed(worker.claim())

    assert not unfinished
    assert client.note(run_id).finished
    assert {0: State.SUCCESS, 1: State.SUCCESS} == client.ends(run_id)


def test_more_items_of_its_run_are_not_forgotten(client, worker):
    run_id = client.submit(3, chunksize=1)

    for _ in range(3):
        worker.succeed(worker.claim())

    assert dict.fromkeys(range(3), State.SUCCESS) == client.ends(run_id)


def test_it_waits_for_its_time(broker, client, worker):
    run_id = client.submit(countdown_s=5.0)
    early = worker.claims()

    broker.elapse(5.0, heard=(worker,))

    assert [] == early
    assert run_id == worker.claim().run_id


def test_it_expires_if_it_is_handed_back_too_late(broker, client, worker):
    run_id = client.submit(expires_s=5.0)
    delivery = worker.claim()

    broker.elapse(6.0, heard=(worker,))
    worker.release(delivery)

    assert {0: State.EXPIRED} == client.ends(run_id)


def test_it_brings_a_function_that_the_supervisor_lacks(broker, client, worker):
    # Given a function that is used, but not here
    client.submit(function=b"another", body=b"its body", queue="other")

    client.submit(function=b"another", body=b"its body")

    assert b"its body" == worker.claim().function


def test_it_waits_if_all_slots_are_taken(broker, client, worker):
    client.submit()
    worker.claim()

    run_id = client.submit()
    early = worker.claims()

    assert [] == early
    assert run_id == broker.worker().claim().run_id


def test_it_goes_to_whom_it_asks_for(broker, client, worker):
    run_id = client.submit(queue="other")
    here = worker.claims()
    there = broker.worker(queues=("other",))

    assert [] == here
    assert run_id == there.claim().run_id


def test_a_repetition_changes_nothing(client, worker):
    run_id = client.submit()
    delivery = worker.claim()

    receipt = client.offer(run_id, 1)
    worker.succeed(delivery, payload=b"first")
    worker.succeed(delivery, payload=b"second")

    assert (1, False, True) == (receipt.total, receipt.is_full, receipt.known)
    assert [] == worker.claims()
    assert [b"first"] == [entry.payload for entry in client.log(run_id)]


def test_a_success_counts_even_if_another_claim_holds_the_item_by_now(broker, client, worker):
    # Given a claim that goes on after its item has failed, and is run again elsewhere
    run_id = client.submit(retry=RetryPolicy(max_retries=1, backoff_s=1.0, jitter=False))
    delivery = worker.claim()
    worker.fail(delivery, retryable=True, final=False)
    heir = broker.worker()
    broker.elapse(2.0, heard=(worker, heir))
    again = heir.claim()

    # When it reports success all the same
    worker.succeed(delivery)

    # Then that is the end of the item, and its present holder is told to stop
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert [again.token] == [stop.token for stop in heir.told_to_stop()]


def test_all_who_follow_it_hear_of_its_end(broker, client, worker):
    run_id = client.submit()
    delivery = worker.claim()
    other = broker.client()
    other.attach(run_id)

    worker.succeed(delivery)

    assert {0: State.SUCCESS} == client.ends(run_id) == other.ends(run_id)


def test_a_success_that_comes_before_the_end_of_a_revoke_stays_one(client, worker):
    run_id = client.submit()
    delivery = worker.claim()
    client.revoke(run_id)

    worker.succeed(delivery)

    assert {0: State.SUCCESS} == client.ends(run_id)


def test_a_large_result_arrives(client, worker):
    run_id = client.submit()

    worker.succeed(worker.claim(), payload=bytes(100_000))

    assert {0: State.SUCCESS} == client.ends(run_id)
    assert 100_000 <= len(client.entry(run_id).payload)


@pytest.mark.plain
@pytest.mark.parametrize("outcome", [Succeeded(0, 1, b"", math.nan), Succeeded(0, 1, b"", 1.0, math.inf)])
def test_a_report_that_makes_no_sense_is_refused(client, worker, outcome):
    run_id = client.submit()

    worker.commit(worker.claim(), outcome)

    assert {} == client.ends(run_id)
    assert client.inspect().refused_events > 0


@pytest.mark.plain
def test_who_reports_success_for_other_items_reports_none(client, worker):
    run_id = client.submit()

    worker.commit(worker.claim(), Succeeded(1, 2, b"", 1.0))

    assert {} == client.ends(run_id)


def test_success_for_more_items_than_it_has_is_shared_out(client, worker):
    run_id = client.submit()

    worker.commit(worker.claim(), Succeeded(0, 2, b"", 3.0))

    assert {0: State.SUCCESS} == client.ends(run_id)
    assert 1.5 == client.note(run_id).work_s


def test_how_long_it_took_is_remembered(client, worker):
    client.submit()
    worker.succeed(worker.claim(), wall_s=0.01)

    client.submit(10)

    assert 2 == worker.claim().stop


def test_it_counts_as_long_as_it_goes_on(open_broker):
    # Given a broker for two items that has one
    broker = open_broker(max_items=2)
    client, worker = broker.client(), broker.worker(slots=2)
    client.submit()
    worker.claim()

    # When another one comes alone, then there is room for the next when it has ended
    client.submit()
    delivery = worker.claim()
    refused = client.offer(b"r" * 16, 1)
    worker.succeed(delivery)
    accepted = client.offer(b"r" * 16, 1)

    assert (True, False) == (refused.is_full, accepted.is_full)


def test_its_claim_goes_on_until_it_is_said_to_be_over(client, worker):
    # Given a claim of which the only item has succeeded, but which is not over
    client.submit()
    delivery = worker.claim()
    worker.succeed(delivery, final=False)

    # When there is more work, then it waits for the slot
    run_id = client.submit()
    early = worker.claims()
    worker.commit(delivery, final=True)

    assert [] == early
    assert run_id == worker.claim().run_id


def test_its_success_makes_room_for_what_waits(client, worker):
    # Given a task that waits because all slots are taken
    client.submit()
    delivery = worker.claim()
    run_id = client.submit()
    early = worker.claims()

    worker.succeed(delivery)

    assert [] == early
    assert run_id == worker.claim().run_id


def test_of_two_that_come_together_the_first_is_served_first(client, worker):
    # Given one free slot, whose supervisor has the function of the second only
    first, second = client.new_run_id(), client.new_run_id()
    for run_id, function in ((first, b"another"), (second, b"digest")):
        spec = RunSpec(run_id=run_id, function=function, label="work")
        client._port.submit(spec, function=b"function", blocks=[Block(0, 1, b"payload")], closed=True)
    client.settle()

    # When both come in one breath, then the first has the slot
    assert first == worker.claim().run_id


def test_it_can_be_forgotten(client, worker):
    run_id = client.submit()
    worker.succeed(worker.claim())
    client.settle()

    client.forget(run_id)

    assert 1 == len(client.inspect().runs)
