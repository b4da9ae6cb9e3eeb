"""How many items a claim takes."""

import pytest


def run_all(worker, *, wall_s_per_item, reports=1000):
    """Let one slot do everything; returns the sizes of the chunks in order."""
    sizes = []
    while (deliveries := worker.claims()) and len(sizes) < reports:
        for delivery in deliveries:
            size = delivery.stop - delivery.start
            sizes.append(size)
            worker.succeed(delivery, wall_s=wall_s_per_item * size)
    return sizes


def test_the_first_claims_of_an_unknown_function_are_single_items(broker):
    broker.client().submit(1000)

    sizes = [delivery.stop - delivery.start for delivery in broker.worker(slots=4).claims()]

    assert [1, 1, 1, 1] == sizes


def test_chunks_of_cheap_items_double_until_one_takes_the_rest(broker):
    # Given ten thousand items of a microsecond
    broker.client().submit(10_000)

    # When one slot runs them
    sizes = run_all(broker.worker(), wall_s_per_item=1e-6)

    # Then each chunk is twice the one before, and none is larger
    assert [2**power for power in range(13)] == sizes[:13]
    assert 10_000 == sum(sizes)


def test_chunks_take_about_a_fifth_of_a_second(broker):
    # Given many items of 10 ms
    broker.client().submit(300)

    sizes = run_all(broker.worker(), wall_s_per_item=0.01)

    # Then chunks grow to about 20 items
    assert [1, 2, 4, 8, 16] == sizes[:5]
    assert {19, 20} >= set(sizes[5:-1])


def test_slow_items_are_claimed_one_by_one(broker):
    broker.client().submit(20)

    assert [1] * 20 == run_all(broker.worker(), wall_s_per_item=0.5)


def test_one_cheap_item_among_expensive_ones_does_not_mislead(broker):
    # Given a function whose first item was very cheap
    client, worker = broker.client(), broker.worker()
    client.submit(1000)
    worker.succeed(worker.claim(), wall_s=1e-6)

    # Then the next chunk is small all the same
    assert 2 == worker.claim().stop - worker.deliveries[-1].start


def test_no_chunk_is_larger_than_an_even_share_of_what_is_left(broker):
    # Given a function of 0.1 ms known from another run, so that a chunk could have 2,000 items
    client, worker = broker.client(), broker.worker(slots=4)
    client.submit(20_000)
    run_all(worker, wall_s_per_item=1e-4)

    # When a run of 800 items comes, for four slots
    client.submit(800)

    # Then the slots share it
    sizes = [delivery.stop - delivery.start for delivery in worker.claims()]
    assert 4 == len(sizes)
    assert 200 == sizes[0]
    assert max(sizes) == sizes[0]


def test_what_is_not_worth_a_round_trip_is_not_split(broker):
    # Given a function of a microsecond, known from another run
    client, worker = broker.client(), broker.worker(slots=4)
    client.submit(20_000)
    run_all(worker, wall_s_per_item=1e-6)

    # When a run of 400 items comes: 0.4 ms of work for four slots
    client.submit(400)

    # Then one slot takes it all
    assert [400] == [delivery.stop - delivery.start for delivery in worker.claims()]


@pytest.mark.parametrize(("chunksize", "expected"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_a_fixed_chunk_size_is_kept(broker, chunksize, expected):
    broker.client().submit(7, chunksize=chunksize)

    assert expected == run_all(broker.worker(), wall_s_per_item=1e-6)


def test_what_was_learnt_of_a_function_serves_its_next_run(broker):
    # Given a function that was found to be cheap, and its run forgotten
    client, worker = broker.client(), broker.worker()
    first = client.submit(1000)
    run_all(worker, wall_s_per_item=1e-6)
    client.forget(first)

    # When it is submitted again
    client.submit(100)

    # Then it is not learnt anew
    assert 100 == worker.claim().stop


def test_what_was_learnt_of_one_function_says_nothing_of_another(broker):
    client, worker = broker.client(), broker.worker()
    client.submit(1000, function=b"cheap")
    run_all(worker, wall_s_per_item=1e-6)

    client.submit(100, function=b"other")

    assert 1 == worker.claim().stop


def test_failures_teach_as_well(broker):
    # Given a function whose items all fail fast
    client, worker = broker.client(), broker.worker()
    client.submit(50)

    # When the first one has failed, in a second
    worker.fail(worker.claim())

    # Then its time counts: the next chunk is one item, too
    delivery = worker.claim()
    assert (1, 2) == (delivery.start, delivery.stop)


def test_a_chunk_never_spans_items_of_different_attempts(broker):
    # Given three items of which the second was run before
    client, worker = broker.client(), broker.worker(slots=3)
    client.submit(3, chunksize=1)
    first, second, third = worker.claims()
    worker.started(second)
    worker.release(second)
    again = worker.claim()
    worker.leave()

    # When all of them wait
    heir = broker.worker(slots=3)
    deliveries = heir.claims()

    # Then each delivery has one attempt number, right for its items
    assert 2 == again.attempt
    assert {0: 2, 1: 3, 2: 2} == {
        item: delivery.attempt for delivery in deliveries for item in range(delivery.start, delivery.stop)
    }
    assert (first.start, third.start) == (0, 2)


def test_items_that_arrive_while_a_run_goes_on_join_its_queue(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, chunksize=4, closed=False)
    first = worker.claim()
    client.feed(run_id, 2, 5)
    client.feed(run_id, 5, 8, closed=True)

    worker.succeed(first)

    assert (2, 6) == (worker.claim().start, worker.deliveries[-1].stop)
