"""What a broker answers to items, and that offering them twice does no harm."""

from nbqueue.core.task import Block


def test_the_receipt_says_how_many_items_the_broker_has(broker):
    receipt = broker.client().offer(b"r" * 16, 3)

    assert (b"r" * 16, 3, True, False) == (receipt.run_id, receipt.total, receipt.known, receipt.is_full)


def test_a_run_that_is_submitted_twice_runs_once(broker):
    # Given a run whose receipt was lost, so that the client submits it again
    client, worker = broker.client(), broker.worker(slots=9)
    run_id = client.submit(2)
    again = client.offer(run_id, 2)

    # When all that was delivered is done
    deliveries = [worker.claims()]
    while deliveries[-1]:
        for delivery in deliveries[-1]:
            worker.succeed(delivery)
        deliveries.append(worker.claims())

    # Then there were two items, and each was delivered once
    assert 2 == again.total
    assert [0, 1] == sorted(delivery.start for batch in deliveries for delivery in batch)
    assert 2 == client.counts(run_id).total
    assert client.note(run_id).finished


def test_items_that_are_fed_twice_run_once(broker):
    # Given an open run of two items
    client = broker.client()
    run_id = client.submit(2, closed=False)

    # When two more are fed twice
    first, second = client.feed(run_id, 2, 4), client.feed(run_id, 2, 4)

    # Then the run has four
    assert [4, 4] == [first.total, second.total]
    assert 4 == client.counts(run_id).total


def test_items_that_would_leave_a_gap_are_not_taken(broker):
    client = broker.client()
    run_id = client.submit(2, closed=False)

    assert 2 == client.feed(run_id, 3, 5).total


def test_an_open_run_goes_on_until_it_is_closed(broker):
    # Given a run that has done all items that it was fed
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(1, closed=False)
    worker.succeed(worker.claim())
    finished_while_open = client.note(run_id).finished

    # When it is fed one more, and closed
    client.feed(run_id, 1, 2)
    client.feed(run_id, 2, 2, closed=True)
    worker.succeed(worker.claim())

    # Then it was not finished before, and is now
    assert not finished_while_open
    assert client.note(run_id).finished
    assert {0, 1} == client.ends(run_id).keys()


def test_a_closed_run_takes_no_more_items(broker):
    client = broker.client()
    run_id = client.submit(2)

    assert 2 == client.feed(run_id, 2, 4).total


def test_a_run_without_items_is_finished_at_once(broker):
    client = broker.client()
    run_id = client.submit(0)

    assert client.note(run_id).finished
    assert [] == client.log(run_id)


def test_items_for_a_run_that_does_not_exist_are_refused(broker):
    receipt = broker.client().feed(b"?" * 16, 0, 1)

    assert not receipt.known


def test_a_run_may_leave_out_a_function_that_the_broker_has(broker):
    # Given a run that has brought a function
    client, worker = broker.client(), broker.worker(slots=2)
    client.submit(function=b"known", body=b"text")

    # When a second one names it only
    second = client.submit(function=b"known", body=None)

    # Then it runs
    assert second in [delivery.run_id for delivery in worker.claims()]


def test_a_run_without_its_function_is_refused(broker):
    receipt = broker.client().offer(b"r" * 16, 1, function=b"unknown", body=None)

    assert not receipt.known


def test_several_blocks_are_taken_in_one_go(broker):
    # Given a run of three blocks, all in one message
    client, worker = broker.client(), broker.worker()
    blocks = [Block(0, 2, b"first"), Block(2, 3, b"second"), Block(3, 5, b"third")]
    receipt = client.offer(b"r" * 16, 5, blocks=blocks, chunksize=2)

    # Then all are there, and a claim brings the blocks that it needs, and no others
    needed = [(delivery.start, delivery.stop, delivery.blocks) for delivery in _all_deliveries(worker)]
    assert 5 == receipt.total
    assert [(0, 2, [blocks[0]]), (2, 4, [blocks[1], blocks[2]]), (4, 5, [blocks[2]])] == needed


def _all_deliveries(worker):
    deliveries = []
    while batch := worker.claims():
        deliveries += batch
        for delivery in batch:
            worker.succeed(delivery)
    return deliveries
