"""The hub: a process that routes bytes between clients and supervisors, and keeps the state of every run.

It never unpickles anything. One thread, one selector, one `Dispatcher` that makes all decisions; this module
authenticates peers, carries out effects and looks after the local workers.
"""

from __future__ import annotations

import logging
import math
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from nbqueue.brokers.base import client_message, worker_message
from nbqueue.brokers.workers import LocalWorkers, WorkerExit
from nbqueue.brokers.zmq.doors import Host, LocalDoor, Peer
from nbqueue.core.compatibility import why_unreadable
from nbqueue.core.dispatcher import Dispatcher
from nbqueue.core.exchange import Discard, ToClient, ToWorker, Versions
from nbqueue.core.orders import EndWork, Order
from nbqueue.core.routing import DEFAULT_OFFER
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.messages import (
    PROTOCOL_VERSION,
    Ack,
    Attach,
    Command,
    Commit,
    Feed,
    Forget,
    FromPeer,
    Goodbye,
    Heartbeat,
    Held,
    Hello,
    Inspect,
    Inspected,
    Invite,
    Invited,
    Leave,
    Output,
    Ping,
    Pong,
    Purge,
    Purged,
    ReceiptMessage,
    Refused,
    Register,
    Remark,
    Report,
    Resized,
    Revoke,
    Shutdown,
    Started,
    StartWorkers,
    StopWorkers,
    Submit,
    Welcome,
    WereAsked,
    WorkersStarted,
)

if TYPE_CHECKING:
    from nbqueue.brokers.zmq.remote_door import RemoteDoor

logger = logging.getLogger(__name__)

#: How often the dispatcher sees the clock.
TICK_S = 0.5
#: How often dead worker processes are looked for: a dead one is noticed within this time.
REAP_S = 0.1
#: A receipt waits this long for other news to travel with: nobody needs it sooner.
RECEIPT_DELAY_S = 0.002
#: A peer that sent more bad packets than this is hung up on.
MAX_BAD_PACKETS = 100
IDENTITY_BYTES = 16
#: A large function's file stays so long after its last run: a client that finds it writes none for the next one.
FUNCTION_KEPT_S = 60.0
#: Workers that keep dying are started again after 1 s, 2 s, … up to this.
MAX_RESTART_DELAY_S = 30.0
#: A worker that lived so long was no crash at the start.
STABLE_S = 30.0


class HubOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a hub behaves."""

    socket: Path  #: where peers of this machine connect
    token: bytes
    epoch: bytes
    versions: Versions
    idle_timeout_s: float = 1800.0  #: end when there was no client and no open run for so long


class _Start(msgspec.Struct, frozen=True):
    """A client's wish for workers, until it is answered."""

    client_id: bytes
    request: int

    @property
    def key(self) -> str:
        """Names the processes that were started for it; requests are numbered by each client alone."""
        return f"{self.client_id.hex()}/{self.request}"


class _Restart(msgspec.Struct, frozen=True):
    """A worker to be started again."""

    at: float
    key: str
    exit: WorkerExit


class Hub:
    """Serves its peers until it is told to stop, or has been idle for too long."""

    def __init__(
        self,
        options: HubOptions,
        *,
        dispatcher: Dispatcher,
        clock: Callable[[], float] = time.monotonic,
        blobs: BlobStore | None = None,
        hire: Callable[[Host, selectors.BaseSelector], LocalWorkers] | None = None,
        pid: int = 0,
        open_remote_door: Callable[[Host, selectors.BaseSelector], RemoteDoor] | None = None,
    ) -> None:
        """Serve peers of this machine, have *hire* find local workers, and open a door to other machines, if any."""
        self._options = options
        self._dispatcher = dispatcher
        self._clock = clock
        self._blobs = blobs
        self._pid = pid
        self._selector = selectors.DefaultSelector()
        self._workers = None if hire is None else hire(self, self._selector)
        self._door = LocalDoor(options.socket, self, self._selector)
        self._remote_door: RemoteDoor | None = None
        if open_remote_door is not None:
            try:
                self._remote_door = open_remote_door(self, self._selector)
            except BaseException:
                self._door.close()
                self._selector.close()
                raise
        self._peers: dict[bytes, Peer] = {}  # those that were welcomed
        self._waiting_peers: dict[Peer, None] = {}  # those whose outbox is not empty
        self._discarded: dict[str, tuple[float, bytes | None]] = {}  # folders of large payloads: when, whose
        self._pids: dict[int, bytes] = {}  # of registered supervisors
        self._dismissed: set[bytes] = set()  # supervisors that were told to end
        self._starts: list[_Start] = []
        self._restarts: list[_Restart] = []
        self._crashes = 0
        self._crashed_at = -math.inf
        self._started_at = self._busy_at = clock()
        self._ticked_at = self._reaped_at = -1e9
        self._is_stopping = False
        self._has_heard = False  #: since effects were carried out the last time
        self.bad_packets = 0

    @property
    def remote_endpoint(self) -> str:
        """Where peers of other machines connect; empty: nowhere."""
        return self._remote_door.endpoint if self._remote_door is not None else ""

    # -- loop ----------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until `stop`, a `Shutdown` message, or the idle time."""
        while not self._is_stopping:
            self.run_once(timeout_s=self._next_look_s())
        self._send_pending()

    def run_once(self, *, timeout_s: float) -> None:
        """Wait for messages for up to *timeout_s* seconds and handle them, and whatever time has brought."""
        for key, events in self._selector.select(timeout_s):
            key.data(events)
        self._look_at_the_clock()
        self._has_heard = True
        while self._has_heard:  # a worker in this process answers at once
            self._has_heard = False
            self._carry_out_effects()
            self._send_pending()

    def start_workers(self, slots: int) -> None:
        """Start so many local slots, before anybody asks for them."""
        if self._workers is not None:
            self._workers.start("hub", slots, None, DEFAULT_OFFER)

    def stop(self) -> None:
        """Let `serve` return."""
        self._is_stopping = True

    def close(self) -> None:
        """Hang up on everybody and end the local workers."""
        if self._workers is not None:
            self._workers.stop()
        self._door.close()
        if self._remote_door is not None:
            self._remote_door.close()
        self._selector.close()

    def _next_look_s(self) -> float:
        if self._waiting_peers:
            return RECEIPT_DELAY_S
        wake = self._dispatcher.next_wake()
        until_due = TICK_S if wake is None else max(0.001, wake - self._clock())
        if self._workers is None or not self._workers.slots:
            return min(TICK_S, until_due)
        return min(REAP_S, until_due, max(0.0, self._workers.look_at - self._clock()))

    def _look_at_the_clock(self) -> None:
        now = self._clock()
        if self._workers is not None and self._workers.look_at <= now:
            self._workers.look()
        wake = self._dispatcher.next_wake()
        if now - self._ticked_at >= TICK_S or (wake is not None and wake <= now):
            self._ticked_at = now
            self._dispatcher.tick(now)
            self._discard_payloads(now)
            self._end_when_idle(now)
        if now - self._reaped_at >= REAP_S:
            self._reaped_at = now
            self._reap_local_workers(now)

    def _discard_payloads(self, now: float) -> None:
        due = [folder for folder, (at, _) in self._discarded.items() if at <= now]
        functions = {folder: self._discarded.pop(folder)[1] for folder in due}
        unused = {folder for folder, digest in functions.items() if not self._is_in_use(digest)}
        if unused and self._blobs is not None:
            self._blobs.discard(unused)

    def _is_in_use(self, function: bytes | None) -> bool:
        return function is not None and self._dispatcher.knows_function(function)

    def _end_when_idle(self, now: float) -> None:
        if self._dispatcher.hears_clients(now) or self._dispatcher.has_open_runs:
            self._busy_at = now
        elif now - self._busy_at > self._options.idle_timeout_s:
            logger.info("hub idle, stopping", extra={"idle_s": now - self._busy_at})
            self.stop()

    # -- input ---------------------------------------------------------------------------------------------------------

    def take(self, peer: Peer, messages: list[FromPeer]) -> None:
        """See `Host.take`."""
        now = self._clock()
        self._has_heard = True
        for message in messages:
            if isinstance(message, Hello):
                self._welcome(peer, message, now)
            elif peer.role == "client":
                self._take_from_client(peer, message, now)
            elif peer.role == "worker":
                self._take_from_worker(peer, message, now)
            else:
                self.take_rubbish(peer, "say hello first")

    def take_rubbish(self, peer: Peer, reason: str) -> None:
        """See `Host.take_rubbish`: counted; a stranger is told why, and whoever goes on with it is hung up on."""
        self.bad_packets += 1
        peer.bad_packets += 1
        logger.warning("bad packet dropped", extra={"peer": repr(peer), "reason": reason})
        if not peer.role:
            peer.line.send([Refused(reason, "environment")])
        if peer.bad_packets > MAX_BAD_PACKETS:
            peer.line.close()
            self.take_loss(peer)

    def take_loss(self, peer: Peer) -> None:
        """See `Host.take_loss`."""
        self._waiting_peers.pop(peer, None)
        if self._peers.get(peer.identity) is not peer:
            return  # it had taken leave, or has come back through another line
        del self._peers[peer.identity]
        if peer.role == "client":
            self._dispatcher.goodbye(peer.identity)
        elif not self._is_ours(peer):  # of those we started we learn how they ended, see `_reap_local_workers`
            self._dispatcher.lose(peer.identity, "its connection ended", self._clock())

    def _welcome(self, peer: Peer, hello: Hello, now: float) -> None:
        refusal = self._why_refused(peer, hello)
        if refusal is not None:
            peer.line.send([refusal])
            return
        known = self._peers.get(hello.identity)
        if known is not None and known is not peer:
            known.line.close()
        peer.identity, peer.role = hello.identity, hello.role
        self._peers[peer.identity] = peer
        if hello.role == "client":
            self._dispatcher.hello(peer.identity, now)
        self._answer(peer, Welcome(self._options.epoch))

    def _why_refused(self, peer: Peer, hello: Hello) -> Refused | None:
        if hello.protocol != PROTOCOL_VERSION:
            return Refused(f"the hub speaks protocol {PROTOCOL_VERSION}, this side {hello.protocol}", "environment")
        if peer.granted and hello.role != peer.granted:
            return Refused(f"this key is that of a {peer.granted}, not of a {hello.role}")
        if not peer.granted and hello.token != self._options.token:
            return Refused("the token is not this hub's: the connection file is of another hub", "token")
        if len(hello.identity) != IDENTITY_BYTES:
            return Refused(f"a peer is named by {IDENTITY_BYTES} bytes, not {len(hello.identity)}")
        if hello.role not in ("client", "worker"):
            return Refused(f"there is no role {hello.role!r}")
        here = Versions(python=hello.python, cloudpickle=hello.cloudpickle)
        difference = why_unreadable(self._options.versions, here, there="there", here="here")
        if difference:
            return Refused(
                f"functions pickled here cannot be read by the hub's workers, nor theirs here ({difference}); give "
                "this hub another name, connect(name=…), or use the same versions",
                "environment",
            )
        return None

    def _take_from_client(self, peer: Peer, message: FromPeer, now: float) -> None:
        dispatcher, identity = self._dispatcher, peer.identity
        match message:
            case Submit(spec, function, blocks, closed):
                receipt = dispatcher.submit(identity, spec, function=function, blocks=blocks, closed=closed, now=now)
                self._answer(peer, ReceiptMessage(receipt), delay_s=RECEIPT_DELAY_S)
            case Feed(run_id, blocks, closed):
                receipt = dispatcher.feed(identity, run_id, blocks=blocks, closed=closed, now=now)
                self._answer(peer, ReceiptMessage(receipt), delay_s=RECEIPT_DELAY_S)
            case Attach(run_id, cursor, output_cursor):
                dispatcher.attach(identity, run_id, cursor=cursor, output_cursor=output_cursor, now=now)
            case Ack(entries, size_bytes, output_bytes):
                dispatcher.ack(identity, entries=entries, size_bytes=size_bytes, output_bytes=output_bytes, now=now)
            case Revoke(run_id, start, stop, manner):
                dispatcher.revoke(run_id, start=start, stop=stop, now=now, manner=manner)
            case Forget(run_ids):
                for run_id in run_ids:
                    dispatcher.forget(run_id)
            case Ping():
                self._answer(peer, Pong(self._options.epoch, dispatcher.ping(identity, now)))
            case Inspect():
                uptime_s = now - self._started_at
                self._answer(peer, Inspected(dispatcher.inspect(now), self._pid, uptime_s))
            case StartWorkers():
                self._start_workers(peer, message)
            case StopWorkers(request):
                if self._workers is not None:
                    self._workers.stop(_Start(identity, request).key)
            case Purge(request, queue):
                self._answer(peer, Purged(request, dispatcher.purge(queue, now)))
            case Command(request, order, worker_ids):
                self._command(identity, request, order, worker_ids)
            case Invite():
                self._answer(peer, self._invite(message))
            case Shutdown():
                self.stop()
            case Goodbye():
                dispatcher.goodbye(identity)
                self._peers.pop(identity, None)
            case _:
                self.take_rubbish(peer, f"a client sent {type(message).__name__}")

    def _invite(self, wish: Invite) -> Invited:
        door = self._remote_door
        if door is None:
            error = "this hub serves its own machine only: `nbqueue stop`, then `nbqueue hub --bind tcp://0.0.0.0:PORT`"
            return Invited(wish.request, error=error)
        try:
            door.invite(wish.public_key, role="worker", ttl_s=wish.ttl_s)
        except ValueError as refusal:
            return Invited(wish.request, error=str(refusal))
        return Invited(wish.request, door.endpoint, door.server_key)

    def _take_from_worker(self, peer: Peer, message: FromPeer, now: float) -> None:
        dispatcher, identity = self._dispatcher, peer.identity
        match message:
            case Register(info) if info.worker_id == identity:
                self._pids[info.pid] = identity
                dispatcher.register(info, now)
                logger.info("worker joined", extra={"worker": info.name, "slots": info.slots})
                self._answer_starts()
            case Heartbeat(running):
                held = dispatcher.heartbeat(identity, running, now)
                self._carry_out_effects()  # what it holds it must have been sent before it is told that it holds it
                self._answer(peer, Held(held))
            case Started(token, item):
                dispatcher.started(identity, token, item, now)
            case Commit(token, run_id, outcomes, final):
                dispatcher.commit(identity, token, run_id, outcomes, final=final, now=now)
            case Resized(slots, prefetch):
                dispatcher.resize(identity, slots=slots, prefetch=prefetch, now=now)
                self._note_size(identity, slots)
            case Report(client_id, answer):
                dispatcher.answer(client_id, answer)
            case Remark(run_id, text):
                dispatcher.remark(run_id, text)
            case Output(token, events):
                dispatcher.output(identity, token, events, now)
            case Leave():
                dispatcher.leave(identity, now)
                self._peers.pop(identity, None)
            case _:
                self.take_rubbish(peer, f"a worker sent {type(message).__name__}")

    def _command(self, client_id: bytes, request: int, order: Order, worker_ids: list[bytes] | None) -> None:
        asked = self._dispatcher.order(client_id, request, order, worker_ids)
        if isinstance(order, EndWork):  # local ones among them are not to be started again
            self._dismissed.update(worker_id for worker_id, _ in asked.workers)
        self._tell(client_id, WereAsked(asked))

    # -- local workers -------------------------------------------------------------------------------------------------

    def _start_workers(self, client: Peer, wish: StartWorkers) -> None:
        if self._workers is None:
            self._answer(client, WorkersStarted(wish.request, 0, "this hub starts no local workers"))
            return
        start = _Start(client.identity, wish.request)
        self._starts.append(start)
        missing = wish.slots if wish.in_addition else wish.slots - self._workers.slots_offering(wish.offer)
        if missing > 0:
            self._workers.start(start.key, missing, wish.python, wish.offer)
            self._reap_local_workers(self._clock())  # an interpreter that does not exist fails at once
        self._answer_starts()

    def _is_ours(self, worker: Peer) -> bool:
        pids = [pid for pid, identity in self._pids.items() if identity == worker.identity]
        return self._workers is not None and any(map(self._workers.owns, pids))

    def _answer_starts(self, error: str = "", *, key: str | None = None) -> None:
        """Tell the clients that wait for workers: all is well once all are connected, or what is wrong."""
        connected = self._dispatcher.slots
        if self._workers is None or (not error and connected < self._workers.slots):
            return
        answered = [start for start in self._starts if key is None or start.key == key]
        for start in answered:
            self._tell(start.client_id, WorkersStarted(start.request, max(connected, self._workers.slots), error))
        self._starts = [start for start in self._starts if start not in answered]

    def _reap_local_workers(self, now: float) -> None:
        if self._workers is None:
            return
        for exit_ in self._workers.exits():
            logger.warning("worker ended", extra={"worker_pid": exit_.pid, "reason": exit_.reason})
            worker_id = self._pids.pop(exit_.pid, None)
            if worker_id is None:
                self._take_failed_start(exit_, now)
            else:
                self._dispatcher.lose(worker_id, exit_.reason, now)
                if worker_id not in self._dismissed:
                    self._plan_restart(exit_, now)
        for restart in [restart for restart in self._restarts if restart.at <= now]:
            self._restarts.remove(restart)
            self._workers.start(restart.key, restart.exit.slots, restart.exit.python, restart.exit.offer)

    def _note_size(self, worker_id: bytes, slots: int) -> None:
        """A worker has grown or shrunk: if it is a local one, it counts for so many slots, now and after a restart."""
        pid = next((pid for pid, known in self._pids.items() if known == worker_id), None)
        if pid is not None and self._workers is not None:
            self._workers.resized(pid, slots)
        self._answer_starts()

    def _take_failed_start(self, exit_: WorkerExit, now: float) -> None:
        """A worker could not even join: whoever asked for it is told; if nobody did, it is tried again later."""
        assert self._workers is not None
        if not self._starts:
            self._plan_restart(exit_, now)
        elif self._workers.slots:
            self._answer_starts(exit_.reason, key=exit_.key)
        else:
            self._answer_starts(exit_.reason)

    def _plan_restart(self, exit_: WorkerExit, now: float) -> None:
        """At once, unless workers have been dying one after the other."""
        self._crashes = self._crashes + 1 if now - self._crashed_at < STABLE_S else 0
        self._crashed_at = now
        delay_s = min(2.0 ** (self._crashes - 3), MAX_RESTART_DELAY_S) if self._crashes >= 3 else 0.0
        self._restarts.append(_Restart(now + delay_s, exit_.key, exit_))

    # -- output --------------------------------------------------------------------------------------------------------

    def _carry_out_effects(self) -> None:
        for effect in self._dispatcher.take_effects():
            match effect:
                case ToClient(client_id, message):
                    self._tell(client_id, client_message(message))
                case ToWorker(worker_id, order_or_work):
                    self._tell(worker_id, worker_message(order_or_work))
                case Discard(folder, function):
                    keep_s = 0.0 if function is None else FUNCTION_KEPT_S
                    self._discarded[folder] = self._clock() + keep_s, function
                case _:
                    assert_never(effect)

    def _tell(self, identity: bytes, message: msgspec.Struct) -> None:
        peer = self._peers.get(identity)
        if peer is not None:  # else it has gone: it will attach, or be missed at its lease's end
            self._answer(peer, message)

    def _answer(self, peer: Peer, message: msgspec.Struct, *, delay_s: float = 0.0) -> None:
        peer.outbox.append(message)
        peer.send_at = min(peer.send_at, self._clock() + delay_s) if delay_s else -math.inf
        self._waiting_peers[peer] = None

    def _send_pending(self) -> None:
        """Send what waits, to workers first: a client can wait, a slot that idles should not."""
        if not self._waiting_peers:
            return
        now = self._clock()
        due = [peer for peer in self._waiting_peers if peer.send_at <= now]
        if len(due) > 1:
            due.sort(key=_clients_last)
        for peer in due:
            self._waiting_peers.pop(peer, None)  # it may be gone, because of what another one has heard
            outbox, peer.outbox, peer.send_at = peer.outbox, [], math.inf
            peer.line.send(outbox)


def _clients_last(peer: Peer) -> bool:
    return peer.role != "worker"
