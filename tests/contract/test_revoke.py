"""Items that somebody wants stopped."""

import pytest

from nbqueue.core.retry import RetryPolicy
from nbqueue.core.states import State
from nbqueue.core.task import GENTLY, Manner, Released, Stopped, Succeeded


def test_an_item_that_is_revoked_before_it_starts_never_starts(broker):
    # Given an item in the queue
    client = broker.client()
    run_id = client.submit()

    # When it is revoked, and a supervisor comes
    client.revoke(run_id)
    worker = broker.worker()

    # Then it ends as REVOKED, undelivered
    assert [] == worker.claims()
    assert {0: State.REVOKED} == client.ends(run_id)
    assert client.note(run_id).finished


def test_only_the_items_named_are_revoked(broker):
    # Given five items in the queue
    client = broker.client()
    run_id = client.submit(5, chunksize=5)

    # When the second and the third are revoked
    client.revoke(run_id, 1, 3)

    # Then the others run
    worker = broker.worker(slots=3)
    ranges = [(delivery.start, delivery.stop) for delivery in worker.claims()]
    assert [(0, 1), (3, 5)] == ranges
    assert {1: State.REVOKED, 2: State.REVOKED} == client.ends(run_id)


def test_the_holder_is_told_to_stop_exactly_the_items_revoked(broker):
    # Given a chunk of four in a slot
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4, chunksize=4)
    delivery = worker.claim()
    worker.started(delivery, 1)

    # When the middle two are revoked
    client.revoke(run_id, 1, 3)

    # Then the holder is told so, whether they were started or not, and nothing has ended yet
    stops = worker.told_to_stop()
    assert {1, 2} == {item for stop in stops for item in range(stop.start, stop.stop)}
    assert {delivery.token} == {stop.token for stop in stops}
    assert {} == client.ends(run_id)


def test_a_stopped_item_ends_as_revoked_and_says_how(broker):
    # Given a revoked chunk
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, chunksize=2)
    delivery = worker.claim()
    client.revoke(run_id)

    # When its holder has stopped one item, and not begun the other
    worker.commit(delivery, Stopped(0, 1, "SIGINT"), Stopped(1, 2))

    # Then both are revoked
    assert {0: State.REVOKED, 1: State.REVOKED} == client.ends(run_id)
    assert "SIGINT" == client.entry(run_id, 0).reason


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_how_much_memory_it_held_is_told_of_an_item_that_was_stopped(broker, end):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    client.revoke(run_id)

    getattr(worker, end)(delivery, peak_bytes=2**33)

    assert (State.REVOKED, 2**33) == (client.entry(run_id).state, client.entry(run_id).peak_bytes)


def test_other_supervisors_are_not_told(broker):
    client, holder = broker.client(), broker.worker()
    run_id = client.submit()
    holder.claim()
    other = broker.worker()

    client.revoke(run_id)

    assert [] == other.told_to_stop()
    assert 1 == len(holder.told_to_stop())


def test_a_success_that_was_committed_before_the_revoke_stays(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    worker.succeed(worker.claim())

    client.revoke(run_id)

    assert {0: State.SUCCESS} == client.ends(run_id)


def test_an_item_that_succeeds_before_it_could_be_stopped_is_a_success(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    client.revoke(run_id)

    worker.succeed(delivery)

    assert {0: State.SUCCESS} == client.ends(run_id)


@pytest.mark.parametrize("end", ["fail", "kill", "release", "leave", "silence"])
def test_however_a_revoked_item_ends_without_success_it_is_revoked(broker, end):
    # Given an item with retries and lives left, which is revoked while it runs
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(retry=RetryPolicy(max_retries=5))
    delivery = worker.claim()
    worker.started(delivery)
    client.revoke(run_id)

    # When it fails, or kills its slot, or is handed back, or its supervisor goes
    match end:
        case "fail":
            worker.fail(delivery, retryable=True)
        case "kill":
            worker.kill(delivery)
        case "release":
            worker.release(delivery)
        case "leave":
            worker.leave()
        case "silence":
            broker.elapse(broker.limits.lease_s + 2)

    # Then it is not tried again
    assert {0: State.REVOKED} == client.ends(run_id)
    assert [] == broker.worker().claims()


def test_a_revoke_reaches_items_that_wait_out_a_backoff(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(retry=RetryPolicy(max_retries=5, backoff_s=100.0))
    worker.fail(worker.claim(), retryable=True)

    client.revoke(run_id)
    broker.elapse(150.0, heard=(worker,))

    assert {0: State.REVOKED} == client.ends(run_id)
    assert [] == worker.claims()


def test_a_revoke_reaches_items_that_wait_for_their_countdown(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(countdown_s=10.0)

    client.revoke(run_id)
    broker.elapse(12.0, heard=(worker,))

    assert {0: State.REVOKED} == client.ends(run_id)
    assert [] == worker.claims()


def test_a_revoke_may_be_repeated(broker):
    # Given a revoked chunk of which a part has ended
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(3, chunksize=2)
    delivery = worker.claim()
    client.revoke(run_id)
    worker.commit(delivery, Stopped(0, 1), final=False)

    # When it is revoked again
    client.revoke(run_id)
    worker.commit(delivery, Stopped(1, 2))

    # Then each item ends once
    assert dict.fromkeys(range(3), State.REVOKED) == client.ends(run_id)


def test_an_item_that_nobody_revoked_cannot_be_stopped(broker):
    # Given a supervisor that stops an item of its own accord
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    worker.stop(worker.claim())

    # Then the item goes back to the queue, as one that has not begun
    again = worker.claim()
    worker.succeed(again)
    assert 1 == again.attempt
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_revoking_a_run_that_does_not_exist_does_not_stop_one_that_comes_later(broker):
    client, worker = broker.client(), broker.worker()
    client.revoke(b"later".ljust(16))

    run_id = client.submit(run_id=b"later".ljust(16))

    worker.succeed(worker.claim())
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_any_client_may_revoke(broker):
    # Given a run of a client that has died
    first, second = broker.client(), broker.client()
    run_id = first.submit()

    # When another one revokes it
    second.revoke(run_id)

    # Then it is revoked, and only who follows it is told
    assert {0: State.REVOKED} == first.ends(run_id)
    assert [] == second.log(run_id)


def test_a_revoked_rest_makes_room_for_other_work(broker):
    # Given a slot that runs the first of many items, and another run that waits behind them
    client, worker = broker.client(), broker.worker()
    first = client.submit(100)
    second = client.submit()
    delivery = worker.claim()

    # When the first run is revoked, and its holder has stopped
    client.revoke(first)
    worker.stop(delivery)

    # Then the second run has the slot
    assert second == worker.claim().run_id
    assert 100 == client.counts(first).revoked


def test_a_revoke_while_a_part_of_the_chunk_is_done(broker):
    # Given a chunk of four with two results, one item running, one to come
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4, chunksize=4)
    delivery = worker.claim()
    worker.succeed(delivery, 0, 2, final=False)
    worker.started(delivery, 2)

    # When the run is revoked, and the one that runs is faster than its revoke
    client.revoke(run_id)
    worker.commit(delivery, Succeeded(2, 3, b"value", 1.0), Released(3, 4))

    # Then only the last one is revoked
    assert [State.SUCCESS] * 3 + [State.REVOKED] == [client.ends(run_id)[item] for item in range(4)]


def test_a_revoke_of_the_whole_run_covers_what_still_comes(broker):
    # Given a run that is still being fed
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, chunksize=2, closed=False)
    delivery = worker.claim()

    # When all of it is revoked, and more comes, because the client had not heard of that
    client.revoke(run_id)
    client.feed(run_id, 2, 4, closed=True)
    worker.stop(delivery)

    # Then that is revoked, too
    assert dict.fromkeys(range(4), State.REVOKED) == client.ends(run_id)
    assert client.note(run_id).finished
    assert [] == worker.claims()


def test_a_revoke_of_some_items_does_not_cover_what_still_comes(broker):
    client = broker.client()
    run_id = client.submit(2, closed=False)

    client.revoke(run_id, 0, 2)
    client.feed(run_id, 2, 3, closed=True)

    assert 2 == broker.worker().claim().start


def test_the_holder_is_told_how_to_stop_and_may_be_told_again_to_be_harder(broker):
    # Given a task in a slot
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    worker.started(delivery)

    # When it is revoked, and revoked again in a hurry
    client.revoke(run_id)
    client.revoke(run_id, manner=Manner("SIGTERM", 0.5))

    # Then the holder hears both
    assert [GENTLY, Manner("SIGTERM", 0.5)] == [stop.manner for stop in worker.told_to_stop()]
