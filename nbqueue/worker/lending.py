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


class Wait:
    """One task's wait for others.

    Who waits for a map looks up at every piece of news and waits on. That is the same wait: otherwise lending, which is
    news, would end it before it had begun, for ever.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._paused_at: float | None = None

    def begin(self, now: float) -> None:
        """The task waits."""
        if self.since(now) is None:
            self._since = now
        self._paused_at = None

    def end(self, now: float) -> None:
        """It goes on, perhaps only to wait again."""
        self._paused_at = now

    def forget(self) -> None:
        """The task is over."""
        self._since = self._paused_at = None

    def since(self, now: float) -> float | None:
        """Since when it waits; None: it does not."""
        if self._paused_at is not None and now - self._paused_at >= LEND_AFTER_S:
            self.forget()
        return self._since


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
