import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.progress import Counts, Pace

samples = st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 10**9)), max_size=50)


def at_constant_speed(*, items_per_s: float, items: int) -> Pace:
    pace = Pace()
    for ended in range(items + 1):
        pace.sample(100.0 + ended / items_per_s, ended)
    return pace


def test_counts_add_up():
    counts = Counts(total=20, done=9, failed=3, revoked=2, running=4)

    assert 2 == counts.waiting
    assert 14 == counts.ended
    assert not counts.finished


def test_a_lazy_input_is_not_finished_while_more_may_come():
    counts = Counts(total=5, done=5, closed=False)

    assert not counts.finished
    assert Counts(total=5, done=4, failed=1).finished


@pytest.mark.parametrize("items_per_s", [0.01, 0.2, 61.0, 900.0])
def test_a_constant_speed_is_measured_exactly(items_per_s):
    # Given a run at a constant speed
    pace = at_constant_speed(items_per_s=items_per_s, items=100)

    # Then both the rate and the time left are right
    assert math.isclose(items_per_s, pace.rate())
    assert math.isclose(50 / items_per_s, pace.eta_s(50))


def test_nothing_is_known_before_the_first_item_ends():
    # Given a run that has started, and nothing has ended
    pace = Pace()
    pace.sample(0.0, 0)
    pace.sample(30.0, 0)

    # Then there is no rate and no time left, instead of a guess
    assert pace.rate() == 0.0
    assert pace.eta_s(10) is None


def test_items_that_ended_before_the_first_sample_do_not_count():
    pace = Pace()
    pace.sample(10.0, 1_000)
    pace.sample(12.0, 1_004)

    assert math.isclose(2.0, pace.rate())


def test_between_two_slow_items_the_rate_is_calm_and_the_time_left_runs_down():
    # Given eight slots that end eight items every ten seconds
    pace = Pace()
    for second in range(31):
        pace.sample(float(second), 8 * (second // 10))

    # When half of the next ten seconds has passed
    at_30_s = pace.rate(), pace.eta_s(16)
    pace.sample(35.0, 24)

    # Then the rate stands and five seconds fewer are left
    assert math.isclose(0.8, pace.rate())
    assert math.isclose(0.8, at_30_s[0])
    assert math.isclose(at_30_s[1] - 5.0, pace.eta_s(16))


def test_a_run_that_stalls_slows_down():
    # Given a run that made 10 items per second
    pace = at_constant_speed(items_per_s=10, items=100)

    # When nothing ends any more
    rates = []
    for second in range(1, 60):
        pace.sample(110.0 + second, 100)
        rates.append(pace.rate())

    # Then the rate only falls, far
    assert sorted(rates, reverse=True) == rates
    assert 1.0 > rates[-1] > 0.0


def test_an_old_speed_is_forgotten():
    # Given ten seconds at 100 per second, then a minute at 1 per second
    pace = at_constant_speed(items_per_s=100, items=1_000)
    for second in range(1, 61):
        pace.sample(110.0 + second, 1_000 + second)

    # Then the rate is near the new speed; over the whole run it would be 15
    assert 1.0 <= pace.rate() < 5.0


@given(samples)
def test_whatever_the_samples_the_rate_is_finite_and_not_negative(points):
    pace = Pace()
    for now_s, ended in points:
        pace.sample(now_s, ended)

        assert math.isfinite(pace.rate())
        assert pace.rate() >= 0.0


@given(samples, st.integers(0, 10**9), st.integers(0, 10**9))
def test_fewer_items_never_take_longer(points, some, more):
    pace = Pace()
    for now_s, ended in points:
        pace.sample(now_s, ended)

    few, many = pace.eta_s(min(some, more)), pace.eta_s(max(some, more))

    assert (few is None) == (many is None)
    assert few is None or 0.0 <= few <= many < math.inf


@given(st.floats(0.01, 900.0), st.integers(2, 200))
def test_at_a_constant_speed_the_time_left_falls_to_nothing(items_per_s, items):
    pace = Pace()
    left = []
    for ended in range(items + 1):
        pace.sample(ended / items_per_s, ended)
        left.append(pace.eta_s(items - ended))

    known = [eta_s for eta_s in left if eta_s is not None]
    assert all(later < earlier for earlier, later in itertools.pairwise(known))
    assert known[-1] == 0.0
