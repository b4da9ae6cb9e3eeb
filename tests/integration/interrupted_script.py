"""Run by test_interrupts: waits in all ways, again and again; its parent interrupts it at random moments.

Tells the parent "go" before each wait, and in the end what went wrong.
"""

import faulthandler
import io
import itertools
import os
import sys
import time
import traceback

import nbqueue


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


def interrupted(name, call, label):
    """Wait until the interrupt; the traceback, or None if there was none."""
    handles = (
        [nbqueue.options(label=label).submit(nap, 60) for _ in range(5)] if name in ("wait", "as_completed") else None
    )
    try:
        os.write(1, b"go\n")
        call() if handles is None else call(handles)
    except KeyboardInterrupt:
        for handle in handles or ():
            if "revoked" not in sys.stderr.getvalue():  # it fell before the call
                handle.revoke()
        return traceback.format_exc()
    return None


def still_there(label, timeout_s=5.0):
    """Runs of that label that have not ended in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [run for run in nbqueue.inspect().runs() if run.label == label and run.waiting + run.running]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def main():
    wrong = []
    own = sys.stderr
    nbqueue.submit(abs, -7).get(20)
    for number in range(int(sys.argv[1])):
        label = f"trial {number}"
        ways = calls(label, [0, 0, 60, 60, 60])
        name = list(ways)[number % len(ways)]
        sys.stderr = io.StringIO()
        text = interrupted(name, ways[name], label)
        sys.stderr = own
        if text is None:
            wrong.append(f"{label}: {name} was not interrupted")
        elif left := still_there(label):
            wrong.append(f"{label}: {name} left {left} behind:\n{text}")
        elif nbqueue.submit(abs, -7).get(10) != 7:
            wrong.append(f"{label}: after {name} nothing works")
    os.write(1, b"done\n")
    sys.stderr.write("\n".join(wrong))


if __name__ == "__main__":
    try:
        main()
    except TimeoutError:
        faulthandler.dump_traceback(all_threads=True)  # who holds what
        sys.__stderr__.write(f"{nbqueue.inspect().active()}\n{nbqueue.inspect().workers()}\n")
        raise
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)  # in the middle of a trial, `sys.stderr` is its own
        raise
