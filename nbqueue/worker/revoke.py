"""The ladder by which running items are stopped: asked, interrupted, terminated, killed.

Pure: it says which signal is due, the supervisor sends it.
"""

from __future__ import annotations

import math
import signal

from nbqueue.core.task import GENTLY, Manner

_STEPS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


class Ladder:
    """The steps taken against one running item."""

    __slots__ = ("_grace_s", "_steps", "_taken", "_taken_at", "item", "last")

    def __init__(self, item: int, manner: Manner = GENTLY) -> None:
        """Stop *item* with the first signal of *manner*, then with harder ones."""
        self.item = item
        self.last: signal.Signals | None = None  #: the last signal that was due
        self._steps = _steps(manner)
        self._grace_s = _grace_s(manner)
        self._taken = 0
        self._taken_at = 0.0

    @property
    def next_at(self) -> float | None:
        """When the next signal is due; None when all were."""
        if self._taken == len(self._steps):
            return None
        return self._taken_at + self._grace_s if self._taken else 0.0

    def climb(self, now: float) -> signal.Signals | None:
        """The signal to send now, if one is due."""
        if self.next_at is None or now < self.next_at:
            return None
        self.last = self._steps[self._taken]
        self._taken += 1
        self._taken_at = now
        return self.last

    def press(self, manner: Manner) -> None:
        """Somebody asks again: what is harder than all that was sent is due at once, what is not changes nothing."""
        steps = _steps(manner)
        if self.last is None or _hardness(steps[0]) > _hardness(self.last):
            self._steps, self._taken = steps, 0
        self._grace_s = min(self._grace_s, _grace_s(manner))


def _steps(manner: Manner) -> tuple[signal.Signals, ...]:
    first = getattr(signal, manner.first, signal.SIGTERM)  # another system may not know it
    return _STEPS[_STEPS.index(first) :] if first in _STEPS else (first, signal.SIGKILL)


def _hardness(number: signal.Signals) -> int:
    return _STEPS.index(number) if number in _STEPS else 0


def _grace_s(manner: Manner) -> float:
    return manner.grace_s if math.isfinite(manner.grace_s) and manner.grace_s >= 0 else GENTLY.grace_s
