"""The ladder by which a running item is stopped."""

import signal

from nbqueue.worker.revoke import GRACE_S, Ladder


def test_the_first_step_is_due_at_once():
    ladder = Ladder(item=3)

    assert signal.SIGINT == ladder.climb(100.0)
    assert signal.SIGINT == ladder.last


def test_each_further_step_comes_after_its_grace():
    # Given a ladder that is looked at every tenth of a second
    ladder = Ladder(item=3)
    steps = {}
    for tenth in range(100):
        due = ladder.climb(tenth / 10)
        if due is not None:
            steps[tenth / 10] = due

    # Then it asks, presses and kills, with a grace between
    assert {0.0: signal.SIGINT, GRACE_S: signal.SIGTERM, 2 * GRACE_S: signal.SIGKILL} == steps


def test_before_the_first_step_nothing_was_sent():
    ladder = Ladder(item=3)

    assert ladder.last is None
    assert ladder.next_at == 0.0


def test_one_look_is_one_step_however_late_it_comes():
    ladder = Ladder(item=3)
    ladder.climb(0.0)

    assert signal.SIGTERM == ladder.climb(1000.0)
    assert ladder.climb(1000.0) is None


def test_after_the_last_step_nothing_is_left():
    ladder = Ladder(item=3)
    for now in (0.0, 10.0, 20.0):
        ladder.climb(now)

    assert ladder.next_at is None
    assert ladder.climb(1e9) is None
    assert signal.SIGKILL == ladder.last
