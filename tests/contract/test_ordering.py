"""Who is served first: by priority, then clients in turn, then first come, first served."""

from nbqueue.core.states import State


def served(worker, count):
    """The next *count* deliveries, each ended at once, as (run, item)."""
    order = []
    for _ in range(count):
        delivery = worker.claim()
        order.append((delivery.run_id, delivery.start))
        worker.succeed(delivery)
    return order


def test_runs_of_one_client_go_in_the_order_of_their_submission(broker):
    client = broker.client()
    first, second = client.submit(2), client.submit(2)

    assert [(first, 0), (first, 1), (second, 0), (second, 1)] == served(broker.worker(), 4)


def test_the_order_of_submission_holds_across_functions(broker):
    client = broker.client()
    first, second = client.submit(2, function=b"one"), client.submit(1, function=b"two")

    assert [(first, 0), (first, 1), (second, 0)] == served(broker.worker(), 3)


def test_higher_priority_goes_first(broker):
    client = broker.client()
    low, high, middle = client.submit(priority=-1), client.submit(priority=9), client.submit(priority=0)

    assert [(high, 0), (middle, 0), (low, 0)] == served(broker.worker(), 3)


def test_what_runs_is_not_interrupted_by_higher_priority(broker):
    # Given a slot that runs something of low priority
    client, worker = broker.client(), broker.worker()
    low = client.submit(2)
    delivery = worker.claim()

    # When something of high priority comes
    high = client.submit(priority=9)

    # Then it is next
    assert [] == worker.claims()
    assert [] == worker.told_to_stop()
    worker.succeed(delivery)
    assert [(high, 0), (low, 1)] == served(worker, 2)


def test_clients_take_turns(broker):
    # Given a client with much work, and one that comes later with little
    first, second = broker.client(), broker.client()
    long, short = first.submit(4), second.submit(2)

    # Then the second does not wait for the first to end
    assert [(long, 0), (short, 0), (long, 1), (short, 1), (long, 2), (long, 3)] == served(broker.worker(), 6)


def test_many_runs_of_one_client_do_not_take_the_turns_of_another(broker):
    first, second = broker.client(), broker.client()
    runs = [first.submit() for _ in range(3)]
    other = second.submit()

    assert [(runs[0], 0), (other, 0), (runs[1], 0), (runs[2], 0)] == served(broker.worker(), 4)


def test_priority_comes_before_turns(broker):
    first, second = broker.client(), broker.client()
    urgent, other = first.submit(2, priority=1), second.submit(1)

    assert [(urgent, 0), (urgent, 1), (other, 0)] == served(broker.worker(), 3)


def test_work_of_a_client_that_left_still_has_its_turn(broker):
    # Given a client that submits and dies, and another one
    first, second = broker.client(), broker.client()
    orphan = first.submit()
    broker.elapse(broker.limits.client_lease_s + 5.0, silent=(first,))
    other = second.submit()

    # Then both runs are served
    worker = broker.worker()
    assert [(orphan, 0), (other, 0)] == served(worker, 2)
    second.attach(orphan)
    assert {0: State.SUCCESS} == second.ends(orphan)
