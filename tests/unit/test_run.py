"""The broker's record of one run: items in, claims out, and a log that tells each end once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.machine import Event
from nbqueue.core.retry import RetryPolicy
from nbqueue.core.run import Claim, Ending, Run, StopHolder, Wake
from nbqueue.core.states import State, Trigger
from nbqueue.core.task import Block, Entry, RunSpec, TaskOptions

WORKER = b"w" * 16


def run_of(*block_sizes, closed=True, now=0.0, **options):
    run = Run(RunSpec(run_id=b"r", function=b"f", label="f", options=TaskOptions(**options)), now=now)
    start = 0
    blocks = []
    for size in block_sizes:
        blocks.append(Block(start, start + size, b"p" * size))
        start += size
    run.feed(blocks, closed=closed, now=now)
    return run


def claim(run, size, token, now=0.0):
    return run.claim(size=size, token=token, worker_id=WORKER, now=now)


def end(run, trigger, start, stop, token=0, **more):
    return run.apply(Event(trigger, token=token), start, stop, ending=Ending(**more))


# -- input -------------------------------------------------------------------------------------------------------------


def test_blocks_make_items_that_wait():
    run = run_of(2, 3)

    assert (5, 5, 5) == (run.total, run.waiting, run.unfinished)
    assert not run.is_finished


def test_blocks_that_come_twice_are_passed_over():
    # Given a run with one block
    run = run_of(2, closed=False)

    # When it comes again, with the next one
    run.feed([Block(0, 2, b"pp"), Block(2, 4, b"qq")], closed=False, now=0.0)

    # Then only the next one is added
    assert (4, 4) == (run.total, run.payload_bytes)


def test_a_block_that_leaves_a_gap_is_not_taken():
    run = run_of(2, closed=False)
    run.feed([Block(3, 4, b"q")], closed=False, now=0.0)

    assert 2 == run.total


def test_an_empty_run_is_finished_when_it_is_closed():
    assert not run_of(closed=False).is_finished
    assert run_of().is_finished


def test_a_countdown_makes_items_wait_until_it_is_over():
    # Given a run with a countdown
    run = run_of(closed=False, countdown_s=4.0)
    wakes = run.feed([Block(0, 2, b"pp")], closed=True, now=10.0)
    assert [Wake(14.0, 0, 2)] == wakes
    assert claim(run, 2, token=1) is None

    # When it is over
    run.apply(Event(Trigger.DUE, now=14.0), 0, 2)

    # Then the items can be claimed
    assert (0, 2) == (claim(run, 2, token=1).start, run.count(State.RECEIVED))


# -- claims ------------------------------------------------------------------------------------------------------------


def test_a_claim_takes_the_first_items_that_wait():
    run = run_of(5)

    assert Claim(1, b"r", 0, 2, 1, WORKER) == claim(run, 2, token=1)
    assert Claim(2, b"r", 2, 5, 1, WORKER) == claim(run, 99, token=2)
    assert claim(run, 1, token=3) is None


def test_released_items_are_the_next_to_go():
    # Given a claim on the first items
    run = run_of(5)
    claim(run, 2, token=1)

    # When they are handed back
    end(run, Trigger.RELEASE, 0, 2, token=1)

    # Then they are first again, before those that never left
    assert (0, 5) == (claim(run, 9, token=2).start, run.count(State.RECEIVED) + run.waiting)


def test_released_items_keep_their_order():
    # Given a claim of which nothing was begun
    run = run_of(5)
    claim(run, 3, token=1)

    # When all of it is handed back
    end(run, Trigger.RELEASE, 0, 3, token=1)

    # Then the items wait as they did
    assert (0, 5) == ((taken := claim(run, 9, token=2)).start, taken.stop)


def test_items_of_another_attempt_are_claimed_apart():
    # Given two items, of which the first has failed once
    run = run_of(1, 1, retry=RetryPolicy(max_retries=1))
    claim(run, 1, token=1)
    _, [wake] = run.apply(Event(Trigger.FAIL, token=1, retryable=True), 0, 1)
    run.apply(Event(Trigger.DUE, now=wake.due), 0, 1)

    # Then one claim does not take both, for an attempt has one number
    assert (1, 2, 1) == ((first := claim(run, 9, token=2)).start, first.stop, first.attempt)
    assert (0, 1, 2) == ((second := claim(run, 9, token=3)).start, second.stop, second.attempt)


def test_items_that_ended_while_they_waited_are_not_claimed():
    run = run_of(4)
    end(run, Trigger.REVOKE, 1, 3)

    assert [(0, 1), (3, 4)] == [(taken.start, taken.stop) for taken in (claim(run, 9, token=1), claim(run, 9, token=2))]


def test_items_past_their_time_end_when_they_are_asked_for():
    # Given items that come at different times, and expire 5 s later
    run = run_of(2, closed=False, now=0.0, expires_s=5.0)
    run.feed([Block(2, 4, b"qq")], closed=True, now=3.0)

    # When one asks for all of them at 6 s
    taken = claim(run, 9, token=1, now=6.0)

    # Then the old ones have expired
    assert (2, 4) == (taken.start, taken.stop)
    assert [Entry(0, 2, State.EXPIRED, reason="not started in time")] == run.log


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_success_is_logged_with_its_values_and_its_share_of_the_time():
    # Given four items in one claim
    run = run_of(4)
    claim(run, 4, token=1)
    end(run, Trigger.REVOKE, 1, 2)
    end(run, Trigger.STOPPED, 1, 2, token=1, reason="stopped")

    # When values for all four come, and one item has ended otherwise
    end(run, Trigger.SUCCEED, 0, 4, token=1, payload=b"abcd", worker="w", wall_s=8.0, cpu_s=4.0, count=4)

    # Then each entry knows where in the payload its values are
    _, first, rest = run.log
    assert Entry(0, 1, State.SUCCESS, b"abcd", 0, attempt=1, worker="w", wall_s=2.0, cpu_s=1.0) == first
    assert Entry(2, 4, State.SUCCESS, b"abcd", 2, attempt=1, worker="w", wall_s=4.0, cpu_s=2.0) == rest
    assert 6.0 == run.work_s
    assert 8 == run.result_bytes
    assert run.is_finished


def test_only_values_and_failures_have_a_payload_in_the_log():
    run = run_of(1)
    end(run, Trigger.REVOKE, 0, 1, payload=b"x", reason="revoked")

    assert [Entry(0, 1, State.REVOKED, reason="revoked")] == run.log


def test_a_revoke_names_the_holders_to_be_told():
    # Given a claimed item and one that waits
    run = run_of(2)
    claim(run, 1, token=7)

    # When both are revoked
    stops, wakes = end(run, Trigger.REVOKE, 0, 2)

    # Then the holder is told of its own, and the other ends at once
    assert ([StopHolder(7, 0, 1)], []) == (stops, wakes)
    assert [1] == [entry.start for entry in run.log]


def test_a_success_of_an_old_claim_tells_the_holder_of_the_new_one():
    run = run_of(1)
    claim(run, 1, token=1)
    end(run, Trigger.REAP, 0, 1, token=1)
    claim(run, 1, token=2)

    stops, _ = end(run, Trigger.SUCCEED, 0, 1, token=1)

    assert [StopHolder(2, 0, 1)] == stops


def test_what_is_not_legal_is_counted_and_changes_nothing():
    run = run_of(1)
    claim(run, 1, token=1)

    assert ([], []) == end(run, Trigger.FAIL, 0, 1, token=99)
    assert (1, State.RECEIVED, []) == (run.refused_events, run.items[0].state, run.log)


def test_a_payload_is_kept_until_the_last_item_of_its_block_has_ended():
    # Given two blocks in one claim
    run = run_of(2, 3)
    claim(run, 5, token=1)

    # When all items of the first and one of the second end
    end(run, Trigger.SUCCEED, 0, 3, token=1, count=3)

    # Then the first block is empty and the second whole
    assert [b"", b"ppp"] == [block.payload for block in run.blocks(0, 5)]
    assert 3 == run.payload_bytes

    # When the others end, too
    end(run, Trigger.SUCCEED, 3, 5, token=1, count=2)

    # Then nothing is left
    assert 0 == run.payload_bytes


@pytest.mark.parametrize(
    ("start", "stop", "expected"), [(0, 1, [0]), (1, 3, [0, 2]), (2, 5, [2]), (4, 6, [2, 5]), (0, 9, [0, 2, 5])]
)
def test_a_claim_travels_with_the_blocks_that_it_touches(start, stop, expected):
    assert expected == [block.start for block in run_of(2, 3, 4).blocks(start, stop)]


steps = st.lists(
    st.tuples(
        st.sampled_from([None, *(trigger for trigger in Trigger if trigger is not Trigger.CLAIM)]),
        st.integers(0, 20),
        st.integers(1, 20),
        st.integers(1, 5),
        st.booleans(),
    ),
    max_size=40,
)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), steps, st.booleans(), st.integers(0, 1))
def test_the_log_has_every_item_that_ended_exactly_once(block_sizes, steps, strict_fence, max_lost):
    # Given a run to which anything happens, in any order
    retry = RetryPolicy(max_retries=1)
    run = run_of(*block_sizes, strict_fence=strict_fence, max_lost=max_lost, retry=retry)
    token = 0
    for now, (trigger, start, length, age, retryable) in enumerate(steps):
        if trigger is None:
            token += 1
            claim(run, length, token, now=float(now))
        else:
            run.apply(Event(trigger, 10.0 * now, max(token - age + 1, 0), retryable), start, start + length)

    # When what is left is revoked, and its holders obey
    logged = [index for entry in run.log for index in range(entry.start, entry.stop)]
    assert run.unfinished == run.total - len(logged)
    run.apply(Event(Trigger.REVOKE), 0, run.total)
    for held in range(token + 1):
        run.apply(Event(Trigger.STOPPED, token=held), 0, run.total)

    # Then the log has each item once, and nothing is left of the input
    assert list(range(run.total)) == sorted(index for entry in run.log for index in range(entry.start, entry.stop))
    assert all(run.items[index].state is entry.state for entry in run.log for index in range(entry.start, entry.stop))
    assert run.is_finished
    assert run.counts().finished
    assert 0 == run.payload_bytes
    assert run.total == sum(run.count(state) for state in State)
