"""One connection to a broker: sends what it is handed, folds what comes back.

Its I/O thread owns the port; a thread that waits reads it in its place (`reading`).

Public calls and widget callbacks only enqueue commands here; no user code runs in this thread except done-callbacks.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from nbqueue.brokers.base import ClientPort
from nbqueue.client.bundles import ENOUGH_RUNS, PATIENCE_S, Bundle, Bundles, Recipe
from nbqueue.client.condition import Condition
from nbqueue.client.followed import Followed, Nobody, WantedResults
from nbqueue.client.held_back import HeldBack
from nbqueue.client.items import OneItem
from nbqueue.client.questions import Questions
from nbqueue.client.reading import Reading
from nbqueue.client.run import ClientRun, Learner, Told
from nbqueue.client.submissions import Standing, Submissions
from nbqueue.core.audience import OUTPUT_WINDOW_BYTES
from nbqueue.core.exchange import ALL_ITEMS, Note, OutputNote, Receipt
from nbqueue.core.task import GENTLY, Block, Manner, RunSpec
from nbqueue.errors import BrokerUnavailable, NBQueueError, QueueFull, UnknownTask
from nbqueue.wire.messages import (
    Answered,
    Inspected,
    NoteMessage,
    OutputMessage,
    Pong,
    Purged,
    ReceiptMessage,
    Refused,
    ToClientPeer,
    Welcome,
    WereAsked,
    WorkersStarted,
)
from nbqueue.wire.payload import pack_blocks

logger = logging.getLogger(__name__)

PING_S = 2.0
#: A run that was not heard of for so long is asked for again: a missed message can delay, never hang.
REREAD_S = 5.0
#: So many forgotten runs are worth a message of their own; fewer travel with the next one.
FORGET_RUNS = 256
#: At most so many runs are asked for in one go.
REREAD_RUNS = 200
#: Acknowledge after this many entries or bytes, well before the broker's window is used up.
ACK_ENTRIES = 512
ACK_BYTES = 4 * 2**20
ACK_OUTPUT_BYTES = OUTPUT_WINDOW_BYTES // 4
#: Pause before items are offered again to a full broker.
FULL_RETRY_S = 0.1

Command = Callable[[ClientPort], None]
Handle = TypeVar("Handle")


class Link:
    """One connection to a broker and the thread that serves it."""

    def __init__(self, port: ClientPort, *, submit_timeout_s: float) -> None:
        """Serve *port*; a full broker is offered items for *submit_timeout_s* before `QueueFull`."""
        self._port = port
        self._submit_timeout_s = submit_timeout_s
        self._commands: deque[Command] = deque()
        self._followed: dict[bytes, Followed] = {}
        self._late: dict[bytes, ClientRun] = {}  # they are over, but some of their output is still on its way
        self._submissions = Submissions(timeout_s=submit_timeout_s)
        self.questions = Questions(self._enqueue)  #: what is asked beside runs
        self.wanted = WantedResults()  #: runs that the broker need not forget yet
        self._received_entries = self._received_bytes = self._received_output = 0
        self._acked_entries = self._acked_bytes = self._acked_output = 0
        self._pinged_at = self._reread_at = time.monotonic()
        self._is_closing = False
        self._ended: deque[Told] = deque()  # runs of which the I/O thread is to say that they are over
        self._using_port = threading.Lock()  # `submit_now` excepted
        self._taker = 0  # the thread that takes in what has arrived
        self._reading = Reading(port, self._take_in)
        self._bundles = Bundles()
        self._open_bundles: list[Bundle] = []  # to be sent soon; of the I/O thread alone
        self.condition = Condition()  #: of all its handles
        self.error: BaseException | None = None  #: why the link is dead, if it is
        self.pid = os.getpid()
        self._thread = threading.Thread(target=self._serve, name="nbqueue-io", daemon=True)
        self._thread.start()

    # -- called by any thread ------------------------------------------------------------------------------------------

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is called by what takes in news, and so must never wait for any."""
        return threading.get_ident() in (self._thread.ident, self._taker)

    def wait(self, is_reached: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait for news that bring something about; see `Reading.wait`."""
        return self._reading.wait(is_reached, timeout_s)

    def submit(
        self,
        spec: RunSpec,
        function: bytes,
        blocks: Sequence[Block],
        *,
        closed: bool,
        run: ClientRun,
        handle: Told,
    ) -> None:
        """Hand over a run; waits while too much is on its way.

        Raises:
            BrokerUnavailable: The broker is gone.
        """
        self._reserve(blocks)
        followed = Followed(run, handle)

        def command(port: ClientPort) -> None:
            if self.questions.no_workers is None:
                port.submit(spec, function=function, blocks=blocks, closed=closed)
            else:
                self._give_up(followed, self.questions.no_workers)

        with HeldBack():
            self._followed[spec.run_id] = followed  # first: if the link dies now, it is told so
            self._submissions.add(spec, function, blocks, closed=closed)
            if not self._may_pass_the_thread() or not self._port.submit_now(
                spec, function=function, blocks=blocks, closed=closed
            ):
                self._enqueue(command)
            elif self.error is not None:  # the thread ended in this moment, and may not have seen the run
                raise self.error

    def learner(self, function: bytes) -> Learner:
        """Learns from runs of a function whether its tasks may travel together."""
        return self._bundles.habit(function)

    def bundles(self, recipe: Recipe, argument: Any) -> bool:
        """Whether a task should travel with others: see `bundles`."""
        return len(self._followed) >= ENOUGH_RUNS and self._bundles.may_join(recipe, argument)

    def join_bundle(
        self,
        recipe: Recipe,
        argument: Any,
        *,
        occasion: object,
        make_handle: Callable[[OneItem], Handle],
        again: Callable[[Any, dict[str, Any]], Any],
        follow: Callable[[Bundle], None],
    ) -> Handle:
        """Hand over a task that travels with others; see `Bundles.join`.

        *follow* is called with a new bundle, whose output is to be shown. Waits and raises as `submit` does.
        """
        self._submissions.wait_for_room(wait=not self.is_own_thread)

        def begin(bundle: Bundle) -> None:
            follow(bundle)
            self._followed[bundle.run_id] = Followed(bundle, Nobody())
            self.wanted.watch(bundle, bundle.run_id)
            self._enqueue(lambda port: self._open_bundles.append(bundle))

        handle: Handle = self._bundles.join(
            recipe, argument, occasion=occasion, make_handle=make_handle, again=again, begin=begin
        )
        if self.error is not None:  # the thread ended in this moment, and may not have seen the bundle
            raise self.error
        return handle

    def feed(self, run_id: bytes, blocks: Sequence[Block], *, closed: bool) -> None:
        """Hand over more items; waits while too much is on its way. Raises as `submit` does."""
        self._reserve(blocks)

        def command(port: ClientPort) -> None:
            if self._submissions.extend(run_id, blocks, closed=closed):
                port.feed(run_id, blocks=blocks, closed=closed)

        self._enqueue(command)

    def revoke(self, run_id: bytes, start: int, stop: int, manner: Manner = GENTLY) -> None:
        """Stop items of a run."""

        def command(port: ClientPort) -> None:
            self._send_bundles(run_id)
            port.revoke(run_id, start=start, stop=stop, manner=manner)

        self._enqueue(command)

    def follow(self, run: ClientRun, handle: Told, *, cursor: int) -> None:
        """Follow a run that was submitted elsewhere, from this entry of its log on, or from its end."""

        def command(port: ClientPort) -> None:
            self._followed[run.run_id] = Followed(run, handle)
            port.attach(run.run_id, cursor=cursor)

        self._enqueue(command)

    def tell_too(self, run: ClientRun, handle: Told) -> None:
        """One handle more of a run that is followed here for its news or its items."""

        def command(port: ClientPort) -> None:
            if run.run_id in self._followed:
                self._followed[run.run_id] = Followed(run, handle)
            else:
                self._end(handle)  # it is over

        self._enqueue(command)

    def join(self, run: ClientRun, item: OneItem, handle: Told) -> None:
        """An item of a run has a handle of its own from now on."""

        def command(port: ClientPort) -> None:
            item.join(handle)
            run.end_known(item)
            for ended in run.take_ended():
                self._end(ended)

        self._enqueue(command)

    def follower(self, run_id: bytes) -> Told | None:
        """Who is told of the end of a run that goes on, if anybody is here."""
        followed = self._followed.get(run_id)
        return None if followed is None else followed.handle

    def followed(self, run_id: bytes) -> ClientRun | None:
        """A run that goes on and is followed already."""
        followed = self._followed.get(run_id)
        return None if followed is None else followed.run

    def wait_until_accepted(self, run: ClientRun) -> None:
        """Wait until the broker has confirmed everything that was handed over for the run.

        Raises:
            QueueFull: It had no room for it.
            BrokerUnavailable: It is gone.
        """
        if not self.is_own_thread:
            self.wait(lambda: run.error is not None or run.run_id not in self._submissions, None)
        if run.error is not None:
            raise run.error

    def close(self) -> None:
        """Send what is queued, say goodbye, end the thread; may be called twice."""
        self._is_closing = True
        self._reading.bell.ring()
        if not self.is_own_thread:
            self._thread.join(5.0)

    def _reserve(self, blocks: Sequence[Block]) -> None:
        # A done-callback that submits must not wait for its own thread.
        self._submissions.reserve(blocks, wait=not self.is_own_thread)

    def _enqueue(self, command: Command) -> None:
        if self.error is not None:
            raise self.error
        if self._is_closing:
            raise BrokerUnavailable("this app is closed")
        with HeldBack():
            self._commands.append(command)
            self._reading.bell.ring()

    def _may_pass_the_thread(self) -> bool:
        """Whether nothing that was said before is still to be sent, and nothing speaks against sending."""
        return not self._commands and self.questions.no_workers is None and self.error is None and not self._is_closing

    # -- the I/O thread ------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while self.error is None and not (self._is_closing and not self._has_unsent):
                with self._using_port:
                    self._run_commands()
                    self._send_bundles()
                    self._look_at_the_clock()
                    self._port.flush()
                self._say_what_is_over()
                self._reading.look(self._patience_s())
        except BaseException as error:
            self._die(error)
        else:
            self._die(BrokerUnavailable("this app was closed"))
        finally:
            self._say_what_is_over()
            self._reading.end()
            self._port.close()

    def _say_what_is_over(self) -> None:
        """Call back where that runs code of the user."""
        while self._ended:
            self._ended.popleft().on_over()
            self._reading.tell()

    @property
    def _has_unsent(self) -> bool:
        """Whether something that was handed over is still here."""
        return bool(self._commands or self._open_bundles)

    def _patience_s(self) -> float:
        if self._commands:
            return 0.0
        if self._open_bundles:
            return PATIENCE_S
        return FULL_RETRY_S if self._submissions.has_refused else PING_S / 2

    def _run_commands(self) -> None:
        self._reading.bell.hush()
        has_news = bool(self._commands)
        while self._commands:
            self._commands.popleft()(self._port)
        unwanted = self.wanted.unwanted
        if unwanted and (has_news or unwanted >= FORGET_RUNS):
            self._forget()

    def _send_bundles(self, run_id: bytes = b"") -> None:
        """Those that are full, or have waited long enough, and all if there is little else under way; and this one."""
        if not self._open_bundles:
            return
        oldest = time.monotonic() - PATIENCE_S
        is_idle = self._is_closing or len(self._followed) - len(self._open_bundles) < ENOUGH_RUNS
        waiting, self._open_bundles = self._open_bundles, []
        for bundle in waiting:
            if is_idle or bundle.is_full or bundle.started_at <= oldest or bundle.run_id == run_id:
                self._send_bundle(bundle)
            else:
                self._open_bundles.append(bundle)

    def _send_bundle(self, bundle: Bundle) -> None:
        arguments = self._bundles.close(bundle)
        spec, function = bundle.spec, bundle.recipe.body
        blocks = list(pack_blocks(arguments, start=0, blobs=None, folder=""))
        self._submissions.reserve(blocks, wait=False)
        self._submissions.add(spec, function, blocks, closed=True)
        if self.questions.no_workers is None:
            self._port.submit(spec, function=function, blocks=blocks, closed=True)
        else:
            self._give_up(Followed(bundle, Nobody()), self.questions.no_workers)

    def _forget(self) -> None:
        if unwanted := self.wanted.take_unwanted():
            self._port.forget(unwanted)

    # -- whoever reads -------------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        """Read and understand what has arrived; the I/O thread does so, or one that waits for it."""
        if self.error is not None:
            return
        try:
            with self._using_port:
                self._taker = threading.get_ident()
                self._receive()
                self._port.flush()
        except BaseException as error:
            self._die(error)
            if not isinstance(error, NBQueueError):
                raise
        finally:
            self._taker = 0

    def _receive(self) -> None:
        for message in self._port.receive():
            self._take(message)
        if (
            self._received_entries - self._acked_entries >= ACK_ENTRIES
            or self._received_bytes - self._acked_bytes >= ACK_BYTES
            or self._received_output - self._acked_output >= ACK_OUTPUT_BYTES
        ):
            self._ack()

    def _take(self, message: ToClientPeer) -> None:
        match message:
            case NoteMessage(note):
                self._take_note(note)
            case OutputMessage(output):
                self._take_output(output)
            case ReceiptMessage(receipt):
                self._take_receipt(receipt)
            case Inspected() | WorkersStarted() | WereAsked() | Answered() | Purged():
                self.questions.take(message)
                if self.questions.no_workers is not None:
                    self._give_up_all(self.questions.no_workers)
            case Pong(known=False):
                self._reread(time.monotonic())
            case Pong() | Welcome() | Refused():
                pass

    def _take_note(self, note: Note) -> None:
        self._received_entries += len(note.entries)
        self._received_bytes += sum(len(entry.payload) for entry in note.entries)
        followed = self._followed.get(note.run_id)
        if followed is None:
            self._take_late(note)
            return
        run = followed.run
        if not note.known:
            self._give_up(followed, UnknownTask(f"the broker no longer knows the run {note.run_id.hex()[:8]}"))
            return
        run.fold(note)
        for handle in run.take_ended():
            self._end(handle)
        if run.is_finished:
            del self._followed[note.run_id]
            self._submissions.drop(note.run_id)
            if not run.output.is_complete:
                self._late[note.run_id] = run
            self._end(followed.handle)

    def _end(self, handle: Told) -> None:
        """Say that its run is over; code of the user is called by the I/O thread, which holds up nobody."""
        if handle.calls_back:
            self._ended.append(handle)
            self._reading.bell.ring()
            return
        handle.on_over()
        if not self._taker:  # else whoever reads is about to look
            self._reading.tell()

    def _take_late(self, note: Note) -> None:
        """News of a run that was over already."""
        run = self._late.get(note.run_id)
        if run is not None and not note.known:
            del self._late[note.run_id]
            run.output.give_up()

    def _take_output(self, note: OutputNote) -> None:
        self._received_output += note.size_bytes
        followed = self._followed.get(note.run_id)
        run = self._late.get(note.run_id) if followed is None else followed.run
        if run is None:
            return
        run.output.fold(note)
        if run.output.is_complete:
            self._late.pop(note.run_id, None)

    def _give_up(self, followed: Followed, error: BaseException) -> None:
        run_id = followed.run.run_id
        self._followed.pop(run_id, None)
        self._submissions.drop(run_id)
        self._fail(followed, error)

    def _fail(self, followed: Followed, error: BaseException) -> None:
        followed.run.fail(error)
        for handle in (*followed.run.take_ended(), followed.handle):
            self._end(handle)

    def _take_receipt(self, receipt: Receipt) -> None:
        followed = self._followed.get(receipt.run_id)
        if followed is not None:
            followed.run.slots = max(followed.run.slots, receipt.slots)
        standing = self._submissions.take(receipt, time.monotonic())
        if followed is not None and standing is Standing.TURNED_AWAY:
            error = QueueFull(
                f"the broker had no room for {followed.run.label!r} during {self._submit_timeout_s:g} s: "
                "wait for other work to finish, or use buffersize="
            )
            self._port.revoke(receipt.run_id, start=0, stop=ALL_ITEMS)
            self._give_up(followed, error)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if now - self._pinged_at >= PING_S:
            self._pinged_at = now
            self._port.ping()
            self._ack()
            self._forget()
        if now - self._reread_at >= REREAD_S:
            self._reread_at = now
            self._reread(now)
        if self._submissions.has_refused:
            self._submissions.offer_again(self._port)

    def _reread(self, now: float) -> None:
        runs = [*(followed.run for followed in list(self._followed.values())), *self._late.values()]
        silent = [run for run in runs if now - run.heard_at > REREAD_S]
        for run in silent[:REREAD_RUNS]:
            run.heard_at = now
            if run.run_id not in self._submissions:
                self._port.attach(run.run_id, cursor=run.cursor, output_cursor=run.output.cursor)

    def _ack(self) -> None:
        self._acked_entries, self._acked_bytes = self._received_entries, self._received_bytes
        self._acked_output = self._received_output
        self._port.ack(entries=self._acked_entries, size_bytes=self._acked_bytes, output_bytes=self._acked_output)

    def _give_up_all(self, error: BaseException) -> None:
        """No worker is connected and none can be started: say so to everybody who waits, instead of for ever."""
        for followed in list(self._followed.values()):
            self._port.revoke(followed.run.run_id, start=0, stop=ALL_ITEMS)
            self._give_up(followed, error)

    def _die(self, error: BaseException) -> None:
        """The link is dead: whoever waits is told so."""
        if self.error is not None:
            return  # another thread has found out
        if not isinstance(error, NBQueueError):
            logger.error("the I/O thread failed", exc_info=error)
            error = BrokerUnavailable(f"the I/O thread failed: {error!r}")
        self.error = error
        self._submissions.fail(error)
        for followed in list(self._followed.values()):
            self._fail(followed, error)
        self._followed.clear()
        for run in self._late.values():
            run.output.give_up()
        self.questions.fail(error)
        self._reading.bell.ring()
        self._reading.tell()
