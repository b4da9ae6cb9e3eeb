"""The ladder by which running items are stopped: asked, interrupted, terminated, killed.

Pure: it says which signal is due, the supervisor sends it.
"""

from __future__ import annotations

import signal

#: Seconds between one step and the next.
GRACE_S = 2.0

_STEPS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


class Ladder:
    """The steps taken against one running item."""

    __slots__ = ("_taken", "_taken_at", "item")

    def __init__(self, item: int) -> None:
        self.item = item
        self._taken = 0
        self._taken_at = 0.0

    @property
    def last(self) -> signal.Signals | None:
        """The last signal that was due."""
        return _STEPS[self._taken - 1] if self._taken else None

    @property
    def next_at(self) -> float | None:
        """When the next signal is due; None when all were."""
        if self._taken == len(_STEPS):
            return None
        return self._taken_at + GRACE_S if self._taken else 0.0

    def climb(self, now: float) -> signal.Signals | None:
        """The signal to send now, if one is due."""
        if self.next_at is None or now < self.next_at:
            return None
        self._taken += 1
        self._taken_at = now
        return _STEPS[self._taken - 1]
