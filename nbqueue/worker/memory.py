"""Measures memory: of a process and all that descends from it, and of the machine or the container it runs in."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nbqueue.worker.limits import Budget

if TYPE_CHECKING:
    import psutil

#: Where a container's limit and use stand, by version of cgroups.
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


#: `ru_maxrss` counts in these.
_PEAK_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def own_peak_bytes() -> int:
    """The most memory that this process has held since its start, or since `forget_own_peak`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT_BYTES


def forget_own_peak() -> None:
    """Begin anew with what this process holds now (Linux; elsewhere a peak stays one)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")


def held_bytes(pid: int, *, limit_bytes: int | None = None) -> int:
    """The memory of a process and all its descendants; 0 when it is gone.

    Args:
        pid: Of the process.
        limit_bytes: What is shared between them is looked at more closely only if their sum is above this: forks share
            most of their pages, and each counts them as its own.
    """
    import psutil

    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
        total = sum(map(_resident_bytes, family))
        if limit_bytes is not None and total > limit_bytes and len(family) > 1:
            return sum(map(_proportional_bytes, family))
        return total
    return 0


def own_bytes(pid: int) -> int:
    """The memory of one process, without its descendants; costs a tenth of `held_bytes`."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def processes(pid: int | None) -> int:
    """How many a process and its descendants are."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return 1 + len(psutil.Process(pid).children(recursive=True))
    return 0


def machine() -> list[Budget]:
    """The machine's memory, and that of the container if it has a limit."""
    import psutil

    memory = psutil.virtual_memory()
    budgets = [Budget("the machine's memory", memory.total, memory.total - memory.available)]
    for limit_file, usage_file in _CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):  # there is none, or it says "max"
            limit, usage = int(Path(limit_file).read_text()), int(Path(usage_file).read_text())
            if limit < memory.total:
                budgets.append(Budget("the container's memory", limit, usage - _cache_bytes(Path(usage_file).parent)))
    return budgets


def _cache_bytes(group: Path) -> int:
    """Pages of files that the kernel gives back when they are needed."""
    facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(facts.get("inactive_file", facts.get("total_inactive_file", 0)))


def _resident_bytes(process: psutil.Process) -> int:
    import psutil

    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _proportional_bytes(process: psutil.Process) -> int:
    import psutil

    with contextlib.suppress(psutil.Error):
        facts = process.memory_full_info()
        return int(getattr(facts, "pss", facts.rss))
    return 0
