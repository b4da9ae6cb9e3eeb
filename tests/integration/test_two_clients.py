"""Clients that share a hub, and hubs that must not share anything."""

import collections
import subprocess
import sys
import threading
import time

import pytest

import nbqueue

CLIENT = """
    import nbqueue, os, sys

    mark = sys.argv[1]
    print("ready", flush=True)
    sys.stdin.readline()
    results = nbqueue.map(lambda x: f"{mark}{x}", range(20_000))
    assert results.get(15) == [f"{mark}{x}" for x in range(20_000)]
    assert [f"{mark}!"] == nbqueue.map(lambda x: mark + x, "!").get(15)
    print(nbqueue.submit(os.getppid).get(), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("round_", range(3))
def test_clients_that_start_at_the_same_instant_share_one_hub(own_hub, round_):
    # Given four scripts that are about to make their first call, and no hub
    script = own_hub.write_script(CLIENT)
    clients = [
        subprocess.Popen([sys.executable, str(script), mark], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for mark in "abcd"
    ]
    assert ["ready\n"] * 4 == [client.stdout.readline() for client in clients]

    # When all call at once
    for client in clients:
        client.stdin.write("go\n")
        client.stdin.flush()
    zygotes = [client.stdout.readline().strip() for client in clients]

    # Then there is one hub with one set of workers, and each has got its own results
    try:
        own_hub.hub()
        assert 1 == len(own_hub.zygotes())
        assert {str(own_hub.zygotes()[0].pid)} == set(zygotes)
    finally:
        outputs = [client.communicate("end\n", timeout=10)[0] for client in clients]
    assert [("", 0)] * 4 == [(output, client.returncode) for output, client in zip(outputs, clients, strict=True)]


def test_threads_of_one_app_each_get_their_own_results(app):
    # Given eight threads that use one app at once
    wrong = []

    def work(number):
        for repetition in range(5):
            values = app.map(lambda x: (number, repetition, x), range(100)).get(15)  # noqa: B023 -- pickled at once
            if values != [(number, repetition, x) for x in range(100)]:
                wrong.append((number, repetition))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)

    # Then none got what was meant for another
    assert [] == wrong
    assert not any(thread.is_alive() for thread in threads)


def test_a_short_task_of_one_client_does_not_wait_for_the_long_map_of_another(hub):
    # Given a map of one client that will go on for a long time
    long_map = hub.app().map(lambda x: time.sleep(0.05) or x, range(10_000))

    # When another client has something short
    began = time.monotonic()
    assert 1 == hub.app().submit(abs, -1).get(10)

    # Then it runs next
    assert time.monotonic() - began < 2.0
    long_map.revoke()
    assert nbqueue.TaskRevoked is type(long_map.exception(10))


def test_two_maps_of_two_clients_advance_together(hub, wait_until):
    # Given two clients that each have a long map
    first, second = (hub.app().map(lambda x: time.sleep(0.02) or x, range(5000)) for _ in range(2))

    # When some of it is done
    wait_until(lambda: first.counts.done + second.counts.done > 100, "a hundred items", timeout_s=15)

    # Then neither had to wait for the other
    shares = collections.Counter(first=first.counts.done, second=second.counts.done)
    assert min(shares.values()) > 20, shares
    first.revoke()
    second.revoke()


def test_stopping_the_workers_of_one_client_leaves_those_of_another(own_hub, wait_until):
    # Given two clients that have each started a worker
    first, second = own_hub.app(workers=0), own_hub.app(workers=0)
    first_group, second_group = first.start_workers(1), second.start_workers(1)
    assert 2 == len(own_hub.zygotes())

    # When one stops its worker
    second_group.stop()
    wait_until(lambda: len(own_hub.zygotes()) < 2, "end of a worker")

    # Then the other one's goes on
    assert 1 == first.submit(abs, -1).get(10)
    assert 1 == len(own_hub.zygotes())
    first_group.stop()


def test_hubs_of_two_folders_do_not_touch_each_others_large_data(own_hub, hub):
    # Given a large result that lies in the folder of one hub
    numpy = pytest.importorskip("numpy")
    result = hub.app().submit(numpy.ones, 1_000_000)
    result.exception(10)

    # When the hub of another folder comes and goes
    assert 1 == own_hub.app().submit(abs, -1).get(10)
    assert 0 == own_hub.command("stop").returncode

    # Then the result is still there
    assert 1_000_000 == result.get(10).sum()
