"""Find, weigh and end the processes of one measurement, however they detached.

Every measurement runs with a tag in its environment, which all its descendants inherit: also those in
sessions of their own, and those whose parent is gone.
"""

from __future__ import annotations

import time

import psutil

TAG_VARIABLE = "NBQUEUE_BENCH_TAG"
MEGABYTE = 1_000_000


def tagged(tag: str) -> list[psutil.Process]:
    """Processes that carry *tag*, and their descendants (some overwrite their environment)."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG_VARIABLE) == tag:
                found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue  # ended meanwhile, or not ours to look at
    return list(found.values())


def reap(tag: str, *, grace_s: float = 5.0) -> list[str]:
    """Wait for the processes with *tag* to end, kill the rest, and return those names."""
    left = _wait_for_end(tag, timeout_s=grace_s)
    names = [_name(process) for process in left]
    while left:
        for process in left:
            _kill(process)
        left = _wait_for_end(tag, timeout_s=1.0)
    return names


def rss_mb(process: psutil.Process) -> float:
    """Resident memory in MB (10**6 bytes); 0 once the process has ended."""
    try:
        return float(process.memory_info().rss / MEGABYTE)
    except psutil.NoSuchProcess:
        return 0.0


def _wait_for_end(tag: str, *, timeout_s: float) -> list[psutil.Process]:
    """Those with *tag* still there after *timeout_s*; looks again, as the ending may start others."""
    deadline = time.monotonic() + timeout_s
    while (left := tagged(tag)) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.2)
    return left


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "?"


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass
