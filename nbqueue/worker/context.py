"""What a task can ask about itself while it runs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NoReturn

import msgspec

from nbqueue.core.exchange import Delivery
from nbqueue.core.output import Clear, Display
from nbqueue.worker.capture import Capture
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

    def retry(
        self, *, exc: BaseException | None = None, countdown: float | None = None, max_retries: int | None = None
    ) -> NoReturn:
        """Give up this attempt and be run again later. Never returns.

        Args:
            exc: What the task is to fail with if no retry is left.
            countdown: Seconds to wait; None: as the task's options say.
            max_retries: How often it may be run again in all; None: as the task's options say (0 unless set).
        """
        if countdown is not None and not 0 <= countdown < float("inf"):
            raise ValueError(f"countdown must be a number of seconds, 0 or more, not {countdown!r}")
        if max_retries is not None and max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more, not {max_retries!r}")
        raise RetryAsked(exc, countdown, max_retries)

    def is_revoked(self) -> bool:
        """Whether somebody has revoked this task: long loops ask, and return early."""
        if SLATE.running is None:
            return False
        delivery, cell = SLATE.running
        return cell.must_stop(delivery.token, self.item)


class RetryAsked(Exception):
    """A task has asked to be run again; it is what `Request.retry` raises, and no error if a retry is left."""

    def __init__(self, cause: BaseException | None, countdown_s: float | None, max_retries: int | None) -> None:
        super().__init__("the task asked to be run again, and no retry is left: max_retries says how often it may")
        self.cause = cause
        self.countdown_s = countdown_s
        self.max_retries = max_retries


class Slate:
    """What the slot of this process works on; a process has one slot and a slot one chunk at a time."""

    def __init__(self) -> None:
        self.running: tuple[Delivery, Cell] | None = None
        self.capture: Capture | None = None  #: of this slot's output
        self.item_ended: Callable[[], None] | None = None  #: called between two items


SLATE = Slate()


def show(what: Display | Clear) -> None:
    """Display something where the user sees it, in order with what is printed."""
    if SLATE.capture is not None:
        SLATE.capture.send(msgspec.msgpack.encode(what))


def current_task() -> Request | None:
    """The task that runs in this process; None outside of one.

    Example:
        >>> nbqueue.current_task() is None
        True
    """
    if SLATE.running is None:
        return None
    delivery, cell = SLATE.running
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
