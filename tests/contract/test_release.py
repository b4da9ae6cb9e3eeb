"""Items that are handed back unrun."""

from nbqueue.core.states import State
from nbqueue.core.task import Released, Succeeded


def test_released_items_are_delivered_again_before_all_others(broker):
    # Given a supervisor that holds the first of three items
    client, worker = broker.client(), broker.worker()
    client.submit(3)
    delivery = worker.claim()

    # When it hands it back
    worker.release(delivery)

    # Then the same item comes again first, at once, under a new token; nothing of it has run
    again = worker.claim()
    assert (0, 1) == (again.start, again.attempt)
    assert again.token > delivery.token


def test_an_item_that_succeeds_after_it_was_handed_back_has_succeeded(broker):
    # Given an item that was handed back, so that its attempt is uncounted
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    worker.commit(delivery, Released(0, 1), final=False)

    # When the report of its success comes all the same
    worker.succeed(delivery)

    # Then it counts
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_a_part_of_a_chunk_can_be_released(broker):
    # Given a chunk of four
    client, first = broker.client(), broker.worker()
    run_id = client.submit(4, chunksize=4)
    delivery = first.claim()

    # When half of it is handed back while the other half goes on
    second = broker.worker()
    first.commit(delivery, Released(2, 4), final=False)

    # Then another supervisor gets that half
    taken = second.claim()
    second.succeed(taken)
    first.succeed(delivery, 0, 2)
    assert (2, 4) == (taken.start, taken.stop)
    assert {0, 1, 2, 3} == client.ends(run_id).keys()


def test_released_items_keep_their_order(broker):
    # Given three chunks of two
    client, worker = broker.client(), broker.worker(slots=3)
    client.submit(6, chunksize=2)
    deliveries = worker.claims()

    # When a supervisor hands back all of them, and leaves
    worker.leave()

    # Then the next one gets them as they were
    again = broker.worker(slots=3).claims()
    assert [(0, 2), (2, 4), (4, 6)] == [(delivery.start, delivery.stop) for delivery in deliveries]
    assert [(0, 2), (2, 4), (4, 6)] == [(delivery.start, delivery.stop) for delivery in again]


def test_a_supervisor_that_leaves_is_not_blamed_for_what_it_runs(broker):
    # Given a started item that may not cost a single process
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(max_lost=0)
    worker.started(worker.claim())

    # When its supervisor stops in good order
    worker.leave()

    # Then another one runs it at once, as its second attempt
    second = broker.worker()
    second.succeed(second.claim())
    assert 2 == client.entry(run_id).attempt
    assert State.SUCCESS == client.ends(run_id)[0]


def test_a_release_may_be_repeated(broker):
    # Given an item that was handed back, and is held by somebody else now
    client, first = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = first.claim()
    second = broker.worker(slots=2)
    first.release(delivery)
    taken = second.claim()

    # When the release of the first claim arrives once more
    first.release(delivery)

    # Then the holder goes on undisturbed
    second.succeed(taken)
    assert [] == first.claims() + second.claims()
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_items_handed_back_any_number_of_times_are_not_given_up(broker):
    # Given an item that was handed back more often than it may be delivered without an end
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    for _ in range(30):
        worker.release(worker.claim())

    # Then it still runs
    delivery = worker.claim()
    worker.commit(delivery, Succeeded(0, 1, b"value", 1.0))
    assert 1 == delivery.attempt
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_who_takes_nothing_more_and_leaves_hands_back_what_was_on_its_way(broker):
    # Given a supervisor that is told to end while an item is on its way to it
    client, leaving, other = broker.client(), broker.worker(), broker.worker()
    run_id = client.submit(2, chunksize=1)

    # When it gives up its slots and leaves, without having seen the item
    leaving.resize(0)
    leaving.leave()

    # Then another one gets it
    other.succeed(other.claim())
    other.succeed(other.claim())
    assert {0, 1} == client.ends(run_id).keys()
