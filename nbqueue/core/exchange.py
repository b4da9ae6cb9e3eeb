"""What a broker and its peers tell each other, as values: deliveries, notes, receipts, and effects that carry them."""

from __future__ import annotations

import msgspec

from nbqueue.core.orders import Answer, OrderFor
from nbqueue.core.output import OutputEvent
from nbqueue.core.progress import Counts
from nbqueue.core.routing import Offer
from nbqueue.core.run import StopHolder
from nbqueue.core.task import NO_LIMITS, Block, Entry, TaskLimits

#: A revoke up to this item means the whole run, and whatever is still fed to it.
ALL_ITEMS = 2**62


class Versions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What decides whether two processes can work together."""

    python: str = ""  #: "3.11"
    nbqueue: str = ""
    cloudpickle: str = ""  #: "3.1.1"


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor says of itself."""

    worker_id: bytes  #: 16 random bytes, new with every start
    name: str
    host: str
    pid: int
    slots: int
    prefetch: int  #: short chunks it may hold beyond its slots
    offer: Offer = Offer()
    versions: Versions = Versions()


class Delivery(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A claim, and what is needed to run it."""

    token: int
    run_id: bytes
    label: str
    start: int
    stop: int
    attempt: int
    digest: bytes
    function: bytes | None  #: None: this supervisor has it
    blocks: list[Block]
    environment: bytes
    limits: TaskLimits = NO_LIMITS
    depth: int = 0  #: of tasks inside tasks
    priority: int = 0


class Note(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The next entries of a run's log, for a client that follows it."""

    run_id: bytes
    cursor: int  #: index of the first entry in the log
    entries: list[Entry]
    counts: Counts
    finished: bool = False
    slots: int = 0  #: connected to the broker, of those who may run it
    known: bool = True  #: False: the broker has no such run
    work_s: float = 0.0
    unserved: str = ""  #: why nobody who is connected could ever run what waits
    remarks: list[str] = []
    output_end: int = 0  #: events of output that the run has had; those missing here are on their way


class OutputNote(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The next events of a run's output, for a client that follows it; those that were dropped are passed over."""

    run_id: bytes
    cursor: int  #: it continues here
    until: int  #: and ends before this number
    events: list[OutputEvent]
    size_bytes: int  #: to be acknowledged


class Receipt(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The broker's answer to items: how many of the run it has now."""

    run_id: bytes
    total: int
    is_full: bool = False  #: these were not taken; offer them again later
    known: bool = True  #: False: there is no such run to feed
    slots: int = 0  #: connected to the broker, of those who may run it


class HeldClaims(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a heartbeat: what this supervisor holds as far as the broker knows."""

    tokens: list[int]
    known: bool = True  #: False: it was taken for dead; it must stop everything and register anew


class ForgetFunctions(msgspec.Struct, frozen=True):
    """Functions that no run needs any more."""

    digests: list[bytes]


class ToWorker(msgspec.Struct, frozen=True):
    """An effect: tell a supervisor."""

    worker_id: bytes
    message: Delivery | StopHolder | ForgetFunctions | OrderFor


class ToClient(msgspec.Struct, frozen=True):
    """An effect: tell a client."""

    client_id: bytes
    message: Note | OutputNote | Answer


class Discard(msgspec.Struct, frozen=True):
    """An effect: large payloads kept outside the broker under this name are needed no more."""

    folder: str
    function: bytes | None = None  #: digest, if they are a function's, which might be submitted again any moment


Effect = ToWorker | ToClient | Discard
