"""Why a slot's process died, in words: for whoever finds that a task was lost.

The first line is the sentence of the error. What follows, if anything, is what the process said last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from nbqueue.worker.limits import Budget, size_text

#: A process that was killed and held this share of the memory, or left so little free, most likely filled it.
_LARGE_SHARE, _FULL_SHARE = 0.5, 0.9
_SHOWN_LINES = 12
_DUMP = re.compile(r"Fatal Python error: ")
_DUMP_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')
#: Frames of our own, below those of the task.
_OUR_FRAME = re.compile(r"nbqueue[/\\]worker[/\\]")


class Death(NamedTuple):
    """What is known of the end of a slot's process."""

    pid: int
    signal: str  #: that killed it, e.g. "SIGKILL"; empty: it ended by itself
    status: int  #: with which it ended then
    peak_bytes: int  #: of its memory


def obituary(death: Death, memory: Budget, last_lines: Sequence[str]) -> str:
    """The sentence, and below it the last words.

    Args:
        death: What is known of it.
        memory: The machine's or the container's, a moment after.
        last_lines: The end of what it wrote to stderr, the dump of `faulthandler` included.
    """
    how = f"was killed by {death.signal}" if death.signal else f"ended with status {death.status}"
    facts = [f"the process (pid {death.pid}) that ran it {how}", *_crash_site(last_lines)]
    facts.append(f"its memory peaked at {size_text(death.peak_bytes)}")
    facts.append(f"{memory.name} has {size_text(memory.total_bytes)}, {size_text(_free_bytes(memory))} of them free")
    if death.signal == "SIGKILL" and _is_memory_to_blame(death, memory):
        facts.append("almost surely it was out of memory")
    words = [line for line in _without_dump(last_lines) if line.strip()][-_SHOWN_LINES:]
    return "; ".join(facts) + "".join(f"\n  stderr | {line}" for line in words)


def _free_bytes(memory: Budget) -> int:
    return max(0, memory.total_bytes - memory.used_bytes)


def _is_memory_to_blame(death: Death, memory: Budget) -> bool:
    return death.peak_bytes >= _LARGE_SHARE * memory.total_bytes or memory.share >= _FULL_SHARE


def _crash_site(last_lines: Sequence[str]) -> list[str]:
    """Where in the task's own code native code crashed, as `faulthandler` saw it."""
    frames = [match for line in last_lines if (match := _DUMP_FRAME.fullmatch(line.rstrip()))]
    theirs = [frame for frame in frames if not _OUR_FRAME.search(frame["file"])]
    if not theirs or not any(map(_DUMP.match, last_lines)):
        return []
    sites = [f"{frame['name']} ({frame['file']}, line {frame['line']})" for frame in theirs[:2]]
    return [f"it crashed in {', called by '.join(sites)}"]


def _without_dump(last_lines: Sequence[str]) -> Sequence[str]:
    """What it wrote before it crashed; the dump itself is told in the sentence."""
    for position, line in enumerate(last_lines):
        if _DUMP.match(line):
            return last_lines[:position]
    return last_lines
