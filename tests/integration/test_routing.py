"""Queues and tags with real workers."""

import sys
import time

import pytest

import nbqueue

pytestmark = pytest.mark.timeout(60)


def start_worker(hub, *options):
    return hub.start(sys.executable, "-m", "nbqueue.cli.worker", *options)


def test_tagged_work_waits_for_a_worker_with_the_tag_and_says_so(own_hub, wait_until):
    # Given two ordinary slots, and a task for another kind
    app = own_hub.app()
    assert 1 == app.submit(abs, -1).get(20)
    task = app.options(tags=["gpu"], label="train").submit(lambda: nbqueue.current_task().label)

    # Then its handle and `nbqueue status` say why it waits, while other work goes on
    sentence = wait_until(lambda: task.snapshot().hint, "the sentence")
    assert "No worker of queue 'default' has the tag 'gpu' (1 connected; none has tags)" in sentence
    assert sentence in " ".join(own_hub.command("status", COLUMNS="200").stdout.split())
    assert [0, 1, 4] == app.map(lambda x: x * x, range(3)).get(10)

    # When a worker with the tag comes, then it runs there
    start_worker(own_hub, "-c", "1", "-t", "gpu", "-n", "with-gpu")
    assert "train" == task.get(10)
    assert "with-gpu" == task.info["worker"]
    assert task.snapshot().hint is None


def test_a_worker_of_a_queue_runs_that_queue_only(own_hub, wait_until):
    # Given a worker for the queue "night", and none for the usual one
    app = own_hub.app(workers=0).connect()
    start_worker(own_hub, "-c", "1", "-Q", "night")

    # When there is work for both
    usual = app.submit(abs, -1)
    at_night = app.map(abs, [-1, -2], queue="night")

    # Then one runs, and the other says what it waits for
    assert [1, 2] == at_night.get(10)
    assert "No worker serves queue 'default' (1 connected: 'night')" in wait_until(
        lambda: usual.snapshot().hint, "the sentence"
    )
    assert "night" in own_hub.command("status", COLUMNS="200").stdout


def test_the_higher_priority_goes_first(own_hub, wait_until, tmp_path):
    # Given one slot, which is busy, and two tasks that wait
    app = own_hub.app(workers=1)
    go = tmp_path / "go"

    def wait_for_go():
        while not go.exists():
            time.sleep(0.01)

    busy = app.submit(wait_for_go)
    wait_until(busy.running, "its start")
    low = app.options(priority=-1).submit(time.time)
    high = app.options(priority=1).submit(time.time)
    wait_until(lambda: 3 == len(app.inspect().inspection.runs), "their arrival")

    # When it goes on, then the one of higher priority is first
    go.touch()
    assert high.get(10) < low.get(10)


def test_a_worker_without_a_queue_is_refused(own_hub):
    result = own_hub.run(sys.executable, "-m", "nbqueue.cli.worker", "-Q", " , ")

    assert 2 == result.returncode
    assert "name at least one queue" in result.stderr
