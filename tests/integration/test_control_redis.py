"""Queues, inspection and control with Redis as the broker, sealed, and workers that were started from a shell."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

import nbqueue
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.timeout(90)


class Site:
    """A Redis, a key, and workers on both."""

    def __init__(self, folder):
        self.folder = folder
        self.server = RedisServer()
        self.environment = {**os.environ, "NBQUEUE_URL": self.server.url, "XDG_CONFIG_HOME": str(folder / "config")}
        self._workers = []

    def worker(self, *options):
        with open(self.folder / "worker.log", "a") as log:
            command = [sys.executable, "-m", "nbqueue.cli.worker", *options]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._workers.append(process)
        return process

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "nbqueue", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def close(self):
        for process in self._workers:
            process.terminate()
        for process in self._workers:
            process.wait(20)
        self.server.close()


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    found = Site(tmp_path)
    yield found
    found.close()


@pytest.fixture
def app(site):
    with nbqueue.App(site.server.url) as connected:
        yield connected


def test_work_finds_its_worker_and_what_nobody_can_run_says_so(site, app, wait_until):
    # Given an ordinary worker, and work for another kind
    site.worker("-c", "1", "-n", "plain")
    assert 1 == app.submit(abs, -1).get(30)
    task = app.options(tags=["gpu"], queue="night").submit(abs, -2)

    # Then that is said, and other work goes on
    sentence = wait_until(lambda: task.snapshot().hint, "the sentence")
    assert "No worker serves queue 'night' (1 connected: 'default')" in sentence
    assert 3 == app.submit(abs, -3).get(20)

    # Until somebody comes who can run it
    site.worker("-c", "1", "-n", "special", "-Q", "night", "-t", "gpu,big")
    assert 2 == task.get(30)
    assert "special" == task.info["worker"]


def test_workers_can_be_seen_resized_and_stopped(site, app, wait_until, tmp_path):
    # Given two workers of one slot each, and three tasks
    site.worker("-c", "1", "-n", "one")
    site.worker("-c", "1", "-n", "two")
    wait_until(lambda: 2 == len(app.inspect().workers()), "both", timeout_s=20)
    go = tmp_path / "go"

    def wait_for_go():
        while not go.exists():
            time.sleep(0.01)
        return os.getpid()

    tasks = [app.submit(wait_for_go) for _ in range(3)]
    wait_until(lambda: 2 == len(app.inspect().active()), "two of three")

    # When one of them grows, then the third runs, too
    assert [("one", True, "2 slots")] == list(app.control.pool_grow(1, "one"))
    wait_until(lambda: 3 == len(app.inspect().active()), "all three")
    assert ["alive", "alive"] == [reply.text for reply in app.control.ping()]

    # And when it shrinks, everything ends well
    app.control.pool_shrink(1, "one")
    go.touch()
    assert 3 == len({task.get(20) for task in tasks})
    assert {"one": 1, "two": 1} == {worker.worker: worker.slots for worker in app.inspect().workers()}

    # And the environments of both are compared
    assert {"one", "two"} == set(app.env_diff().workers)

    # And when one is told to end, the other goes on
    app.control.shutdown("one")
    wait_until(lambda: ["two"] == [worker.worker for worker in app.inspect().workers()], "its end", timeout_s=20)
    assert 1 == app.submit(abs, -1).get(20)


def test_a_time_limit_by_name_reaches_the_workers_that_are_named(site, app, wait_until):
    # Given two workers, of which one holds tasks of a name to a limit
    site.worker("-c", "1", "-n", "strict", "-Q", "strict")
    site.worker("-c", "1", "-n", "lenient", "-Q", "lenient")
    wait_until(lambda: 2 == len(app.inspect().workers()), "both", timeout_s=20)
    assert [("strict", True, "'fit': hard 0.3 s")] == list(
        app.control.time_limit("fit", hard=0.3, destination="strict")
    )

    # Then it ends them, and the other one does not
    long = [
        app.options(queue=queue, label="fit").submit(lambda: time.sleep(1.0) or 1) for queue in ("strict", "lenient")
    ]
    with pytest.raises(nbqueue.TimeLimitExceeded):
        long[0].get(20)
    assert 1 == long[1].get(20)


def test_a_time_limit_by_name_is_kept_by_a_worker_that_must_join_anew(site, app, wait_until):
    # Given a worker that was given a rule
    site.worker("-c", "1", "-n", "one")
    wait_until(lambda: app.inspect().workers(), "the worker", timeout_s=20)
    app.control.time_limit("fit", hard=0.3)
    with contextlib.closing(site.server.client()) as client:
        client.flushall()  # and is a stranger now

    # When it has joined again, then the rule still holds
    with nbqueue.App(site.server.url) as anew:
        wait_until(lambda: anew.inspect().workers(), "the worker", timeout_s=40)
        with pytest.raises(nbqueue.TimeLimitExceeded):
            anew.options(label="fit").submit(time.sleep, 1.5).get(20)


def test_a_queue_is_purged_and_the_commands_do_the_same(site, app, wait_until):
    # Given work on two queues that nobody serves, and a worker
    here, there = app.map(abs, range(50), queue="here", progress=False), app.map(abs, [-1], queue="there")
    site.worker("-c", "1", "-n", "one")
    wait_until(lambda: app.inspect().workers(), "the worker", timeout_s=20)

    # Then it can be seen and purged from a shell and from here
    assert "here" in site.command("inspect", "queued").stdout
    status = site.command("status").stdout
    assert "broker unix" in status.splitlines()[0]  # where its socket is
    assert "No worker serves queue 'there'" in " ".join(status.split())
    assert "2 slots" in site.command("control", "pool-grow").stdout
    assert "Revoked 50 waiting items of queue 'here'." in site.command("purge", "-Q", "here", "-f").stdout
    assert 1 == app.purge("there")
    for handle in (here, there):
        with pytest.raises(nbqueue.TaskRevoked):
            handle.get(20)


def test_what_another_process_has_left_behind_can_be_had(site, app):
    script = "import nbqueue\nhandle = nbqueue.submit(abs, -42)\nhandle.get(30)\nprint(handle.id, flush=True)\n"
    site.worker("-c", "1")
    command = [sys.executable, "-c", script + "import os; os._exit(0)"]
    printed = subprocess.run(command, env=site.environment, capture_output=True, text=True, check=True)

    assert 42 == app.attach(printed.stdout.strip()).get(20)
