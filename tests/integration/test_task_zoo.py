"""Tasks that misbehave: each ends in the right state, with the right words, and the next task on its slot succeeds.

What a task raises and what it prints have tests of their own; this is about what it does to its process.
"""

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

import nbqueue

GIB = 2**30


@pytest.fixture(scope="module")
def app(hub):
    """An app with one slot, so that the next task runs where the last one has."""
    return hub.app(workers=1)


@pytest.fixture(autouse=True)
def next_task_succeeds(app):
    """Whatever a test has run, the slot serves, and finds the world as it was."""
    here = app.submit(os.getcwd).get(10)
    yield
    assert (here, "yes", "unchanged") == app.submit(look_around).get(15)


def look_around():
    return (
        os.getcwd(),
        "yes" if threading.main_thread() is threading.current_thread() else "no",
        os.environ.get("ZOO", "unchanged"),
    )


def run(app, function, *args, **options):
    """How a task ends: its state, and its value or error."""
    task = app.options(max_lost=0, **options).submit(function, *args)
    error = task.exception(60)
    return task.state, task.get(0) if error is None else error


def revoked(app, function, tmp_path, wait_until):
    """Revoke a task once it has touched its marker; how it was stopped."""
    marker = tmp_path / "started"
    task = app.submit(function, marker)
    wait_until(marker.exists, "its start")
    report = task.revoke(wait=True)
    assert ("REVOKED", 1) == (task.state, report.revoked)
    return report.how


# -- tasks that do not end ---------------------------------------------------------------------------------------------


def busy_loop(marker):
    marker.touch()
    while True:
        pass


def sleep(marker):
    marker.touch()
    time.sleep(1e6)


def swallow_everything(marker):
    marker.touch()
    while True:
        try:
            time.sleep(1e6)
        except BaseException:
            pass


def hold_the_gil_in_a_regex(marker):
    marker.touch()
    re.match(r"(a*)*b", "a" * 64)


def hold_the_gil_in_big_numbers(marker):
    marker.touch()
    sum(range(10**13))


def ignore_sigint(marker):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sleep(marker)


def ignore_sigint_and_sigterm(marker):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignore_sigint(marker)


def hold_a_lock(marker):
    lock = threading.Lock()
    with lock:
        sleep(marker)


@pytest.mark.parametrize(
    ("animal", "how"),
    [
        (busy_loop, "SIGINT"),
        (sleep, "SIGINT"),
        (hold_a_lock, "SIGINT"),
        (swallow_everything, "SIGTERM"),
        (hold_the_gil_in_big_numbers, "SIGTERM"),
        (ignore_sigint, "SIGTERM"),
        (ignore_sigint_and_sigterm, "SIGKILL"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_task_that_does_not_end_is_stopped(app, tmp_path, wait_until, animal, how):
    assert how == revoked(app, animal, tmp_path, wait_until)


def test_a_long_regular_expression_is_stopped(app, tmp_path, wait_until):
    # It looks at signals now and then in some versions of Python
    assert revoked(app, hold_the_gil_in_a_regex, tmp_path, wait_until) in ("SIGINT", "SIGTERM")


# -- tasks that end their process --------------------------------------------------------------------------------------


def segfault():
    ctypes.string_at(0)


def abort():
    os.abort()


def exit_at_once():
    os._exit(3)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_its_group():
    os.killpg(0, signal.SIGTERM)


@pytest.mark.parametrize(
    ("animal", "words"),
    [
        (segfault, "was killed by SIGSEGV"),
        (abort, "was killed by SIGABRT"),
        (exit_at_once, "ended with status 3"),
        (kill_itself, "was killed by SIGKILL"),
        (kill_its_group, "was killed by SIGTERM"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_task_that_ends_its_process_is_lost_and_says_why(app, animal, words):
    state, error = run(app, animal)

    assert ("LOST", nbqueue.WorkerLost) == (state, type(error))
    assert words in str(error)
    assert animal.__name__ in str(error)


def test_a_lost_task_tells_what_is_known_of_its_death(app):
    def cry_and_crash():
        sys.stderr.write("I feel unwell\n")
        segfault()

    _, error = run(app, cry_and_crash)

    assert "it crashed in string_at" in str(error)
    assert "its memory peaked at" in str(error)
    assert "of them free" in str(error)
    assert "\n" not in str(error)
    assert ["The last words of its process:\n  stderr | I feel unwell"] == error.__notes__


def test_a_task_that_exits_politely_has_failed(app):
    state, error = run(app, sys.exit, "good bye")

    assert "FAILURE" == state
    assert "SystemExit" in repr(error)
    assert "good bye" in str(error)
    assert isinstance(error, Exception)  # it would end the notebook otherwise


def test_a_memory_bomb_has_failed(app):
    def bomb():
        memory = []
        while True:
            memory.append(b"x" * 10_000_000)

    state, error = run(app, bomb, memory="300M")

    assert ("FAILURE", nbqueue.MemoryLimitExceeded) == (state, type(error))


# -- tasks that change their process -----------------------------------------------------------------------------------


def test_a_task_that_closes_the_standard_streams_succeeds(app):
    def close_all():
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        return "closed"

    assert ("SUCCESS", "closed") == run(app, close_all)
    assert [0, 1, 2] == app.submit(lambda: [os.fstat(descriptor) and descriptor for descriptor in (0, 1, 2)]).get(10)


def test_a_task_that_puts_a_file_in_the_place_of_its_output_succeeds(app, tmp_path):
    def replace():
        os.dup2(os.open(tmp_path / "mine", os.O_WRONLY | os.O_CREAT), 1)
        return "replaced"

    assert ("SUCCESS", "replaced") == run(app, replace)
    app.submit(os.write, 1, b"not mine").get(10)
    assert "" == (tmp_path / "mine").read_text()


def test_a_task_that_changes_its_folder_its_environment_and_its_signals_changes_them_for_itself_alone(app, tmp_path):
    def change():
        os.chdir(tmp_path)
        os.environ["ZOO"] = "changed"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(1)
        return "changed"

    assert ("SUCCESS", "changed") == run(app, change)
    handlers = app.submit(lambda: [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]).get(10)
    assert [signal.SIG_DFL] * 2 == handlers
    assert "not killed by the alarm" == app.submit(lambda: time.sleep(1.2) or "not killed by the alarm").get(10)
    task = app.submit(time.sleep, 1e6)
    assert "SIGINT" == (time.sleep(0.2) or task.revoke(wait=True)).how


def test_a_task_that_removes_its_folder_does_no_harm(app, tmp_path):
    def remove():
        folder = tmp_path / "gone"
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()
        return "removed"

    assert ("SUCCESS", "removed") == run(app, remove)


def test_a_task_that_leaves_threads_behind_succeeds(app):
    def leave_threads():
        for _ in range(5):
            threading.Thread(target=time.sleep, args=[3], daemon=True).start()
        threading.Thread(target=time.sleep, args=[1]).start()
        return "left"

    assert ("SUCCESS", "left") == run(app, leave_threads)


def test_a_daemon_that_a_task_has_left_in_a_session_of_its_own_ends_with_the_workers(own_hub, wait_until):
    def leave_daemon():
        subprocess.run(["setsid", "--fork", "sleep", "100000"], check=True)
        return [process.pid for process in psutil.Process().children(recursive=True)]

    # Given a daemon that a finished task has left behind
    app = own_hub.app(workers=1)
    [pid] = app.submit(leave_daemon).get(10)
    assert psutil.pid_exists(pid)

    # When the hub is stopped, then it is gone
    assert 0 == own_hub.command("stop").returncode
    wait_until(lambda: not psutil.pid_exists(pid), "its end", timeout_s=5.0)


def test_what_a_task_has_started_ends_with_its_process(app, tmp_path, wait_until):
    def leave_and_crash():
        subprocess.run(["setsid", "--fork", "sleep", "100000"], check=True)
        (tmp_path / "pids").write_text(" ".join(str(one.pid) for one in psutil.Process().children(recursive=True)))
        exit_at_once()

    state, _ = run(app, leave_and_crash)

    assert "LOST" == state
    [pid] = map(int, (tmp_path / "pids").read_text().split())
    wait_until(lambda: not psutil.pid_exists(pid), "its end", timeout_s=5.0)


def test_a_task_may_use_multiprocessing(app):
    def use_pool():
        with multiprocessing.Pool(4) as pool:
            return pool.map(abs, range(-8, 0))

    assert ("SUCCESS", [8, 7, 6, 5, 4, 3, 2, 1]) == run(app, use_pool)


def test_a_fork_of_the_slot_ends_where_the_task_ends(app):
    def fork(x):
        child = os.fork()
        if child == 0:
            sys.stdout.write(f"child of {x}\n")
            return 1 / x  # fails in one, and would be reported by all
        return "parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    forks = app.map(fork, [0, 1, 2], chunksize=3)

    assert [("parent", 1), ("parent", 0), ("parent", 0)] == forks.get(20)
    assert ["child of 0", "child of 1", "child of 2"] == forks.stdout.splitlines()
    assert forks.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_task_that_opens_all_the_files_it_can_has_failed_and_the_next_one_has_its_own(app):
    def leak():
        files = []
        while True:
            files.append(os.dup(0))

    state, error = run(app, leak)

    assert ("FAILURE", OSError) == (state, type(error))


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_result_of_a_gibibyte_arrives(app):
    state, value = run(app, lambda: bytes(GIB))

    assert ("SUCCESS", GIB) == (state, len(value))


def test_a_result_that_cannot_be_pickled_has_failed_and_says_so(app):
    state, error = run(app, threading.Lock)

    assert ("FAILURE", nbqueue.NotSerializable) == (state, type(error))
    assert "the result of" in str(error)
    assert "lock" in str(error)


def test_a_result_whose_pickling_kills_the_process_is_lost(app):
    class Bomb:
        def __reduce__(self):
            os._exit(4)

    state, error = run(app, Bomb)

    assert "LOST" == state
    assert "ended with status 4" in str(error)


def test_a_task_that_recurses_without_end_has_failed(app):
    def recurse():
        return recurse()

    state, error = run(app, recurse)

    assert ("FAILURE", RecursionError) == (state, type(error))


# -- many --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_three_killers_in_a_map_of_a_thousand_are_the_only_ones_that_fail(hub, wait_until):
    # Given a map in which three items kill their process, each in its own way
    killers = {100: segfault, 500: exit_at_once, 900: kill_itself}

    def work(item):
        if item in killers:
            killers[item]()
        time.sleep(0.001)
        return item

    app = hub.app(workers=2)
    results = app.map(work, range(1000), max_lost=0)

    # Then all others have their results, and the three say why
    values = results.get(40, propagate=False)
    assert [item for item in range(1000) if item not in killers] == [value for value in values if type(value) is int]
    errors = {error.index: str(error.exception) for error in results.errors()}
    assert killers.keys() == errors.keys()
    assert "item 100 of 'work'" in errors[100]
    assert "SIGSEGV" in errors[100]
    assert "status 3" in errors[500]
    assert "SIGKILL" in errors[900]
    wait_until(hub.slots, "workers alive")
