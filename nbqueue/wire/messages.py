"""Every message between client, hub, supervisor and slot, defined once.

A message is a msgspec struct; on the wire it is msgpack, an array whose first element names the type. Fields may be
added at the end with a default; anything else raises `PROTOCOL_VERSION`. Values that the core knows (outcomes,
deliveries, notes) travel as they are.
"""

from __future__ import annotations

import msgspec

from nbqueue.core.exchange import Delivery, ForgetFunctions, HeldClaims, Note, OutputNote, Receipt, WorkerInfo
from nbqueue.core.inspection import Inspection
from nbqueue.core.orders import Answer, Asked, Order, OrderFor
from nbqueue.core.output import OutputEvent
from nbqueue.core.routing import Offer
from nbqueue.core.run import StopHolder
from nbqueue.core.task import GENTLY, Block, Manner, Outcome, RunSpec

#: Raised whenever an older peer could misunderstand a message.
PROTOCOL_VERSION = 2


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


# -- client to hub -----------------------------------------------------------------------------------------------------


class Hello(_Message):
    """The first message of a session: who I am, and the proof that I may be here."""

    protocol: int
    token: bytes  #: from the connection file
    role: str  #: "client" or "worker"
    python: str  #: e.g. "3.11"
    identity: bytes = b""  #: 16 random bytes: the client's or the worker's id
    cloudpickle: str = ""  #: e.g. "3.1.1"


class Submit(_Message):
    """A run with its first items."""

    spec: RunSpec
    function: bytes | None
    blocks: list[Block]
    closed: bool


class Feed(_Message):
    """More items of a run."""

    run_id: bytes
    blocks: list[Block]
    closed: bool


class Attach(_Message):
    """Follow a run from this entry of its log on."""

    run_id: bytes
    cursor: int
    output_cursor: int = 0  #: follow its output from this event on


class Ack(_Message):
    """All that was received in this session."""

    entries: int
    size_bytes: int
    output_bytes: int = 0


class Revoke(_Message):
    """Stop these items of a run."""

    run_id: bytes
    start: int
    stop: int
    manner: Manner = GENTLY


class Forget(_Message):
    """The results of these runs are not wanted any more."""

    run_ids: list[bytes]


class Ping(_Message):
    """A client lives."""


class Inspect(_Message):
    """Tell me about yourself."""


class StartWorkers(_Message):
    """Have at least this many local slots; `exact` starts so many in addition."""

    request: int
    slots: int
    python: str | None = None  #: interpreter; None: the hub's own
    in_addition: bool = False
    offer: Offer = Offer()  #: what these take on


class StopWorkers(_Message):
    """Stop the local workers that this request started."""

    request: int


class Purge(_Message):
    """Revoke whatever waits in a queue."""

    request: int
    queue: str


class Command(_Message):
    """Ask these supervisors, or all."""

    request: int
    order: Order
    worker_ids: list[bytes] | None


class Invite(_Message):
    """Let the holder of this key join as a worker, if it comes in time."""

    request: int
    public_key: str
    ttl_s: float


class Shutdown(_Message):
    """Stop the hub and its workers."""


class Goodbye(_Message):
    """This session ends."""


# -- hub to client -----------------------------------------------------------------------------------------------------


class Welcome(_Message):
    """The answer to a good Hello."""

    epoch: bytes  #: new with every start of a hub


class Refused(_Message):
    """The answer to a bad Hello, or to a message that makes no sense."""

    reason: str
    kind: str = ""  #: "environment" when versions do not fit


class ReceiptMessage(_Message):
    """What the broker has of a run now."""

    receipt: Receipt


class NoteMessage(_Message):
    """News of a run."""

    note: Note


class OutputMessage(_Message):
    """What tasks of a run have printed."""

    note: OutputNote


class Pong(_Message):
    """The hub lives; *known* is False when it had forgotten this client."""

    epoch: bytes
    known: bool


class Inspected(_Message):
    """The hub about itself."""

    inspection: Inspection
    pid: int
    uptime_s: float


class WorkersStarted(_Message):
    """Local workers are there, or could not be started; *slots* are those that are connected or about to be."""

    request: int
    slots: int
    error: str = ""


class Purged(_Message):
    """So many items were revoked."""

    request: int
    items: int


class WereAsked(_Message):
    """Who was given an order."""

    asked: Asked


class Invited(_Message):
    """Where an invited worker finds the hub, or why nobody can be invited."""

    request: int
    endpoint: str = ""  #: as the hub listens
    server_key: str = ""
    error: str = ""


class Answered(_Message):
    """A supervisor has carried out an order."""

    answer: Answer


# -- supervisor to hub -------------------------------------------------------------------------------------------------


class Register(_Message):
    """A supervisor is ready for work."""

    info: WorkerInfo


class Heartbeat(_Message):
    """A supervisor lives, and runs these (token, item)."""

    running: list[tuple[int, int]]


class Started(_Message):
    """A slot runs this item of the claim."""

    token: int
    item: int


class Commit(_Message):
    """Outcomes of items of a claim."""

    token: int
    run_id: bytes
    outcomes: list[Outcome]
    final: bool


class Resized(_Message):
    """A supervisor has another number of slots now."""

    slots: int
    prefetch: int


class Report(_Message):
    """The answer to an order, for the client that gave it."""

    client_id: bytes
    answer: Answer


class Remark(_Message):
    """A sentence for whoever follows the run."""

    run_id: bytes
    text: str


class Output(_Message):
    """What items of the claim have printed and displayed."""

    token: int
    events: list[OutputEvent]


class Leave(_Message):
    """A supervisor stops in good order."""


# -- hub to supervisor -------------------------------------------------------------------------------------------------


class Deliver(_Message):
    """A claim for this supervisor."""

    delivery: Delivery


class Stop(_Message):
    """Stop these items of a claim."""

    holder: StopHolder


class Forgotten(_Message):
    """Functions that are needed no more."""

    functions: ForgetFunctions


class Held(_Message):
    """The answer to a heartbeat."""

    claims: HeldClaims


class Carry(_Message):
    """An order for this supervisor."""

    order: OrderFor


# -- supervisor and slot -----------------------------------------------------------------------------------------------


class RunChunk(_Message):
    """Run these items, report as they end."""

    delivery: Delivery


class ChunkReport(_Message):
    """Outcomes of items of the chunk that the slot runs; *final*: it is done and wants the next."""

    token: int
    outcomes: list[Outcome]
    final: bool
    spent: str = ""  #: why this process must serve no other chunk; empty: it may


class Waits(_Message):
    """The task that the slot runs begins, or ends, to wait for other tasks."""

    begins: bool


class SlotReady(_Message):
    """A slot has started."""

    pid: int
    mark: bytes = b""  #: announces its own words among what it and its children print


FromPeer = (
    Hello
    | Submit
    | Feed
    | Attach
    | Ack
    | Revoke
    | Forget
    | Ping
    | Inspect
    | StartWorkers
    | StopWorkers
    | Purge
    | Command
    | Invite
    | Shutdown
    | Goodbye
    | Register
    | Heartbeat
    | Started
    | Commit
    | Output
    | Resized
    | Report
    | Remark
    | Leave
)
ToClientPeer = (
    Welcome
    | Refused
    | ReceiptMessage
    | NoteMessage
    | OutputMessage
    | Pong
    | Inspected
    | WorkersStarted
    | Purged
    | WereAsked
    | Answered
    | Invited
)
ToWorkerPeer = Welcome | Refused | Deliver | Stop | Forgotten | Held | Carry
ToSlot = RunChunk | Forgotten
FromSlot = SlotReady | ChunkReport | Waits | Remark
