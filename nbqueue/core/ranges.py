"""Ranges of items: who they are and in which order they wait.

A run may have a million items, and nearly all of them share their record with their neighbours. So records are kept per
range, and a million items in ten states of affairs cost ten entries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")


class RangeMap(Generic[Value]):
    """Values for the indices 0 to ``len - 1``; equal neighbours share one entry."""

    __slots__ = ("_starts", "_stop", "_values")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._values: list[Value] = []
        self._stop = 0

    def __len__(self) -> int:
        return self._stop

    def __getitem__(self, index: int) -> Value:
        if not 0 <= index < self._stop:
            raise IndexError(index)
        return self._values[bisect_right(self._starts, index) - 1]

    @property
    def segment_count(self) -> int:
        """How many entries are stored."""
        return len(self._starts)

    def append(self, count: int, value: Value) -> None:
        """Give the next *count* (1 or more) indices the *value*."""
        if not self._values or self._values[-1] != value:
            self._starts.append(self._stop)
            self._values.append(value)
        self._stop += count

    def segments(self, start: int, stop: int) -> list[tuple[int, int, Value]]:
        """Maximal ranges of equal value within *start* to *stop*, in order, cut at these bounds."""
        start, stop = max(start, 0), min(stop, self._stop)
        if start >= stop:
            return []
        found = []
        position = bisect_right(self._starts, start) - 1
        while start < stop:
            is_last = position + 1 == len(self._starts)
            segment_stop = self._stop if is_last else self._starts[position + 1]
            found.append((start, min(segment_stop, stop), self._values[position]))
            start = segment_stop
            position += 1
        return found

    def set(self, start: int, stop: int, value: Value) -> None:
        """Give the indices *start* to *stop* (exclusive, within the map) the *value*."""
        if not 0 <= start < stop <= self._stop:
            raise IndexError(f"{start}:{stop} of {self._stop}")
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, stop - 1) - 1
        starts, values = [start], [value]
        if self._starts[first] < start:
            if self._values[first] == value:
                starts[0] = self._starts[first]
            else:
                starts.insert(0, self._starts[first])
                values.insert(0, self._values[first])
        elif first > 0 and self._values[first - 1] == value:
            first -= 1
            starts[0] = self._starts[first]
        last_stop = self._stop if last + 1 == len(self._starts) else self._starts[last + 1]
        if stop < last_stop:
            if self._values[last] != value:
                starts.append(stop)
                values.append(self._values[last])
        elif last + 1 < len(self._values) and self._values[last + 1] == value:
            last += 1
        self._starts[first : last + 1] = starts
        self._values[first : last + 1] = values


class RangeQueue:
    """Indices that wait, as ranges, in the order in which they are to be taken."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: deque[tuple[int, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def push_back(self, start: int, stop: int) -> None:
        """Add the indices *start* to *stop* behind all others."""
        if self._ranges and self._ranges[-1][1] == start:
            start = self._ranges.pop()[0]
        self._ranges.append((start, stop))

    def push_front(self, start: int, stop: int) -> None:
        """Add the indices *start* to *stop* before all others."""
        if self._ranges and self._ranges[0][0] == stop:
            stop = self._ranges.popleft()[1]
        self._ranges.appendleft((start, stop))

    def head(self) -> tuple[int, int]:
        """The range to be taken next; the queue must not be empty."""
        return self._ranges[0]

    def drop(self, count: int) -> None:
        """Remove the first *count* indices of the head range."""
        start, stop = self._ranges.popleft()
        if start + count < stop:
            self._ranges.appendleft((start + count, stop))
