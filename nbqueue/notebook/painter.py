"""Keeps every live view up to date: one daemon thread for the whole process.

A ``View`` shows one run somewhere; the ``Painter`` looks at the live ones eight times a second, and a view draws
only what has changed. Views say where they draw in ``card`` (notebooks) and ``text`` (terminals).
"""

from __future__ import annotations

import abc
import atexit
import contextvars
import logging
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import msgspec

from nbqueue.core.progress import Pace, RunSnapshot
from nbqueue.notebook.tail import Tail
from nbqueue.notebook.view_model import CardView, Retry, describe

__all__ = ["PAINTER", "Handle", "Painter", "Style", "View"]

logger = logging.getLogger(__name__)


class Handle(Protocol):
    """What a view asks of an ``AsyncResult`` or a ``MapResult``."""

    def snapshot(self) -> RunSnapshot:
        """How the run stands; cheap, from any thread."""
        ...

    def done(self) -> bool:
        """Whether the run is over, and so its snapshot final."""
        ...

    def revoke(self) -> Any:
        """Ask for the run to be revoked; returns at once."""
        ...

    def retry(self) -> Any:
        """Run again what has failed, when the run is over; returns at once."""
        ...


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """What the user may choose about a display."""

    #: Instead of the run's label.
    desc: str | None = None
    #: What an item is, in the plural: ``files``.
    unit: str = ""
    #: Keep the display when the run has ended.
    leave: bool = True
    #: It is one call, not a map.
    is_single: bool = False


class View(abc.ABC):
    """One run, shown in one place, from its submit until after its end.

    Guarantees: every method is safe to call from any thread, and again. After the last drawing the view holds
    no reference to the run, so it keeps no result alive.
    """

    #: Least seconds between two drawings of a run that goes on.
    every_s = 0.0

    def __init__(self, handle: Handle, style: Style) -> None:
        self._lock = threading.RLock()
        self._handle: Handle | None = handle
        self._style = style
        self._pace = Pace()
        self._revoking = False
        self._retry_of_failed = Retry.NOT_ASKED
        self._cancelling_since_s: float | None = None
        self._log_is_open = False
        self.tail = Tail()  #: of what the tasks print, if somebody tells it
        self._shown, self._shown_s = self._look(handle, over=False)

    def repaint(self) -> bool:
        """Draw the run as it is now, if that differs from what is shown.

        Returns:
            True while the run goes on; False once its end has been drawn.
        """
        with self._lock:
            if self._handle is None:
                return False
            over = self._handle.done()  # before the snapshot: the end is never drawn from an earlier one
            if over and self._retry_of_failed is Retry.AT_THE_END:
                self._retry_of_failed = self._retry(self._handle)
            view, elapsed_s = self._look(self._handle, over=over)
            if over:
                self._handle = None
                self._shown = view
                self._draw_end(view)
                return False
            if view != self._shown and elapsed_s - self._shown_s >= self.every_s:
                self._shown, self._shown_s = view, elapsed_s
                self._draw(view)
            return True

    def finish(self) -> None:
        """Draw the end of the run, if it has ended, as seen from the calling thread.

        A main thread that has waited for the run calls this before it goes on, so that the last drawing is
        there when its cell ends. Never raises.
        """
        try:
            self.repaint()
        except Exception:
            logger.debug("progress display failed", exc_info=True)

    def is_in_running_cell(self) -> bool:
        """Whether it stands in the output of the cell that runs now."""
        return False

    def leave_pending(self) -> None:
        """Draw, when the interpreter exits, that the run was not over."""
        with self._lock:
            if self._handle is not None:
                self._handle = None
                self._draw_pending(self._shown)

    def revoke(self) -> None:
        """Ask for the run to be revoked, and say so in the next drawing."""
        handle = self._handle
        if handle is not None:
            self._revoking = True
            handle.revoke()

    def retry(self) -> None:
        """Run again what has failed, as soon as the run is over, unless it was revoked."""
        self._retry_of_failed = Retry.AT_THE_END

    def _retry(self, handle: Handle) -> Retry:
        if handle.snapshot().counts.revoked:
            return Retry.NOT_ASKED
        try:
            with self._beside():
                handle.retry()
        except Exception:
            logger.debug("the retry that a button asked for failed", exc_info=True)
            return Retry.NOT_ASKED
        return Retry.SENT

    def _beside(self) -> AbstractContextManager[None]:
        """While this is open, other runs are shown beside this one."""
        return nullcontext()

    def _look(self, handle: Handle, *, over: bool) -> tuple[CardView, float]:
        snapshot = handle.snapshot()
        counts = snapshot.counts
        if self._style.desc is not None:
            snapshot = msgspec.structs.replace(snapshot, label=self._style.desc)
        if self._revoking and not snapshot.cancelling:
            snapshot = msgspec.structs.replace(snapshot, cancelling=True)
        if snapshot.cancelling and self._cancelling_since_s is None:
            self._cancelling_since_s = snapshot.elapsed_s
        if counts.running or counts.ended:
            self._pace.sample(snapshot.elapsed_s, counts.ended)
        since_s = snapshot.elapsed_s if self._cancelling_since_s is None else self._cancelling_since_s
        view = describe(
            snapshot,
            self._pace,
            ended=over,
            cancelling_s=snapshot.elapsed_s - since_s,
            unit=self._style.unit,
            is_single=self._style.is_single,
            retry=self._retry_of_failed,
        )
        tail = () if over else self.tail.lines()
        log = self.tail.log() if over or self._log_is_open else ()
        return msgspec.structs.replace(view, tail=tail, log=log), snapshot.elapsed_s

    @abc.abstractmethod
    def _draw(self, view: CardView) -> None:
        """Show *view*; the run goes on."""

    @abc.abstractmethod
    def _draw_end(self, view: CardView) -> None:
        """Show *view* for good; called once."""

    @abc.abstractmethod
    def _draw_pending(self, view: CardView) -> None:
        """Show for good that the interpreter exits before the run has ended; called once."""


class Painter:
    """Repaints views from one daemon thread, which lives only while a view is live.

    Guarantees: thread-safe. A view that fails is dropped and logged; the others go on.
    """

    #: Eight times a second: smooth to the eye, far below the message limits of a notebook server.
    PERIOD_S = 0.125

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[tuple[View, contextvars.Context]] = []
        self._thread: threading.Thread | None = None
        self._pid: int | None = None

    def add(self, view: View) -> None:
        """Keep *view* up to date until its run has ended, or until the interpreter exits."""
        # ipykernel 7.0 keeps the parent of a comm's messages in a context variable, which a new thread lacks.
        context = contextvars.copy_context()
        with self._lock:
            self._live.append((view, context))
            if self._pid != os.getpid():  # the first view, or a forked child: threads do not survive a fork
                self._pid, self._thread = os.getpid(), None
                atexit.register(self._leave_pending, self._pid)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nbqueue-painter", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            for live in list(self._live):
                view, context = live
                if not context.run(self._repaint, view):
                    self._live.remove(live)
            with self._lock:
                if not self._live:
                    self._thread = None
                    return
            pause.wait(self.PERIOD_S)

    @staticmethod
    def _repaint(view: View) -> bool:
        try:
            return view.repaint()
        except Exception:
            logger.debug("progress display failed", exc_info=True)
            return False

    def _leave_pending(self, pid: int) -> None:
        if pid != os.getpid():
            return
        for view, _ in list(self._live):
            try:
                view.leave_pending()
            except Exception:
                logger.debug("progress display failed", exc_info=True)


PAINTER = Painter()
