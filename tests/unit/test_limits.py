"""What running items may take, as decisions."""

import pytest

from nbqueue.core.exchange import Delivery
from nbqueue.core.task import TaskLimits
from nbqueue.settings import parse_size
from nbqueue.worker.limits import Budget, Overrun, TimeRules, must_hold, overrun, size_text, victim
from nbqueue.worker.memory import held_bytes, machine, own_bytes, processes
from nbqueue.worker.zygote_process import thread_caps

GIB = 2**30


@pytest.mark.parametrize(
    ("running_s", "held", "expected"),
    [
        (0.5, None, None),
        (1.0, None, Overrun.SOFT_TIME),
        (2.0, None, Overrun.TIME),
        (2.0, 101, Overrun.MEMORY),
        (0.0, 101, Overrun.MEMORY),
        (0.0, 100, None),
    ],
)
def test_the_gravest_limit_counts(running_s, held, expected):
    limits = TaskLimits(soft_time_s=1.0, time_s=2.0, memory_bytes=100)

    assert expected == overrun(limits, running_s=running_s, held_bytes=held)


def test_without_limits_nothing_is_passed():
    assert overrun(TaskLimits(), running_s=1e9, held_bytes=10**15) is None


@pytest.mark.parametrize(("used", "holds"), [(91, False), (92, True), (99, True)])
def test_nothing_is_begun_above_92_percent(used, holds):
    budget = Budget("the memory", 100, used)

    assert (budget if holds else None) == must_hold([Budget("another", 100, 1), budget])


@pytest.mark.parametrize(("used", "ends"), [(94, False), (95, True)])
def test_the_largest_is_ended_above_95_percent(used, ends):
    budget = Budget("the memory", 100, used)

    assert ((1, budget) if ends else None) == victim([budget], [(20, 3.0), (40, 1.0), (10, 2.0)])


def test_of_equals_the_newest_is_ended():
    budget = Budget("the memory", 100, 99)

    assert (2, budget) == victim([budget], [(30, 3.0), (10, 9.0), (30, 4.0)])


def test_nobody_is_ended_for_what_others_have_filled():
    # Given a machine that is full of something else
    assert victim([Budget("the machine's memory", 100 * GIB, 99 * GIB)], [(GIB, 1.0)]) is None
    assert victim([Budget("the machine's memory", 100 * GIB, 99 * GIB)], []) is None


def test_a_budget_says_how_full_it_is():
    assert "the machine's memory is 96% full (15.4 GiB of 16.0 GiB)" == str(
        Budget("the machine's memory", 16 * GIB, int(15.4 * GIB))
    )


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (300 * 2**20, "300 MiB"), (1.5 * GIB, "1.5 GiB")]
)
def test_sizes_are_for_people(size, text):
    assert text == size_text(size)


@pytest.mark.parametrize(
    ("text", "size"),
    [(1000, 1000), ("1000", 1000), ("1k", 1024), ("1.5 GiB", 3 * 2**29), ("512MB", 2**29), ("1T", 2**40)],
)
def test_sizes_can_be_given_in_units(text, size):
    assert size == parse_size("memory", text)


@pytest.mark.parametrize("nonsense", ["", "much", "-1", 0, "0", True, None, 1e300, "1X", [1]])
def test_a_size_that_makes_no_sense_is_refused_by_name(nonsense):
    with pytest.raises(ValueError, match="memory must be a number of bytes above 0"):
        parse_size("memory", nonsense)


def test_slots_share_the_cores():
    assert {"1"} == set(thread_caps(10_000).values())
    assert int(thread_caps(1)["OMP_NUM_THREADS"]) >= 1


def test_measures_are_of_this_world():
    import os

    held = held_bytes(os.getpid())
    assert own_bytes(os.getpid()) <= held + 2**20
    assert held > 2**20
    assert processes(os.getpid()) >= 1
    assert all(0 < budget.used_bytes < budget.total_bytes for budget in machine()[:1])


def test_what_is_gone_holds_nothing():
    nobody = 2**22 + 1  # above the highest pid that there can be

    assert (0, 0, 0) == (held_bytes(nobody), own_bytes(nobody), processes(nobody))


# -- limits by name ----------------------------------------------------------------------------------------------------


def begun(rules, name="fit", **limits):
    """The limits with which a task of this name begins."""
    delivery = Delivery(
        token=1,
        run_id=b"run",
        label=name,
        start=0,
        stop=1,
        attempt=1,
        digest=b"digest",
        function=None,
        blocks=[],
        environment=b"",
        limits=TaskLimits(**limits),
    )
    return rules.applied(delivery).limits


@pytest.mark.parametrize(
    ("ordered", "own", "expected"),
    [
        ((5, 10), (None, None), (5, 10)),
        ((None, 10), (3, None), (3, 10)),
        ((5, 10), (3, 30), (3, 10)),
        ((5, None), (None, 7), (5, 7)),
    ],
)
def test_of_a_rule_and_a_tasks_own_limits_the_stricter_ones_hold(ordered, own, expected):
    rules = TimeRules()
    rules.put("fit", soft_s=ordered[0], time_s=ordered[1])

    limits = begun(rules, soft_time_s=own[0], time_s=own[1], memory_bytes=9, retry_time=True)

    assert TaskLimits(soft_time_s=expected[0], time_s=expected[1], memory_bytes=9, retry_time=True) == limits


def test_a_rule_is_for_tasks_of_its_name_and_until_it_is_taken_away():
    # Given a rule, which was then changed
    rules = TimeRules()
    assert "'fit': soft 5 s, hard 10 s" == rules.put("fit", soft_s=5.0, time_s=10.0)
    assert "'fit': hard 7.5 s" == rules.put("fit", soft_s=None, time_s=7.5)

    # Then it holds for no others
    assert TaskLimits(time_s=7.5) == begun(rules)
    assert TaskLimits() == begun(rules, "refit")

    # And for nobody when it was taken away
    assert "no time limits for 'fit' any more" == rules.put("fit", soft_s=None, time_s=None)
    assert "there were no time limits for 'fit'" == rules.put("fit", soft_s=None, time_s=None)
    assert TaskLimits() == begun(rules)
