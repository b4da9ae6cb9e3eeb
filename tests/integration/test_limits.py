"""Limits on time, memory and processes, and what becomes of those who pass them."""

import os
import time

import pytest

import nbqueue

MIB = 2**20


@pytest.fixture
def slots_work(app):
    """Both slots serve after the test."""
    yield
    assert [0, 1] == app.map(lambda x: time.sleep(0.1) or x, range(2), chunksize=1).get(10)


def used_memory(size_bytes):
    memory = bytearray(size_bytes)
    memory[::4096] = b"x" * len(range(0, size_bytes, 4096))  # touch every page
    return memory


def hold(size_bytes):
    """Hold so much memory that is really used."""
    memory = used_memory(size_bytes)
    time.sleep(1e6)
    return memory


def hold_in_children(count, size_bytes):
    """Hold nothing, but start processes that hold so much each."""
    children = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            hold(size_bytes)
        children.append(pid)
    os.waitpid(children[0], 0)


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_task_that_passes_its_soft_time_limit_is_told_inside_and_may_clean_up(app, slots_work):
    # Given a task that handles the error
    def work():
        try:
            time.sleep(1e6)
        except nbqueue.SoftTimeLimitExceeded as error:
            return f"cleaned up: {error}"

    # Then it returns what it likes
    answer = app.options(soft_time_limit=0.3).submit(work).get(10)
    assert "cleaned up: it has run for longer than its soft_time_limit of 0.3 s" == answer


def test_a_task_that_does_not_handle_its_soft_time_limit_has_failed(app, slots_work):
    task = app.options(soft_time_limit=0.2).submit(time.sleep, 1e6)

    with pytest.raises(nbqueue.SoftTimeLimitExceeded, match=r"soft_time_limit of 0\.2 s"):
        task.get(10)
    assert "FAILURE" == task.state


def loop_in_native_code():
    return sum(range(10**13))


def swallow_everything():
    while True:
        try:
            time.sleep(1e6)
        except BaseException:
            pass


@pytest.mark.parametrize("stubborn", [loop_in_native_code, swallow_everything])
def test_a_task_that_passes_its_time_limit_is_ended_whatever_it_does(app, slots_work, stubborn):
    began = time.monotonic()
    task = app.options(soft_time_limit=0.1, time_limit=0.5).submit(stubborn)

    with pytest.raises(nbqueue.TimeLimitExceeded, match=r"time_limit of 0\.5 s, and its process was ended"):
        task.get(10)
    assert "FAILURE" == task.state
    assert 1 == task.info["attempts"]
    assert 0.5 <= time.monotonic() - began < 3.0


def test_the_time_limit_is_each_items_own(app, slots_work):
    # Given a map that takes longer than the limit, and one item that does so alone
    results = app.map(lambda x: time.sleep(1e6 if x == 5 else 0.1) or x, range(12), chunksize=12, time_limit=0.6)

    # Then only that one has failed
    values = results.get(15, propagate=False)
    assert nbqueue.TimeLimitExceeded is type(values[5])
    assert [x for x in range(12) if x != 5] == [value for value in values if isinstance(value, int)]


def test_a_task_that_passed_its_time_limit_can_be_retried(app, tmp_path, slots_work):
    # Given a task that is too slow once
    marker = tmp_path / "tried"

    def work():
        if not marker.exists():
            marker.touch()
            time.sleep(1e6)
        return "second time"

    # Then it may be tried again, if its options say so
    assert "second time" == app.options(time_limit=0.5, max_retries=1).submit(work).get(10)


def test_a_retry_only_for_other_errors_is_no_retry_after_a_limit(app, slots_work):
    task = app.options(time_limit=0.2, max_retries=5, autoretry_for=(OSError,)).submit(time.sleep, 1e6)

    with pytest.raises(nbqueue.TimeLimitExceeded):
        task.get(10)
    assert 1 == task.info["attempts"]


def test_how_much_memory_a_task_held_that_passed_its_time_limit_is_told(app, slots_work):
    task = app.options(time_limit=1.5).submit(hold, 200 * MIB)

    with pytest.raises(nbqueue.TimeLimitExceeded):
        task.get(15)
    assert 200 * MIB < task.info["peak_bytes"] < 400 * MIB


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_memory_bomb_ends_under_its_limit_and_says_how_much_it_held(app, slots_work):
    task = app.options(memory="300M").submit(hold, 600 * MIB)

    with pytest.raises(nbqueue.MemoryLimitExceeded, match=r"it held \d+ MiB of memory, more than its limit of 300 MiB"):
        task.get(15)
    assert "FAILURE" == task.state
    assert 300 * MIB < task.info["peak_bytes"] < 1000 * MIB


def test_memory_of_processes_that_a_task_starts_counts(app, slots_work):
    # Given a task that holds nothing itself, but starts three processes that hold 150 MiB each
    task = app.options(memory=400 * MIB).submit(hold_in_children, 3, 150 * MIB)

    with pytest.raises(nbqueue.MemoryLimitExceeded):
        task.get(15)
    assert 400 * MIB < task.info["peak_bytes"] < 1000 * MIB  # of all together


def test_a_task_within_its_memory_limit_is_left_alone(app, slots_work):
    def work():
        memory = used_memory(100 * MIB)
        time.sleep(0.6)
        return len(memory)

    assert 100 * MIB == app.options(memory="400M").submit(work).get(15)


@pytest.mark.timeout(60)
def test_a_worker_ends_the_largest_task_when_its_memory_is_full_and_the_others_go_on(own_hub, tmp_path, monkeypatch):
    # Given a worker whose slots may hold 800 MiB together, and a small task in one of them
    monkeypatch.setenv("NBQUEUE_MEMORY_LIMIT", "800M")
    app = own_hub.app()
    small = app.submit(lambda: time.sleep(4) or "small")

    # When a task in the other one holds more
    large = app.options(max_lost=0).submit(hold_in_children, 2, 450 * MIB)

    # Then that one is ended, and told why, and the small one is not
    with pytest.raises(nbqueue.WorkerLost, match=r"the memory of worker .* is \d+% full .*held \d+ MiB"):
        large.get(20)
    assert 500 * MIB < large.info["peak_bytes"] < 1000 * MIB  # of all together
    assert "small" == small.get(20)


@pytest.mark.timeout(60)
def test_nothing_more_is_begun_while_memory_is_short(own_hub, tmp_path, monkeypatch, wait_until):
    # Given a worker that is nearly full of the memory of one task (its processes hold some themselves)
    monkeypatch.setenv("NBQUEUE_MEMORY_LIMIT", "1000M")
    app = own_hub.app()
    release, began = tmp_path / "release", tmp_path / "began"

    def fill(size_bytes):
        memory = used_memory(size_bytes)
        (tmp_path / "full").touch()
        while not release.exists():
            time.sleep(0.01)
        return len(memory) > 0

    assert [1, 1] == app.map(abs, [-1, 1]).get(10)
    held = sum(process.memory_info().rss for process in wait_until(own_hub.slots, "slots"))
    full = app.submit(fill, 935 * MIB - held)
    wait_until((tmp_path / "full").exists, "a full worker")
    time.sleep(1.2)  # two looks of the guard; there is nothing to see

    # When another task comes, then it waits
    waiting = app.submit(began.touch)
    with pytest.raises(TimeoutError):
        waiting.get(1.5)
    assert not began.exists()

    # And runs when there is room again
    release.touch()
    assert full.get(10)
    waiting.get(20)
    assert began.exists()


# -- processes ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_a_fork_bomb_is_stopped_by_a_clear_error(app, slots_work):
    # Given a task that starts processes without end, each of which does so, too
    def bomb():
        while True:
            os.fork()
            time.sleep(0.05)  # so that this machine survives until somebody looks

    task = app.submit(bomb)

    # Then they are all ended, and it is told why
    with pytest.raises(nbqueue.ProcessLimitExceeded, match="more than the 512 that one task may have"):
        task.get(30)


# -- processes of slots ------------------------------------------------------------------------------------------------


def test_a_slot_gets_a_fresh_process_after_so_many_tasks(own_hub, monkeypatch):
    # Given a worker whose processes run three tasks each
    monkeypatch.setenv("NBQUEUE_MAX_TASKS_PER_CHILD", "3")
    app = own_hub.app(workers=1)

    # When it runs ten
    pids = app.map(lambda _: os.getpid(), range(10), chunksize=5).get(15)

    # Then no process has run more than three, and none was used only in part
    assert {pid: pids.count(pid) for pid in pids} == dict(zip(dict.fromkeys(pids), [3, 3, 3, 1], strict=False))


def test_numerical_libraries_share_the_cores_between_the_slots(app, monkeypatch):
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"]

    caps = app.submit(lambda: [os.environ[name] for name in names]).get(10)

    cores = len(os.sched_getaffinity(0))
    assert [str(max(1, cores // 2))] * 4 == caps


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("time_limit", 0, "above 0"),
        ("soft_time_limit", "1", "above 0"),
        ("memory", "much", "like .512M. or .4G."),
        ("memory", 0, "above 0"),
        ("memory", True, "above 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(app, option, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        app.options(**{option: value})
