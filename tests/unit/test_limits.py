"""What running items may take, as decisions."""

import pytest

from nbqueue.core.task import TaskLimits
from nbqueue.settings import parse_size
from nbqueue.worker.limits import Budget, Overrun, must_hold, overrun, size_text, victim
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
