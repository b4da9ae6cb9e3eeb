"""Handles: what a call returns, while it runs and when it is over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, NoReturn, Protocol

from nbqueue.client.concerns import CONCERNS
from nbqueue.client.feeder import Feeder
from nbqueue.client.held_back import handed_over
from nbqueue.client.interrupts import Interrupts
from nbqueue.client.link import Link
from nbqueue.client.options import OnInterrupt
from nbqueue.client.output import HasOutput, Listener, Output
from nbqueue.client.revoking import RevokeReport, how_of, manner, report
from nbqueue.client.run import SeenRun
from nbqueue.client.waiting import Attendant, NoAttendant, wait_until
from nbqueue.core.exchange import ALL_ITEMS
from nbqueue.core.progress import Counts, RunSnapshot
from nbqueue.core.states import State
from nbqueue.core.task import Entry
from nbqueue.errors import NBQueueError, NotSerializable, TaskExpired, TaskRevoked, WorkerLost
from nbqueue.wire.blobs import BlobStore

#: `Future.cancel` waits this long for the broker's word.
CANCEL_S = 1.0
#: A wait that is longer looks whether anybody could end it.
PATIENCE_S = 5.0


class View(Protocol):
    """A card or a bar that shows a run."""

    def finish(self) -> None:
        """Show the final state now; may be called twice."""


class AsyncResult(Future[Any], HasOutput):
    """The handle of one task: a `Future` that can be awaited and revoked.

    It is a `concurrent.futures.Future`, so whatever takes one takes it.

    Attributes:
        label: What cards show.
    """

    def __init__(
        self,
        run: SeenRun,
        link: Link,
        blobs: BlobStore | None,
        *,
        attendant: Attendant | None = None,
        on_interrupt: OnInterrupt = "revoke",
    ) -> None:
        super().__init__()
        self._condition = link.condition  # instead of the one that `Future` has just made: nobody waits for it
        self.run = run
        self.label = run.label
        self._link = link
        if run.is_whole:
            link.wanted.watch(self, run.run_id)
        self._blobs = blobs
        self._attendant = attendant or NoAttendant()
        self._interrupts = Interrupts(self._attendant.occasion, on_interrupt)
        self._view: View | None = None
        self._feeder: Feeder | None = None
        self._is_revoking = False
        self._calls_back = False
        self._again: Callable[[AsyncResult, dict[str, Any]], AsyncResult] | None = None
        self._retried: AsyncResult | None = None

    # -- the result ----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """What `attach` and `revoke` know it by, in any process."""
        return self.run.id

    @property
    def _short_id(self) -> str:
        """As much of it as people need."""
        run_id, dot, item = self.run.id.partition(".")
        return f"{run_id[:8]}{dot}{item}"

    @property
    def _output(self) -> Output:
        return self.run.output

    @property
    def interrupts(self) -> Interrupts:
        """Who answers interrupts of a wait for it."""
        return self._interrupts

    @property
    def link(self) -> Link:
        """The connection that brings its news."""
        return self._link

    @property
    def attendant(self) -> Attendant:
        """What a wait for it looks after."""
        return self._attendant

    def _answered(self, interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
        """Answer an interrupt of a wait; what is to be raised then."""
        return self._interrupts.answer(interrupt, self, self._finish_view)

    def get(self, timeout: float | None = None, propagate: bool = True) -> Any:
        """Wait for the result.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.
            propagate: False returns the exception instead of raising it.

        Raises:
            TimeoutError: It is not there yet; it goes on.
            TaskRevoked: It was revoked.
            Exception: Whatever the task raised, of its own type where possible, with the frames that it had on the
                worker; else a `RemoteError` that says the same.
        """
        __tracebackhide__ = True  # IPython shows the user's frames only
        try:
            error = self.exception(timeout)
            if error is None:
                return self._value()
        except KeyboardInterrupt as interrupt:
            raise self._answered(interrupt) from None
        if not propagate:
            return error
        raise error

    def result(self, timeout: float | None = None) -> Any:
        """`get` in the spelling of `concurrent.futures`."""
        __tracebackhide__ = True
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; what the task raised, or None."""
        self._wait(timeout)
        if self.run.error is not None:
            return self.run.error.with_traceback(None)  # it may be raised again and again
        entry = self.run.entry_of(0)
        assert entry is not None, "a finished run has told of all its items"
        return None if entry.state is State.SUCCESS else self._error_of(entry, 0)

    def _value(self) -> Any:
        return self.run.value(0, self._blobs)

    def _wait(self, timeout: float | None) -> None:
        """Wait for the end of the run.

        Raises:
            TimeoutError: It has not come.
            RuntimeError: Called from a done-callback, or in a fork of the process, for a handle that is not done.
        """
        if not self.done():
            self._refuse_to_wait_in_vain()
            try:
                is_over = wait_until(self._ends_within, self._attendant, timeout)
            except KeyboardInterrupt as interrupt:
                raise self._answered(interrupt) from None
            if not is_over:
                raise TimeoutError(f"{self!r} is not done after {timeout:g} s; it goes on")
        self._output.finish_showing()
        self._finish_view()
        CONCERNS.of_environment(self.run.remarks)

    def ends_within(self, timeout: float | None) -> bool:
        """Wait for so many seconds, without asking whether that is wise; whether it is over."""
        return self._link.wait(lambda: self.run.is_over, timeout)

    def _ends_within(self, timeout: float | None) -> bool:
        """Wait; when it takes long and nobody could run it, that is said meanwhile, if no card says it."""
        first = PATIENCE_S if timeout is None else min(timeout, PATIENCE_S)
        if self._link.wait(self.done, first) or first == timeout:
            return self.done()
        self._say_what_it_waits_for()
        return self._link.wait(self.done, None if timeout is None else timeout - first)

    def _say_what_it_waits_for(self) -> None:
        hint = self._hint()
        if hint is not None and self._view is None:
            CONCERNS.of_waiting(repr(self), hint)

    def _refuse_to_wait_in_vain(self) -> None:
        if self._link.is_own_thread:
            raise RuntimeError("a done-callback cannot wait for another task: it runs in the thread that would tell it")
        if self._link.pid != os.getpid():
            raise RuntimeError(
                f"{self!r} belongs to the process of which this one is a fork: "
                f"nbqueue.attach({self._short_id!r}) makes a handle here"
            )

    def _finish_view(self) -> None:
        if self._view is not None:
            self._view.finish()

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """Where it is in its life, in Celery's words: PENDING, STARTED, SUCCESS, FAILURE, REVOKED, LOST, EXPIRED."""
        if not self.run.is_over:
            return "STARTED" if self.run.counts.running or self.run.counts.ended else "PENDING"
        if self.run.error is not None:
            return "REVOKED" if isinstance(self.run.error, TaskRevoked) else "FAILURE"
        states = {entry.state for entry in self.run.failures}
        for state in (State.FAILURE, State.LOST, State.EXPIRED, State.REVOKED):
            if state in states:
                return state.name
        return "SUCCESS"

    @property
    def status(self) -> str:
        """Celery's other word for `state`."""
        return self.state

    def ready(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.done()

    def successful(self) -> bool:
        """Whether it has ended well."""
        return self.done() and self.state == "SUCCESS"

    def failed(self) -> bool:
        """Whether it has ended badly, other than by being revoked."""
        return self.done() and self.state not in ("SUCCESS", "REVOKED")

    def cancelled(self) -> bool:
        """Whether it was revoked."""
        return self.done() and self.state == "REVOKED"

    def running(self) -> bool:
        """Whether it is being run now."""
        return self.state == "STARTED"

    @property
    def traceback(self) -> str | None:
        """The worker's traceback of the first failure, as text; None when there is none."""
        failed = [entry for entry in self.run.failures if entry.state is State.FAILURE]
        if not failed:
            return None
        from nbqueue.wire.failure import unpack_failure

        return unpack_failure(min(failed, key=lambda entry: entry.start).payload).traceback

    @property
    def info(self) -> dict[str, Any]:
        """What it took: workers, attempts and memory (most of any item), wall and CPU seconds of its items, in all."""
        entries = self.run.entries()
        workers = sorted({entry.worker for entry in entries if entry.worker})
        return {
            "id": self.id,
            "label": self.label,
            "state": self.state,
            "worker": ", ".join(workers),
            "attempts": max((entry.attempt for entry in entries), default=0),
            "wall_s": sum(entry.wall_s for entry in entries),
            "cpu_s": sum(entry.cpu_s for entry in entries),
            "peak_bytes": max((entry.peak_bytes for entry in entries), default=0),
            "elapsed_s": self.run.elapsed_s,
        }

    def snapshot(self) -> RunSnapshot:
        """All that a card shows of it now; cheap, from any thread."""
        run = self.run
        first = run.first_failure
        return RunSnapshot(
            label=self.label,
            counts=self._counts(),
            elapsed_s=run.elapsed_s,
            work_s=run.work_s,
            slots=run.slots,
            cancelling=self._is_revoking and not run.is_over,
            first_error=_one_line(first) if first is not None else None,
            first_error_item=first.start if first is not None else None,
            hint=self._hint(),
            can_retry=self._again is not None,
        )

    def _counts(self) -> Counts:
        return self.run.counts

    def _hint(self) -> str | None:
        run = self.run
        if run.error is not None:
            return str(run.error)
        if run.unserved and not run.is_over:
            return run.unserved
        if not run.slots and not run.is_over and run.elapsed_s > 1.0:
            return "No worker is connected yet. `nbqueue status` shows what there is; start one with nbqueue-worker."
        return None

    # -- stopping ------------------------------------------------------------------------------------------------------

    def revoke(
        self,
        *,
        terminate: bool = False,
        signal: str | int | None = None,
        grace_s: float | None = None,
        wait: bool = False,
    ) -> RevokeReport:
        """Stop it: what waits never starts, what runs is interrupted.

        What runs is asked (`current_task().is_revoked()`) and interrupted (SIGINT: `KeyboardInterrupt` in the task) at
        once; if it does not obey, its process and all that it has started get SIGTERM after *grace_s*, and SIGKILL
        after *grace_s* more.

        Args:
            terminate: Begin with SIGTERM.
            signal: Begin with this one, e.g. "SIGUSR1"; SIGKILL follows.
            grace_s: Seconds between one step and the next; default 2.
            wait: Until it has ended, and a process that was killed is confirmed dead.

        Returns:
            What came of it; without *wait*, only what is known at once.
        """
        how = manner(terminate=terminate, signal=signal, grace_s=grace_s)
        began = time.monotonic()
        if not self.run.is_over:
            self._is_revoking = True
            for start, stop in self.run.on_broker(0, ALL_ITEMS):
                self._link.revoke(self.run.run_id, start, stop, how)
            if self._feeder is not None:
                self._feeder.stop()
        if wait:
            self._refuse_to_wait_in_vain()
            wait_until(self._ends_within, self._attendant, None)
        return report(self.run, began=began if wait else None)

    def cancel(self) -> bool:
        """Revoke it unless it has begun; whether it will now never run. To stop running work use `revoke`."""
        if self.done() or self.running():
            return self.cancelled()
        self.revoke()
        try:
            self._wait(CANCEL_S)
        except TimeoutError:
            return False
        return self.cancelled()

    # -- again ---------------------------------------------------------------------------------------------------------

    @handed_over
    def retry(self, **override: Any) -> AsyncResult:
        """Run it again with the same arguments, as a new task; this handle stays as it is.

        Args:
            **override: Task options to be changed, e.g. ``time_limit=60``.

        Returns:
            The handle of the new task.

        Raises:
            ValueError: It has not ended, or it has succeeded.
        """
        if not self.done():
            raise ValueError(f"{self!r} has not ended: wait for it, or revoke it, before you run it again")
        if self.state == "SUCCESS":
            raise ValueError(f"{self!r} has succeeded: there is nothing to run again")
        if self._again is None:
            raise ValueError(
                f"{self!r} cannot be run again from here: only the handle that submitted it has its arguments, and a "
                "map that reads its input lazily keeps none; submit it anew"
            )
        self._retried = self._again(self, override)
        return self._retried

    @property
    def retried(self) -> AsyncResult | None:
        """The handle of its last `retry`, which the button of its card may have asked for; None: there was none."""
        return self._retried

    def retry_with(self, again: Callable[[AsyncResult, dict[str, Any]], AsyncResult]) -> None:
        """How it is run again, given this handle (which it must not hold) and the options that change."""
        self._again = again

    # -- await ---------------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait without blocking the event loop; cancelling the wait leaves the task alone."""
        import asyncio

        ended = asyncio.get_running_loop().create_future()

        def tell(_handle: AsyncResult) -> None:
            if not ended.done():  # the wait may have been cancelled
                ended.set_result(None)

        self.add_done_callback(tell)
        with self._attendant.attending_loop():
            yield from ended
        return self.get()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call ``fn(self)`` at the end: in the running event loop if there is one, else in the I/O thread."""
        self._calls_back = True
        loop = _running_loop()
        if loop is None:
            super().add_done_callback(fn)
            return

        def in_loop(future: Future[Any]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(fn, future)

        super().add_done_callback(in_loop)

    def remove_done_callback(self, fn: Callable[[Any], object]) -> int:
        """Part of the protocol of `asyncio.wait`; callbacks stay, and are harmless."""
        return 0

    # -- internals -----------------------------------------------------------------------------------------------------

    @property
    def calls_back(self) -> bool:
        """Whether `on_over` runs code of the user."""
        return self._calls_back

    def on_over(self) -> None:
        """Called once, by the I/O thread if it `calls_back`."""
        if self.state == "SUCCESS":
            super().set_result(None)
        else:
            self.set_exception(NBQueueError(self.state))  # for `futures.wait`; `exception` makes the true one

    def print_to(self, listener: Listener) -> None:
        """Where its output is shown while it comes; there may be several such places."""
        self._output.listen(listener)

    def print_no_more_to(self, listener: Listener) -> None:
        """The end of `print_to`."""
        self._output.stop_listening(listener)

    @property
    def view(self) -> View | None:
        """What shows it now."""
        return self._view

    def show_in(self, view: View | None) -> None:
        """The view to be finished when somebody has waited for the end."""
        self._view = view

    def _error_of(self, entry: Entry, item: int) -> BaseException:
        """The exception for an item that did not succeed."""
        name = self._name_of(item)
        match entry.state:
            case State.FAILURE:
                from nbqueue.wire.failure import rebuild, unpack_failure

                record = unpack_failure(entry.payload)
                return rebuild(record, note=f"{name} failed on {record.where}{self._others()}")
            case State.LOST:
                return _lost(name, entry.reason)
            case State.EXPIRED:
                return TaskExpired(f"{name} was not started in time")
            case _:
                return TaskRevoked(f"{name} was revoked ({how_of(entry)})")

    def _name_of(self, item: int) -> str:
        return f"task {self.label!r}"

    def _others(self) -> str:
        return ""

    def share(self) -> None:
        """The run may have other handles elsewhere: it stays when this one goes."""
        self._link.wanted.unwatch(self.run.run_id)

    def __reduce__(self) -> NoReturn:
        raise NotSerializable(
            "a handle stays in its process: pass its result, handle.get(), or its id, for nbqueue.attach"
        )

    def _ipython_display_(self) -> None:
        """In a notebook: as a card."""
        if not self._attendant.draw(self):
            raise NotImplementedError  # IPython's sign for: take the repr

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._short_id} {self.label!r} {self.state}>"


def _lost(name: str, reason: str) -> WorkerLost:
    """The error for an item that killed its process; what the process said last becomes a note."""
    sentence, _, last_words = reason.partition("\n")
    error = WorkerLost(f"{name} was given up: {sentence}")
    if last_words:
        error.add_note(f"The last words of its process:\n{last_words}")
    return error


def _one_line(entry: Entry) -> str:
    if entry.payload:
        from nbqueue.wire.failure import first_line, unpack_failure

        return first_line(unpack_failure(entry.payload))
    reason = entry.reason.partition("\n")[0]
    return f"{entry.state.name}: {reason}" if reason else entry.state.name


def _running_loop() -> Any:
    """The event loop that runs in this thread, if any; asyncio is not imported to find out."""
    import sys

    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
