"""What a worker's process does, whoever starts it: find the broker, and serve it until the end."""

from __future__ import annotations

import gc
import logging
import select
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from nbqueue.errors import BrokerUnavailable, EnvironmentMismatch, UnsafeConnectionFile
from nbqueue.worker.zygote_process import ZygoteProcess

if TYPE_CHECKING:
    from nbqueue.brokers.base import Broker
    from nbqueue.core.exchange import WorkerInfo
    from nbqueue.core.routing import Offer
    from nbqueue.settings import Settings
    from nbqueue.worker.limits import TimeRules
    from nbqueue.worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

#: How long a worker that the hub itself started waits for the hub to listen.
HUB_TIMEOUT_S = 15.0
#: Pauses between attempts to reach a broker that is gone grow up to this.
MAX_RETRY_S = 15.0


def work(
    settings: Settings,
    slots: int,
    name: str,
    *,
    zygote: ZygoteProcess,
    offer: Offer | None = None,
    lifeline: int | None = None,
    grace_s: float = 0.0,
) -> None:
    """Run tasks in *slots* slots until the broker ends, SIGTERM or SIGINT.

    Args:
        settings: Where the broker is.
        slots: 1 or more.
        name: Shown on cards and in errors.
        zygote: Just started; it is ended with the work.
        offer: Which work to take; None: whatever asks for nothing special.
        lifeline: A descriptor of the hub that started this process; its end is ours.
        grace_s: So long what runs may go on after the first signal; the second one stops it.

    Raises:
        BrokerUnavailable: There is none, or it died.
    """
    from nbqueue.worker.supervisor import TakenForDead

    worker = _Worker(settings, slots, name, offer, lifeline, grace_s)
    while True:
        try:
            return worker.work_once(zygote)
        except TakenForDead as error:  # the broker lives: this process was frozen
            if lifeline is not None:
                raise
            logger.warning("begins anew: %s", error)
        zygote = ZygoteProcess(name, slots=slots)


def work_on(
    settings: Settings,
    slots: int,
    name: str,
    *,
    zygote: ZygoteProcess,
    offer: Offer,
    grace_s: float,
    announce: Callable[[WorkerInfo], None],
) -> None:
    """Run tasks until SIGTERM or SIGINT, through everything that happens to a broker on another machine.

    A broker that is gone is tried again, and joined anew. Takes what `work` takes; *announce* is called whenever the
    worker has joined.

    Raises:
        NBQueueError: What trying again cannot change: a wrong key, versions that do not fit.
    """
    _Worker(settings, slots, name, offer, None, grace_s, announce).work_on(zygote)


class _Worker:
    """One process's life as a worker."""

    def __init__(
        self,
        settings: Settings,
        slots: int,
        name: str,
        offer: Offer | None,
        lifeline: int | None,
        grace_s: float,
        announce: Callable[[WorkerInfo], None] = lambda info: None,
    ) -> None:
        self._settings = settings
        self._slots = slots
        self._name = name
        self._offer = offer
        self._lifeline = lifeline
        self._grace_s = grace_s
        self._announce = announce
        self._supervisor: Supervisor | None = None
        self._rules: TimeRules | None = None  # what was ordered holds on when the broker is lost and joined anew
        self._signals = 0

    def work_on(self, zygote: ZygoteProcess) -> None:
        """Work, and join again when the broker was lost."""
        failures = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while True:
            joined_at = time.monotonic()
            try:
                self.work_once(zygote)
            except (EnvironmentMismatch, UnsafeConnectionFile):
                raise
            except BrokerUnavailable as error:
                if self._signals:
                    return
                failures = failures + 1 if time.monotonic() - joined_at < MAX_RETRY_S else 1
                retry_s = min(2.0 ** (failures - 1), MAX_RETRY_S)
                logger.warning("broker lost: %s", error, extra={"retry_s": retry_s})
                if self._pause(retry_s):
                    return
            else:
                return
            zygote = ZygoteProcess(self._name, slots=self._slots)

    def _pause(self, seconds: float) -> bool:
        """Wait; True when a signal has come meanwhile."""
        deadline = time.monotonic() + seconds
        while not self._signals and (remaining_s := deadline - time.monotonic()) > 0:
            time.sleep(min(remaining_s, 0.1))
        return bool(self._signals)

    def work_once(self, zygote: ZygoteProcess) -> None:
        """Join the broker and work until the end, or until the broker is lost."""
        try:
            self._supervise(zygote)
        finally:
            zygote.close()

    def _supervise(self, zygote: ZygoteProcess) -> None:
        from nbqueue.core.routing import Offer
        from nbqueue.worker.limits import TimeRules
        from nbqueue.worker.resident import worker_info, worker_limits
        from nbqueue.worker.supervisor import Supervisor

        broker = _find_broker(self._settings, self._lifeline)
        zygote.use_roots([str(root) for root in broker.blobs.roots] if broker.blobs is not None else [])
        info = worker_info(self._name, self._slots, self._offer or Offer())
        self._rules = self._rules or TimeRules()
        self._supervisor = Supervisor(
            broker.open_worker(info),
            zygote,
            slots=self._slots,
            name=self._name,
            worker_id=info.worker_id,
            limits=worker_limits(self._settings),
            lifeline=self._lifeline,
            grace_s=self._grace_s,
            rules=self._rules,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._signals:
            self._supervisor.drain()  # it came while we were joining
        self._announce(info)
        gc.collect()
        gc.freeze()  # what is here now stays: no need to look at it again and again
        gc.set_threshold(10_000)  # messages come and go without cycles
        try:
            self._supervisor.serve()
        finally:
            self._supervisor = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first signal lets what runs come to its end, the second stops it."""
        self._signals += 1
        if self._supervisor is None:
            return
        if self._signals == 1:
            self._supervisor.drain()
        else:
            self._supervisor.stop()


def _find_broker(settings: Settings, lifeline: int | None) -> Broker:
    """The running broker; one that has started us may still be about to listen."""
    from nbqueue.brokers.registry import open_broker

    deadline = time.monotonic() + HUB_TIMEOUT_S
    while (broker := open_broker(settings.url, settings, start=False, role="worker")) is None:
        if lifeline is None:
            raise BrokerUnavailable("no hub runs on this machine: a notebook that uses nbqueue starts it")
        if time.monotonic() > deadline or select.select([lifeline], [], [], 0.01)[0]:
            raise BrokerUnavailable("the hub that started this worker does not listen")
    return broker
