"""Items of very different length: none waits for another one while a slot is idle."""

import os
import signal
from collections import Counter

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def ran(tmp_path):
    """Notes down each run of an item."""
    return tmp_path / "ran"


@pytest.fixture
def go(tmp_path):
    """Is made when the long item may end."""
    return tmp_path / "go"


def one_long_item(ran, go, at=0):
    def work(item):
        import time

        with ran.open("a") as file:
            file.write(f"{item}\n")
        while item == at and not go.exists():
            time.sleep(0.01)
        return item * item

    return work


def runs(ran):
    """How often each item was run."""
    return Counter(map(int, ran.read_text().split()))


@pytest.mark.parametrize("at", [0, 3])
def test_what_waits_behind_a_long_item_is_run_by_others(app, wait_until, ran, go, at):
    # Given a chunk of ten items, one of which takes long
    results = app.map(one_long_item(ran, go, at), range(10), chunksize=10, progress=False)

    # When the other slot has nothing to do, then it runs what stands behind
    wait_until(lambda: 9 == results.counts.done, "nine items")
    assert 1 == results.counts.running

    # And the long one ends when it does; each was run once
    go.touch()
    assert [item * item for item in range(10)] == results.get(20)
    assert dict.fromkeys(range(10), 1) == runs(ran)
    assert 1 == results.info["attempts"]


def test_single_tasks_that_travel_together_do_not_wait_for_each_other_either(app, wait_until, ran, go):
    # Given a function that has been short so far, and a burst of calls, one of which takes long
    work = one_long_item(ran, go, at=40)
    app.submit(work, 1000).get(20)
    tasks = [app.submit(work, item) for item in range(300)]

    # When the other slot has nothing to do, then it runs all others
    wait_until(lambda: 299 == sum(task.done() for task in tasks), "all others", timeout_s=20)
    assert not tasks[40].done()

    # And the long one ends when it does; each was run once
    go.touch()
    assert [item * item for item in range(300)] == [task.get(20) for task in tasks]
    assert {*range(300), 1000} == runs(ran).keys()
    assert {1} == set(runs(ran).values())


def test_a_revoke_of_the_long_item_is_one_of_it_alone(app, wait_until, ran, go):
    # Given a long item, behind which the others have been run elsewhere
    results = app.map(one_long_item(ran, go), range(10), chunksize=10, progress=False)
    wait_until(lambda: 9 == results.counts.done, "nine items")

    # When it is revoked
    report = results.revoke(0, wait=True)

    # Then it alone was stopped
    assert (1, "SIGINT") == (report.revoked, report.how)
    assert [item * item for item in range(1, 10)] == results[1:]
    assert dict.fromkeys(range(10), 1) == runs(ran)


def test_when_the_long_item_kills_its_process_it_alone_runs_again(app, wait_until, ran, go):
    # Given a long item, behind which the others have been run elsewhere
    results = app.map(one_long_item(ran, go), range(10), chunksize=10, progress=False)
    wait_until(lambda: 9 == results.counts.done, "nine items")

    # When its process is killed
    [chunk] = app.inspect().active()
    pids = app.map(lambda _: os.getpid(), range(1), progress=False)
    other = pids.get(20)[0]
    [slot] = [process for process in app_slots(app) if process != other]
    os.kill(slot, signal.SIGKILL)
    go.touch()

    # Then it runs again, and it alone
    assert [item * item for item in range(10)] == results.get(30)
    assert {**dict.fromkeys(range(1, 10), 1), 0: 2} == runs(ran)
    assert chunk is not None


def app_slots(app):
    """The processes of the local slots."""
    import psutil

    [worker] = app.inspect().workers()
    [zygote] = psutil.Process(worker.pid).children()
    return [process.pid for process in zygote.children()]
