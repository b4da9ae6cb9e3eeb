"""Stopping what waits, and what runs."""

import signal
import time

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
    wait_until(lambda: not own_hub.supervisors(), "end of the workers")
    app.start_workers(1)

    # Then the task runs there, unblamed and at once
    assert "done" == task.get(10)
    assert 2 == len(set(pids.read_text().split()))
