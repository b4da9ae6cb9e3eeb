"""Attempts after one that raised."""

import pytest

from nbqueue.core.retry import RetryPolicy
from nbqueue.core.states import State


def policy(max_retries=3, backoff_s=0.0, **more):
    return RetryPolicy(max_retries=max_retries, backoff_s=backoff_s, **{"jitter": False, **more})


def test_a_retryable_failure_is_tried_again(broker):
    # Given an item that may be retried
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(retry=policy())

    # When it fails, and then succeeds
    worker.fail(worker.claim(), retryable=True)
    broker.tick()
    second = worker.claim()
    worker.succeed(second)

    # Then the user sees the success only
    assert 2 == second.attempt
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert 2 == client.entry(run_id).attempt


def test_an_exception_that_is_not_to_be_retried_ends_the_item(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(retry=policy())

    worker.fail(worker.claim(), retryable=False)

    assert {0: State.FAILURE} == client.ends(run_id)


def test_without_retries_the_first_failure_ends_the_item(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()

    worker.fail(worker.claim(), retryable=True)

    assert {0: State.FAILURE} == client.ends(run_id)


def test_retries_are_used_up(broker):
    # Given an item with two retries that always fails
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(retry=policy(max_retries=2))
    attempts = []
    while deliveries := worker.claims():
        attempts.append(deliveries[0].attempt)
        worker.fail(deliveries[0], record=b"attempt %d" % attempts[-1], retryable=True)
        broker.tick()

    # Then it was tried three times, and the last record counts
    assert [1, 2, 3] == attempts
    assert (State.FAILURE, b"attempt 3") == (client.entry(run_id).state, client.entry(run_id).payload)


def test_the_wait_before_each_retry_doubles_up_to_its_bound(broker):
    # Given an item that always fails, with a backoff of 2 s, of 5 s at most
    client, worker = broker.client(), broker.worker()
    client.submit(retry=policy(max_retries=9, backoff_s=2.0, backoff_max_s=5.0))
    delivery = worker.claim()

    for delay_s in (2.0, 4.0, 5.0, 5.0):
        # When it fails, and a little less than its wait has passed
        worker.fail(delivery, retryable=True)
        broker.elapse(delay_s - 0.01)
        too_early = worker.claims()

        # Then it runs again a moment later, and not before
        broker.elapse(0.02)
        delivery = worker.claim()
        assert [] == too_early


def test_jitter_draws_a_wait_below_the_backoff(broker):
    # Given forty items that fail, with a backoff of 8 s and jitter
    client, worker = broker.client(), broker.worker(slots=40)
    client.submit(40, retry=policy(backoff_s=8.0, jitter=True))
    for delivery in worker.claims():
        worker.fail(delivery, retryable=True)

    # Then they come back spread over these 8 s
    at_once = len(worker.claims())
    broker.elapse(4.0)
    by_half_time = len(worker.claims())
    broker.elapse(4.0)
    in_the_end = by_half_time + len(worker.claims())
    assert at_once < 5
    assert 8 < by_half_time < 32
    assert 40 == in_the_end + at_once


def test_a_waiting_item_leaves_its_slot_to_others(broker):
    # Given an item that waits out its backoff
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, retry=policy(backoff_s=100.0))
    worker.fail(worker.claim(), retryable=True)

    # Then the next one runs meanwhile
    worker.succeed(worker.claim())
    assert {1} == client.ends(run_id).keys()
    assert 1 == client.counts(run_id).waiting


@pytest.mark.parametrize("priority", [0, 3])
def test_an_item_that_is_due_again_queues_behind_those_that_wait(broker, priority):
    # Given a failed item whose backoff ends while two others wait
    client, worker = broker.client(), broker.worker()
    client.submit(4, retry=policy(backoff_s=2.0), priority=priority)
    worker.fail(worker.claim(), retryable=True)
    second = worker.claim()
    broker.elapse(3.0)

    # Then they go first
    order = []
    worker.succeed(second)
    for _ in range(3):
        delivery = worker.claim()
        order.append(delivery.start)
        worker.succeed(delivery)
    assert [2, 3, 0] == order


def test_a_task_may_say_itself_when_it_is_to_be_tried_again(broker):
    # Given a task whose options would wait for 100 s
    client, worker = broker.client(), broker.worker()
    client.submit(retry=policy(backoff_s=100.0))

    # When it asks for a retry after 3 s, then that is when it comes
    worker.fail(worker.claim(), retryable=True, retry_after_s=3.0)
    broker.elapse(2.0)
    assert [] == worker.claims()
    broker.elapse(1.5)
    assert 2 == worker.claim().attempt


@pytest.mark.parametrize(("asked", "attempts"), [(None, 2), (0, 1), (4, 5)])
def test_a_task_may_say_itself_how_often_it_is_to_be_tried_again(broker, asked, attempts):
    # Given a task with one retry, which fails every time and asks for so many
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(retry=policy(max_retries=1))
    made = 0
    while claims := worker.claims():
        made += 1
        worker.fail(claims[0], retryable=True, retry_after_s=0.0, max_retries=asked)
        broker.elapse(1.0)

    # Then it gets them, and then it has failed
    assert attempts == made
    assert {0: State.FAILURE} == client.ends(run_id)
