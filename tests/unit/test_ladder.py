"""The ladder by which a running item is stopped."""

import signal

import pytest

from nbqueue.core.task import Manner
from nbqueue.worker.revoke import Ladder

GRACE_S = 2.0


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


def steps_of(ladder):
    """All signals, at times that are far enough apart."""
    return [due for now in range(0, 1000, 100) if (due := ladder.climb(float(now))) is not None]


@pytest.mark.parametrize(
    ("first", "steps"),
    [
        ("SIGINT", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]),
        ("SIGTERM", [signal.SIGTERM, signal.SIGKILL]),
        ("SIGKILL", [signal.SIGKILL]),
        ("SIGUSR1", [signal.SIGUSR1, signal.SIGKILL]),
        ("SIGNONSENSE", [signal.SIGTERM, signal.SIGKILL]),
    ],
)
def test_whatever_signal_comes_first_the_last_one_kills(first, steps):
    assert steps == steps_of(Ladder(3, Manner(first)))


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1.0])
def test_a_grace_that_makes_no_sense_is_the_usual_one(nonsense):
    ladder = Ladder(3, Manner("SIGINT", nonsense))
    ladder.climb(100.0)

    assert 100.0 + GRACE_S == ladder.next_at


def test_asking_harder_climbs_at_once():
    # Given a ladder that has just asked
    ladder = Ladder(3)
    ladder.climb(100.0)

    # When somebody wants it terminated, then that is due now
    ladder.press(Manner("SIGTERM"))
    assert signal.SIGTERM == ladder.climb(100.1)
    assert signal.SIGKILL == ladder.climb(100.1 + GRACE_S)


def test_asking_again_or_more_gently_changes_nothing():
    # Given a ladder that has terminated
    ladder = Ladder(3, Manner("SIGTERM"))
    ladder.climb(100.0)

    # When it is asked again, and more gently, then the next step is the next one
    for manner in (Manner("SIGTERM"), Manner("SIGINT")):
        ladder.press(manner)
        assert ladder.climb(100.1) is None
    assert signal.SIGKILL == ladder.climb(100.0 + GRACE_S)


def test_a_shorter_grace_hurries():
    ladder = Ladder(3)
    ladder.climb(100.0)

    ladder.press(Manner("SIGINT", 0.5))

    assert signal.SIGTERM == ladder.climb(100.5)
