"""Ctrl-C in a script: what waits ends, what the script has submitted is revoked, unless it says otherwise."""

import random
import signal
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
    import nbqueue, os, signal, threading, time

    {call}
    while not handle.run.counts.running:
        time.sleep(0.01)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        {wait}
    except KeyboardInterrupt:
        print(handle.state)
        print(nbqueue.submit(abs, -7).get(10))
"""


def interrupted(hub, call, wait):
    """What a script prints that is interrupted while it waits."""
    ended = hub.run(sys.executable, str(hub.write_script(SCRIPT.format(call=call, wait=wait))))
    return ended.stdout, ended.stderr


@pytest.mark.parametrize("wait", ["handle.get()", "handle.exception()", "handle.result(60)"])
def test_an_interrupt_revokes_what_the_script_waits_for(hub, wait):
    output, errors = interrupted(hub, "handle = nbqueue.submit(time.sleep, 60)", wait)

    assert "REVOKED\n7\n" == output
    assert "revoked 'sleep'" in errors


@pytest.mark.parametrize("wait", ["handle.get()", "handle[1]", "next(iter(handle))", "handle.exception(60)"])
def test_an_interrupt_revokes_a_map_and_says_what_was_kept(hub, wait):
    output, errors = interrupted(hub, "handle = nbqueue.map(time.sleep, [60, 60, 0], label='naps')", wait)

    assert "REVOKED\n7\n" == output
    assert "revoked 'naps'" in errors
    assert "0 of 3 items are done" in errors


def test_a_map_that_says_so_goes_on(hub):
    call = "handle = nbqueue.map(time.sleep, [2], label='naps', on_interrupt='detach')"
    output, errors = interrupted(hub, call, "handle.get()")

    assert "STARTED\n7\n" == output
    assert "'naps'" in errors
    assert "goes on" in errors


@pytest.mark.parametrize("begun", ["nbqueue.map(time.sleep, [2], label='naps')", "nbqueue.submit(time.sleep, 2)"])
def test_what_was_begun_elsewhere_goes_on(hub, begun):
    call = f"first = {begun}; handle = nbqueue.App().attach(first.id)"
    output, errors = interrupted(hub, call, "handle.get()")

    assert "STARTED\n7\n" == output
    assert "goes on" in errors


@pytest.mark.parametrize("consume", [list, lambda results: results.get(), lambda results: results[:2]])
def test_an_interrupt_that_falls_beside_the_wait_stops_the_map_too(app, monkeypatch, consume):
    # Given a map of which something is done, and an interrupt that falls while that is unpacked
    def unpack_and_be_interrupted(*_):
        raise KeyboardInterrupt

    results = app.map(time.sleep, [0, 60], chunksize=1, progress=False)
    monkeypatch.setattr("nbqueue.client.map_result.PackedValues", unpack_and_be_interrupted)

    # When the results are consumed, then what still runs is stopped
    with pytest.raises(KeyboardInterrupt):
        consume(results)
    assert results.ready()
    assert 1 == results.counts.revoked


def test_nonsense_for_on_interrupt_is_refused(app):
    with pytest.raises(ValueError, match='on_interrupt must be "revoke" or "detach"'):
        app.map(abs, [1], on_interrupt="stop")


SCRIPT_OF_TRIALS = Path(__file__).with_name("interrupted_script.py")


@pytest.mark.timeout(100)
def test_after_200_interrupts_at_random_moments_nothing_runs_on_and_all_works(hub):
    # Given a script that waits in all ways
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    process = hub.start(sys.executable, str(SCRIPT_OF_TRIALS), "200")

    # When it is interrupted at random moments: while it submits, in the middle of things, or when it has long waited
    for line in process.stdout:
        if line == "done\n":
            break
        time.sleep(rng.choice([rng.random() * 0.002, rng.random() * 0.01, rng.random() * 0.2]))
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)

    # Then each time what it waited for has ended soon, and the next task works
    assert "" == errors, f"seed {seed}"
    assert 0 == process.returncode


@pytest.mark.timeout(200)
def test_after_200_interrupts_at_random_points_of_our_code_nothing_runs_on_and_all_works(hub):
    # Given a script that waits in all ways
    seed = random.randrange(2**32)

    # When it is interrupted wherever Python may interrupt it, from its first instruction in nbqueue until it waits
    ended = hub.run(sys.executable, str(SCRIPT_OF_TRIALS), "200", str(seed), timeout_s=180.0)

    # Then each time what it waited for has ended soon, and the next task works
    assert "done\n" == ended.stdout
    assert "" == ended.stderr, f"seed {seed}"
