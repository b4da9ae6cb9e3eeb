"""Tasks that submit tasks and wait for them."""

import multiprocessing
import sys
import time

import pytest

import nbqueue


def count_down(depth):
    """A recursion that waits on every level."""
    return 0 if depth == 0 else 1 + nbqueue.submit(count_down, depth - 1).get()


def fibonacci(n):
    if n < 2:
        return n
    return sum(nbqueue.map(fibonacci, [n - 1, n - 2], progress=False).get())


@pytest.mark.timeout(60)
def test_a_recursion_of_depth_twenty_on_two_slots_finishes(own_hub, wait_until):
    # Given two slots, when a task waits for a task that waits for a task …
    app = own_hub.app(workers=2)
    assert 20 == app.submit(count_down, 20).get(50)

    # Then it finishes, and there are two slots again
    wait_until(lambda: 2 == len(own_hub.slots()), "two slots")


@pytest.mark.timeout(60)
def test_many_recursions_at_a_time_finish(own_hub):
    # Given more parents than slots, each with children of its own
    app = own_hub.app(workers=2)

    assert [4] * 6 == app.map(count_down, [4] * 6, chunksize=1).get(50)


@pytest.mark.timeout(60)
def test_a_tree_of_maps_finishes(own_hub):
    assert 5 == own_hub.app(workers=2).submit(fibonacci, 5).get(50)


@pytest.mark.timeout(90)
def test_a_recursion_without_end_is_refused_by_a_clear_error(own_hub):
    def deeper(depth):
        return nbqueue.submit(deeper, depth + 1).get()

    task = own_hub.app(workers=2).submit(deeper, 0)

    with pytest.raises(nbqueue.NestingLimitExceeded, match="task number 34 inside of one another: at most 32"):
        task.get(80)


def test_a_parent_may_wait_in_every_way(app):
    def parent():
        first = [nbqueue.submit(abs, -number) for number in range(3)]
        done, not_done = nbqueue.wait(first)
        second = sorted(handle.get() for handle in nbqueue.as_completed([nbqueue.submit(abs, -7), *first]))
        return len(done), len(not_done), second, list(nbqueue.imap(abs, [-4, -5])), nbqueue.map(abs, [-6])[0]

    assert (3, 0, [0, 1, 2, 7], [4, 5], 6) == app.submit(parent).get(15)


def test_what_a_task_submits_runs_before_what_waits_outside(own_hub, tmp_path):
    # Given one slot, a parent, and others that wait behind it
    app = own_hub.app(workers=1)
    log = tmp_path / "log"

    def note(name):
        with open(log, "a") as file:
            file.write(f"{name} ")

    def parent():
        time.sleep(0.3)  # until the others wait
        nbqueue.submit(note, "child").get()

    tasks = [app.submit(parent), *(app.submit(note, f"other{number}") for number in range(3))]
    nbqueue.wait(tasks, 15)

    assert "child other0 other1 other2 " == log.read_text()


def test_revoking_a_parent_stops_what_it_has_submitted(app, tmp_path, wait_until):
    # Given a task that waits for a task that waits for a task that does not end
    marker, stopped = tmp_path / "started", tmp_path / "stopped"

    def sleep():
        try:
            marker.touch()
            time.sleep(1e6)
        finally:
            stopped.touch()

    def parent(depth):
        (nbqueue.submit(parent, depth - 1) if depth else nbqueue.submit(sleep)).get()

    task = app.submit(parent, 2)
    wait_until(marker.exists, "the last one")

    # When the first is revoked, then all of it ends
    assert 1 == task.revoke(wait=True).revoked
    wait_until(stopped.exists, "the end of the last one")
    assert [0, 1] == app.map(lambda x: time.sleep(0.1) or x, range(2), chunksize=1).get(10)


def test_a_task_never_starts_a_hub_of_its_own(own_hub, tmp_path):
    # Given a task that asks for a broker that does not run
    app = own_hub.app()

    def stray():
        nbqueue.App(runtime_dir=tmp_path / "nowhere").submit(abs, -1)

    with pytest.raises(nbqueue.BrokerUnavailable, match="a task starts none"):
        app.submit(stray).get(10)
    assert not (tmp_path / "nowhere").exists()
    assert 1 == len(own_hub.processes("nbqueue.cli.hub"))


def test_a_process_that_a_task_has_started_may_submit(app):
    def parent():
        with multiprocessing.Pool(2) as pool:
            return pool.map(submit_and_wait, [-1, -2])

    parent.__globals__.setdefault("submit_and_wait", submit_and_wait)
    assert [1, 2] == app.submit(parent).get(15)


def submit_and_wait(number):
    return nbqueue.submit(abs, number).get(10)


def test_a_worker_started_by_hand_gives_its_tasks_the_way_to_the_hub(own_hub, wait_until):
    # Given a worker that was told by its command alone which hub it serves
    app = own_hub.app(workers=0)
    app.connect()
    own_hub.start(
        *(sys.executable, "-m", "nbqueue.cli.worker", "-c", "1", "--runtime-dir", str(own_hub.runtime)),
        NBQUEUE_RUNTIME_DIR="",
    )

    wait_until(lambda: app.inspect().stats()["slots"] == 1, "the worker")

    # Then its tasks find it, too
    assert 3 == app.submit(count_down, 3).get(15)
