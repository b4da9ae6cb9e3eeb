"""Measure how long stopping takes: `python -m benchmarks.stopping [ROUNDS]`.

For each kind of task: seconds from `revoke()` until the handle has ended, and until the slot has run the next task.
One slot, so that the next task runs where the revoked one has. It uses a hub of its own in a temporary folder.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path


def queued(_marker):
    """Is revoked before it starts."""


def python_loop(marker):
    marker.touch()
    while True:
        pass


def sleep(marker):
    marker.touch()
    time.sleep(1e6)


def native_loop(marker):
    marker.touch()
    sum(range(10**13))  # holds the GIL, looks at no signal


def native_regex(marker):
    marker.touch()
    re.match(r"(a*)*b", "a" * 64)


def deaf_loop(marker):
    marker.touch()
    while True:
        try:
            time.sleep(1e6)
        except BaseException:
            pass


def measure(app, function, folder, number):
    """Seconds until it has ended, and until the next task has."""
    marker = folder / f"{function.__name__}-{number}"
    blocker = None
    if function is queued:
        blocker = app.submit(python_loop, folder / f"blocker-{number}")
        task = app.submit(function, marker)
        time.sleep(0.05)
    else:
        task = app.submit(function, marker)
        while not marker.exists():
            time.sleep(0.001)
    began = time.perf_counter()
    task.revoke(wait=True)
    ended_s = time.perf_counter() - began
    if blocker is not None:
        blocker.revoke(wait=True)
        return ended_s, ended_s
    app.submit(abs, -1).get(60)
    return ended_s, time.perf_counter() - began


def percentiles(seconds):
    """The median, and the 99th percentile (of fewer than 100 rounds: the largest)."""
    return statistics.median(seconds), sorted(seconds)[min(len(seconds) - 1, len(seconds) * 99 // 100)]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory(prefix="nbq", dir="/tmp") as name:
        folder = Path(name)
        os.environ["NBQUEUE_RUNTIME_DIR"] = str(folder / "run")
        import nbqueue

        with nbqueue.App(workers=1) as app:
            app.submit(abs, -1).get(60)
            print(
                f"{'task':<14}{'ended p50':>12}{'p99':>10}{'slot back p50':>16}{'p99':>10}   ({rounds} rounds, seconds)"
            )
            for function in (queued, sleep, python_loop, native_loop, native_regex, deaf_loop):
                ended, back = zip(*(measure(app, function, folder, number) for number in range(rounds)), strict=True)
                figures = [*percentiles(ended), *percentiles(back)]
                print("{:<14}{:>12.3f}{:>10.3f}{:>16.3f}{:>10.3f}".format(function.__name__, *figures))
        os.system(f"{sys.executable} -m nbqueue stop > /dev/null")


if __name__ == "__main__":
    main()
