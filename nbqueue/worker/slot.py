"""A slot: one process that runs one chunk of items at a time and reports what becomes of each.

Nothing that a task raises leaves `Slot.run`; whatever else a task does to the process is the supervisor's business.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from nbqueue.brokers.nesting import NEST
from nbqueue.core.exchange import Delivery
from nbqueue.core.serializers import Serializer
from nbqueue.core.task import NO_LIMITS, Block
from nbqueue.errors import NestingLimitExceeded, SoftTimeLimitExceeded
from nbqueue.wire.accept import check_accepted
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.failure import safe_repr
from nbqueue.wire.function import LoadedFunction, load_function, name_in
from nbqueue.wire.messages import Forgotten, FromSlot, Remark, RunChunk, SlotReady, ToSlot, Waits
from nbqueue.wire.payload import PackedValues
from nbqueue.worker.capture import Capture
from nbqueue.worker.catalog import Catalog
from nbqueue.worker.cell import ITEM, PLEASE_REPORT, STOP_TOKEN, Cell
from nbqueue.worker.context import SLATE
from nbqueue.worker.lending import MAX_LENT
from nbqueue.worker.memory import forget_own_peak, own_peak_bytes
from nbqueue.worker.nest import SlotNest
from nbqueue.worker.pipe import Pipe
from nbqueue.worker.reporter import Reporter
from nbqueue.worker.tidy import Tidy
from nbqueue.worker.zygote_protocol import SlotEnds

#: A peak that is so much above the last one would be taken for that of the next chunk.
PEAK_STEP_BYTES = 4 * 2**20
#: The arguments of a task that is called by its name.
JSON_ONLY: tuple[Serializer, ...] = ("json",)
#: What an item that took longer than this has printed is told from what the next one prints, whoever of it wrote it.
LOOK_S = 0.0005


class Slot:
    """Runs chunks until its supervisor closes the pipe."""

    def __init__(
        self,
        pipe: Pipe[ToSlot],
        cell: Cell,
        capture: Capture,
        *,
        name: str,
        blobs: BlobStore | None,
        catalog: Catalog,
    ) -> None:
        self._pipe = pipe
        self._cell = cell
        self._capture = SLATE.capture = capture
        self._name = name
        self._blobs = blobs
        self._catalog = catalog
        self._functions: dict[bytes, LoadedFunction] = {}
        self._bodies: dict[bytes, bytes] = {}  # of functions that could not be loaded yet
        self._in_user_code = False
        self._sending = threading.RLock()
        self._token = 0
        self._limits = NO_LIMITS
        self._report: Reporter | None = None
        self._tidy = Tidy()
        self._peak_bytes = own_peak_bytes()
        self._spent = ""  #: why this process must run nothing more

    def serve(self) -> None:
        """Run what comes through the pipe."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(PLEASE_REPORT, self._on_report_wanted)
        signal.siginterrupt(PLEASE_REPORT, False)  # what the task waits for goes on
        os.register_at_fork(after_in_child=self._become_child)
        NEST.use(SlotNest(self._say))
        self._send(SlotReady(os.getpid(), self._capture.mark))
        while (message := self._pipe.receive()) is not None:
            match message:
                case RunChunk(delivery):
                    self.run(delivery)
                case Forgotten(functions):
                    for digest in functions.digests:
                        self._functions.pop(digest, None)
                        self._bodies.pop(digest, None)

    def run(self, delivery: Delivery) -> None:
        """Run one chunk and report all its items; never raises because of a task."""
        where = f"worker {self._name}, attempt {delivery.attempt}"
        report = Reporter(delivery, self._send, self._blobs, where, with_pickles=self._catalog.accepts_pickles)
        self._report = report
        self._token = delivery.token
        self._limits = delivery.limits
        SLATE.running = delivery, self._cell
        self._cell.begin(delivery.token, delivery.start)  # loading a function or a payload runs user code, too
        try:
            function = self._load(delivery)
            if function.speaks_json:
                report.speak_json()
                for block in delivery.blocks:
                    check_accepted(block.payload, JSON_ONLY, self._blobs)
        except BaseException as error:
            report.fail_all(error)
        else:
            self._tidy.remember()
            for block in delivery.blocks:
                if not self._spent:
                    self._run_block(function, block, delivery, report)
            report.pack()  # while the cell still names an item: pickling a result runs user code, too
        finally:
            self._cell.end()
            SLATE.running = None
            self._token = 0
            self._report = None
        self._capture.flush()
        report.send(final=True, spent=self._spent or self._tidy.why_spent())
        self._tidy.restore()  # after the report, which somebody waits for
        self._capture.restore()
        self._forget_peak()

    def _forget_peak(self) -> None:
        """Let the next chunk have a peak of its own, if this one had one that is worth the effort."""
        if own_peak_bytes() - self._peak_bytes >= PEAK_STEP_BYTES:
            forget_own_peak()
            self._peak_bytes = own_peak_bytes()

    def _load(self, delivery: Delivery) -> LoadedFunction:
        loaded = self._functions.get(delivery.digest)
        if loaded is None:
            if delivery.function is not None:
                self._bodies[delivery.digest] = delivery.function
            loaded = self._functions[delivery.digest] = self._load_body(self._bodies[delivery.digest], delivery.run_id)
            del self._bodies[delivery.digest]
        return loaded

    def _load_body(self, body: bytes, run_id: bytes) -> LoadedFunction:
        name = name_in(body)
        if name is not None:
            # Whether there is a retry is the broker's decision, by the options of the call.
            return LoadedFunction(self._catalog.find(name), (Exception,), "call", speaks_json=True)
        self._catalog.check_pickled()
        return load_function(
            body,
            self._blobs,
            where=f"worker {self._name}",
            remark=lambda sentence: self._send(Remark(run_id, sentence)),
        )

    def _run_block(self, function: LoadedFunction, block: Block, delivery: Delivery, report: Reporter) -> None:
        """Run the items of a block that are delivered.

        The loop is written for items that take a microsecond: whatever happens once per item is a local variable.
        """
        base, first, last = block.start, max(block.start, delivery.start), min(block.stop, delivery.stop)
        if first >= last:
            return
        values = PackedValues(block.payload, self._blobs)
        call = _CALLS[function.call]
        user_function = function.function
        numbers, token = self._cell.numbers, self._token
        plain = values.plain
        clock = time.perf_counter
        look_at = clock()
        done = report.values
        is_limited = self._limits.is_any
        for index in range(first, last):
            numbers[ITEM] = index  # before the look at the cell: a signal for the former item must not find this one
            if is_limited:
                self._cell.note_start()
            if numbers[STOP_TOKEN] == token and self._is_held_back(index):
                report.stop(index)
                continue
            try:
                try:
                    self._in_user_code = True
                    argument = plain[index - base] if plain is not None else values.get(index - base)
                    done.append(user_function(argument) if call is None else call(user_function, argument))
                    self._in_user_code = False
                except BaseException as error:
                    self._in_user_code = False
                    if self._was_stopped(error, index):
                        report.stop(index, how="SIGINT")
                    else:
                        report.fail(index, error, function.retry_on, _item_repr(values, index - base))
            except KeyboardInterrupt:  # the signal fell between the task's end and our taking note of it
                self._in_user_code = False
                report.stop(index, how="SIGINT")
            except SoftTimeLimitExceeded as error:  # likewise
                self._in_user_code = False
                report.fail(index, error, function.retry_on, _item_repr(values, index - base))
            if report.was_interrupted and (spent := self._tidy.what_is_left_behind()):
                self._spent = spent  # nobody is told that it was stopped before that has ended, too
                return
            now = clock()
            if now >= look_at:
                if SLATE.item_ended is not None:
                    SLATE.item_ended()
                if index + 1 == delivery.stop:
                    return  # the rest comes with the final report
                self._capture.end_item()
                if now >= report.next_report_at:
                    report.send(final=False)
                look_at = now + LOOK_S

    def _is_held_back(self, item: int) -> bool:
        """Whether *item* is not to run; waits while a signal for the item before it is on its way."""
        self._cell.wait_while_aimed_at()
        return self._cell.must_stop(self._token, item)

    def _was_stopped(self, error: BaseException, item: int) -> bool:
        return isinstance(error, KeyboardInterrupt) and self._cell.must_stop(self._token, item)

    def _become_child(self) -> None:
        self.__class__ = _Child  # the loop that it returns to need not ask who it is

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Interrupt the task, but only the one that the supervisor means, and only while it runs."""
        if not self._in_user_code:
            return
        item = self._cell.numbers[ITEM]
        if self._cell.must_stop(self._token, item):
            self._save_what_is_finished()
            if self._report is not None:
                self._report.was_interrupted = True
            raise KeyboardInterrupt
        if self._cell.is_past_soft_limit(item):
            raise SoftTimeLimitExceeded(
                f"it has run for longer than its soft_time_limit of {self._limits.soft_time_s:g} s"
            )
        if self._cell.may_not_wait(item):
            raise NestingLimitExceeded(
                f"it waits for another task, but {MAX_LENT} tasks of this worker do so already: submit less at a time, "
                "or wait outside of tasks"
            )

    def _on_report_wanted(self, signum: int, frame: FrameType | None) -> None:
        """The item takes long: somebody waits for those before it."""
        if self._in_user_code:
            self._save_what_is_finished()
            self._on_interrupt(signal.SIGINT, None)  # one that came meanwhile was passed over

    def _save_what_is_finished(self) -> None:
        """Report it now: the item that runs may take long, or be killed."""
        self._in_user_code = False
        if self._report is not None:
            self._report.save()
        self._in_user_code = True

    def _say(self, message: Waits) -> None:
        """Send something from inside a task; an interrupt that comes meanwhile waits until it is sent."""
        is_interruptible = self._in_user_code and threading.current_thread() is threading.main_thread()
        if is_interruptible:
            self._in_user_code = False
        self._send(message)
        if is_interruptible:
            self._in_user_code = True
            self._on_interrupt(signal.SIGINT, None)

    def _send(self, message: FromSlot) -> None:
        try:
            with self._sending:
                self._pipe.send(message)
        except OSError:
            os._exit(1)  # the supervisor is gone: nobody wants the result


class _Child(Slot):
    """A fork that a task has made of its slot: it ends where the task ends, for it is not the slot."""

    @property
    def _in_user_code(self) -> bool:
        return True

    @_in_user_code.setter
    def _in_user_code(self, is_in_user_code: bool) -> None:
        if is_in_user_code:
            return
        error = sys.exception()
        try:
            if error is not None and not isinstance(error, SystemExit):
                sys.excepthook(type(error), error, error.__traceback__)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0 if error is None else 1)


def _call_star(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def _call_full(function: Callable[..., Any], arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    return function(*arguments[0], **arguments[1])


#: How an item becomes arguments, by `LoadedFunction.call`; None: it is the only argument.
_CALLS: dict[str, Callable[[Callable[..., Any], Any], Any] | None] = {
    "one": None,
    "star": _call_star,
    "call": _call_full,
}


def _item_repr(values: PackedValues, index: int) -> str:
    try:
        return safe_repr(values.get(index))
    except BaseException:
        return "<an item that cannot be unpickled>"


def run_slot(ends: SlotEnds, *, name: str, blobs: BlobStore | None, catalog: Catalog) -> None:
    """The life of a slot's process, after its fork."""
    cell = Cell(ends.cell)
    os.close(ends.cell)
    capture = Capture((ends.stdout, ends.stderr), cell.numbers)
    capture.install()
    faulthandler.enable(all_threads=False)  # what native code does to the process is then among its last words
    pipe: Pipe[ToSlot] = Pipe(socket.socket(fileno=ends.pipe), ToSlot)
    Slot(pipe, cell, capture, name=name, blobs=blobs, catalog=catalog).serve()
