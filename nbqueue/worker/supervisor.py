"""The supervisor: takes claims from the broker, has slots run them, and reports.

It alone speaks to the broker, for all its slots. No user code runs in it, so a task that holds the GIL cannot keep it
from its heartbeat, and it can always tell, and stop, what its slots do. One thread, one selector.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter

import msgspec

from nbqueue.brokers.base import WorkerPort
from nbqueue.core.exchange import HeldClaims
from nbqueue.core.run import StopHolder
from nbqueue.errors import BrokerUnavailable
from nbqueue.wire.messages import (
    Carry,
    ChunkReport,
    Deliver,
    Forgotten,
    FromSlot,
    Held,
    Remark,
    RunChunk,
    SlotReady,
    Stop,
    ToWorkerPeer,
    Waits,
)
from nbqueue.worker import memory
from nbqueue.worker.cell import PLEASE_REPORT
from nbqueue.worker.lending import LEND_AFTER_S, PRELOADED, Lender
from nbqueue.worker.limits import NO_WORKER_LIMITS, TimeRules, WorkerLimits
from nbqueue.worker.obituary import Death, obituary
from nbqueue.worker.orders import obey
from nbqueue.worker.output import SlotOutput
from nbqueue.worker.slot_process import SlotProcess, fork_slot
from nbqueue.worker.warden import Warden
from nbqueue.worker.work import Work, limited
from nbqueue.worker.zygote_process import SlotDeath, ZygoteProcess

logger = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
#: An item that runs longer than this is reported as STARTED; shorter ones are not worth a message.
ANNOUNCE_S = 0.05
#: What waited so long here goes back to the broker, for others to take: a chunk fetched ahead, and the items of a chunk
#: behind one that runs for so long.
HOARD_S = 0.5


class TakenForDead(BrokerUnavailable):
    """The broker has given this supervisor's work to others; it may begin anew under another id."""


class Supervisor:
    """Runs deliveries of one broker in its slots."""

    def __init__(
        self,
        port: WorkerPort,
        zygote: ZygoteProcess,
        *,
        slots: int,
        name: str,
        worker_id: bytes,
        limits: WorkerLimits = NO_WORKER_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        lifeline: int | None = None,
        grace_s: float = 0.0,
        rules: TimeRules | None = None,
    ) -> None:
        """Use *slots* slots forked by *zygote*; end when the descriptor *lifeline* closes.

        When it drains, what runs has *grace_s* seconds to end. *rules* are those that were ordered before.
        """
        self._port = port
        self._zygote = zygote
        self._name = name
        self._worker_id = worker_id
        self._wanted_slots = slots
        self._clock = clock
        self._limits = limits
        self._rules = rules or TimeRules()
        self._lender = Lender()
        self._is_preloaded = False
        self._warden = Warden(limits, name=name, now=clock())
        self._lifeline = lifeline
        self._grace_s = grace_s
        self._slots: list[SlotProcess[Work]] = [fork_slot(zygote) for _ in range(slots)]
        self._waiting: deque[Work] = deque()
        self._functions: dict[bytes, bytes] = {}
        self._is_stopping = False
        self._drain_until: float | None = None  # when what still runs is given up
        self._stop_reader, self._stop_writer = os.pipe()
        self._heartbeat_at = clock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(port.fileno(), selectors.EVENT_READ, None)
        self._selector.register(zygote.fileno(), selectors.EVENT_READ, zygote)
        self._selector.register(self._stop_reader, selectors.EVENT_READ, self._stop_reader)
        if lifeline is not None:
            self._selector.register(lifeline, selectors.EVENT_READ, lifeline)
        for slot in self._slots:
            self._watch(slot)

    # -- loop ----------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Work until `stop`, or until the lifeline closes.

        Raises:
            BrokerUnavailable: The broker is gone, or has taken this supervisor for dead.
        """
        try:
            while not self.is_over:
                self.run_once(timeout_s=self.patience_s())
        finally:
            self.close()

    def fileno(self) -> int:
        """Readable when `run_once` has something to do, which time may bring as well: see `patience_s`."""
        return self._selector.fileno()

    @property
    def is_over(self) -> bool:
        """Whether it was told to stop, or has drained: it is to be closed."""
        return self._is_stopping or self._is_drained

    def run_once(self, *, timeout_s: float) -> None:
        """Wait up to *timeout_s* seconds for something to do, and do it."""
        for key, events in self._selector.select(timeout_s):
            if self._selector.get_map().get(key.fd) is not key:
                continue  # it was closed meanwhile, with the slot that was buried a moment ago
            match key.data:
                case SlotProcess() as slot:
                    if events & selectors.EVENT_WRITE:
                        slot.flush()
                        self._watch_for_room(slot)
                    for report in slot.receive_available():
                        self._take_from_slot(slot, report)
                    self._fill_slots()
                case SlotOutput() as output:
                    output.read()
                case ZygoteProcess() as zygote:
                    for death in zygote.deaths():
                        self._take_death(death)
                case int() as descriptor:
                    self._take_signal(b"!" if descriptor == self._lifeline else os.read(descriptor, 16))
                case None:
                    self._hear()
        self._look_at_the_clock()
        self._port.flush()

    def hear(self) -> None:
        """Do what the broker has asked for, and nothing else; for a broker that lives in the same loop."""
        self._hear()
        self._port.flush()

    def _hear(self) -> None:
        for message in self._port.receive():
            self._take_from_broker(message)

    def stop(self) -> None:
        """Let `serve` return; may be called by a signal handler."""
        os.write(self._stop_writer, b"!")

    def drain(self) -> None:
        """Take nothing new, and let `serve` return when all that runs has ended; may be called by a signal handler."""
        os.write(self._stop_writer, b".")

    def _take_signal(self, signals: bytes) -> None:
        if b"!" in signals:
            self._is_stopping = True
        elif self._drain_until is None:
            self._drain_until = self._clock() + self._grace_s
            running = sum(slot.work is not None for slot in self._slots)
            logger.info("draining", extra={"running": running, "grace_s": self._grace_s})
            self._port.resize(slots=0, prefetch=0)
            while self._waiting:
                self._hand_back(self._waiting.pop())

    @property
    def _is_drained(self) -> bool:
        if self._drain_until is None:
            return False
        return self._clock() >= self._drain_until or all(slot.work is None for slot in self._slots)

    def patience_s(self) -> float:
        """So many seconds `run_once` may wait."""
        now = self._clock()
        patience_s = max(0.0, min(HEARTBEAT_S, self._heartbeat_at - now, self._warden.patience_s(self._slots)))
        if self._waiting:  # hoarded chunks
            patience_s = min(patience_s, ANNOUNCE_S)
        for slot in self._slots:
            if slot.wait.since(now) is not None:
                patience_s = min(patience_s, LEND_AFTER_S)
            work = slot.work
            if work is not None and (not work.announced or work.ladder is not None or slot.output.is_waiting):
                patience_s = min(patience_s, ANNOUNCE_S)
        return patience_s

    def _look_at_the_clock(self) -> None:
        now = self._clock()
        for slot in self._slots:
            work = slot.work
            if work is None:
                continue
            if work.stops:
                self._press_on(slot, work, now)
            if now - work.since >= ANNOUNCE_S:  # before, nothing of this can be due
                if not work.announced:
                    self._announce(slot, work)
                self._let_others_pass(slot, work, now)
            if slot.output.is_due(now):
                self._report_output(slot, work)
        self._lend(now)
        self._warden.look(self._slots, now)
        if self._warden.holding is None:
            self._fill_slots()
        while self._waiting and now - self._waiting[-1].since > HOARD_S:
            self._hand_back(self._waiting.pop())
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_S
            self._port.heartbeat(self._running())

    def _let_others_pass(self, slot: SlotProcess[Work], work: Work, now: float) -> None:
        """An item takes long: those before it are to be reported, and those behind it not to wait for it."""
        item = work.running_item(slot.cell)
        if item is None or work.runs_for(item, now) < HOARD_S:
            return
        if work.has_finished_before(item):
            slot.signal(PLEASE_REPORT)
        if released := work.take_back(slot.cell, item):
            logger.debug("the rest of a chunk goes back", extra={"slot_pid": slot.pid, "item": item})
            self._port.commit(work.delivery.token, work.delivery.run_id, released, final=False)

    def _running(self) -> list[tuple[int, int]]:
        running = []
        for slot in self._slots:
            if slot.work is not None:
                token = slot.work.delivery.token
                item = slot.cell.current(token)
                if item is not None:
                    running.append((token, item))
        return running

    def _announce(self, slot: SlotProcess[Work], work: Work) -> None:
        item = slot.cell.current(work.delivery.token)
        if item is not None:
            work.announced = True
            self._port.started(work.delivery.token, item)

    # -- from the broker -----------------------------------------------------------------------------------------------

    def _take_from_broker(self, message: ToWorkerPeer) -> None:
        match message:
            case Deliver(delivery):
                if delivery.function is not None:
                    self._functions[delivery.digest] = delivery.function
                work = Work(delivery, self._clock())
                if self._drain_until is not None:
                    self._hand_back(work)  # it was on its way when we began to drain
                    return
                self._waiting.append(work)
                self._fill_slots()
            case Stop(holder):
                self._stop_items(holder)
            case Forgotten(functions):
                for digest in functions.digests:
                    self._functions.pop(digest, None)
                for slot in self._slots:
                    slot.forget(functions)
                    self._watch_for_room(slot)
            case Held(claims):
                self._reconcile(claims)
            case Carry(order):
                self._port.answer(order.client_id, obey(order, self, self._worker_id))

    def _reconcile(self, claims: HeldClaims) -> None:
        """Make what the broker believes and what is here the same."""
        if not claims.known:
            raise TakenForDead(f"worker {self._name} was silent for too long and was taken for dead")
        held = set(claims.tokens)
        mine = {work.delivery.token: work for work in self._all_work()}
        for token in held - mine.keys():
            self._port.commit(token, b"", [], final=True)  # the delivery was lost on its way
        for token in mine.keys() - held:
            delivery = mine[token].delivery
            self._stop_items(StopHolder(token, delivery.start, delivery.stop))

    def _all_work(self) -> list[Work]:
        return [*self._waiting, *(slot.work for slot in self._slots if slot.work is not None)]

    # -- slots ---------------------------------------------------------------------------------------------------------

    def resize(self, by: int) -> int:
        """Have so many slots more or fewer, at least one; a slot that is busy goes when its work is over."""
        self._wanted_slots = max(1, self._wanted_slots + by)
        self._port.resize(slots=self._wanted_slots, prefetch=self._wanted_slots)
        while len(self._slots) < self._wanted_slots:
            slot: SlotProcess[Work] = fork_slot(self._zygote)
            self._watch(slot)
            self._slots.append(slot)
        self._fill_slots()
        return self._wanted_slots

    def limit_time(self, name: str, *, soft_s: float | None, time_s: float | None) -> str:
        """Hold tasks of this name that begin from now on to these limits; what holds for them now, in words."""
        return self._rules.put(name, soft_s=soft_s, time_s=time_s)

    def _retire_surplus(self) -> None:
        """End idle slots that are no longer wanted. Those that are being forked or are dying will be looked at then."""
        if len(self._slots) <= self._wanted_slots:
            return
        unready = sum(not slot.is_ready for slot in self._slots)
        surplus = len(self._slots) - self._wanted_slots - unready
        idle = [slot for slot in self._slots if slot.is_ready and slot.work is None]
        for slot in idle[: max(0, surplus)]:
            self._retire(slot, "fewer slots are wanted")

    def _fill_slots(self) -> None:
        self._retire_surplus()
        if self._warden.holding is not None:
            return  # memory is short: nothing more is begun, and what waits here for long goes to others
        for work in list(self._waiting):
            idle = [slot for slot in self._slots if slot.is_ready and slot.work is None]
            if not idle:
                return
            wanted = work.delivery.environment
            slot = min(idle, key=lambda slot: (slot.environment != wanted, slot.environment is not None))
            if slot.environment not in (None, wanted):
                self._retire(slot, "it may have imported other modules of the same names")  # its successor will ask
                continue
            self._waiting.remove(work)
            self._begin(slot, work)

    def _begin(self, slot: SlotProcess[Work], work: Work) -> None:
        delivery = work.delivery = self._rules.applied(work.delivery)
        work.since = self._clock()
        if delivery.attempt > 1:
            # It may have killed a process before: say what runs before it does, so that the blame cannot be missed.
            self._port.started(delivery.token, delivery.start)
        body = None if delivery.digest in slot.functions else self._functions.get(delivery.digest)
        slot.functions.add(delivery.digest)
        slot.environment = delivery.environment
        slot.work = work
        slot.output.drain()  # what the last task has left running may have printed
        slot.output.begin(delivery)
        work.show_stops(slot.cell)
        if self._limits.tasks_per_child is not None:
            delivery = limited(delivery, self._limits.tasks_per_child - slot.items_begun)
        slot.items_begun += delivery.stop - delivery.start
        slot.send(RunChunk(msgspec.structs.replace(delivery, function=body)))
        self._watch_for_room(slot)

    def _take_from_slot(self, slot: SlotProcess[Work], message: FromSlot) -> None:
        match message:
            case Remark(run_id, text):
                self._port.remark(run_id, text)
            case SlotReady(pid, mark):
                slot.output.use_mark(mark)
                slot.take_birth(pid)
            case ChunkReport():
                self._take_report(slot, message)
            case Waits(begins):
                (slot.wait.begin if begins else slot.wait.end)(self._clock())
                if not self._is_preloaded:
                    self._is_preloaded = True
                    self._zygote.preload(PRELOADED)
                self._lend(self._clock())

    def _take_report(self, slot: SlotProcess[Work], report: ChunkReport) -> None:
        work = slot.work
        if work is None or work.delivery.token != report.token:
            return
        slot.output.drain()
        self._report_output(slot, work)
        outcomes = work.take_report(report.outcomes)
        if report.final:
            self._take_back()
        if report.spent:
            work.last_words = outcomes
            self._retire(slot, report.spent)
            return
        self._port.commit(report.token, work.delivery.run_id, outcomes, final=report.final)
        if report.final:
            slot.work = None
            slot.wait.forget()
            slot.output.end()
            if self._limits.tasks_per_child is not None and slot.items_begun >= self._limits.tasks_per_child:
                self._retire(slot, "it has run as many tasks as it may")
        else:
            work.make_room_for_stops(slot.cell)

    def _report_output(self, slot: SlotProcess[Work], work: Work) -> None:
        """Pass on what the slot has printed; before the outcomes, so that whoever hears of an end has heard it all."""
        if slot.output.is_waiting:
            self._port.output(work.delivery.token, slot.output.take(self._clock()))

    def _take_death(self, death: SlotDeath) -> None:
        if death.pid is None:
            self._replace_zygote()
            return
        slot = next((slot for slot in self._slots if slot.pid == death.pid), None)
        if slot is None:
            return
        for message in slot.receive_available():  # what it said before it died
            self._take_from_slot(slot, message)
        slot.is_ready = False
        self._bury(slot, death)
        self._fill_slots()

    def _bury(self, slot: SlotProcess[Work], death: SlotDeath) -> None:
        """Report what a dead slot left undone, and put a new one in its place."""
        if slot.work is not None:
            work, token = slot.work, slot.work.delivery.token
            blamed = slot.cell.current(token)
            slot.output.drain()
            self._report_output(slot, work)
            self._take_back()
            reason = self._why(slot, death)
            logger.info("slot died", extra={"slot_pid": slot.pid, "reason": reason, "item": blamed})
            leftovers = work.leftovers(blamed=blamed, reason=reason, peak_bytes=death.peak_bytes)
            self._port.commit(token, work.delivery.run_id, leftovers, final=True)
        self._replace(slot)

    def _why(self, slot: SlotProcess[Work], death: SlotDeath) -> str:
        if death.pid is None:
            return "the process that starts the slots was killed"
        tightest = max(memory.machine(), key=lambda budget: budget.share)
        return obituary(
            Death(death.pid, death.signal, death.status, death.peak_bytes), tightest, slot.output.last_lines
        )

    def _retire(self, slot: SlotProcess[Work], reason: str) -> None:
        """End a slot that runs nothing; a fresh one takes its place when its death is confirmed."""
        logger.debug("slot retired", extra={"slot_pid": slot.pid, "reason": reason})
        slot.is_ready = False
        slot.signal(signal.SIGKILL)

    def _replace(self, slot: SlotProcess[Work]) -> None:
        self._unwatch(slot)
        slot.close()
        if len(self._slots) > self._wanted_slots:
            self._slots.remove(slot)
            return
        replacement: SlotProcess[Work] = fork_slot(self._zygote)
        self._watch(replacement)
        self._slots[self._slots.index(slot)] = replacement

    def _watch(self, slot: SlotProcess[Work]) -> None:
        self._selector.register(slot.fileno(), selectors.EVENT_READ, slot)
        for reader in slot.output.readers:
            self._selector.register(reader, selectors.EVENT_READ, slot.output)

    def _watch_for_room(self, slot: SlotProcess[Work]) -> None:
        """Ask to be told when the slot reads again, as long as something waits for that: nothing waits for one slot."""
        if slot.has_unsent != slot.is_watched_for_room:
            slot.is_watched_for_room = slot.has_unsent
            wanted = selectors.EVENT_READ | selectors.EVENT_WRITE * slot.has_unsent
            self._selector.modify(slot.fileno(), wanted, slot)

    def _unwatch(self, slot: SlotProcess[Work]) -> None:
        for descriptor in (slot.fileno(), *slot.output.readers):
            self._selector.unregister(descriptor)

    def _replace_zygote(self) -> None:
        """The zygote died, and its slots with it."""
        self._selector.unregister(self._zygote.fileno())
        self._zygote = self._zygote.restart()
        self._is_preloaded = False
        self._selector.register(self._zygote.fileno(), selectors.EVENT_READ, self._zygote)
        for slot in list(self._slots):
            slot.signal(signal.SIGKILL)  # its group: what the task left behind
            self._bury(slot, SlotDeath(None))

    # -- lending -------------------------------------------------------------------------------------------------------

    def _lend(self, now: float) -> None:
        """Have as many slots more as there are tasks that wait for others."""
        waits = [(since, slot) for slot in self._slots if (since := slot.wait.since(now)) is not None]
        if not waits and not self._lender.lent:
            return
        wanted = self._lender.wanted([since for since, _ in waits], now)
        if wanted != self._lender.lent:
            by, self._lender.lent = wanted - self._lender.lent, wanted
            self.resize(by)
        if self._lender.refuses(len(waits)):
            _, latest = max(waits, key=itemgetter(0))
            self._refuse_to_wait(latest)

    def _refuse_to_wait(self, slot: SlotProcess[Work]) -> None:
        item = None if slot.work is None else slot.work.running_item(slot.cell)
        if item is not None and not slot.cell.may_not_wait(item):
            slot.cell.refuse_to_wait(item)
            slot.signal(signal.SIGINT)

    def _take_back(self) -> None:
        """A task ends: a slot that was lent ends with it, before the broker can give it to somebody else."""
        if self._lender.take_back(self._clock()):
            self.resize(-1)

    # -- stopping ------------------------------------------------------------------------------------------------------

    def _stop_items(self, holder: StopHolder) -> None:
        for work in list(self._waiting):
            if work.delivery.token == holder.token:
                work.stop(holder)
                if holder.start <= work.delivery.start and work.delivery.stop <= holder.stop:
                    self._waiting.remove(work)
                    self._hand_back(work)
        for slot in self._slots:
            if slot.work is not None and slot.work.delivery.token == holder.token:
                slot.work.stop(holder)
                slot.work.show_stops(slot.cell)
                self._press_on(slot, slot.work, self._clock())

    def _press_on(self, slot: SlotProcess[Work], work: Work, now: float) -> None:
        """Send the signal that is due, if the item that is to be stopped is the one that runs at this moment."""
        item = slot.cell.current(work.delivery.token)
        if item is None or not work.is_stopped(item):
            return
        due = work.ladder_for(item).climb(now)
        if due is not None:
            slot.strike(work.delivery.token, item, due)

    def _hand_back(self, work: Work) -> None:
        """Return a delivery that has not begun."""
        delivery = work.delivery
        outcomes = work.leftovers(blamed=None, reason="")
        self._port.commit(delivery.token, delivery.run_id, outcomes, final=True)

    def close(self) -> None:
        """End all slots; what they ran goes back to the broker unblamed."""
        for work in self._all_work():
            try:
                self._hand_back(work)
            except BrokerUnavailable:
                break
        self._zygote.close()
        for slot in self._slots:
            slot.close()
        self._selector.close()
        os.close(self._stop_reader)
        os.close(self._stop_writer)
        self._port.close()
