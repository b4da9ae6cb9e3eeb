"""What running items may take: time and memory of each, and of the machine that they share.

Decisions only: what was measured comes in, what is to be done goes out. The supervisor does it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

import msgspec

from nbqueue.core.exchange import Delivery
from nbqueue.core.task import TaskLimits

#: Above this share of the memory no further item is begun.
HOLD_SHARE = 0.92
#: Above this share the slot that holds most is ended.
KILL_SHARE = 0.95
#: A slot that holds less than this share of the memory is not what fills it.
GUILTY_SHARE = 0.05


class WorkerLimits(NamedTuple):
    """What a supervisor allows its slots."""

    memory_bytes: int | None = None  #: of all slots together
    tasks_per_child: int | None = None  #: items that one process runs before a fresh one takes its place


NO_WORKER_LIMITS = WorkerLimits()


class TimeRules:
    """Time limits that somebody has ordered for tasks of a name; they hold for as long as this worker lives."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[float | None, float | None]] = {}

    def put(self, name: str, *, soft_s: float | None, time_s: float | None) -> str:
        """Have this rule for *name* instead of the last one, or none; what holds now, in words."""
        if soft_s is None and time_s is None:
            known = self._rules.pop(name, None) is not None
            return f"no time limits for {name!r} any more" if known else f"there were no time limits for {name!r}"
        self._rules[name] = soft_s, time_s
        limits = (("soft", soft_s), ("hard", time_s))
        return f"{name!r}: {', '.join(f'{kind} {limit_s:g} s' for kind, limit_s in limits if limit_s is not None)}"

    def applied(self, delivery: Delivery) -> Delivery:
        """The delivery with the stricter limits of the task's own and the rule's."""
        rule = self._rules.get(delivery.label)
        if rule is None:
            return delivery
        limits, (soft_s, time_s) = delivery.limits, rule
        stricter = msgspec.structs.replace(
            limits, soft_time_s=_stricter(limits.soft_time_s, soft_s), time_s=_stricter(limits.time_s, time_s)
        )
        return msgspec.structs.replace(delivery, limits=stricter)


def _stricter(own: float | None, ordered: float | None) -> float | None:
    return min((limit for limit in (own, ordered) if limit is not None), default=None)


class Overrun(Enum):
    """A limit that an item has passed."""

    SOFT_TIME = auto()
    TIME = auto()
    MEMORY = auto()


def overrun(limits: TaskLimits, *, running_s: float, held_bytes: int | None) -> Overrun | None:
    """The gravest limit that an item has passed.

    Args:
        limits: Of the item.
        running_s: For how long it has been running.
        held_bytes: By its process and all that descend from it; None: not measured now.
    """
    if limits.memory_bytes is not None and held_bytes is not None and held_bytes > limits.memory_bytes:
        return Overrun.MEMORY
    if limits.time_s is not None and running_s >= limits.time_s:
        return Overrun.TIME
    if limits.soft_time_s is not None and running_s >= limits.soft_time_s:
        return Overrun.SOFT_TIME
    return None


class Budget(NamedTuple):
    """Some memory, and how much of it is in use."""

    name: str  #: whose, in words, e.g. "the machine's memory"
    total_bytes: int
    used_bytes: int

    @property
    def share(self) -> float:
        """Of it, in use."""
        return self.used_bytes / max(self.total_bytes, 1)

    def __str__(self) -> str:
        used, total = size_text(self.used_bytes), size_text(self.total_bytes)
        return f"{self.name} is {self.share:.0%} full ({used} of {total})"


def must_hold(budgets: list[Budget]) -> Budget | None:
    """The budget for whose sake nothing more may be begun, if any."""
    return next((budget for budget in budgets if budget.share >= HOLD_SHARE), None)


def victim(budgets: list[Budget], held: list[tuple[int, float]]) -> tuple[int, Budget] | None:
    """Which running slot to end, and for which budget's sake.

    Args:
        budgets: As they are now.
        held: For each running slot, the bytes that it holds and when it began.

    Returns:
        The index of the one that holds most (the newest of equals), if a budget is used up and that one is guilty.
    """
    full = next((budget for budget in budgets if budget.share >= KILL_SHARE), None)
    if full is None or not held:
        return None
    index = max(range(len(held)), key=held.__getitem__)
    return (index, full) if held[index][0] >= GUILTY_SHARE * full.total_bytes else None


def size_text(size_bytes: float) -> str:
    """A size for people, e.g. "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"
