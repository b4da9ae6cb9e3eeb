"""The commands, typed by hand."""

import os
import signal
import sys
import time

import pytest

import nbqueue


def test_status_without_a_hub_says_so(own_hub):
    result = own_hub.command("status")

    assert (0, "No hub runs. A notebook that uses nbqueue starts one.\n", "") == (
        result.returncode,
        result.stdout,
        result.stderr,
    )
    assert [] == own_hub.processes()


def test_status_shows_hub_workers_and_runs(own_hub, wait_until):
    # Given a map that runs and one that has failed
    app = own_hub.app()
    broken = app.map(lambda x: 1 / x, [0], label="broken")
    assert ZeroDivisionError is type(broken.exception(10))
    running = app.map(time.sleep, [100] * 5, label="sleepers")
    wait_until(running.running, "its start")

    # When the status is asked for
    result = own_hub.command("status", COLUMNS="200")

    # Then it has all three
    assert (0, "") == (result.returncode, result.stderr)
    lines = result.stdout.splitlines()
    assert str(own_hub.hub().pid) in lines[0]
    assert "2 slots" in lines[0]
    assert any(str(own_hub.hub().pid) in line and "sleepers" in line for line in lines)
    assert any("sleepers" in line and "running" in line and "0 of 5" in line for line in lines)
    assert any("broken" in line and "failed" in line for line in lines)


def test_status_can_be_piped_and_read_in_a_narrow_terminal(own_hub):
    assert 1 == own_hub.app().submit(abs, -1).get(10)

    assert str(own_hub.hub().pid) in own_hub.command("status", COLUMNS="40", TERM="dumb").stdout


def test_stop_may_be_called_twice(own_hub):
    assert 1 == own_hub.app().submit(abs, -1).get(10)

    first, second = own_hub.command("stop"), own_hub.command("stop")

    assert (0, "Stopped the hub and its workers.\n") == (first.returncode, first.stdout)
    assert (0, "No hub runs.\n") == (second.returncode, second.stdout)
    assert [] == own_hub.processes()


def test_stop_tells_those_who_wait(own_hub):
    results = own_hub.app().map(time.sleep, [100] * 4)

    own_hub.command("stop")

    with pytest.raises(nbqueue.BrokerUnavailable):
        results.get(10)


@pytest.mark.timeout(30)
def test_stop_ends_tasks_that_ignore_signals(own_hub, tmp_path, wait_until):
    # Given a task that ignores whatever can be ignored
    marker = tmp_path / "started"

    def stubborn():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        marker.touch()
        while True:
            pass

    own_hub.app().submit(stubborn)
    wait_until(marker.exists, "its start")

    # When the hub is stopped, then nothing is left
    assert 0 == own_hub.command("stop").returncode
    own_hub.wait_until_gone(timeout_s=2)


def start_worker(hub, *options):
    return hub.start(sys.executable, "-m", "nbqueue.cli.worker", *options)


def test_a_worker_without_a_hub_says_so(own_hub):
    result = own_hub.run(sys.executable, "-m", "nbqueue.cli.worker", "-c", "1")

    assert 1 == result.returncode
    assert "no hub runs on this machine" in result.stderr


def test_a_worker_whose_key_file_is_not_there_says_so_at_once(own_hub):
    command = sys.executable, "-m", "nbqueue.cli.worker", "redis://127.0.0.1:1", "--token-file", "/no/such/key"
    result = own_hub.run(*command)

    assert 2 == result.returncode
    assert "'/no/such/key' does not exist" in result.stderr


def test_a_worker_started_by_hand_joins_and_works(own_hub, wait_until):
    # Given a hub without workers, and a task
    app = own_hub.app(workers=0)
    task = app.submit(lambda: "done")

    # When a worker is started by hand
    start_worker(own_hub, "-c", "1", "-n", "by-hand")

    # Then the task runs there
    assert "done" == task.get(10)
    assert "by-hand" == task.info["worker"]
    assert "by-hand" in own_hub.command("status").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_asked_to_end_gives_its_work_back(own_hub, wait_until, number, tmp_path):
    # Given a worker started by hand that runs a task and holds more
    app = own_hub.app(workers=0)
    started = tmp_path / "started"

    def slow(x):
        first_time = not started.exists()
        started.touch()
        time.sleep(1000 if first_time else 0)
        return x, nbqueue.current_task().attempt

    results = app.map(slow, range(3), chunksize=1)
    worker = start_worker(own_hub, "-c", "1", "--grace", "0.2")
    wait_until(started.exists, "the first item")

    # When it is interrupted, and its work does not end within the grace
    worker.send_signal(number)

    # Then it ends soon and in good order, and another one takes over at once
    assert 0 == worker.wait(5)
    assert "Traceback" not in worker.stderr.read()
    start_worker(own_hub, "-c", "1")
    assert [0, 1, 2] == [x for x, _ in results.get(4)]


def test_a_worker_that_is_asked_to_end_finishes_what_runs(own_hub, wait_until, tmp_path):
    # Given a worker that runs an item, and holds more
    app = own_hub.app(workers=0)
    started, may_end = tmp_path / "started", tmp_path / "may end"

    def slow(x):
        started.touch()
        while not may_end.exists():
            time.sleep(0.01)
        return x, nbqueue.current_task().attempt, os.getppid()

    results = app.map(slow, range(3), chunksize=1)
    worker = start_worker(own_hub, "-c", "1")
    wait_until(started.exists, "the first item")

    # When it is asked to end, and another one comes
    worker.send_signal(signal.SIGTERM)
    start_worker(own_hub, "-c", "1")
    wait_until(lambda: app.inspect().stats()["slots"] == 1, "its slots are no longer offered")
    may_end.touch()

    # Then it ends when what it ran has ended; nothing ran twice, and the rest ran elsewhere
    assert 0 == worker.wait(10)
    ran = results.get(10)
    assert [(0, 1), (1, 1), (2, 1)] == [(x, attempt) for x, attempt, _ in ran]
    assert ran[0][2] != ran[1][2] == ran[2][2]
    assert "draining running=1" in worker.stderr.read()


def test_a_second_signal_stops_a_worker_at_once(own_hub, wait_until, tmp_path):
    # Given a worker whose work takes longer than anybody waits
    app = own_hub.app(workers=0)
    started = tmp_path / "started"

    def endless():
        started.touch()
        time.sleep(1000)

    app.submit(endless)
    worker = start_worker(own_hub, "-c", "1")
    wait_until(started.exists, "the task")
    slots = own_hub.slots()

    # When it is asked to end twice
    worker.send_signal(signal.SIGINT)
    wait_until(lambda: app.inspect().stats()["slots"] == 0, "it drains")
    worker.send_signal(signal.SIGINT)

    # Then it is gone, and so are its slots
    assert 0 == worker.wait(5)
    wait_until(lambda: not any(slot.is_running() for slot in slots), "the end of its slots")


def test_a_worker_started_by_hand_ends_with_the_hub(own_hub, wait_until):
    # Given a worker that has joined
    app = own_hub.app(workers=0).connect()
    worker = start_worker(own_hub, "-c", "1")
    assert 1 == app.submit(abs, -1).get(10)

    # When the hub is stopped, then the worker ends by itself, and says why
    own_hub.command("stop")
    assert worker.wait(15) in (0, 1)
    assert "Traceback" not in worker.stderr.read()


def test_the_version_is_told(own_hub):
    assert nbqueue.__version__ in own_hub.command("--version").stdout
