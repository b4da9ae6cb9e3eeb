"""A supervisor that lives in a loop of somebody else: in that of the hub, whose local slots it has.

A round trip passes two processes less then. Nothing is at stake that was not before: no user code runs in a supervisor,
and if the hub ends, its local workers have nobody to work for.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial

from nbqueue.brokers.base import WorkerPort
from nbqueue.core.exchange import WorkerInfo
from nbqueue.core.routing import Offer, with_address
from nbqueue.settings import Settings
from nbqueue.wire.versions import own_versions
from nbqueue.worker.limits import WorkerLimits
from nbqueue.worker.supervisor import Supervisor
from nbqueue.worker.zygote_process import ZygoteProcess

logger = logging.getLogger(__name__)


def worker_info(name: str, slots: int, offer: Offer) -> WorkerInfo:
    """What a supervisor of this process says of itself."""
    worker_id = os.urandom(16)
    return WorkerInfo(
        worker_id=worker_id,
        name=name,
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=slots,
        prefetch=slots,
        offer=with_address(offer, worker_id),
        versions=own_versions(),
    )


def worker_limits(settings: Settings) -> WorkerLimits:
    """What a supervisor of this machine allows its slots."""
    return WorkerLimits(settings.memory_limit_bytes or None, settings.max_tasks_per_child or None)


class Resident:
    """Gives a supervisor its turns, and keeps whatever goes wrong in it from its host."""

    def __init__(
        self,
        info: WorkerInfo,
        zygote: ZygoteProcess,
        *,
        open_port: Callable[[Callable[[], None]], WorkerPort],
        selector: selectors.BaseSelector,
        limits: WorkerLimits,
    ) -> None:
        """Live in the loop of *selector*, which calls what it finds in a key's data.

        *open_port* connects it with the hub, which calls what it is given whenever there is something to hear.
        """
        self._zygote = zygote
        self._selector = selector
        self._supervisor = Supervisor(
            open_port(self._hear),
            zygote,
            slots=info.slots,
            name=info.name,
            worker_id=info.worker_id,
            limits=limits,
        )
        self.look_at = time.monotonic()  #: when `look` is to be called at the latest
        self.reason = ""  #: why it has ended; empty: it has not
        selector.register(self._supervisor.fileno(), selectors.EVENT_READ, self._on_ready)

    def look(self) -> None:
        """Do whatever there is to do, without waiting."""
        self._give_turn(partial(self._supervisor.run_once, timeout_s=0.0))

    def _hear(self) -> None:
        """The hub has said something."""
        self._give_turn(self._supervisor.hear)

    def _give_turn(self, turn: Callable[[], None]) -> None:
        """Let the supervisor do something; a mistake in there ends this worker, not its host."""
        if self.reason:
            return
        try:
            turn()
            self.look_at = time.monotonic() + self._supervisor.patience_s()
            is_over = self._supervisor.is_over
        except Exception as error:
            logger.exception("the hub's own worker failed")
            self.close(f"the hub's own worker failed: {error!r}")
        else:
            if is_over:
                self.close("it was told to end")

    def close(self, reason: str) -> None:
        """End its slots; what they ran goes back. May be called twice."""
        if not self.reason:
            self.reason = reason
            self._selector.unregister(self._supervisor.fileno())
            self._supervisor.close()

    def _on_ready(self, events: int) -> None:
        self.look()
