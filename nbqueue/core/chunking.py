"""How many items one claim takes, learnt from how long they run."""

from __future__ import annotations

#: A chunk should take about this long: short enough to balance and to cancel, long enough to hide the round trip.
TARGET_S = 0.2
#: Work below this is not worth a round trip of its own (measured: 0.3-0.5 ms through hub and supervisor).
FLOOR_S = 0.002
#: Of two estimates, the newer counts this much.
_NEWER = 0.4


class ChunkSizer:
    """Sizes the claims of one function's items.

    Late binding: sizes are chosen when a slot asks, so uneven items balance themselves. The first claim is one item,
    and sizes at most double with each completed chunk, so that one cheap item among expensive ones cannot mislead.
    """

    __slots__ = ("_ramp", "seconds_per_item")

    def __init__(self) -> None:
        self.seconds_per_item: float | None = None
        self._ramp = 1

    def learn(self, items: int, seconds: float) -> None:
        """Take note that *items* (1 or more) together ran for *seconds*."""
        observed = max(seconds, 1e-9) / items
        if self.seconds_per_item is None:
            self.seconds_per_item = observed
        else:
            weight = _NEWER if items >= self._ramp // 2 else _NEWER / 4
            self.seconds_per_item += weight * (observed - self.seconds_per_item)
        if items >= self._ramp:
            self._ramp = items * 2

    def size(self, *, waiting: int, slots: int) -> int:
        """Items for the next claim.

        Args:
            waiting: Items of the run that wait now; 1 or more.
            slots: Slots that share the work; 1 or more.

        Returns:
            1 to *waiting*: about `TARGET_S` of work, never more than an even share of what is left unless that share is
            below `FLOOR_S`, never more than twice the largest chunk seen.
        """
        if self.seconds_per_item is None:
            return 1
        wanted = int(TARGET_S / self.seconds_per_item)
        fair_share = -(-waiting // slots)
        floor = int(FLOOR_S / self.seconds_per_item)
        return max(1, min(wanted, self._ramp, max(fair_share, floor), waiting))

    def is_short(self, items: int) -> bool:
        """Whether *items* are known to take no longer than a chunk should, so that they may be fetched ahead."""
        return self.seconds_per_item is not None and self.seconds_per_item * items <= TARGET_S
