"""Items that may not start yet, or not any more, and results that are kept for a time."""

from nbqueue.core.retry import RetryPolicy
from nbqueue.core.states import State


def test_a_countdown_delays_the_first_attempt(broker):
    # Given a supervisor that waits for work
    client, worker = broker.client(), broker.worker()

    # When items with a countdown of 5 s come
    client.submit(2, countdown_s=5.0, chunksize=2)
    broker.elapse(4.99)
    too_early = worker.claims()
    broker.elapse(0.02)

    # Then they are delivered after 5 s and not before
    assert [] == too_early
    assert (0, 2) == (worker.claim().start, worker.deliveries[-1].stop)


def test_items_fed_later_have_a_countdown_of_their_own(broker):
    # Given an item that is due in 5 s
    client, worker = broker.client(), broker.worker(slots=2)
    run_id = client.submit(1, countdown_s=5.0, closed=False)

    # When another is fed 3 s later
    broker.elapse(3.0)
    client.feed(run_id, 1, 2, closed=True)
    broker.elapse(3.0)
    after_6_s = worker.claims()
    broker.elapse(3.0)

    # Then it is due 3 s later
    assert [0] == [delivery.start for delivery in after_6_s]
    assert 1 == worker.claim().start


def test_an_item_that_is_not_claimed_in_time_expires(broker):
    # Given an item that must start within 5 s
    client = broker.client()
    run_id = client.submit(expires_s=5.0)
    broker.elapse(4.99)
    before = client.ends(run_id)

    # When nobody comes
    broker.elapse(0.02)

    # Then it is EXPIRED, counted as failed, and never delivered
    assert {} == before
    assert {0: State.EXPIRED} == client.ends(run_id)
    assert client.entry(run_id).reason
    assert 1 == client.counts(run_id).failed
    assert [] == broker.worker().claims()


def test_an_item_that_failed_in_time_is_retried_after_it(broker):
    # Given an item that must start within 5 s, and that has failed once in time
    client, worker = broker.client(), broker.worker()
    client.submit(expires_s=5.0, retry=RetryPolicy(max_retries=1, backoff_s=8.0, jitter=False))
    worker.fail(worker.claim(), retryable=True)

    # When its second attempt is due after that time
    broker.elapse(8.1)

    # Then it is made
    assert 2 == worker.claim().attempt


def test_an_item_that_has_started_does_not_expire(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(expires_s=5.0)
    delivery = worker.claim()
    worker.started(delivery)

    broker.elapse(10.0, heard=(worker,))
    worker.succeed(delivery)

    assert {0: State.SUCCESS} == client.ends(run_id)


def test_an_item_can_expire_before_it_is_due(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(countdown_s=10.0, expires_s=5.0)

    broker.elapse(12.0)

    assert {0: State.EXPIRED} == client.ends(run_id)
    assert [] == worker.claims()


def test_only_what_still_waits_expires(broker):
    # Given four items of which one is done and one runs
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4, expires_s=5.0)
    worker.succeed(worker.claim())
    running = worker.claim()

    # When their time is over
    broker.elapse(6.0, heard=(worker,))
    worker.succeed(running)

    # Then the other two have expired
    states = [State.SUCCESS, State.SUCCESS, State.EXPIRED, State.EXPIRED]
    assert states == [client.ends(run_id)[item] for item in range(4)]
    assert client.note(run_id).finished


def test_an_item_that_is_handed_back_after_its_time_expires(broker):
    # Given an item that was fetched ahead in time, and not begun
    client, first = broker.client(), broker.worker()
    run_id = client.submit(expires_s=5.0)
    delivery = first.claim()
    broker.elapse(6.0, heard=(first,))

    # When it is handed back, too late
    first.release(delivery)
    broker.tick()

    # Then it does not start any more
    assert [] == first.claims() + broker.worker().claims()
    assert {0: State.EXPIRED} == client.ends(run_id)


def test_a_finished_run_is_kept_for_its_time_and_then_forgotten(broker):
    # Given a finished run whose results are kept for 30 s
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(result_expires_s=30.0)
    worker.succeed(worker.claim())

    # When somebody asks in time, and too late
    broker.elapse(29.0, heard=(worker,))
    in_time = broker.client()
    in_time.attach(run_id)
    broker.elapse(3.0)
    too_late = broker.client()
    too_late.attach(run_id)

    # Then it is there, and then it is not
    assert {0: State.SUCCESS} == in_time.ends(run_id)
    assert not too_late.note(run_id).known
    assert [] == client.inspect().runs


def test_a_run_that_is_not_finished_is_kept(broker):
    client = broker.client()
    run_id = client.submit(result_expires_s=1.0)

    broker.elapse(5.0)

    assert [run_id] == [view.run_id for view in client.inspect().runs]
