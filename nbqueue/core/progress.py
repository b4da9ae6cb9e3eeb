"""What a run has done so far, and how fast it goes.

Values only: the client fills them, ``notebook.view_model`` turns them into words.
No clock is read here; the caller passes every time in. Imports the standard library and msgspec.
"""

from __future__ import annotations

import math

import msgspec

__all__ = ["Counts", "Pace", "RunSnapshot"]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many items of one run are in which state."""

    #: Items known so far.
    total: int
    #: False while a lazy input may still bring more items.
    closed: bool = True
    #: Ended with a result.
    done: int = 0
    #: Ended without one: FAILURE, LOST or EXPIRED.
    failed: int = 0
    #: Taken back before they ended.
    revoked: int = 0
    #: RECEIVED or STARTED by a slot.
    running: int = 0

    @property
    def waiting(self) -> int:
        """Items that no slot has taken yet."""
        return self.total - self.ended - self.running

    @property
    def ended(self) -> int:
        """Items that will not change any more."""
        return self.done + self.failed + self.revoked

    @property
    def finished(self) -> bool:
        """True when every item has ended and no more can come."""
        return self.closed and self.ended == self.total


class RunSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a display needs to know about one run, at one moment."""

    label: str
    counts: Counts
    #: Seconds since the submit; frozen once the run has finished.
    elapsed_s: float
    #: Sum of the items' wall seconds, as measured in the slots.
    work_s: float = 0.0
    #: Slots connected to the broker.
    slots: int = 0
    #: A revoke was asked for and not every item has ended.
    cancelling: bool = False
    #: For example ``ValueError: Input X contains NaN.``
    first_error: str | None = None
    #: Index of the item that raised it.
    first_error_item: int | None = None
    #: One sentence on why nothing can run.
    hint: str | None = None
    #: What fails can be run again by the same handle.
    can_retry: bool = True


class Pace:
    """Items per second, smoothed over about the last quarter of a run.

    Give it the first sample when the first item starts, so that waiting for a worker does not count. Time is
    weighed in steps from one ended item to the next: with few slow items the rate stays calm between two ends,
    and falls only when the next end is overdue.

    Guarantees: the rate is finite and never negative, whatever the samples. Not thread-safe.
    """

    #: Seconds that are remembered at least.
    MEMORY_S = 5.0

    _SHORTEST_S = 1e-3

    def __init__(self) -> None:
        self._first_s: float | None = None
        self._now_s = 0.0
        self._step_s = 0.0  # when the number of ended items last grew
        self._ended = 0
        # Sums over the steps so far, each step weighed less the older it is.
        self._items = 0.0
        self._seconds = 0.0
        self._steps = 0.0

    def sample(self, now_s: float, ended: int) -> None:
        """Fold in that *ended* items had ended at *now_s*.

        Args:
            now_s: Seconds on any monotonic clock; an earlier time than before is taken as the same time.
            ended: Items ended so far; fewer than before are taken as the same number.
        """
        if self._first_s is None:
            self._first_s = self._now_s = self._step_s = now_s
            self._ended = ended
            return
        self._now_s = max(self._now_s, now_s)
        if ended <= self._ended or self._now_s - self._step_s < self._SHORTEST_S:
            return
        self._fold(self._now_s - self._step_s, ended - self._ended)
        self._step_s = self._now_s
        self._ended = ended

    def rate(self) -> float:
        """Items per second; 0.0 until a first item was seen to end."""
        if not self._steps:
            return 0.0
        overdue_s = max(0.0, self._idle_s() - self._patience_s())
        return self._items / (self._seconds + overdue_s)

    def eta_s(self, remaining: int) -> float | None:
        """Seconds until *remaining* more items have ended, or None while that is unknown."""
        rate = self.rate()
        if not rate:
            return None
        return max(0.0, remaining / rate - min(self._idle_s(), self._patience_s()))

    def _fold(self, step_s: float, items: int) -> None:
        assert self._first_s is not None
        memory_s = max(self.MEMORY_S, (self._now_s - self._first_s) / 4)
        keep = math.exp(-step_s / memory_s)
        weight = memory_s * (1.0 - keep) / step_s  # of this step: the mean of exp(-age / memory_s) over it
        self._items = self._items * keep + items * weight
        self._seconds = self._seconds * keep + step_s * weight
        self._steps = self._steps * keep + weight

    def _idle_s(self) -> float:
        return self._now_s - self._step_s

    def _patience_s(self) -> float:
        """How long the next end may take before it counts as overdue."""
        return 2.0 * self._seconds / self._steps
