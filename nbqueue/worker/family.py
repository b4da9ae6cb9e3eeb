"""A process and all that descends from it, so that nothing outlives a slot: not even what has left its session.

On Linux a slot, and the zygote above it, adopt the orphans below them (`PR_SET_CHILD_SUBREAPER`). While a slot lives,
what its tasks have started is below it; when it is dead, that is found among the zygote's children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Container

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.001


def adopt_orphans() -> None:
    """From now on, what loses its parent somewhere below this process becomes its child."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when *parent* dies (Linux; elsewhere the zygote's end does it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before we asked


def kill_group(leader: int) -> None:
    """Kill the process group of *leader*, which may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in it, or only what is not ours
        os.killpg(leader, signal.SIGKILL)


def kill_adopted(mine: Container[int], *, timeout_s: float) -> None:
    """Kill and reap all children of this process that are not *mine*, and what they leave behind in turn.

    Args:
        mine: Children to be left alone.
        timeout_s: Give up after this; a process in the hands of the kernel may take its time to die.
    """
    deadline = time.monotonic() + timeout_s
    while adopted := [pid for pid in children() if pid not in mine]:
        for pid in adopted:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_S)


def children() -> list[int]:
    """The children of this process, dead ones that were not reaped included; empty where that cannot be known."""
    names = os.listdir("/proc") if sys.platform == "linux" else ()
    return [int(name) for name in names if name.isdigit() and _parent(name) == os.getpid()]


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None  # it has ended
