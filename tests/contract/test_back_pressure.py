"""A broker that is full says so, and takes items again when there is room."""

import pytest

from nbqueue.core.task import Block


def test_a_run_that_does_not_fit_is_refused_as_a_whole(open_broker):
    # Given a broker for ten items that has eight
    broker = open_broker(max_items=10)
    client = broker.client()
    client.submit(8)

    # When three more are offered
    receipt = client.offer(b"r" * 16, 3)

    # Then it takes none of them, and says that it is full
    assert (True, 0) == (receipt.is_full, receipt.total)
    assert 1 == len(client.inspect().runs)


def test_what_was_refused_is_taken_when_there_is_room(open_broker):
    # Given a full broker
    broker = open_broker(max_items=10)
    client, worker = broker.client(), broker.worker()
    client.submit(10, chunksize=10)
    refused = client.offer(b"r" * 16, 3)

    # When its items have ended, and the client offers the run again
    worker.succeed(worker.claim())
    accepted = client.offer(b"r" * 16, 3)

    # Then it is taken and runs
    assert refused.is_full
    assert (False, 3) == (accepted.is_full, accepted.total)
    assert b"r" * 16 == worker.claim().run_id


def test_items_fed_to_a_full_broker_are_not_taken_until_there_is_room(open_broker):
    # Given a run that fills the broker
    broker = open_broker(max_items=4)
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4, closed=False)

    # When it is fed, before and after two of its items have ended
    refused = client.feed(run_id, 4, 6, closed=True)
    for _ in range(2):
        worker.succeed(worker.claim())
    accepted = client.feed(run_id, 4, 6, closed=True)

    # Then the items are taken the second time, and the run ends when all six have
    assert (True, 4) == (refused.is_full, refused.total)
    assert (False, 6) == (accepted.is_full, accepted.total)
    for _ in range(4):
        worker.succeed(worker.claim())
    assert client.note(run_id).finished
    assert 6 == len(client.ends(run_id))


def test_a_refused_feed_does_not_close_the_run(open_broker):
    broker = open_broker(max_items=2)
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, closed=False, chunksize=2)
    client.feed(run_id, 2, 4, closed=True)

    worker.succeed(worker.claim())

    assert not client.note(run_id).finished


def test_a_full_broker_answers_again_to_items_that_it_has(open_broker):
    broker = open_broker(max_items=2)
    client = broker.client()
    run_id = client.submit(2, closed=False)

    receipt = client.offer(run_id, 2, closed=False)

    assert (False, 2) == (receipt.is_full, receipt.total)


def test_a_run_can_be_closed_while_the_broker_is_full(open_broker):
    broker = open_broker(max_items=2)
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, closed=False, chunksize=2)

    client.feed(run_id, 2, 2, closed=True)
    worker.succeed(worker.claim())

    assert client.note(run_id).finished


@pytest.mark.parametrize("waits", [True, False])
def test_payloads_count_until_their_items_have_ended(open_broker, waits):
    # Given a broker for 1,000 bytes that has a payload of 700
    broker = open_broker(max_bytes=1000)
    client, worker = broker.client(), broker.worker()
    client.offer(b"a" * 16, 1, blocks=[Block(0, 1, bytes(700))])
    if not waits:
        worker.succeed(worker.claim(), payload=b"")

    # When another 700 come
    receipt = client.offer(b"b" * 16, 1, blocks=[Block(0, 1, bytes(700))])

    # Then they are taken if the first have been used up
    assert waits == receipt.is_full


@pytest.mark.plain
def test_results_that_nobody_has_read_count_too(open_broker):
    # Given a broker for 1,000 bytes with a result of 700 that its client was not sent yet
    broker = open_broker(max_bytes=1000)
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, blocks=[Block(0, 2, b"")])
    worker.succeed(worker.claim(), payload=bytes(700))

    # Then there is no room for 700 more while the run goes on
    refused = client.offer(b"b" * 16, 1, blocks=[Block(0, 1, bytes(700))])
    assert refused.is_full
    assert 700 == client.inspect().payload_bytes
    assert 1 == len(client.ends(run_id))


def test_finished_runs_that_were_read_make_room(open_broker):
    # Given a broker whose bytes are used up by the results of a finished run
    broker = open_broker(max_bytes=1000)
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(1, blocks=[Block(0, 1, b"")])
    worker.succeed(worker.claim(), payload=bytes(700))
    client.settle()

    # When there is more work
    receipt = client.offer(b"b" * 16, 1, blocks=[Block(0, 1, bytes(700))])

    # Then the read results give way
    assert not receipt.is_full
    assert [b"b" * 16] == [view.run_id for view in client.inspect().runs]
    client.attach(run_id)
    assert not client.note(run_id).known


@pytest.mark.plain
def test_a_full_broker_still_takes_results(open_broker):
    broker = open_broker(max_bytes=100)
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(1, blocks=[Block(0, 1, bytes(90))])

    worker.succeed(worker.claim(), payload=bytes(1000))

    assert bytes(1000) == client.entry(run_id).payload
