"""Reports from claims that are not the current one: the first success wins, failures count from the holder only."""

import pytest

from nbqueue.core.states import State
from nbqueue.core.task import Failed, Killed, Released, Stopped, Succeeded

SILENCE_S = 17.0


@pytest.fixture
def zombie(broker):
    """A client, its run of one item, a supervisor that was taken for dead with it, and its claim."""

    def make(**options):
        client, worker = broker.client(), broker.worker()
        run_id = client.submit(**options)
        delivery = worker.claim()
        broker.elapse(SILENCE_S)
        return client, run_id, worker, delivery

    return make


def test_a_late_success_wins_over_the_attempt_that_goes_on(broker, zombie):
    # Given an item that runs again elsewhere because its supervisor was silent
    client, run_id, first, delivery = zombie()
    second = broker.worker()
    again = second.claim()

    # When the first supervisor wakes up and reports its success
    first.succeed(delivery, payload=b"from the first")

    # Then that is the result, and the second is told to stop
    assert (State.SUCCESS, b"from the first") == (client.entry(run_id).state, client.entry(run_id).payload)
    assert [again.token] == [stop.token for stop in second.told_to_stop()]


def test_the_result_never_changes(broker, zombie):
    # Given an item that two supervisors have run
    client, run_id, first, delivery = zombie()
    second = broker.worker()
    again = second.claim()

    # When both report
    first.succeed(delivery, payload=b"from the first")
    second.succeed(again, payload=b"from the second")

    # Then the first result stays, and the client heard of one only
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert b"from the first" == client.entry(run_id).payload


def test_a_late_success_wins_while_the_item_waits(broker, zombie):
    # Given an item that is back in the queue
    client, run_id, first, delivery = zombie()

    # When its former holder reports a success
    first.succeed(delivery)

    # Then it is done, and not run again
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert [] == broker.worker().claims()


def test_a_late_success_wins_over_a_backoff(broker):
    # Given a started item of a dead supervisor, which waits 5 s for its next attempt
    client, first = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = first.claim()
    first.started(delivery)
    broker.elapse(SILENCE_S)

    # When the supervisor turns out to live
    first.succeed(delivery)
    broker.elapse(6.0)

    # Then there is no next attempt
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert [] == broker.worker().claims()


@pytest.mark.parametrize(
    "outcome",
    [Failed(0, b"late", False, 1.0), Failed(0, b"late", True, 1.0), Killed(0, "late"), Released(0, 1), Stopped(0, 1)],
    ids=lambda outcome: type(outcome).__name__,
)
def test_whatever_else_a_former_holder_reports_is_ignored(broker, zombie, outcome):
    # Given an item that runs again elsewhere
    client, run_id, first, delivery = zombie(max_lost=0)
    second = broker.worker()
    again = second.claim()

    # When the former holder reports anything but a success
    first.commit(delivery, outcome)

    # Then the holder's result counts
    second.succeed(again, payload=b"from the second")
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert b"from the second" == client.entry(run_id).payload
    assert client.inspect().refused_events > 0


def test_a_former_holder_that_starts_late_does_not_draw_blame(broker, zombie):
    # Given an item that is held again elsewhere, not started, and may not cost a process
    client, run_id, first, delivery = zombie(max_lost=0)
    second = broker.worker()
    second.claim()

    # When the former holder says that it runs the item, and the new one dies
    first.started(delivery)
    broker.elapse(SILENCE_S)

    # Then nobody is to blame
    third = broker.worker()
    third.succeed(third.claim())
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_under_strict_fence_only_the_current_attempt_counts(broker, zombie):
    # Given an item with a strict fence that runs again elsewhere
    client, run_id, first, delivery = zombie(strict_fence=True)
    second = broker.worker()
    again = second.claim()

    # When both report a success, the former holder first
    first.succeed(delivery, payload=b"from the first")
    second.succeed(again, payload=b"from the second")

    # Then the holder's counts
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert b"from the second" == client.entry(run_id).payload


def test_under_strict_fence_a_late_success_does_not_end_a_waiting_item(broker, zombie):
    client, run_id, first, delivery = zombie(strict_fence=True)

    first.succeed(delivery)

    assert {} == client.ends(run_id)
    assert 2 == broker.worker().claim().attempt


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Succeeded(0, 1, b"first", 1.0), Succeeded(0, 1, b"second", 1.0)),
        (Succeeded(0, 1, b"first", 1.0), Failed(0, b"second", False, 1.0)),
        (Failed(0, b"first", False, 1.0), Succeeded(0, 1, b"second", 1.0)),
        (Failed(0, b"first", False, 1.0), Failed(0, b"second", False, 1.0)),
        (Succeeded(0, 1, b"first", 1.0), Killed(0, "second")),
    ],
)
@pytest.mark.parametrize("final", [True, False])
def test_the_first_of_two_reports_on_one_claim_counts(broker, first, second, final):
    # Given an item in a slot
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()

    # When its end is reported twice
    worker.commit(delivery, first, final=final)
    worker.commit(delivery, second)

    # Then the first report stands, in state, bytes and counts
    state = State.SUCCESS if isinstance(first, Succeeded) else State.FAILURE
    assert {0: state} == client.ends(run_id)
    assert b"first" == client.entry(run_id).payload
    assert 1 == client.counts(run_id).ended


def test_a_supervisor_cannot_fail_what_another_one_holds(broker):
    # Given an item that one supervisor holds
    client, holder = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = holder.claim()

    # When another one reports its failure under the holder's token
    broker.worker().fail(delivery)

    # Then the holder's result counts
    holder.succeed(delivery)
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_a_commit_after_the_run_was_forgotten_is_ignored(broker):
    # Given a finished run that two supervisors ran, and that was forgotten
    client, first = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = first.claim()
    broker.elapse(SILENCE_S)
    second = broker.worker()
    second.succeed(second.claim())
    client.forget(run_id)

    # When the first one reports
    first.succeed(delivery)

    # Then the broker goes on
    assert [] == client.inspect().runs
    client.submit()
    assert 1 == len(second.claims())


def test_a_slot_is_free_again_after_its_result_came_too_late(broker, zombie):
    # Given a supervisor whose item was ended by its former holder
    client, _, first, delivery = zombie()
    second = broker.worker()
    again = second.claim()
    first.succeed(delivery)

    # When it ends its claim
    second.stop(again)

    # Then its slot is free for other work
    client.submit()
    assert 1 == len(second.claims())
