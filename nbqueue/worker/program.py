"""What a worker's process does, whoever starts it: find the broker, and serve it until the end."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

from nbqueue.errors import BrokerUnavailable
from nbqueue.worker.zygote_process import ZygoteProcess

if TYPE_CHECKING:
    from nbqueue.brokers.base import Broker
    from nbqueue.core.routing import Offer
    from nbqueue.settings import Settings

logger = logging.getLogger(__name__)

#: How long a worker that the hub itself started waits for the hub to listen.
HUB_TIMEOUT_S = 15.0


def work(
    settings: Settings,
    slots: int,
    name: str,
    *,
    zygote: ZygoteProcess,
    offer: Offer | None = None,
    lifeline: int | None = None,
) -> None:
    """Run tasks in *slots* slots until the broker ends, SIGTERM or SIGINT.

    Args:
        settings: Where the broker is.
        slots: 1 or more.
        name: Shown on cards and in errors.
        zygote: Just started; it is ended with the work.
        offer: Which work to take; None: whatever asks for nothing special.
        lifeline: A descriptor of the hub that started this process; its end is ours.

    Raises:
        BrokerUnavailable: There is none, or it died.
    """
    while True:
        try:
            _supervise(settings, slots, name, zygote, offer, lifeline)
        except BrokerUnavailable as error:
            if lifeline is not None or not _is_fenced(error):
                raise
            logger.warning("begins anew: %s", error)
        else:
            return
        finally:
            zygote.close()
        zygote = ZygoteProcess(name, slots=slots)


def _is_fenced(error: BrokerUnavailable) -> bool:
    """Whether the broker lives, and only took this supervisor for dead: it was frozen, or the network was away."""
    from nbqueue.worker.supervisor import TakenForDead

    return isinstance(error, TakenForDead)


def _supervise(
    settings: Settings, slots: int, name: str, zygote: ZygoteProcess, offer: Offer | None, lifeline: int | None
) -> None:
    from nbqueue.core.exchange import WorkerInfo
    from nbqueue.core.routing import Offer
    from nbqueue.wire.versions import own_versions
    from nbqueue.worker.limits import WorkerLimits
    from nbqueue.worker.supervisor import Supervisor

    broker = _find_broker(settings, lifeline)
    zygote.use_roots([str(root) for root in broker.blobs.roots] if broker.blobs is not None else [])
    info = WorkerInfo(
        worker_id=os.urandom(16),
        name=name,
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=slots,
        prefetch=slots,
        offer=offer or Offer(),
        versions=own_versions(),
    )
    port = broker.open_worker(info)
    limits = WorkerLimits(settings.memory_limit_bytes or None, settings.max_tasks_per_child or None)
    supervisor = Supervisor(
        port, zygote, slots=slots, name=name, worker_id=info.worker_id, limits=limits, lifeline=lifeline
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: supervisor.stop())
    gc.collect()
    gc.freeze()  # what is here now stays: no need to look at it again and again
    gc.set_threshold(10_000)  # messages come and go without cycles
    supervisor.serve()


def _find_broker(settings: Settings, lifeline: int | None) -> Broker:
    """The running broker; one that has started us may still be about to listen."""
    from nbqueue.brokers.registry import open_broker

    deadline = time.monotonic() + HUB_TIMEOUT_S
    while (broker := open_broker(settings.url, settings, start=False)) is None:
        if lifeline is None:
            raise BrokerUnavailable("no hub runs on this machine: a notebook that uses nbqueue starts it")
        if time.monotonic() > deadline or select.select([lifeline], [], [], 0.01)[0]:
            raise BrokerUnavailable("the hub that started this worker does not listen")
    return broker
