"""What a reported outcome does to its item."""

import pytest

from nbqueue.core.states import State
from nbqueue.core.task import Entry, Failed, Killed, Succeeded


def test_a_success_is_in_the_log_with_all_its_facts(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()

    worker.succeed(worker.claim(), payload=b"42", wall_s=2.0, cpu_s=1.5, peak_bytes=2**33)

    success = Entry(0, 1, State.SUCCESS, payload=b"42", attempt=1, worker="w0", wall_s=2.0, cpu_s=1.5, peak_bytes=2**33)
    assert [success] == client.log(run_id)
    assert client.note(run_id).finished
    assert 2.0 == client.note(run_id).work_s


def test_a_failure_is_in_the_log_with_its_record(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()

    worker.commit(worker.claim(), Failed(0, b"ValueError", False, 1.5, 1.0, peak_bytes=2**33))

    entry = client.entry(run_id)
    assert (State.FAILURE, b"ValueError", 1, "w0") == (entry.state, entry.payload, entry.attempt, entry.worker)
    assert (1.5, 1.0, 2**33) == (entry.wall_s, entry.cpu_s, entry.peak_bytes)


def test_one_failed_item_does_not_harm_the_others_of_its_chunk(broker):
    # Given a chunk of four
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4, chunksize=4)
    delivery = worker.claim()

    # When its second item fails
    worker.commit(delivery, Succeeded(0, 1, b"a", 1.0), Failed(1, b"record", False, 1.0), Succeeded(2, 4, b"cd", 1.0))

    # Then the others have their results
    states = [State.SUCCESS, State.FAILURE, State.SUCCESS, State.SUCCESS]
    assert states == [client.ends(run_id)[item] for item in range(4)]
    assert (b"cd", 0) == (client.entry(run_id, 2).payload, client.entry(run_id, 2).offset)
    assert (3, 1, 0) == (client.counts(run_id).done, client.counts(run_id).failed, client.counts(run_id).running)


def test_a_slot_reports_while_its_chunk_still_runs(broker):
    # Given a chunk of three, and one that waits
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(6, chunksize=3)
    delivery = worker.claim()

    # When the first two items are done
    worker.succeed(delivery, 0, 2, final=False)

    # Then the client has them, and the slot is not free yet
    assert {0, 1} == client.ends(run_id).keys()
    assert 1 == client.counts(run_id).running
    assert [] == worker.claims()


def test_what_the_end_of_a_chunk_leaves_out_goes_back_to_the_queue(broker):
    # Given a chunk of three of which only the first was reported
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(3, chunksize=3)
    worker.succeed(worker.claim(), 0, 1)

    # Then the rest is delivered again; nothing of it has run
    again = worker.claim()
    assert (1, 3, 1) == (again.start, again.stop, again.attempt)
    assert {0} == client.ends(run_id).keys()


def test_where_a_value_is_within_its_payload_is_known_even_when_neighbours_had_ended_before(broker):
    # Given a chunk of four whose second item was already reported
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4, chunksize=4)
    delivery = worker.claim()
    worker.succeed(delivery, 1, 2, payload=b"second", final=False)

    # When a report comes that covers all four
    worker.succeed(delivery, 0, 4, payload=b"all four", wall_s=4.0)

    # Then each item ends once, and its value is where its entry says
    found = [client.entry(run_id, item) for item in range(4)]
    assert [(b"all four", 0), (b"second", 0), (b"all four", 2), (b"all four", 2)] == [
        (entry.payload, entry.offset) for entry in found
    ]
    assert (1.0, 2.0) == (found[0].wall_s, found[2].wall_s)


def test_a_report_on_a_claim_that_was_never_given_is_ignored(broker):
    # Given an item in the queue
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)
    delivery = worker.claim()

    # When somebody reports on tokens of the future, and none
    for token in (0, -1, delivery.token + 1000):
        worker._port.commit(token, run_id, [Succeeded(0, 2, b"forged", 1.0)], final=True)
    worker.settle()

    # Then nothing has ended
    assert {} == client.ends(run_id)


def test_a_report_on_an_unknown_run_is_ignored(broker):
    # Given a worker that holds an item of a run
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()

    # When it reports on a run that nobody knows, under an old token
    worker._port.commit(delivery.token - 1, b"?" * 16, [Succeeded(0, 1, b"value", 1.0)], final=True)
    worker.succeed(delivery)

    # Then the broker goes on
    assert State.SUCCESS == client.ends(run_id)[0]


@pytest.mark.parametrize(
    "outcome", [Failed(5, b"record", False, 1.0), Killed(5, "SIGKILL"), Succeeded(5, 9, b"v", 1.0)]
)
def test_a_report_on_items_that_the_run_does_not_have_is_ignored(broker, outcome):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()

    worker.commit(worker.claim(), outcome, final=False)

    assert {} == client.ends(run_id)
    assert 1 == client.counts(run_id).total


def test_the_broker_counts_what_a_supervisor_has_brought_to_an_end(broker):
    client, worker = broker.client(), broker.worker()
    client.submit(5, chunksize=5)

    worker.commit(worker.claim(), Succeeded(0, 4, b"values", 1.0), Failed(4, b"record", False, 1.0))

    assert [5] == [view.done for view in client.inspect().workers]
