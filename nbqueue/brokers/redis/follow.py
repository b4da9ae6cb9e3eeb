"""How far a client was told of one run, by whichever server."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from nbqueue.core.routing import Route
from nbqueue.core.task import Entry


class Follow:
    """How far the log of one run was handed out.

    A server that comes after another may have lost the end of a log, and items that had ended run again. So the log is
    then read from its beginning, and what the client was told of an item before stays as it is.
    """

    __slots__ = ("_known", "_told", "cursor", "is_asked", "is_behind", "is_over", "is_stale", "route", "shown")

    def __init__(self, cursor: int, route: Route | None) -> None:
        self.cursor = cursor  #: the next entry of the log
        self.shown = cursor  #: the next entry as the client counts them
        self.route = route
        self._told: list[tuple[int, int]] = []  # items whose ends were handed out
        self._known: list[tuple[int, int]] | None = None  # the same when the server changed, in order
        self.is_asked = False  #: its log is being read
        self.is_stale = False  #: there was news meanwhile
        self.is_behind = False  #: waits for room
        self.is_over = False  #: the run's end was handed out; only output may still be missing

    def move_to(self, cursor: int) -> None:
        """The client wants to go on from the entry that it counts as *cursor*."""
        if cursor != self.shown:
            self.cursor = self.shown = cursor

    def begin_anew(self) -> None:
        """The server is another one."""
        self.cursor = 0
        self._known = _merged(self._told)
        self._told = list(self._known)

    def next_of(self, entry: Entry) -> list[Entry]:
        """The parts of the log's next entry that are news to the client."""
        self.cursor += 1
        parts = [entry] if self._known is None else _parts_outside(entry, self._known)
        self._told += [(part.start, part.stop) for part in parts]
        self.shown += len(parts)
        return parts


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def _parts_outside(entry: Entry, known: list[tuple[int, int]]) -> list[Entry]:
    """What of an entry is not about items of *known*, which are in order and apart."""
    parts, start = [], entry.start
    for known_start, known_stop in known[max(bisect_right(known, (entry.start,)) - 1, 0) :]:
        if known_start >= entry.stop:
            break
        if start < known_start:
            parts.append(_cut(entry, start, known_start))
        start = max(start, known_stop)
    if start < entry.stop:
        parts.append(_cut(entry, start, entry.stop))
    return parts


def _cut(entry: Entry, start: int, stop: int) -> Entry:
    if (start, stop) == (entry.start, entry.stop):
        return entry
    offset = entry.offset + start - entry.start if entry.payload else 0
    share = (stop - start) / (entry.stop - entry.start)
    return msgspec.structs.replace(
        entry, start=start, stop=stop, offset=offset, wall_s=entry.wall_s * share, cpu_s=entry.cpu_s * share
    )
