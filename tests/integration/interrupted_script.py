"""Run by test_interrupts: waits in all ways, again and again, and is interrupted in the middle of that.

``TRIALS``: its parent interrupts it at random moments, when it says "go". ``TRIALS SEED``: it interrupts itself, at
random points of its code. In the end it says "done", and what went wrong.
"""

import faulthandler
import io
import itertools
import os
import random
import signal
import sys
import threading
import time
import traceback
from contextlib import nullcontext

from check_points import InterruptAt, is_before_the_call

import nbqueue

#: About as many as there are before the call waits.
POINTS = 350
#: If it was not interrupted before, it is when it has waited so long.
AT_LAST_S = 0.1


def nap(seconds):
    time.sleep(seconds)
    return seconds


def calls(label, naps):
    """Ways to wait, each with what it waits for submitted in the call itself, or before it."""
    submit = nbqueue.options(label=label).submit
    made = {"label": label, "progress": False}
    return {
        "get": lambda: submit(nap, 60).get(),
        "map and get": lambda: nbqueue.map(nap, naps, **made).get(),
        "map and iterate": lambda: list(nbqueue.map(nap, naps, **made)),
        "map and index": lambda: nbqueue.map(nap, naps, **made)[-1],
        "imap": lambda: list(nbqueue.imap(nap, itertools.chain(naps, itertools.repeat(60)), buffersize=50, **made)),
        "exception": lambda: nbqueue.map(nap, naps, **made).exception(),
        "wait": nbqueue.wait,
        "as_completed": lambda handles: list(nbqueue.as_completed(handles)),
    }


def interrupted(name, call, label, interrupter):
    """Wait until the interrupt; the traceback, or None if there was none."""
    handles = (
        [nbqueue.options(label=label).submit(nap, 60) for _ in range(5)] if name in ("wait", "as_completed") else None
    )
    try:
        with interrupter:
            call() if handles is None else call(handles)
    except KeyboardInterrupt as interrupt:
        if not has_begun(interrupt):  # nobody has waited for these: who presses then presses again
            nbqueue.revoke([run.run for run in still_there(label, timeout_s=0)])
        return traceback.format_exc()
    return None


def has_begun(interrupt):
    """Whether it fell into nbqueue's code, and not before it."""
    last = interrupt.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    frame = last.tb_frame
    return frame.f_code.co_filename != __file__ and not is_before_the_call(frame, last.tb_lasti)


def still_there(label, timeout_s=5.0):
    """Runs of that label that have not ended in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [run for run in nbqueue.inspect().runs() if run.label == label and run.waiting + run.running]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


class AtRandomPoint:
    """Interrupts at one of the points of the call, or when it has waited for long."""

    def __init__(self, rng):
        self._point = InterruptAt(rng.randint(1, POINTS))
        self._at_last = threading.Timer(AT_LAST_S, self._interrupt_now)

    def __enter__(self):
        self._at_last.start()
        self._point.__enter__()

    def __exit__(self, *exc_info):
        self._point.__exit__()
        self._at_last.cancel()

    def _interrupt_now(self):
        if not self._point.has_interrupted:
            self._point.cancel()
            os.kill(os.getpid(), signal.SIGINT)


class AtRandomMoment(nullcontext):
    """The parent does it."""

    def __enter__(self):
        os.write(1, b"go\n")


def main(trials, seed=None):
    wrong = []
    own = sys.stderr
    rng = random.Random(seed)
    nbqueue.submit(abs, -7).get(20)
    for number in range(trials):
        label = f"trial {number}"
        ways = calls(label, [0, 0, 60, 60, 60])
        name = list(ways)[number % len(ways)]
        sys.stderr = io.StringIO()
        text = interrupted(name, ways[name], label, AtRandomMoment() if seed is None else AtRandomPoint(rng))
        sys.stderr = own
        if text is None:
            wrong.append(f"{label}: {name} was not interrupted")
        elif left := still_there(label):
            wrong.append(f"{label}: {name} left {left} behind:\n{text}")
            nbqueue.revoke([run.run for run in left], wait=True)
        elif nbqueue.submit(abs, -7).get(10) != 7:
            wrong.append(f"{label}: after {name} nothing works")
    os.write(1, b"done\n")
    sys.stderr.write("\n".join(wrong))


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:]))
    except TimeoutError:
        faulthandler.dump_traceback(all_threads=True)  # who holds what
        sys.__stderr__.write(f"{nbqueue.inspect().active()}\n{nbqueue.inspect().workers()}\n")
        raise
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)  # in the middle of a trial, `sys.stderr` is its own
        raise
