"""Task options as the user writes them."""

import numpy as np
import pytest

from nbqueue.client.options import DEFAULTS, MapOptions, check_options, retry_on, task_options
from nbqueue.core.exchange import ALL_ITEMS
from nbqueue.core.retry import RetryPolicy
from nbqueue.core.task import NO_LIMITS, TaskLimits, TaskOptions
from nbqueue.errors import TimeLimitExceeded


def options(**given):
    return task_options(check_options(given))


def test_without_options_the_broker_gets_its_defaults():
    assert TaskOptions() == options()
    assert DEFAULTS == check_options({})


def test_every_option_reaches_the_broker():
    expected = TaskOptions(
        retry=RetryPolicy(max_retries=3, backoff_s=2.0, backoff_max_s=9.0, jitter=False),
        max_lost=0,
        strict_fence=True,
        priority=-4,
        countdown_s=1.5,
        expires_s=7.0,
        chunksize=10,
        limits=TaskLimits(soft_time_s=1.0, time_s=2.0, memory_bytes=4 * 2**30, retry_time=True, retry_memory=True),
    )
    given = check_options(
        {
            "max_retries": 3,
            "retry_backoff": 2,
            "retry_backoff_max": 9,
            "retry_jitter": False,
            "max_lost": 0,
            "strict_fence": True,
            "priority": -4,
            "countdown": 1.5,
            "expires": 7,
            "soft_time_limit": 1,
            "time_limit": 2,
            "memory": "4G",
            "label": "mine",
        }
    )

    assert expected == task_options(given, chunksize=10)


def test_what_is_retried_is_no_limit_but_told_for_one_that_is_ordered_later():
    limits = options(max_retries=3).limits

    assert (False, True, False) == (limits.is_any, limits.retry_time, limits.retry_memory)
    assert NO_LIMITS == options().limits


@pytest.mark.parametrize(("option", "value"), [("soft_time_limit", 1), ("time_limit", 1), ("memory", 1)])
def test_each_limit_is_one(option, value):
    assert options(**{option: value}).limits.is_any


def test_a_limit_that_is_passed_counts_as_an_error_to_retry_on_if_it_is_named():
    named = options(max_retries=3, autoretry_for=(TimeLimitExceeded,), time_limit=1, memory=1)

    assert (True, False) == (named.limits.retry_time, named.limits.retry_memory)


@pytest.mark.parametrize(("backoff", "expected"), [(False, 0.0), (True, 1.0), (2.5, 2.5)])
def test_a_backoff_is_a_switch_or_seconds(backoff, expected):
    assert expected == options(retry_backoff=backoff).retry.backoff_s


@pytest.mark.parametrize(
    ("wrong", "right"), [("max_retry", "max_retries"), ("autoretry", "autoretry_for"), ("expire", "expires")]
)
def test_an_unknown_option_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(TypeError, match=f"there is no task option '{wrong}'; did you mean '{right}'"):
        check_options({wrong: 1})


def test_an_option_like_no_other_is_answered_with_all():
    with pytest.raises(TypeError) as caught:
        check_options({"zzz": 1})

    assert all(name in str(caught.value) for name in DEFAULTS)


@pytest.mark.parametrize("name", ["max_retries", "max_lost"])
@pytest.mark.parametrize("value", [-1, "3", None, 1.5, True, 10**30])
def test_a_count_is_a_whole_number_from_0(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number from 0 to 1,000,000, not {value!r}"):
        check_options({name: value})


@pytest.mark.parametrize("name", ["retry_backoff", "retry_backoff_max", "countdown"])
@pytest.mark.parametrize("value", [-1, "3", None, float("nan"), float("inf")])
def test_a_wait_is_a_number_of_seconds_from_0(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds, 0 or more, not {value!r}"):
        check_options({name: value})


@pytest.mark.parametrize("value", ["high", 1.5, None, 10**30, -(10**30)])
def test_a_priority_is_a_whole_number_that_can_be_sent(value):
    with pytest.raises(
        ValueError, match=f"priority must be a whole number from -1,000,000 to 1,000,000, not {value!r}"
    ):
        check_options({"priority": value})


@pytest.mark.parametrize("name", ["strict_fence", "retry_jitter"])
def test_a_switch_is_true_or_false(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, not 3"):
        check_options({name: 3})


@pytest.mark.parametrize("value", [0, -1])
def test_a_time_to_start_is_above_0(value):
    with pytest.raises(ValueError, match=f"expires must be a number of seconds above 0, not {value}"):
        check_options({"expires": value})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ()),
        ({"max_retries": 2}, (Exception,)),
        ({"max_retries": 2, "autoretry_for": OSError}, (OSError,)),
        ({"max_retries": 2, "autoretry_for": [OSError, KeyError]}, (OSError, KeyError)),
        ({"autoretry_for": (KeyboardInterrupt,)}, (KeyboardInterrupt,)),
    ],
)
def test_what_is_retried_is_named_or_every_exception(given, expected):
    assert expected == retry_on(check_options(given))


@pytest.mark.parametrize("value", [int, ["OSError"], [OSError, 3]])
def test_only_exceptions_can_be_retried(value):
    with pytest.raises(TypeError, match="autoretry_for must hold exception types"):
        retry_on(check_options({"autoretry_for": value}))


@pytest.mark.parametrize("value", [5, b"mine", ["mine"]])
def test_a_label_is_a_text(value):
    with pytest.raises(ValueError, match="label must be a text"):
        check_options({"label": value})


def test_numbers_of_numpy_are_numbers():
    given = options(max_retries=np.int64(3), priority=np.int32(2), countdown=np.float64(1.5))

    assert (3, 2, 1.5) == (given.retry.max_retries, given.priority, given.countdown_s)
    assert 7 == MapOptions(chunksize=np.int64(7)).chunk_items


def test_a_keyword_of_map_among_task_options_is_told_from_a_wrong_one():
    with pytest.raises(TypeError, match="'chunksize'; it is a keyword of map"):
        check_options({"chunksize": 3})
    with pytest.raises(TypeError, match="'chunk_size'; did you mean 'chunksize'"):
        check_options({"chunk_size": 3})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("chunksize", 0, '1 or more, or "auto"'),
        ("chunksize", "big", '1 or more, or "auto"'),
        ("buffersize", "auto", "1 or more, or None"),
        ("total", "2", "0 or more, or None"),
        ("timeout", "3", "seconds, 0 or more, or None"),
        ("timeout", -1, "seconds, 0 or more, or None"),
        ("on_error", "ignore", '"raise", "return" or "skip"'),
        ("on_interrupt", "stop", '"revoke" or "detach"'),
        ("desc", 3, "a text"),
        ("progress", "bar", 'True, False, "text", or a dict with some of desc, leave, unit'),
        ("progress", {"colour": "red"}, 'True, False, "text", or a dict with some of desc, leave, unit'),
        ("progress", None, 'True, False, "text", or a dict with some of desc, leave, unit'),
    ],
)
def test_a_wrong_keyword_of_map_is_answered_with_what_it_may_be(name, value, wanted):
    with pytest.raises(ValueError, match=f"{name} must be {wanted}, not "):
        MapOptions(**{name: value})


def test_a_chunk_larger_than_any_map_takes_all_of_it():
    assert ALL_ITEMS == MapOptions(chunksize=10**30).chunk_items
    assert MapOptions().chunk_items is None
