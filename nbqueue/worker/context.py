"""What a task can ask about itself while it runs."""

from __future__ import annotations

import socket

import msgspec

from nbqueue.core.dispatcher import Delivery
from nbqueue.worker.cell import Cell


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt that runs in this process.

    Attributes:
        id: The same for every attempt of this item, and for no other: use it as an idempotency key.
        run_id: Of the user's call, in hex.
        item: Index of the item within the call.
        attempt: 1 for the first.
        label: What the user sees on the card.
        hostname: The machine it runs on.
    """

    id: str
    run_id: str
    item: int
    attempt: int
    label: str
    hostname: str

    @property
    def retries(self) -> int:
        """Attempts before this one."""
        return self.attempt - 1

    def is_revoked(self) -> bool:
        """Whether somebody has revoked this task: long loops ask, and return early."""
        return _running is not None and _running[1].must_stop(_running[0].token, self.item)


_running: tuple[Delivery, Cell] | None = None


def enter(delivery: Delivery, cell: Cell) -> None:
    """The slot begins a chunk."""
    global _running
    _running = delivery, cell


def leave() -> None:
    """The slot has ended its chunk."""
    global _running
    _running = None


def current_task() -> Request | None:
    """The task that runs in this process; None outside of one.

    Example:
        >>> nbqueue.current_task() is None
        True
    """
    if _running is None:
        return None
    delivery, cell = _running
    item = cell.current(delivery.token)
    if item is None:
        return None
    run_id = delivery.run_id.hex()
    return Request(
        id=f"{run_id}.{item}",
        run_id=run_id,
        item=item,
        attempt=delivery.attempt,
        label=delivery.label,
        hostname=socket.gethostname(),
    )
