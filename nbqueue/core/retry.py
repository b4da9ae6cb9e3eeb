"""Whether and when an attempt that failed is made again."""

from __future__ import annotations

import msgspec

#: An item that killed its process comes back after 5 s, then 20 s: long enough for memory to be freed.
LOST_BACKOFF_S = 5.0
LOST_BACKOFF_FACTOR = 4.0


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often a failing item is tried again, and after how long.

    Attributes:
        max_retries: Further attempts after the first; 0 or more.
        backoff_s: Wait before retry *n* is ``backoff_s * 2**n``; 0 retries at once.
        backoff_max_s: Upper bound of that wait.
        jitter: Draw the wait uniformly between 0 and itself ("full jitter", AWS Architecture Blog, 2015).
    """

    max_retries: int = 0
    backoff_s: float = 0.0
    backoff_max_s: float = 600.0
    jitter: bool = True

    def delay_s(self, retries: int, draw: float) -> float | None:
        """Seconds to wait before the next attempt.

        Args:
            retries: Retries already made; 0 or more.
            draw: A random number in [0, 1), used for jitter.

        Returns:
            0 or more seconds, or None when no retry is left.
        """
        if retries >= self.max_retries:
            return None
        delay = min(self.backoff_s * 2.0 ** min(retries, 60), self.backoff_max_s)
        return delay * draw if self.jitter else delay


def lost_backoff_s(lost: int) -> float:
    """Seconds before an item that killed its process *lost* times (1 or more) runs again."""
    return LOST_BACKOFF_S * LOST_BACKOFF_FACTOR ** (lost - 1)
