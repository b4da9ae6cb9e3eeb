"""Looking at a hub and giving orders to its workers, with real processes."""

import os
import sys
import time

import pytest

import nbqueue

pytestmark = pytest.mark.timeout(60)


def start_worker(hub, *options):
    return hub.start(sys.executable, "-m", "nbqueue.cli.worker", *options)


def sleep_until(path):
    """A task that ends when *path* exists."""

    def wait():
        while not os.path.exists(path):
            time.sleep(0.01)
        return os.getpid()

    return wait


def test_a_pool_grows_and_the_new_slots_work(own_hub, wait_until, tmp_path):
    # Given one slot, which is busy, and work that waits
    app = own_hub.app(workers=1)
    go = tmp_path / "go"
    tasks = [app.submit(sleep_until(go)) for _ in range(3)]
    wait_until(lambda: any(task.running() for task in tasks), "the first")

    # When the pool grows by two
    [reply] = app.control.pool_grow(2)

    # Then all three run at once, each in a slot of its own
    assert (True, "3 slots") == (reply.ok, reply.text)
    wait_until(lambda: 3 == len(app.inspect().active()), "all three")
    assert 3 == len(own_hub.slots())
    assert 3 == app.inspect().stats()["slots"]
    go.touch()
    assert 3 == len({task.get(10) for task in tasks})


def test_a_pool_that_shrinks_lets_busy_slots_finish(own_hub, wait_until, tmp_path):
    # Given three busy slots
    app = own_hub.app(workers=3)
    go = tmp_path / "go"
    tasks = [app.submit(sleep_until(go)) for _ in range(3)]
    wait_until(lambda: 3 == len(app.inspect().active()), "all three")
    slots = {slot.pid for slot in own_hub.slots()}

    # When the pool shrinks by two, then nothing is stopped
    [reply] = app.control.pool_shrink(2)
    assert (True, "1 slot") == (reply.ok, reply.text)
    assert slots == {slot.pid for slot in own_hub.slots()}

    # And when the work is over, one slot is left, which goes on working
    go.touch()
    assert slots == {task.get(10) for task in tasks}
    wait_until(lambda: 1 == len(own_hub.slots()), "one slot")
    assert [0, 1, 4] == app.map(lambda x: x * x, range(3)).get(10)
    assert 1 == len(own_hub.slots())


def test_idle_slots_end_at_once_and_one_always_stays(own_hub, wait_until):
    app = own_hub.app(workers=3)
    assert 1 == app.submit(abs, -1).get(10)

    [reply] = app.control.pool_shrink(9)

    assert "1 slot" == reply.text
    wait_until(lambda: 1 == len(own_hub.slots()), "one slot")
    assert 2 == app.submit(abs, -2).get(10)


def test_a_pool_under_load_may_grow_and_shrink_without_losing_anything(own_hub, wait_until):
    # Given a map of many short items
    app = own_hub.app(workers=2)

    def quick(x):
        time.sleep(0.002)
        return x

    results = app.map(quick, range(1500))

    # When the pool changes its size all the time
    for _ in range(6):
        app.control.pool_grow(2)
        time.sleep(0.05)
        app.control.pool_shrink(3)
        time.sleep(0.05)

    # Then every item ends once, with its own result, and so many slots are left as the broker believes
    assert list(range(1500)) == results.get(30)
    assert (1500, 0, 0) == (results.counts.done, results.counts.failed, results.counts.revoked)
    wait_until(lambda: app.inspect().stats()["slots"] == len(own_hub.slots()), "the same number everywhere")


def test_a_worker_that_dies_comes_back_with_the_slots_it_had(apart_hub, wait_until):
    app = apart_hub.app(workers=1)
    assert 1 == app.submit(abs, -1).get(10)
    app.control.pool_grow(1)
    [supervisor] = apart_hub.supervisors()

    supervisor.kill()

    wait_until(lambda: [2] == [w.slots for w in app.inspect().workers() if w.pid != supervisor.pid], "its successor")


def test_workers_of_another_kind_can_be_started_and_come_back_as_they_were(own_hub, wait_until):
    # Given local workers for tagged work of a queue of their own
    app = own_hub.app(workers=1)
    group = app.start_workers(1, queues="night", tags=["gpu"], only_tagged=True)
    [before] = [worker for worker in app.inspect().workers() if worker.queues == ("night",)]
    assert ("gpu",) == before.tags

    # When one dies, then its successor is of the same kind, and does that work
    os.kill(before.pid, 9)
    assert 1 == app.options(queue="night", tags="gpu").submit(abs, -1).get(20)
    assert before.pid not in {worker.pid for worker in app.inspect().workers()}

    # And when its group is stopped, the others stay
    group.stop()
    wait_until(lambda: [("default",)] == [w.queues for w in app.inspect().workers()], "its end")


def test_a_worker_that_is_told_to_shut_down_ends_and_stays_away(own_hub, wait_until, tmp_path):
    # Given a local worker that runs something, and one that was started by hand
    app = own_hub.app(workers=1)
    go = tmp_path / "go"
    task = app.submit(sleep_until(go))
    wait_until(lambda: app.inspect().active(), "its start")
    by_hand = start_worker(own_hub, "-c", "1", "-n", "by-hand")
    wait_until(lambda: 2 == len(app.inspect().workers()), "both")

    # When the local one is told to end
    [local] = [worker.worker for worker in app.inspect().workers() if worker.worker != "by-hand"]
    [reply] = app.control.shutdown(local)

    # Then it does, and its work goes on with the other
    assert (local, True) == (reply.worker, reply.ok)
    wait_until(lambda: ["by-hand"] == [worker.worker for worker in app.inspect().workers()], "its end")
    go.touch()
    assert isinstance(task.get(10), int)
    assert "by-hand" == task.info["worker"]

    # And when that one is told, too, none is left, and none comes back
    app.control.shutdown("by-hand")
    assert 0 == by_hand.wait(10)
    wait_until(lambda: not app.inspect().workers(), "nobody")
    time.sleep(1.0)  # a local one would be started again within 0.1 s
    assert [] == own_hub.zygotes()


def test_a_time_limit_by_name_holds_for_tasks_that_begin_from_now_on(own_hub, wait_until, tmp_path):
    # Given a task that runs, and one of another name
    app = own_hub.app(workers=3)
    go = tmp_path / "go"
    before = app.options(label="fit").submit(sleep_until(go))
    wait_until(lambda: app.inspect().active(), "its start")

    # When tasks of its name are limited
    [reply] = app.control.time_limit("fit", hard=0.3)
    other = app.options(label="other").submit(sleep_until(go))

    # Then the next ones are ended, each item for itself, and what began before and what has another name goes on
    assert (True, "'fit': hard 0.3 s") == (reply.ok, reply.text)
    results = app.map(lambda x: time.sleep(1e6 if x == 1 else 0.2) or x, range(3), chunksize=3, label="fit")
    values = results.get(20, propagate=False)
    assert (0, 2) == (values[0], values[2])
    assert isinstance(values[1], nbqueue.TimeLimitExceeded)
    go.touch()
    assert all(isinstance(task.get(10), int) for task in (before, other))

    # And when the rule is taken away, none is
    [reply] = app.control.broadcast("time_limit", {"name": "fit"})
    assert "no time limits for 'fit' any more" == reply.text
    assert 7 == app.options(label="fit").submit(lambda: time.sleep(0.6) or 7).get(10)


def test_a_soft_limit_by_name_is_told_inside_and_the_stricter_own_one_stays(own_hub):
    app = own_hub.app(workers=1)
    assert 1 == app.submit(abs, -1).get(10)
    app.control.time_limit("fit", soft=0.4, hard=30)

    def told():
        try:
            time.sleep(1e6)
        except nbqueue.SoftTimeLimitExceeded as error:
            return str(error)

    assert "soft_time_limit of 0.4 s" in app.options(label="fit").submit(told).get(10)
    assert "soft_time_limit of 0.2 s" in app.options(label="fit", soft_time_limit=0.2).submit(told).get(10)


def test_a_task_that_passed_a_limit_by_name_is_retried_as_its_options_say(own_hub, tmp_path):
    # Given tasks that are too slow once, of which one may be retried
    app = own_hub.app(workers=1)
    assert 1 == app.submit(abs, -1).get(10)
    app.control.time_limit("fit", hard=0.5)

    def slow_once(mark):
        if not mark.exists():
            mark.touch()
            time.sleep(1e6)
        return "second time"

    assert "second time" == app.options(label="fit", max_retries=1).submit(slow_once, tmp_path / "one").get(20)
    with pytest.raises(nbqueue.TimeLimitExceeded):
        app.options(label="fit").submit(slow_once, tmp_path / "two").get(20)


def test_a_purge_empties_the_queue_and_lets_run_what_runs(own_hub, wait_until, tmp_path):
    # Given one slot that is busy, and work behind it
    app = own_hub.app(workers=1)
    go = tmp_path / "go"
    busy = app.submit(sleep_until(go))
    wait_until(lambda: app.inspect().active(), "its start")
    behind = app.map(abs, range(100))
    elsewhere = app.options(queue="elsewhere").submit(abs, -1)

    # When the queue is purged
    assert 100 == app.purge()

    # Then what waited is revoked, and the rest goes on
    with pytest.raises(nbqueue.TaskRevoked):
        behind.get(10)
    go.touch()
    assert isinstance(busy.get(10), int)
    assert not elsewhere.done()


def test_what_runs_and_waits_can_be_seen(own_hub, wait_until, tmp_path):
    # Given something that runs, something that waits, and something for later
    app = own_hub.app(workers=1)
    go = tmp_path / "go"
    busy = app.options(label="busy").submit(sleep_until(go))
    wait_until(lambda: app.inspect().active(), "its start")
    waiting = app.map(abs, range(5), label="waiting", priority=2)
    later = app.options(countdown=60, label="later").submit(abs, -1)
    wait_until(lambda: 3 == len(app.inspect().runs()) and app.inspect().active(), "all three")

    # Then each is where it belongs
    seen = app.inspect()
    [active] = seen.active()
    assert ("busy", "0", 0) == (active.label, active.items, active.running)
    assert [("waiting", 5, 5, 2)] == [(row.label, row.waiting, row.of, row.priority) for row in seen.queued()]
    assert [("later", 1)] == [(row.label, row.scheduled) for row in seen.scheduled()]
    assert [("default", 5, 1, 1, 1, 1)] == [tuple(row) for row in seen.queues()]
    [worker] = seen.workers()
    assert (1, ("default",), ("busy",)) == (worker.slots, worker.queues, worker.running)
    assert (5, 1, 1) == tuple(seen.stats()[f"items_{kind}"] for kind in ("waiting", "scheduled", "running"))
    assert ["alive"] == [reply.text for reply in seen.ping()]
    for handle in (busy, waiting, later):
        assert handle.id[:8] in {row.run for row in seen.runs()}

    # And all of it can be printed, and shown in a notebook
    assert "busy" in repr(seen)
    assert "<table>" in seen._repr_html_()


def test_a_worker_that_does_not_answer_is_named(apart_hub, wait_until):
    # Given a worker that hangs
    app = apart_hub.app(workers=1)
    assert 1 == app.submit(abs, -1).get(10)
    [supervisor] = apart_hub.supervisors()
    supervisor.suspend()

    # When it is asked whether it lives, then it is named as one that has not answered
    started = time.monotonic()
    [reply] = app.control.ping(timeout=0.3)
    supervisor.resume()
    assert (False, "no answer within 0.3 s") == (reply.ok, reply.text)
    assert time.monotonic() - started < 3


def test_an_order_for_somebody_who_is_not_there_is_refused(own_hub):
    app = own_hub.app(workers=1)
    assert 1 == app.submit(abs, -1).get(10)

    with pytest.raises(ValueError, match="no worker is called 'nobody'; connected: "):
        app.control.ping("nobody")


def test_the_commands_do_the_same(own_hub, wait_until, tmp_path):
    # Given a slot that is busy, and work behind it
    app = own_hub.app(workers=1)
    go = tmp_path / "go"
    app.options(label="busy").submit(sleep_until(go))
    wait_until(lambda: app.inspect().active(), "its start")
    app.map(abs, range(7), label="behind")

    # Then it can be seen, in short and in full
    assert "busy" in own_hub.command("inspect").stdout
    assert "behind" in own_hub.command("inspect", "queued").stdout
    assert "slots" in own_hub.command("inspect", "stats").stdout
    assert "alive" in own_hub.command("inspect", "ping").stdout

    # And controlled
    assert "2 slots" in own_hub.command("control", "pool-grow").stdout
    go.touch()
    assert "1 slot" in own_hub.command("control", "pool-shrink", "1").stdout
    assert (
        "'fit': soft 1.5 s, hard 60 s"
        in own_hub.command("control", "time-limit", "fit", "--soft", "1.5", "--hard", "60").stdout
    )
    never = own_hub.command("control", "time-limit", "fit", "--hard", "0")
    assert "Error: hard must be a number of seconds above 0, or None, not 0.0\n" == never.stderr
    unknown = own_hub.command("control", "ping", "-d", "nobody")
    assert (1, "Error: no worker is called 'nobody'") == (unknown.returncode, unknown.stderr[:35])


def test_purge_asks_before_it_does_it(own_hub):
    # Given work that waits
    app = own_hub.app(workers=0)
    handle = app.map(abs, range(7))

    # When nobody confirms, then nothing is purged
    refused = own_hub.command("purge")
    assert 1 == refused.returncode
    assert not handle.done()

    # But with -f it is
    assert "Revoked 7 waiting items of queue 'default'." in own_hub.command("purge", "-f").stdout
    with pytest.raises(nbqueue.TaskRevoked):
        handle.get(10)


@pytest.mark.parametrize("command", [["inspect"], ["purge", "-f"], ["control", "ping"]])
def test_without_a_hub_the_commands_say_so(own_hub, command):
    result = own_hub.command(*command)

    assert (1, "Error: no hub runs: a notebook that uses nbqueue starts one\n") == (result.returncode, result.stderr)
