"""Items that take a process with them."""

import pytest

from nbqueue.core.machine import MAX_DELIVERIES
from nbqueue.core.states import State

SILENCE_S = 17.0


def test_an_item_that_kills_its_slot_runs_again_after_a_pause(broker):
    # Given an item in a slot
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()

    # When the slot dies while it runs the item
    worker.kill(worker.claim())
    broker.elapse(4.9)
    too_early = worker.claims()
    broker.elapse(0.2)

    # Then it runs again 5 s later
    second = worker.claim()
    worker.succeed(second)
    assert [] == too_early
    assert 2 == second.attempt
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_each_death_makes_the_pause_longer(broker):
    client, worker = broker.client(), broker.worker()
    client.submit()
    worker.kill(worker.claim())
    broker.elapse(5.1)

    worker.kill(worker.claim())
    broker.elapse(19.8, heard=(worker,))
    too_early = worker.claims()
    broker.elapse(0.3)

    assert [] == too_early
    assert 3 == worker.claim().attempt


@pytest.mark.parametrize("max_lost", [0, 1, 2])
def test_an_item_that_kills_too_often_is_lost_and_says_why(broker, max_lost):
    # Given an item that may kill its process so many times
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(max_lost=max_lost)

    # When it does it once more
    for _ in range(max_lost):
        worker.kill(worker.claim())
        broker.elapse(30.0, heard=(worker,))
    before = client.ends(run_id)
    worker.kill(worker.claim(), reason="killed by SIGSEGV")

    # Then it is LOST, with the reason, and never delivered again
    broker.elapse(100.0, heard=(worker,))
    assert {} == before
    assert (State.LOST, "killed by SIGSEGV") == (client.entry(run_id).state, client.entry(run_id).reason)
    assert 1 == client.counts(run_id).failed
    assert [] == worker.claims()


def test_how_much_memory_its_last_process_held_is_told_of_a_lost_item(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(max_lost=1)

    worker.kill(worker.claim(), peak_bytes=2**40)
    broker.elapse(6.0)
    worker.kill(worker.claim(), peak_bytes=2**33)

    assert (State.LOST, 2**33) == (client.entry(run_id).state, client.entry(run_id).peak_bytes)


def test_only_the_item_that_ran_is_blamed_for_the_death_of_a_slot(broker):
    # Given a chunk of three none of which may cost a process
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(3, chunksize=3, max_lost=0)

    # When the first one kills the slot
    worker.kill(worker.claim())

    # Then the other two run again, at once
    rest = worker.claim()
    assert (1, 3) == (rest.start, rest.stop)
    assert {0: State.LOST} == client.ends(run_id)


@pytest.mark.parametrize("told_by", ["started", "heartbeat"])
def test_what_a_dead_supervisor_ran_is_blamed(broker, told_by):
    # Given a supervisor that has said which item it runs
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(max_lost=0)
    delivery = worker.claim()
    if told_by == "started":
        worker.started(delivery)
    else:
        worker.heartbeat((delivery.token, 0))

    # When it falls silent
    broker.elapse(SILENCE_S)

    # Then that item is blamed
    entry = client.entry(run_id)
    assert State.LOST == entry.state
    assert "w0" in entry.reason


def test_what_a_dead_supervisor_had_only_fetched_is_not_blamed(broker):
    # Given a supervisor that holds two items, neither of which may cost a process, and runs one
    client, worker = broker.client(), broker.worker(slots=2)
    run_id = client.submit(2, max_lost=0)
    first, second = worker.claims()
    worker.started(second)

    # When it falls silent
    broker.elapse(SILENCE_S)

    # Then the other one runs at once
    heir = broker.worker()
    delivery = heir.claim()
    heir.succeed(delivery)
    assert (first.start, 2) == (delivery.start, delivery.attempt)
    assert {first.start: State.SUCCESS, second.start: State.LOST} == client.ends(run_id)


def test_within_a_chunk_only_the_started_item_is_blamed(broker):
    # Given a chunk of four whose second item runs
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4, chunksize=4, max_lost=0)
    delivery = worker.claim()
    worker.succeed(delivery, 0, 1, final=False)
    worker.heartbeat((delivery.token, 1))

    # When the supervisor falls silent
    broker.elapse(SILENCE_S)

    # Then the last two go on, in their order
    rest = broker.worker().claim()
    assert (2, 4) == (rest.start, rest.stop)
    assert {0: State.SUCCESS, 1: State.LOST} == client.ends(run_id)


def test_retries_after_errors_are_not_used_up_by_deaths(broker):
    # Given an item that has killed its slot once
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(max_lost=1)
    worker.kill(worker.claim())
    broker.elapse(6.0)

    # When it raises
    worker.fail(worker.claim(), record=b"ValueError")

    # Then it has failed: deaths and retries are counted apart
    assert (State.FAILURE, b"ValueError") == (client.entry(run_id).state, client.entry(run_id).payload)


def test_an_item_that_takes_supervisor_after_supervisor_with_it_is_given_up(broker):
    # Given an item whose supervisors always die before they say that they run it
    client = broker.client()
    run_id = client.submit(result_expires_s=50.0)
    for _ in range(MAX_DELIVERIES):
        broker.worker().claim()
        broker.elapse(SILENCE_S)
    before = client.ends(run_id)

    # When the next one comes
    last = broker.worker()

    # Then the item is LOST, undelivered, and its run is over like any other
    assert {} == before
    assert {0: State.LOST} == client.ends(run_id)
    assert [] == last.claims()
    broker.elapse(60.0)
    assert [] == client.inspect().runs
