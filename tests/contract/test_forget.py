"""Runs whose results nobody wants any more."""

import pytest

from nbqueue.core.states import State


def test_a_forgotten_run_is_unknown(broker):
    # Given a finished run
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    worker.succeed(worker.claim(), payload=b"value")

    # When it is forgotten
    client.forget(run_id)

    # Then the broker holds nothing of it
    inspection = client.inspect()
    client.attach(run_id)
    assert ([], 0) == (inspection.runs, inspection.payload_bytes)
    assert not client.note(run_id).known


def test_a_run_that_still_goes_on_goes_on(broker):
    # Given a run whose handle was let go
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)
    client.forget(run_id)

    # When its items end
    worker.succeed(worker.claim())
    worker.succeed(worker.claim())

    # Then who let it go hears nothing, and the results are there for others
    other = broker.client()
    other.attach(run_id)
    assert {} == client.ends(run_id)
    assert {0: State.SUCCESS, 1: State.SUCCESS} == other.ends(run_id)


def test_a_forgotten_run_that_ends_is_deleted_in_its_time(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(result_expires_s=20.0)
    client.forget(run_id)
    worker.succeed(worker.claim())

    broker.elapse(22.0)

    assert [] == client.inspect().runs


def test_forgetting_may_be_repeated(broker):
    client, worker = broker.client(), broker.worker()
    run_id, other = client.submit(), client.submit()
    worker.succeed(worker.claim())

    client.forget(run_id, run_id, b"never there".ljust(16))
    client.forget(run_id)

    assert [other] == [view.run_id for view in client.inspect().runs]


def test_the_id_of_a_forgotten_run_may_be_used_again(broker):
    # Given a run that was forgotten
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)
    worker.succeed(worker.claim())
    worker.succeed(worker.claim())
    client.forget(run_id)

    # When the same run is submitted again
    broker.client().submit(3, run_id=run_id)

    # Then it starts from its beginning
    assert (0, 1) == (worker.claim().start, worker.deliveries[-1].attempt)


@pytest.mark.plain
def test_a_payload_is_freed_as_soon_as_its_items_have_ended(broker):
    # Given a run with a payload
    client, worker = broker.client(), broker.worker()
    client.submit(2)
    before = client.inspect().payload_bytes

    # When its items end, without results
    worker.succeed(worker.claim(), payload=b"")
    halfway = client.inspect().payload_bytes
    worker.succeed(worker.claim(), payload=b"")

    # Then its bytes are free when the last one has
    assert before == halfway == len(b"payload of 0:2")
    assert 0 == client.inspect().payload_bytes
