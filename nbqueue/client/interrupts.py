"""What ■ or Ctrl-C does to somebody who waits: one rule, and a sentence that says which part of it applied.

Who waits for a run that the same cell (or the same script) has submitted wants to stop that work: it is revoked. Who
waits for a run of an earlier cell only stops waiting. A second interrupt while the first is being answered leaves at
once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from nbqueue.client.held_back import HeldBack
from nbqueue.client.options import OnInterrupt
from nbqueue.client.run import SeenRun

#: A revoke that was asked for by an interrupt is waited for so long.
GRACE_S = 2.0


class Waited(Protocol):
    """What of a handle is needed to answer for it."""

    @property
    def run(self) -> SeenRun:
        """What is waited for."""

    @property
    def interrupts(self) -> Interrupts:
        """Who answers for it alone."""

    def revoke(self) -> Any:
        """Stop it."""

    def ends_within(self, timeout: float | None) -> bool:
        """Wait for its end."""


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

    def answer(self, interrupt: KeyboardInterrupt, handle: Waited, show_end: Callable[[], None]) -> KeyboardInterrupt:
        """Do what an interrupt of a wait for the handle asks for, once.

        Call it in an ``except`` clause, not in the end of a context: an interrupt that falls into the beginning of a
        context would be nobody's.

        Returns:
            What is to be raised.
        """
        if _is_answered(interrupt):
            return interrupt
        with HeldBack():  # a second interrupt cuts the answer short, but not before the work is told to stop
            stops_work = self.stops_work
            if stops_work:
                handle.revoke()
        if stops_work:
            handle.ends_within(GRACE_S)
            show_end()
            _say(f"revoked {_name(handle.run)} at your interrupt: {_done(handle.run)}")
        else:
            _say(f"{_name(handle.run)} goes on, {_done(handle.run)}; its .revoke() stops it, its .get() waits again")
        return interrupt.with_traceback(None)  # where in the waiting it fell tells nobody anything


def answer_together(interrupt: KeyboardInterrupt, handles: Iterable[Waited]) -> KeyboardInterrupt:
    """The same rule for a wait for several."""
    if _is_answered(interrupt):
        return interrupt
    with HeldBack():
        open_ones = [handle for handle in handles if not handle.run.is_over]
        stopped = [handle for handle in open_ones if handle.interrupts.stops_work]
        for handle in stopped:
            handle.revoke()
    deadline = time.monotonic() + GRACE_S
    for handle in stopped:
        handle.ends_within(max(0.0, deadline - time.monotonic()))
    going_on = len(open_ones) - len(stopped)
    rest = f"; {going_on:,} of earlier cells go on" if going_on else ""
    _say(f"revoked {len(stopped):,} at your interrupt{rest}")
    return interrupt.with_traceback(None)


def _is_answered(interrupt: KeyboardInterrupt) -> bool:
    """Whether somebody has answered it already; from now on, somebody has."""
    before = getattr(interrupt, "_nbqueue_is_answered", False)
    vars(interrupt)["_nbqueue_is_answered"] = True
    return before


def _name(run: SeenRun) -> str:
    return f"{run.label!r} ({run.run_id.hex()[:8]})"


def _done(run: SeenRun) -> str:
    counts = run.counts
    if counts.total == 1:
        return "it had not ended" if not counts.done else "it is done"
    kept = " and kept" if counts.done else ""
    return f"{counts.done:,} of {counts.total:,} items are done{kept}"


def _say(sentence: str) -> None:
    sys.stderr.write(f"nbqueue: {sentence}\n")
    sys.stderr.flush()
