"""What a supervisor is given, and how much of it."""

import pytest

from nbqueue.core.task import Block


def test_a_delivery_brings_all_that_is_needed_to_run_it(broker):
    # Given a run of one item
    run_id = broker.client().submit(function=b"digest", body=b"text", label="score")

    # When a supervisor comes
    delivery = broker.worker().claim()

    # Then it gets the item, its function and its payload, as the first attempt
    assert (run_id, 0, 1, 1) == (delivery.run_id, delivery.start, delivery.stop, delivery.attempt)
    assert ("score", b"digest", b"text") == (delivery.label, delivery.digest, delivery.function)
    assert [Block(0, 1, b"payload of 0:1")] == delivery.blocks


def test_work_that_comes_later_is_delivered_without_being_asked_for(broker):
    # Given a supervisor that has nothing to do
    client, worker = broker.client(), broker.worker()
    before = worker.claims()

    # When there is work
    run_id = client.submit()

    # Then it is delivered
    assert [] == before
    assert run_id == worker.claim().run_id


def test_no_item_is_delivered_twice(broker):
    # Given several supervisors with more slots than there are items
    workers = [broker.worker(slots=4) for _ in range(3)]

    # When a run of five items comes
    broker.client().submit(5)

    # Then each item is delivered to one of them, once
    deliveries = [delivery for worker in workers for delivery in worker.claims()]
    assert [(item, item + 1) for item in range(5)] == sorted((delivery.start, delivery.stop) for delivery in deliveries)
    assert 5 == len({delivery.token for delivery in deliveries})


def test_a_supervisor_holds_no_more_chunks_than_it_has_slots(broker):
    # Given a supervisor with two slots, and much work
    client, worker = broker.client(), broker.worker(slots=2)
    client.submit(10)
    held = worker.claims()

    # When one slot is free again
    worker.succeed(held[0])
    [third] = worker.claims()

    # Then it gets one more
    assert [0, 1, 2] == [held[0].start, held[1].start, third.start]


@pytest.mark.parametrize(("wall_s", "expected"), [(0.1, 2), (1.0, 1)])
def test_only_short_chunks_are_fetched_ahead(broker, wall_s, expected):
    # Given one slot that may hold one chunk ahead, and a function whose run time is known
    client, worker = broker.client(), broker.worker(slots=1, prefetch=1)
    client.submit(10, chunksize=1)
    worker.succeed(worker.claim(), wall_s=wall_s)

    # Then it holds a second chunk only if that will not wait for long
    assert expected == len(worker.claims())


def test_nothing_is_fetched_ahead_before_the_run_time_is_known(broker):
    worker = broker.worker(slots=1, prefetch=5)
    broker.client().submit(10)

    assert 1 == len(worker.claims())


def test_work_goes_where_most_slots_are_free(broker):
    # Given a supervisor that is nearly full, and one that is not
    client, first = broker.client(), broker.worker(slots=3)
    client.submit(2)
    second = broker.worker(slots=2)

    # When one more item comes
    run_id = client.submit()

    # Then the second gets it
    assert 2 == len(first.claims())
    assert run_id == second.claim().run_id


def test_a_started_item_counts_as_running_like_one_that_is_only_held(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)
    held = client.counts(run_id)

    worker.started(worker.claim())

    assert (1, 1) == (held.running, held.waiting)
    assert held == client.counts(run_id)


def test_a_client_hears_that_its_item_was_taken_by_the_time_it_starts(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)

    worker.started(worker.claim())

    assert 1 == client.note(run_id).counts.running


def test_supervisors_and_what_they_hold_can_be_seen(broker):
    # Given a supervisor that holds two chunks
    client, worker = broker.client(), broker.worker(slots=3)
    client.submit(2, label="score")

    # Then the broker shows it
    [view] = client.inspect().workers
    assert (worker.info.worker_id, "w0", "here", 10_000, 3) == (
        view.worker_id,
        view.name,
        view.host,
        view.pid,
        view.slots,
    )
    assert (2, ["score"], 0, 0.0) == (view.claims, view.running, view.done, view.seen_s_ago)
