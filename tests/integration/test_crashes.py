"""Processes that are killed with SIGKILL in the middle of their work."""

import collections
import contextlib
import signal
import sys
import time

import psutil
import pytest

import nbqueue
from nbqueue.brokers.zmq.broker import ZmqBroker, _Link

ITEMS = 1000


@pytest.fixture
def started_map(own_hub, tmp_path, wait_until):
    return start_map(own_hub, tmp_path, wait_until)


def start_map(hub, tmp_path, wait_until):
    """A map of 1,000 items of a few milliseconds, of which some have run, and the file that says which ran."""
    log = tmp_path / "ran"

    def slow_square(x):
        time.sleep(0.003)
        with open(log, "a") as file:
            file.write(f"{x}\n")
        return x * x

    results = hub.app().map(slow_square, range(ITEMS))
    wait_until(lambda: results.counts.done > ITEMS // 10, "a tenth of the map")
    assert results.counts.done < ITEMS // 2, "the map is over too soon for this test"
    return results


def assert_every_item_ended_once(results):
    values = results.get(25)
    assert [x * x for x in range(ITEMS)] == values
    assert (ITEMS, 0, 0) == (results.counts.done, results.counts.failed, results.counts.revoked)
    items = collections.Counter(item for entry in results.run.entries() for item in range(entry.start, entry.stop))
    assert {1} == set(items.values())
    assert ITEMS == len(items)


@pytest.mark.timeout(40)
def test_a_map_survives_the_death_of_a_slot(own_hub, started_map, wait_until):
    # Given a map that runs, when one of its slots is killed
    own_hub.slots()[0].kill()

    # Then every item ends, once, and there are two slots again
    assert_every_item_ended_once(started_map)
    wait_until(lambda: 2 == len(own_hub.slots()), "two slots")


@pytest.mark.timeout(40)
def test_a_map_survives_the_death_of_its_supervisor(apart_hub, tmp_path, wait_until):
    # Given a map that runs, when the process with the supervisor of all slots is killed
    running_map = start_map(apart_hub, tmp_path, wait_until)
    [supervisor] = apart_hub.supervisors()
    supervisor.kill()

    # Then every item ends, once, and there is another supervisor with two slots
    assert_every_item_ended_once(running_map)
    wait_until(lambda: 2 == len(apart_hub.slots()), "two slots")
    assert [supervisor.pid] != [process.pid for process in apart_hub.supervisors()]


@pytest.mark.timeout(40)
def test_a_map_survives_the_death_of_the_zygote(own_hub, started_map, wait_until):
    # Given a map that runs, when the process that forks the slots is killed
    [zygote] = own_hub.zygotes()
    slots = own_hub.slots()
    zygote.kill()

    # Then every item ends, once, no old slot is left, and there are two new ones
    assert_every_item_ended_once(started_map)
    wait_until(lambda: 2 == len(own_hub.slots()), "two slots")
    assert not [slot for slot in slots if slot.is_running()]


@pytest.mark.timeout(40)
def test_a_map_survives_the_death_of_many_slots(own_hub, started_map, wait_until):
    # Given a map that runs, when a slot is killed after every fifty items
    for _ in range(8):
        done = started_map.counts.done
        wait_until(own_hub.slots, "a slot")[0].kill()
        wait_until(lambda done=done: started_map.counts.done > done + 50, "fifty items more")

    # Then every item ends, once
    assert_every_item_ended_once(started_map)


@pytest.mark.timeout(60)
def test_a_run_that_follows_many_supervisor_deaths_still_runs(apart_hub, wait_until):
    # Given a hub whose supervisor was killed five times in a row
    app = apart_hub.app()
    assert 1 == app.submit(abs, -1).get(10)
    for _ in range(5):
        [supervisor] = apart_hub.supervisors()
        supervisor.kill()
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda old=supervisor: [process for process in apart_hub.supervisors() if process.pid != old.pid],
                "another supervisor",
                timeout_s=3.0,
            )
        if not apart_hub.supervisors():
            break

    # When something is submitted, then it is run, or the caller is told why not: it never just waits
    with contextlib.suppress(nbqueue.NoWorkers):
        assert 2 == app.submit(abs, -2).get(10)


def start_client(hub, wait_until, *, seconds):
    """A script that is in the middle of its work."""
    script = hub.write_script(f"""
        import nbqueue, time
        results = nbqueue.map(time.sleep, [{seconds}] * 4)
        print("started", flush=True)
        results.get()
    """)
    client = hub.start(sys.executable, str(script))
    assert "started\n" == client.stdout.readline()
    wait_until(lambda: 2 == len(hub.slots()), "two slots")
    return client


@pytest.mark.timeout(60)
def test_nothing_is_left_when_a_client_was_killed_and_the_idle_time_is_over(short_lived_hub, wait_until):
    # Given a client in the middle of a short map, on a hub with an idle time of two seconds
    client = start_client(short_lived_hub, wait_until, seconds=0.2)

    # When it is killed
    client.kill()
    client.wait()

    # Then its run goes on, and soon after the idle time no process is left
    short_lived_hub.wait_until_gone(timeout_s=20)


def test_a_client_that_was_killed_does_not_take_the_work_of_others_with_it(own_hub, wait_until):
    # Given a map of this process and the client of another one
    client = start_client(own_hub, wait_until, seconds=0.1)
    results = own_hub.app().map(lambda x: time.sleep(0.01) or x, range(100))

    # When the other is killed
    client.kill()

    # Then ours goes on
    assert list(range(100)) == results.get(15)


def test_nothing_is_left_at_once_when_the_hub_is_stopped(own_hub, wait_until):
    # Given work that would take hours
    start_client(own_hub, wait_until, seconds=10_000).kill()

    # When the hub is stopped
    assert 0 == own_hub.command("stop").returncode

    # Then nothing is left: the command waited for the end
    assert [] == own_hub.processes()
    assert not [root for root in own_hub.files.blob_roots if root.exists()]


@pytest.mark.timeout(40)
def test_handles_are_told_when_the_hub_was_killed_and_the_next_call_starts_another(own_hub):
    # Given a map that runs
    app = own_hub.app()
    results = app.map(time.sleep, [100] * 4)
    task = app.submit(time.sleep, 100)

    # When the hub is killed
    own_hub.hub().kill()

    # Then whoever waits is told within ten seconds, nothing is left, and the app works again
    with pytest.raises(nbqueue.BrokerUnavailable, match=r"the hub .* died"):
        results.get(10)
    with pytest.raises(nbqueue.BrokerUnavailable, match=r"the hub .* died"):
        task.get(1)
    own_hub.wait_until_gone()
    assert [0, 1, 4] == app.map(lambda x: x * x, range(3)).get(10)


@pytest.mark.timeout(40)
def test_a_call_right_after_the_death_of_the_hub_works(own_hub):
    # Given a hub that was killed a moment ago, which its client cannot know yet
    app = own_hub.app()
    assert 1 == app.submit(abs, -1).get(10)
    own_hub.hub().kill()

    # When something is submitted at once, then it ends: with its result, or with the truth
    with contextlib.suppress(nbqueue.BrokerUnavailable):
        assert 2 == app.submit(abs, -2).get(10)
    assert 3 == app.submit(abs, -3).get(10)


@pytest.mark.timeout(40)
@pytest.mark.parametrize("moment", [(ZmqBroker, "open_client"), (_Link, "say_hello")])
def test_a_hub_that_ends_while_somebody_connects_has_a_successor(own_hub, monkeypatch, moment):
    # Given a hub that is killed when it was found, or when it was reached but did not greet yet
    own_hub.app().submit(abs, -1).get(10)
    place, name = moment
    go_on, hub = getattr(place, name), own_hub.hub()

    def kill_and_go_on(*args):
        if hub.is_running():
            hub.kill()
            hub.wait(10)
        return go_on(*args)

    monkeypatch.setattr(place, name, kill_and_go_on)

    # When another client connects, then it is served
    assert 2 == own_hub.app().submit(abs, -2).get(10)


@pytest.mark.parametrize("victim", ["supervisors", "zygotes", "slots"])
def test_children_of_a_task_do_not_outlive_the_stop_of_the_hub(apart_hub, wait_until, tmp_path, victim):
    # Given a task that has started a process of its own, and a process above it that was killed
    pid_file = tmp_path / "pid"

    def start_child():
        import subprocess

        child = subprocess.Popen(["sleep", "10000"])
        pid_file.write_text(str(child.pid))
        child.wait()

    apart_hub.app().options(max_lost=0).submit(start_child)
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the child"))
    for process in getattr(apart_hub, victim)():
        process.send_signal(signal.SIGKILL)

    # When the hub is stopped
    apart_hub.command("stop")

    # Then that process is gone as well
    wait_until(lambda: not psutil.pid_exists(pid), "end of the task's child", timeout_s=5.0)


@pytest.mark.timeout(40)
def test_a_slot_that_is_frozen_between_two_tasks_holds_up_nobody_else(own_hub, wait_until):
    # Given two slots, of which one is frozen
    app = own_hub.app()
    assert [0, 1] == app.map(abs, [0, -1], chunksize=1).get(10)
    frozen, _ = wait_until(lambda: len(own_hub.slots()) == 2 and own_hub.slots(), "two slots")
    frozen.suspend()

    # When both get more than the buffer of a socket holds
    tasks = [app.submit(len, bytes(250_000)) for _ in range(2)]
    wait_until(lambda: any(task.done() for task in tasks), "what the other slot has done")

    # Then the broker goes on with everything else, and so does the slot when it can
    assert 2 == app.submit(abs, -2).get(10)
    assert 1 == app.inspect().stats()["items_running"]
    frozen.resume()
    assert [250_000, 250_000] == [task.get(10) for task in tasks]
