"""The interface of every broker, and what each promises.

A broker is used through *ports*. A port belongs to one thread, never blocks, and is waited for with a selector: say
what you have, `flush`, sleep until `fileno` is readable, `receive`. The contract suite in tests/contract holds all
brokers to the same behaviour.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from nbqueue.core.exchange import Delivery, ForgetFunctions, Note, OutputNote, WorkerInfo
from nbqueue.core.orders import Answer, Order, OrderFor
from nbqueue.core.output import OutputEvent
from nbqueue.core.routing import DEFAULT_OFFER, Offer
from nbqueue.core.run import StopHolder
from nbqueue.core.task import GENTLY, Block, Manner, Outcome, RunSpec
from nbqueue.errors import BrokerUnavailable
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.messages import (
    Answered,
    Carry,
    Deliver,
    Forgotten,
    NoteMessage,
    OutputMessage,
    Stop,
    ToClientPeer,
    ToWorkerPeer,
)


class BrokerEnded(BrokerUnavailable):
    """It ended while one connected to it, so whoever looks once more finds its successor, or starts it."""


class Port(ABC):
    """One end of a connection to a broker."""

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable as long as `receive` or `flush` has something to do."""

    @abstractmethod
    def flush(self) -> None:
        """Send what was said since the last time; what is said in one breath may travel in one piece."""

    @abstractmethod
    def close(self) -> None:
        """Take leave and free the connection; may be called twice."""


class ClientPort(Port):
    """What a client may ask of a broker. Answers come through `receive`."""

    @abstractmethod
    def receive(self) -> list[ToClientPeer]:
        """What has arrived; empty when nothing has.

        Raises:
            BrokerUnavailable: The broker died or forgot everything; this port is of no more use.
        """

    @abstractmethod
    def submit(self, spec: RunSpec, *, function: bytes | None, blocks: Sequence[Block], closed: bool) -> None:
        """Hand over a run with its first items; the answer is a `Receipt`.

        Args:
            spec: The run; its id decides whether the broker knows it already.
            function: The packed function; None when a run that lives has brought it.
            blocks: Payloads of the items 0 to n, without gaps; may be empty.
            closed: No more items will come.

        Guarantees:
            Safe to repeat: items that the broker has are passed over. What a receipt counts is the broker's, and is
            not lost by the end of this process. This client follows the run from its first log entry on.
        """

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or still to be sent, so that `submit_now` is worth a try; for any thread."""
        return False

    def submit_now(self, spec: RunSpec, *, function: bytes, blocks: Sequence[Block], closed: bool) -> bool:
        """`submit` from any thread, without waiting for the port's own: a wake-up less for a single task.

        Returns:
            False when that is not possible at this moment; nothing has happened then.
        """
        return False

    @abstractmethod
    def feed(self, run_id: bytes, *, blocks: Sequence[Block], closed: bool) -> None:
        """Append items to a run; the answer is a `Receipt`. Safe to repeat."""

    @abstractmethod
    def attach(self, run_id: bytes, *, cursor: int, output_cursor: int = 0) -> None:
        """Follow a run from an entry of its log and an event of its output on, or from the end if that comes first.

        Answered by a `Note`, which says where it begins (``known=False``: there is no such run), and by what is kept of
        the output.
        """

    @abstractmethod
    def ack(self, *, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        """All entries, payload bytes and output received through this port so far, so that more may be sent."""

    @abstractmethod
    def revoke(self, run_id: bytes, *, start: int, stop: int, manner: Manner = GENTLY) -> None:
        """Stop items: those that wait never start, those that run are stopped. Safe to repeat.

        Args:
            run_id: Of the run; one that the broker does not know is passed over.
            start: The first item.
            stop: The item after the last one; `ALL_ITEMS` also revokes what is still fed to the run.
            manner: How those that run are stopped; a harder one may follow a gentler one.
        """

    @abstractmethod
    def forget(self, run_ids: Sequence[bytes]) -> None:
        """The results are not wanted any more; a run that still goes on goes on."""

    @abstractmethod
    def ping(self) -> None:
        """Say that this client lives; answered by a `Pong`."""

    @abstractmethod
    def inspect(self) -> None:
        """Ask for an `Inspected`."""

    @abstractmethod
    def purge(self, request: int, queue: str) -> None:
        """Revoke whatever waits in a queue, of all clients; answered by `Purged` with the same *request*."""

    @abstractmethod
    def command(self, request: int, order: Order, *, worker_ids: Sequence[bytes] | None = None) -> None:
        """Give an order to supervisors, or to all.

        Answered by `WereAsked` with the same *request*, then by an `Answered` of each of these that lives.
        """

    @abstractmethod
    def start_workers(
        self,
        request: int,
        slots: int,
        *,
        python: str | None = None,
        in_addition: bool = False,
        offer: Offer = DEFAULT_OFFER,
    ) -> None:
        """Ask for local slots that take *offer* on; answered by `WorkersStarted` with the same *request*."""

    @abstractmethod
    def stop_workers(self, request: int) -> None:
        """Stop the workers that *request* started."""


class WorkerPort(Port):
    """What a supervisor tells a broker. Its work comes through `receive`."""

    @abstractmethod
    def receive(self) -> list[ToWorkerPeer]:
        """Deliveries, stops and answers to heartbeats; empty when nothing has arrived.

        Raises:
            BrokerUnavailable: The broker died; this port is of no more use.

        Guarantees:
            Never more undone deliveries than the slots and prefetch that were registered. At-least-once.
        """

    @abstractmethod
    def heartbeat(self, running: Sequence[tuple[int, int]]) -> None:
        """Say that this supervisor lives and runs these (token, item); answered by `Held`."""

    @abstractmethod
    def started(self, token: int, item: int) -> None:
        """A slot has begun to run the item."""

    @abstractmethod
    def commit(self, token: int, run_id: bytes, outcomes: Sequence[Outcome], *, final: bool) -> None:
        """Report outcomes of items of a claim; *final* ends the claim and makes room for the next.

        Guarantees:
            Safe to repeat: the first success of an item wins, a failure counts only from the claim that holds it.
        """

    @abstractmethod
    def resize(self, *, slots: int, prefetch: int) -> None:
        """Have another number of slots from now on; deliveries beyond them may be on their way."""

    @abstractmethod
    def answer(self, client_id: bytes, answer: Answer) -> None:
        """Answer an order, which came as `Carry`; if the client is gone, nobody hears it."""

    @abstractmethod
    def remark(self, run_id: bytes, text: str) -> None:
        """Say a sentence to whoever follows the run; it comes with the notes. Said again, it is not told again."""

    @abstractmethod
    def output(self, token: int, events: Sequence[OutputEvent]) -> None:
        """Report what items of a claim have printed; before the outcomes that end them.

        Guarantees:
            Clients that follow the run hear it in this order, before they hear the outcomes committed after it, unless
            they are too slow for it. Output of a claim that is not held is dropped. It is kept bounded with the run,
            and never holds up outcomes.
        """


class Broker(ABC):
    """Where runs wait for workers."""

    @property
    @abstractmethod
    def blobs(self) -> BlobStore | None:
        """Where large payloads go on this host; None: they travel inside messages."""

    @abstractmethod
    def open_client(self, client_id: bytes) -> ClientPort:
        """Connect a client; *client_id* is 16 random bytes.

        Raises:
            BrokerEnded: It was there a moment ago.
            BrokerUnavailable: It cannot be reached.
            EnvironmentMismatch: It runs versions that do not fit.
        """

    @abstractmethod
    def open_worker(self, info: WorkerInfo) -> WorkerPort:
        """Connect and register a supervisor. Raises as `open_client` does."""


def client_message(message: Note | OutputNote | Answer) -> ToClientPeer:
    """The wire message of an effect for a client."""
    match message:
        case Note():
            return NoteMessage(message)
        case OutputNote():
            return OutputMessage(message)
        case Answer():
            return Answered(message)


def worker_message(message: Delivery | StopHolder | ForgetFunctions | OrderFor) -> ToWorkerPeer:
    """The wire message of an effect for a supervisor."""
    match message:
        case Delivery():
            return Deliver(message)
        case StopHolder():
            return Stop(message)
        case ForgetFunctions():
            return Forgotten(message)
        case OrderFor():
            return Carry(message)
