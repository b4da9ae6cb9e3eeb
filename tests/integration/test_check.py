"""A look at a call before it is mapped."""

import threading
import time

import numpy as np
import pytest

import nbqueue

LOCK = threading.Lock()


def defined(code, **names):
    namespace = {"__name__": "__main__", **names}
    exec(code, namespace)
    return namespace["task"]


def test_a_sound_call_is_measured(app):
    # Given a function that captures an array, and takes a while and some memory
    table = np.zeros(2**20)
    task = defined(
        "def task(n):\n    time.sleep(0.05)\n    bytearray(50_000_000)\n    return table[:n]", table=table, time=time
    )

    # When it is checked
    report = app.check(task, 1000)

    # Then sizes, time, memory and a chunk size are told, and what is large is named
    assert report.ok
    assert {"table": pytest.approx(8 * 2**20, rel=0.01)} == report.captured
    assert report.function_bytes == pytest.approx(8 * 2**20, rel=0.01)
    assert 0.05 <= report.trial.wall_s < 5
    assert 40_000_000 < report.trial.peak_bytes < 400_000_000
    assert report.trial.result_bytes == pytest.approx(8000, rel=0.1)
    assert 1 <= report.chunksize <= 4
    assert "'table' travels with the function: 8 MiB" in report.advice[0]
    assert "chunksize that fits" in repr(report)


def test_what_ran_before_in_the_same_process_does_not_hide_the_memory_of_a_call(own_hub):
    # Given one slot, in which something large has run
    app = own_hub.app(workers=1)
    assert 200_000_000 == app.submit(lambda: len(bytearray(200_000_000))).get(20)

    # When a smaller call is checked there
    report = app.check(defined("def task(n):\n    return len(bytearray(n))"), 50_000_000)

    # Then its own memory is told
    assert 40_000_000 < report.trial.peak_bytes < 150_000_000


def test_what_cannot_be_sent_is_blamed_and_nothing_is_sent(app):
    report = app.check(defined("def task(x):\n    return lock", lock=LOCK), 1)

    assert not report.ok
    assert isinstance(report.problem, nbqueue.NotSerializable)
    assert ("lock", 2) == (report.problem.variable, report.problem.line)
    assert report.trial is None


def test_a_call_that_fails_is_told(app):
    report = app.check(defined("def task(x):\n    return 1 / x"), 0)

    assert not report.ok
    assert isinstance(report.problem, ZeroDivisionError)
    assert "failed: ZeroDivisionError" in repr(report)


def test_a_short_call_gets_large_chunks_and_a_word_about_loops(app):
    report = app.check(defined("def task(x):\n    return x"), 1)

    assert report.chunksize >= 1000
    assert "a loop here may be faster" in report.advice[-1]


def test_a_trial_can_be_left_out(app):
    report = app.check(defined("def task(x):\n    return 1 / x"), 0, trial=False)

    assert report.ok
    assert report.trial is None
