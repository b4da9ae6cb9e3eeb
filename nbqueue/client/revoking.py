"""Stopping work from the client: what may be asked for, and what came of it."""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nbqueue.client.run import SeenRun
from nbqueue.core.states import State
from nbqueue.core.task import GENTLY, Entry, Manner

#: How hard each way of stopping is; of several items the hardest is reported.
_HARDNESS = ("", "before it started", "SIGINT", "SIGTERM", "SIGKILL")
BEFORE_START = "before it started"


class RevokeReport(NamedTuple):
    """What came of a revoke.

    Attributes:
        how: What stopped it: "before it started", "SIGINT", "SIGTERM", "SIGKILL" or the signal that was asked for; of
            several items the hardest. Empty: it was not stopped, since it had ended before, or has not ended yet.
        after_s: Seconds until everything had ended and its processes were confirmed dead; None: nobody waited.
        revoked: Items that were stopped.
        kept: Items that had ended before, whose results and errors are kept.
    """

    how: str
    after_s: float | None
    revoked: int
    kept: int


def manner(*, terminate: bool, signal: str | int | None, grace_s: float | None) -> Manner:
    """How running items are to be stopped, as the broker takes it.

    Raises:
        ValueError: There is no such signal, or the grace is no duration.
    """
    if grace_s is not None and not 0 <= grace_s < float("inf"):
        raise ValueError(f"grace_s must be a number of seconds, 0 or more, not {grace_s!r}")
    first = _signal_name(signal) if signal is not None else "SIGTERM" if terminate else GENTLY.first
    return Manner(first, GENTLY.grace_s if grace_s is None else float(grace_s))


def _signal_name(signal: str | int) -> str:
    try:
        return signals.Signals(signal).name if isinstance(signal, int) else signals.Signals[signal.upper()].name
    except (KeyError, ValueError):
        import difflib

        near = difflib.get_close_matches(str(signal).upper(), signals.Signals.__members__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f'there is no signal {signal!r}: give one like "SIGTERM"{hint}') from None


def item_ranges(items: int | slice | Iterable[int], total: int) -> list[tuple[int, int]]:
    """The items named, as ranges from start to stop (exclusive), in order and without gaps between neighbours.

    Raises:
        IndexError: There is no such item.
    """
    if isinstance(items, slice):
        items = range(*items.indices(total))
    wanted = sorted({item_index(item, total) for item in ([items] if isinstance(items, int) else items)})
    ranges: list[tuple[int, int]] = []
    for item in wanted:
        if ranges and ranges[-1][1] == item:
            ranges[-1] = ranges[-1][0], item + 1
        else:
            ranges.append((item, item + 1))
    return ranges


def item_index(item: int, total: int) -> int:
    """The number of an item that may be counted from the end, as in a list.

    Raises:
        IndexError: There is no such item.
    """
    if not -total <= item < total:
        raise IndexError(f"there is no item {item}: there are {total}")
    return item % total


def report(run: SeenRun, ranges: Sequence[tuple[int, int]] | None = None, *, began: float | None) -> RevokeReport:
    """What came of a revoke of these items (None: all) that began at *began* (monotonic; None: nobody waited)."""
    after_s = None if began is None else time.monotonic() - began
    with run.changed:
        if ranges is None:
            ways = [how_of(entry) for entry in run.failures if entry.state is State.REVOKED]
            return RevokeReport(_hardest(ways), after_s, run.counts.revoked, run.counts.done + run.counts.failed)
        entries = [run.entry_of(item) for start, stop in ranges for item in range(start, stop)]
    ended = [entry for entry in entries if entry is not None]
    ways = [how_of(entry) for entry in ended if entry.state is State.REVOKED]
    return RevokeReport(_hardest(ways), after_s, len(ways), len(ended) - len(ways))


def how_of(entry: Entry) -> str:
    """How a revoked item was stopped, in words."""
    return entry.reason if entry.reason.startswith("SIG") else BEFORE_START


def _hardest(ways: Iterable[str]) -> str:
    return max(ways, key=lambda how: _HARDNESS.index(how) if how in _HARDNESS else 2.5, default="")
