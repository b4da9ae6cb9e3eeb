"""Lending the slots of tasks that wait for other tasks, so that recursion cannot use up all slots with waiting.

While a task waits for work that it has submitted, its worker runs one more process. Since what is submitted inside a
task goes before what was submitted outside (its priority is higher), these processes run what is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

#: A wait shorter than this is not worth a process.
LEND_AFTER_S = 0.02
#: Slots that a worker lends at most; who waits beyond that is refused, for it might wait for ever.
MAX_LENT = 64


#: What a task loads that submits others: a process for it should have that already.
PRELOADED = ("nbqueue._api", "nbqueue.brokers.zmq.embedded", "nbqueue.brokers.zmq.broker")


class Lender:
    """Decides how many processes a worker has beyond its slots."""

    def __init__(self) -> None:
        self.lent = 0
        self._again_at = 0.0

    def wanted(self, waiting_since: Sequence[float], now: float) -> int:
        """How many slots should be lent now, given since when tasks wait."""
        long = sum(now - since >= LEND_AFTER_S for since in waiting_since)
        wanted = min(long, MAX_LENT)
        return wanted if wanted < self.lent or now >= self._again_at else self.lent

    def take_back(self, now: float) -> bool:
        """A task ends. Whether a lent slot goes with it.

        What ends may be what somebody waits for, who will go on in a moment: if the slot were given to a new task
        meanwhile, more and more tasks would be begun and left waiting.
        """
        if not self.lent:
            return False
        self.lent -= 1
        self._again_at = now + LEND_AFTER_S
        return True

    def refuses(self, waiting: int) -> bool:
        """Whether so many waiting tasks are too many."""
        return waiting > MAX_LENT
