"""What ■ or Ctrl-C does to somebody who waits: one rule, and a sentence that says which part of it applied.

Who waits for a run that the same cell (or the same script) has submitted wants to stop that work: it is revoked. Who
waits for a run of an earlier cell only stops waiting. A second interrupt while the first is being answered leaves at
once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from nbqueue.client.run import ClientRun

OnInterrupt = Literal["revoke", "detach"]

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
        if policy not in ("revoke", "detach"):
            raise ValueError(f'on_interrupt must be "revoke" or "detach", not {policy!r}')
        self._occasion = occasion
        self._submitted_in = occasion()
        self._policy = policy

    @contextmanager
    def answered(self, run: ClientRun, revoke: Callable[[], Any], show_end: Callable[[], None]) -> Iterator[None]:
        """Wait inside of this. The caller may hold ``run.changed``."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            if self._policy == "revoke" and self._submitted_in == self._occasion():
                revoke()
                with run.changed:
                    run.changed.wait_for(lambda: run.is_over, GRACE_S)
                show_end()
                _say(f"revoked {_name(run)} at your interrupt: {_done(run)}")
            else:
                _say(f"{_name(run)} goes on, {_done(run)}; its .revoke() stops it, its .get() waits again")
            raise interrupt.with_traceback(None) from None  # where in the waiting it fell tells nobody anything


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
