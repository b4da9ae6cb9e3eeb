"""Stopping what waits, and what runs."""

import collections
import multiprocessing
import random
import signal
import subprocess
import threading
import time

import psutil
import pytest

import nbqueue


@pytest.fixture
def revoke_running(app, tmp_path, wait_until):
    """Submit a function of a marker file, revoke it once the file is there, and say how long its end took."""
    marker = tmp_path / "started"

    def revoke_running(function):
        task = app.submit(function, marker)
        wait_until(marker.exists, "its start")
        began = time.monotonic()
        task.revoke()
        with pytest.raises(nbqueue.TaskRevoked):
            task.get(10)
        assert ("REVOKED", True) == (task.state, task.cancelled())
        return time.monotonic() - began

    return revoke_running


@pytest.fixture
def slots_work(app):
    """Both slots serve, and nothing of the former task is left in them."""
    yield
    assert [0, 1] == app.map(lambda x: time.sleep(0.1) or x, range(2), chunksize=1).get(10)


@pytest.mark.parametrize("terminate", [False, True])
def test_how_much_memory_a_task_held_that_was_stopped_is_told(app, slots_work, tmp_path, wait_until, terminate):
    # Given a task that holds some memory
    marker = tmp_path / "started"

    def hold_memory():
        memory = bytearray(200 * 2**20)
        memory[::4096] = b"x" * len(range(0, len(memory), 4096))
        marker.touch()
        time.sleep(1e6)

    task = app.submit(hold_memory)
    wait_until(marker.exists, "its start")

    # When it is stopped, by being asked or with its process
    report = task.revoke(terminate=terminate, wait=True)

    # Then it is told how much that was
    assert ("SIGTERM" if terminate else "SIGINT") == report.how
    assert 200 * 2**20 < task.info["peak_bytes"] < 400 * 2**20


def test_a_queued_task_that_was_revoked_never_runs(app, tmp_path, slots_work, wait_until):
    # Given two busy slots and a task behind them
    ran = tmp_path / "ran"
    release = tmp_path / "release"

    def hold():
        while not release.exists():
            time.sleep(0.005)

    busy = [app.submit(hold) for _ in range(2)]
    wait_until(lambda: all(task.running() for task in busy), "busy slots")
    queued = app.submit(ran.touch)

    # When it is revoked
    queued.revoke()
    with pytest.raises(nbqueue.TaskRevoked, match="touch"):
        queued.get(5)

    # Then it never runs
    release.touch()
    nbqueue.wait(busy, 10)
    assert 1 == app.submit(abs, -1).get(10)
    assert not ran.exists()


def test_a_python_loop_is_stopped_within_two_seconds(revoke_running, slots_work):
    def loop(marker):
        marker.touch()
        while True:
            pass

    assert revoke_running(loop) < 2.0


def test_a_sleep_is_stopped_within_two_seconds(revoke_running, slots_work):
    def sleep(marker):
        marker.touch()
        time.sleep(1e6)

    assert revoke_running(sleep) < 2.0


def test_a_task_can_clean_up(revoke_running, slots_work, tmp_path):
    cleaned = tmp_path / "cleaned"

    def sleep(marker):
        try:
            marker.touch()
            time.sleep(1e6)
        finally:
            cleaned.touch()

    assert revoke_running(sleep) < 2.0
    assert cleaned.exists()


def test_a_task_that_swallows_signals_is_killed(revoke_running, slots_work, hub, wait_until):
    def stubborn(marker):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        marker.touch()
        while True:
            try:
                time.sleep(1e6)
            except KeyboardInterrupt:
                pass

    seconds = revoke_running(stubborn)

    assert 3.5 < seconds < 6.0
    wait_until(lambda: 2 == len(hub.slots()), "two slots")


def test_a_task_that_asks_whether_it_was_revoked_can_end_by_itself(app, tmp_path, slots_work, wait_until):
    # Given a task that shields itself from interrupts, and asks
    marker = tmp_path / "started"

    def polite():
        while not nbqueue.current_task().is_revoked():
            try:
                marker.touch()
                time.sleep(0.01)
            except KeyboardInterrupt:
                pass
        return "ended early"

    task = app.submit(polite)
    wait_until(marker.exists, "its start")

    # When it is revoked, then it ends soon: what it returned is kept, or it is revoked
    task.revoke()
    assert {type(None), nbqueue.TaskRevoked} >= {type(task.exception(3))}


def test_revoking_a_map_keeps_what_is_finished(app, slots_work, wait_until):
    # Given a map that has done some of its items
    results = app.map(lambda x: time.sleep(0.01) or x, range(1000))
    wait_until(lambda: results.counts.done > 20, "some items")

    # When it is revoked
    began = time.monotonic()
    results.revoke()
    assert nbqueue.TaskRevoked is type(results.exception(5))

    # Then it ends at once, the counts add up, and finished items have their values
    counts = results.counts
    assert time.monotonic() - began < 2.0
    assert (1000, 1000, 0, 0, 0) == (
        counts.total,
        counts.done + counts.revoked,
        counts.failed,
        counts.running,
        counts.waiting,
    )
    assert counts.done > 20
    assert counts.revoked > 500
    values = results.get(5, propagate=False)
    assert all(value == index or isinstance(value, nbqueue.TaskRevoked) for index, value in enumerate(values))
    assert counts.done == sum(isinstance(value, int) for value in values)
    assert [] == results.errors()
    assert "REVOKED" == results.state


def test_revoking_a_map_never_runs_an_item_again_that_it_had_interrupted(app, tmp_path, wait_until):
    # Given a map whose items note their start
    log = tmp_path / "started"

    def note(x):
        with open(log, "a") as file:
            file.write(f"{x}\n")
        time.sleep(0.05)

    results = app.map(note, range(200))
    wait_until(lambda: results.counts.done > 5, "some items")

    # When it is revoked and something else has run since
    results.revoke()
    results.exception(5)
    started = log.read_text().split()
    assert [0, 1] == app.map(lambda x: time.sleep(0.2) or x, range(2), chunksize=1).get(10)

    # Then no further item has started, and none ever did twice
    assert started == log.read_text().split()
    assert len(started) == len(set(started))


def test_revoking_what_has_ended_changes_nothing(app):
    task = app.submit(abs, -1)
    assert 1 == task.get(10)

    task.revoke()

    assert (1, "SUCCESS", False) == (task.get(1), task.state, task.cancelled())


def test_cancel_stops_only_what_has_not_begun(app, tmp_path, slots_work, wait_until):
    # Given two running tasks and a queued one
    release = tmp_path / "release"

    def hold():
        while not release.exists():
            time.sleep(0.005)
        return "held"

    busy = [app.submit(hold) for _ in range(2)]
    wait_until(lambda: all(task.running() for task in busy), "busy slots")
    queued = app.submit(hold)

    # When all are cancelled, then the queued one is, the others go on
    assert [True, False, False] == [task.cancel() for task in (queued, *busy)]
    assert queued.cancelled()
    release.touch()
    assert ["held", "held"] == [task.get(10) for task in busy]
    assert not busy[0].cancel()


def test_a_task_waiting_for_its_retry_can_be_revoked(app, tmp_path, wait_until):
    # Given a task that has failed once and waits out a long backoff
    marker = tmp_path / "ran"

    def fail():
        marker.touch()
        raise ValueError("bad")

    task = app.options(max_retries=3, retry_backoff=1000, retry_jitter=False).submit(fail)
    wait_until(lambda: marker.exists() and task.state == "PENDING", "its retry")

    # When it is revoked, then it ends at once
    task.revoke()
    with pytest.raises(nbqueue.TaskRevoked):
        task.get(2)


@pytest.fixture
def started(app, tmp_path, wait_until):
    """Submit a function of a marker file, and return its handle once the file is there."""

    def started(function, **options):
        marker = tmp_path / f"started {len(list(tmp_path.iterdir()))}"
        task = app.options(**options).submit(function, marker)
        wait_until(marker.exists, "its start")
        return task

    return started


def sleep_long(marker):
    marker.touch()
    time.sleep(1e6)


def ignore_interrupts(marker):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    marker.touch()
    time.sleep(1e6)


def ignore_all_but_the_last(marker):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    marker.touch()
    time.sleep(1e6)


def loop_in_native_code(marker):
    marker.touch()
    return sum(range(10**13))  # hours in C, holding the GIL, without a look at signals


@pytest.mark.parametrize(
    ("function", "wish", "how", "soonest_s", "latest_s"),
    [
        (sleep_long, {}, "SIGINT", 0.0, 1.5),
        (ignore_interrupts, {}, "SIGTERM", 1.9, 3.5),
        (loop_in_native_code, {}, "SIGTERM", 1.9, 5.0),
        (ignore_all_but_the_last, {}, "SIGKILL", 3.9, 6.0),
        (ignore_all_but_the_last, {"grace_s": 0.2}, "SIGKILL", 0.3, 2.0),
        (loop_in_native_code, {"terminate": True}, "SIGTERM", 0.0, 1.5),
        (ignore_all_but_the_last, {"signal": "SIGKILL"}, "SIGKILL", 0.0, 1.5),
        (sleep_long, {"signal": signal.SIGUSR1}, "SIGUSR1", 0.0, 1.5),
    ],
)
def test_the_report_says_how_a_task_was_stopped_and_when(started, slots_work, function, wish, how, soonest_s, latest_s):
    # Given a task that runs
    task = started(function)

    # When it is revoked, and its end awaited
    report = task.revoke(wait=True, **wish)

    # Then it has ended, and the report says how
    assert task.done()
    assert (how, 1, 0) == (report.how, report.revoked, report.kept)
    assert soonest_s <= report.after_s < latest_s
    with pytest.raises(nbqueue.TaskRevoked, match=how):
        task.get(0)


def test_a_report_that_was_not_waited_for_says_only_what_is_known(started, slots_work):
    task = started(sleep_long)

    assert ("", None, 0, 0) == task.revoke()


def test_what_has_ended_is_reported_as_kept(app):
    task = app.submit(abs, -1)
    task.get(10)

    report = task.revoke(wait=True)

    assert ("", 0, 1) == (report.how, report.revoked, report.kept)


def test_a_task_that_waits_in_the_queue_ends_at_once_and_the_report_says_so(own_hub):
    # Given a task that nobody runs, since there are no workers
    app = own_hub.app(workers=0)
    task = app.submit(abs, -1)

    # When it is revoked
    report = task.revoke(wait=True)

    # Then that is over within 50 ms (on an idle machine; here it is held to five times that)
    assert ("before it started", 1) == (report.how, report.revoked)
    assert report.after_s < 0.25


def test_a_task_that_was_revoked_while_no_worker_was_there_never_runs(own_hub, tmp_path):
    # Given tasks that were revoked before any worker came
    app = own_hub.app(workers=0)
    ran = tmp_path / "ran"
    tasks = [app.submit(ran.touch) for _ in range(20)]
    for task in tasks:
        task.revoke(wait=True)

    # When workers start
    app.start_workers(2)

    # Then none of them ever runs
    assert 1 == app.submit(abs, -1).get(10)
    assert {"REVOKED"} == {task.state for task in tasks}
    assert not ran.exists()


def test_the_first_task_of_a_new_hub_runs_once(own_hub, tmp_path):
    # Given a hub that is just starting, when its first task is submitted
    log = tmp_path / "ran"

    def note():
        with open(log, "a") as file:
            file.write("ran ")
        time.sleep(0.2)

    task = own_hub.app().submit(note)
    task.get(10)

    # Then it runs once: the answer to the worker's first heartbeat does not overtake its first delivery
    assert "ran " == log.read_text()


def test_asking_harder_hurries_a_task_that_does_not_obey(started, slots_work):
    # Given a task that ignores the first revoke
    task = started(ignore_interrupts)
    task.revoke(grace_s=100)

    # When it is told to be terminated, then it ends at once
    report = task.revoke(terminate=True, wait=True)
    assert "SIGTERM" == report.how
    assert report.after_s < 1.5


def test_one_item_of_a_map_is_revoked_and_only_that(app, tmp_path, slots_work, wait_until):
    # Given a map of which one item does not end
    def work(item):
        (tmp_path / f"ran {item}").touch()
        time.sleep(1e6 if item == 7 else 0)
        return item

    results = app.map(work, range(20), chunksize=4)
    wait_until((tmp_path / "ran 7").exists, "the item")

    # When that item is revoked
    report = results.revoke(items=7, wait=True)

    # Then all others have their results, and no item ran twice
    assert ("SIGINT", 1, 0) == (report.how, report.revoked, report.kept)
    values = results.get(10, propagate=False)
    assert nbqueue.TaskRevoked is type(values[7])
    assert [item for item in range(20) if item != 7] == [value for value in values if isinstance(value, int)]
    assert 1 == max(entry.attempt for entry in results.run.entries() if entry.start == 4 or entry.stop <= 7)


def test_finished_items_of_a_chunk_are_kept_when_a_later_item_has_to_be_killed(app, tmp_path, slots_work, wait_until):
    # Given a chunk whose third item neither ends nor obeys, whatever it is sent
    log = tmp_path / "ran"

    def work(item):
        if item == 2:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(log, "a") as file:
            file.write(f"{item} ")
        if item == 2:
            while True:
                try:
                    time.sleep(1e6)
                except KeyboardInterrupt:
                    pass
        return item

    results = app.map(work, range(6), chunksize=6)
    wait_until(lambda: log.exists() and "2" in log.read_text(), "the item")

    # When that item is revoked
    report = results.revoke(items=[2], grace_s=0.3, wait=True)

    # Then it was killed, and the items before it did not run again
    assert "SIGKILL" == report.how
    values = results.get(10, propagate=False)
    assert [0, 1, 3, 4, 5] == [value for value in values if isinstance(value, int)]
    assert "0 1 2 3 4 5 " == log.read_text()


def test_items_of_a_chunk_that_were_revoked_never_run(app, tmp_path, slots_work, wait_until):
    # Given a chunk whose first item takes a while
    log, release = tmp_path / "ran", tmp_path / "release"

    def work(item):
        with open(log, "a") as file:
            file.write(f"{item} ")
        while not release.exists():
            time.sleep(0.005)
        return item

    results = app.map(work, range(200), chunksize=200)
    wait_until(log.exists, "the first item")

    # When every other item is revoked meanwhile
    results.revoke(items=slice(1, None, 2))
    time.sleep(0.5)  # for the slot to be told; there is nothing to see before it goes on
    release.touch()

    # Then exactly the others run
    values = results.get(15, propagate=False)
    assert list(range(0, 200, 2)) == [value for value in values if isinstance(value, int)]
    assert list(range(0, 200, 2)) == [int(item) for item in log.read_text().split()]


def test_an_item_that_does_not_exist_cannot_be_revoked(app):
    results = app.map(abs, [-1, -2])
    results.get(10)

    with pytest.raises(IndexError, match="there are 2"):
        results.revoke(items=2)


def test_a_signal_that_does_not_exist_is_named(app):
    task = app.submit(abs, -1)

    with pytest.raises(ValueError, match="did you mean 'SIGTERM'"):
        task.revoke(signal="SIGTREM")


def test_what_a_revoked_task_has_started_ends_with_it(started, slots_work, tmp_path, wait_until):
    # Given a task with a pool of processes, a thread, and a daemon that has left its session
    pids = tmp_path / "pids"

    def work(marker):
        pool = multiprocessing.Pool(4)
        assert [1, 2] == pool.map(abs, [-1, -2])
        threading.Thread(target=time.sleep, args=[1e6], daemon=True).start()
        subprocess.run(["setsid", "--fork", "sleep", "100000"], check=True)
        pids.write_text(" ".join(str(process.pid) for process in [multiprocessing.current_process(), *pool._pool]))
        marker.touch()
        pool.map(time.sleep, [1e6] * 4)

    task = started(work)
    processes = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    assert 5 == len(processes)
    family = {process.pid: process for one in processes for process in [one, *one.children(recursive=True)]}
    assert any("sleep" in process.name() for process in family.values())

    # When it is revoked, then all of that is gone before the revoke says so
    assert "SIGINT" == task.revoke(wait=True).how
    assert [] == [process for process in family.values() if process.is_running()]


@pytest.mark.parametrize("form", ["id", "prefix", "handle"])
def test_a_task_can_be_revoked_by_its_id_from_another_app(own_hub, tmp_path, wait_until, form):
    # Given a task of one app that runs
    marker = tmp_path / "started"
    task = own_hub.app().submit(sleep_long, marker)
    wait_until(marker.exists, "its start")

    # When another one revokes it
    name = {"id": task.id, "prefix": task.id[:8], "handle": task}[form]
    report = own_hub.app().revoke(name, wait=True)

    # Then it is revoked, and both know
    assert ("SIGINT", 1, 0) == (report.how, report.revoked, report.kept)
    with pytest.raises(nbqueue.TaskRevoked):
        task.get(5)


def test_one_item_of_another_apps_map_can_be_revoked_by_its_id(own_hub, tmp_path, wait_until):
    # Given a map with an item that does not end
    def work(item):
        (tmp_path / f"ran {item}").touch()
        time.sleep(1e6 if item == 1 else 0)
        return item

    results = own_hub.app().map(work, range(4), chunksize=1)
    wait_until((tmp_path / "ran 1").exists, "the item")

    # When another app revokes it by the id that `current_task` has for it
    [report] = own_hub.app().revoke([f"{results.id}.1"], wait=True)

    # Then only it is revoked
    assert ("SIGINT", 1, 0) == (report.how, report.revoked, report.kept)
    assert [0, 2, 3] == [value for value in results.get(10, propagate=False) if isinstance(value, int)]


def test_an_id_that_nobody_knows_cannot_be_revoked(app):
    task = app.submit(abs, -1)
    task.get(10)

    for name, complaint in {
        "f" * 32: "no longer knows",
        "ffffffff": "no runs",
        "ff": "at least 4",
        "not an id": "hexadecimal",
        f"{task.id}.7": "no item 7: the run has 1",
        f"{task.id}.x": "number of an item",
    }.items():
        with pytest.raises(nbqueue.UnknownTask, match=complaint):
            app.revoke(name)


def test_the_command_revokes_what_another_process_runs(own_hub, tmp_path, wait_until):
    # Given a task that runs
    marker = tmp_path / "started"
    task = own_hub.app().submit(sleep_long, marker)
    wait_until(marker.exists, "its start")

    # When the command is given
    result = own_hub.command("revoke", task.id[:8])

    # Then it says how it ended
    assert (0, "") == (result.returncode, result.stderr)
    assert "1 item revoked after" in result.stdout
    assert "(SIGINT)" in result.stdout
    assert "REVOKED" == task.state or nbqueue.TaskRevoked is type(task.exception(5))

    # And of what it does not know it says so
    result = own_hub.command("revoke", "ffffffff")
    assert (1, "Error: the broker knows no runs whose id begins with 'ffffffff'\n") == (
        result.returncode,
        result.stderr,
    )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_short_tasks_revoked_at_random_moments_hit_nobody_else(app, slots_work):
    # Given ten thousand tasks of a millisecond, each revoked at a random moment of its life, or after it
    chance = random.Random(1)
    revoked = []
    for _ in range(100):
        batch = [app.submit(spin_for_a_millisecond) for _ in range(100)]
        for task in chance.sample(batch, len(batch)):
            if chance.random() < 0.02:
                task.exception(10)  # it has ended, and all those before it have begun
            else:
                time.sleep(chance.random() * 0.001)  # not to wait for something: to hit every moment
            task.revoke()
        revoked += batch
        assert "not revoked" == app.submit(lambda: time.sleep(0.001) or "not revoked").get(10)

    # Then each ends, as a success or revoked, and nothing else ever happens
    _, not_done = nbqueue.wait(revoked, 30)
    assert not not_done
    states = collections.Counter(task.state for task in revoked)
    assert {"SUCCESS", "REVOKED"} == states.keys()


def spin_for_a_millisecond():
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass


def test_a_revoke_hits_only_the_task_it_is_meant_for(app):
    # Given many short tasks, each revoked at some moment of its life
    for number in range(60):
        task = app.submit(lambda: time.sleep(0.002) or "done")
        time.sleep(0.0005 * (number % 12))  # not to wait for something: to hit every moment
        task.revoke()
        follower = app.map(lambda x: time.sleep(0.001) or x, range(4), chunksize=1)

        # Then what follows in the same slots is never hit
        assert [0, 1, 2, 3] == follower.get(10)
        assert {nbqueue.TaskRevoked, type(None)} >= {type(task.exception(10))}


def test_start_workers_can_be_stopped_and_their_work_goes_back(own_hub, wait_until, tmp_path):
    # Given a group of workers that runs something
    app = own_hub.app(workers=0)
    group = app.start_workers(1)
    pids = tmp_path / "pids"

    def work():
        import os

        with open(pids, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5 if len(pids.read_text().split()) > 1 else 1000)
        return "done"

    task = app.submit(work)
    wait_until(pids.exists, "its start")

    # When the group is stopped and another comes
    group.stop()
    wait_until(lambda: not own_hub.zygotes(), "end of the workers")
    app.start_workers(1)

    # Then the task runs there, unblamed and at once
    assert "done" == task.get(10)
    assert 2 == len(set(pids.read_text().split()))
