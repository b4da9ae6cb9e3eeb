"""A supervisor's port: deliveries come through its list, reports go out in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from nbqueue.brokers.base import WorkerPort
from nbqueue.brokers.redis import operations
from nbqueue.brokers.redis.session import Operation, Session
from nbqueue.core.audience import OUTPUT_NOTE_BYTES
from nbqueue.core.exchange import HeldClaims, WorkerInfo
from nbqueue.core.orders import Answer
from nbqueue.core.output import OutputEvent
from nbqueue.core.run import MAX_REMARK_CHARS
from nbqueue.core.task import Outcome, Succeeded
from nbqueue.wire.messages import Held, ToWorkerPeer

#: What is still to be said when a port is closed has so long.
FAREWELL_S = 5.0


class RedisWorkerPort(WorkerPort):
    """See `WorkerPort`."""

    def __init__(self, info: WorkerInfo, ahead: int, open_session: Callable[[RedisWorkerPort], Session]) -> None:
        self._ahead = ahead
        self._info = msgspec.structs.replace(info, prefetch=info.prefetch * ahead)
        self._id = info.worker_id
        self._messages: list[ToWorkerPeer] = []
        self._reports: dict[int, int] = {}  # by token: how often output of the claim was reported
        self._is_registered = False
        self._is_open = True
        self._session = open_session(self)
        self._session.greet()

    def fileno(self) -> int:
        """See `Port.fileno`."""
        return self._session.fileno()

    def receive(self) -> list[ToWorkerPeer]:
        """See `WorkerPort.receive`."""
        self._session.pump()
        messages, self._messages = self._messages, []
        return messages

    def flush(self) -> None:
        """See `Port.flush`."""
        self._session.flush()

    def heartbeat(self, running: Sequence[tuple[int, int]]) -> None:
        """See `WorkerPort.heartbeat`. The answer comes through the list, in its order among the deliveries."""
        self._tell(["h", self._id, list(running)], self._take_heartbeat)

    def started(self, token: int, item: int) -> None:
        """See `WorkerPort.started`."""
        self._tell(["s", self._id, token, item])

    def commit(self, token: int, run_id: bytes, outcomes: Sequence[Outcome], *, final: bool) -> None:
        """See `WorkerPort.commit`."""
        body = operations.commit(self._id, token, run_id, outcomes, final=final)
        # After anything but success something may be due soon, which the answer tells.
        is_awaited = not all(isinstance(outcome, Succeeded) for outcome in outcomes)
        self._session.ask(Operation("worker", body, is_awaited=is_awaited))
        if final:
            self._reports.pop(token, None)

    def output(self, token: int, events: Sequence[OutputEvent]) -> None:
        """See `WorkerPort.output`."""
        piece: list[OutputEvent] = []
        size = 0
        for event in events:
            if piece and size + event.cost_bytes > OUTPUT_NOTE_BYTES:
                self._report_output(token, piece)
                piece, size = [], 0
            piece.append(event)
            size += event.cost_bytes
        if piece:
            self._report_output(token, piece)

    def _report_output(self, token: int, events: Sequence[OutputEvent]) -> None:
        number = self._reports[token] = self._reports.get(token, 0) + 1
        self._session.ask(Operation("worker", operations.output(self._id, token, number, events)))

    def resize(self, *, slots: int, prefetch: int) -> None:
        """See `WorkerPort.resize`."""
        self._info = msgspec.structs.replace(self._info, slots=max(slots, 0), prefetch=max(prefetch, 0) * self._ahead)
        self._session.ask(Operation("worker", operations.resize(self._info)))

    def answer(self, client_id: bytes, answer: Answer) -> None:
        """See `WorkerPort.answer`."""
        self._session.ask(Operation("worker", operations.answer(client_id, answer)))

    def remark(self, run_id: bytes, text: str) -> None:
        """See `WorkerPort.remark`."""
        self._tell(["k", run_id, text[:MAX_REMARK_CHARS]])

    def close(self) -> None:
        """Take leave in good order; may be called twice."""
        if self._is_open:
            self._is_open = False
            self._tell(["l", self._id])
            self._session.part(FAREWELL_S)

    def _tell(self, body: list[object], on_reply: Callable[[bytes], None] | None = None) -> None:
        self._session.ask(Operation("worker", operations.encode(body), on_reply))

    # -- hearing (called by the session) -------------------------------------------------------------------------------

    def greetings(self) -> list[Operation]:
        """See `session.Listener`."""
        if self._is_registered:
            return [Operation("worker", operations.encode(["y", self._id]), self._take_held)]
        return [Operation("worker", operations.register(self._info), self._take_registered)]

    def on_reconnected(self, *, is_same_server: bool) -> None:
        """See `session.Listener`."""

    def on_entry(self, entry: bytes) -> None:
        """See `session.Listener`."""
        self._messages += operations.decode_worker_messages(entry)

    def _take_registered(self, reply: bytes) -> None:
        self._is_registered = True

    def _take_heartbeat(self, reply: bytes) -> None:
        if not operations.decode_flag(reply):
            self._messages.append(Held(HeldClaims(tokens=[], known=False)))

    def _take_held(self, reply: bytes) -> None:
        held = operations.decode_held(reply)
        self._messages.append(Held(HeldClaims(tokens=[], known=False) if isinstance(held, bool) else held))
