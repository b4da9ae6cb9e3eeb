"""What ■ or Ctrl-C does to somebody who waits: one rule, and a sentence that says which part of it applied.

Who waits for a run that the same cell (or the same script) has submitted wants to stop that work: it is revoked. Who
waits for a run of an earlier cell only stops waiting. A second interrupt while the first is being answered leaves at
once.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # a part of CPython without annotations
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Any, Protocol

from nbqueue.client.options import OnInterrupt
from nbqueue.client.run import ClientRun

#: A revoke that was asked for by an interrupt is waited for so long.
GRACE_S = 2.0


class Interrupts:
    """Answers interrupts on behalf of one handle."""

    def __init__(self, occasion: Callable[[], Any], policy: OnInterrupt = "revoke") -> None:
        """Note in which cell the run was submitted.

        Args:
            occasion: Tells which cell runs; always the same in a script.
            policy: "revoke": the rule above. "detach": the run always goes on.
        """
        self._occasion = occasion
        self._submitted_in = occasion()
        self._policy = policy

    @property
    def stops_work(self) -> bool:
        """Whether an interrupt now means that the run is to be revoked."""
        return self._policy == "revoke" and self._submitted_in == self._occasion()

    def answer(
        self, interrupt: KeyboardInterrupt, run: ClientRun, revoke: Callable[[], Any], show_end: Callable[[], None]
    ) -> KeyboardInterrupt:
        """Do what an interrupt of a wait for the run asks for, once; the caller may hold ``run.changed``.

        Call it in an ``except`` clause, not in the end of a context: an interrupt that falls into the beginning of a
        context would be nobody's.

        Returns:
            What is to be raised.
        """
        if _is_answered(interrupt):
            return interrupt
        if self.stops_work:
            revoke()
            with run.changed:
                run.changed.wait_for(lambda: run.is_over, GRACE_S)
            show_end()
            _say(f"revoked {_name(run)} at your interrupt: {_done(run)}")
        else:
            _say(f"{_name(run)} goes on, {_done(run)}; its .revoke() stops it, its .get() waits again")
        return interrupt.with_traceback(None)  # where in the waiting it fell tells nobody anything


class Waited(Protocol):
    """What of a handle is needed to answer for it."""

    run: ClientRun

    @property
    def interrupts(self) -> Interrupts:
        """Who answers for it alone."""

    def revoke(self) -> Any:
        """Stop it."""


def answer_together(interrupt: KeyboardInterrupt, handles: Iterable[Waited]) -> KeyboardInterrupt:
    """The same rule for a wait for several."""
    if _is_answered(interrupt):
        return interrupt
    open_ones = [handle for handle in handles if not handle.run.is_over]
    stopped = [handle for handle in open_ones if handle.interrupts.stops_work]
    for handle in stopped:
        handle.revoke()
    deadline = time.monotonic() + GRACE_S
    for handle in stopped:
        with handle.run.changed:
            handle.run.changed.wait_for(partial(_is_over, handle.run), max(0.0, deadline - time.monotonic()))
    going_on = len(open_ones) - len(stopped)
    rest = f"; {going_on:,} of earlier cells go on" if going_on else ""
    _say(f"revoked {len(stopped):,} at your interrupt{rest}")
    return interrupt.with_traceback(None)


class HeldBack:
    """Holds an interrupt back until what is done inside of it is done as a whole; it must not take long.

    Interrupts hit the main thread only; elsewhere, and where interrupts do something else than Python's own handler,
    this does nothing. It is entered with every task that is sent, so it calls what `signal` wraps: the wrappers make
    enums of handlers, which takes 7 us.
    """

    def __enter__(self) -> None:
        self._handler = _signal.getsignal(signal.SIGINT)
        self._frames: list[FrameType | None] = []
        self._is_holding = (
            threading.current_thread() is threading.main_thread() and self._handler is signal.default_int_handler
        )
        if self._is_holding:
            _signal.signal(signal.SIGINT, lambda _, frame: self._frames.append(frame))

    def __exit__(self, *exc_info: object) -> None:
        if self._is_holding:
            _signal.signal(signal.SIGINT, self._handler)
            if self._frames:
                raise KeyboardInterrupt


def _is_answered(interrupt: KeyboardInterrupt) -> bool:
    """Whether somebody has answered it already; from now on, somebody has."""
    before = getattr(interrupt, "_nbqueue_is_answered", False)
    vars(interrupt)["_nbqueue_is_answered"] = True
    return before


def _is_over(run: ClientRun) -> bool:
    return run.is_over


def _name(run: ClientRun) -> str:
    return f"{run.label!r} ({run.run_id.hex()[:8]})"


def _done(run: ClientRun) -> str:
    counts = run.counts
    if counts.total == 1:
        return "it had not ended" if not counts.done else "it is done"
    kept = " and kept" if counts.done else ""
    return f"{counts.done:,} of {counts.total:,} items are done{kept}"


def _say(sentence: str) -> None:
    sys.stderr.write(f"nbqueue: {sentence}\n")
    sys.stderr.flush()
