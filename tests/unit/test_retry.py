"""Whether and when a failed attempt is made again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.retry import RetryPolicy, lost_backoff_s

policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 1000),
    backoff_s=st.floats(0, 1e6),
    backoff_max_s=st.floats(0, 1e6),
    jitter=st.booleans(),
)


def test_without_retries_there_is_no_delay():
    assert RetryPolicy().delay_s(0, 0.5) is None


@given(policies, st.integers(0, 2000), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_bounded_and_not_negative(policy, retries, draw):
    delay_s = policy.delay_s(retries, draw)

    assert (delay_s is None) == (retries >= policy.max_retries)
    assert delay_s is None or 0.0 <= delay_s <= policy.backoff_max_s


@pytest.mark.parametrize(("retries", "expected"), [(0, 3.0), (1, 6.0), (2, 12.0), (3, 20.0), (9, 20.0)])
def test_the_delay_doubles_up_to_its_bound(retries, expected):
    policy = RetryPolicy(max_retries=10, backoff_s=3.0, backoff_max_s=20.0, jitter=False)

    assert expected == policy.delay_s(retries, 0.7)


@pytest.mark.parametrize(("draw", "expected"), [(0.0, 0.0), (0.25, 2.0), (0.999, 7.992)])
def test_jitter_draws_between_nothing_and_the_whole(draw, expected):
    policy = RetryPolicy(max_retries=10, backoff_s=2.0)

    assert expected == pytest.approx(policy.delay_s(2, draw))


def test_an_item_that_kills_processes_waits_longer_each_time():
    assert [5.0, 20.0, 80.0] == [lost_backoff_s(lost) for lost in (1, 2, 3)]
