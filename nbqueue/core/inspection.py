"""What a broker tells about itself when asked."""

from __future__ import annotations

import msgspec

from nbqueue.core.exchange import Versions
from nbqueue.core.progress import Counts
from nbqueue.core.routing import DEFAULT_QUEUE, Offer


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One connected supervisor."""

    worker_id: bytes
    name: str
    host: str
    pid: int
    slots: int
    claims: int  #: chunks it holds
    running: list[str]  #: labels of the runs it works on
    done: int  #: items it has brought to an end
    seen_s_ago: float
    offer: Offer = Offer()
    versions: Versions = Versions()


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    run_id: bytes
    label: str
    counts: Counts
    age_s: float
    finished: bool
    queue: str = DEFAULT_QUEUE
    tags: tuple[str, ...] = ()
    priority: int = 0
    scheduled: int = 0  #: items that wait for their countdown or the next attempt
    unserved: str = ""  #: why nobody who is connected could ever run it


class ChunkView(msgspec.Struct, frozen=True, kw_only=True):
    """Items that a supervisor holds."""

    worker: str
    run_id: bytes
    label: str
    start: int
    stop: int
    attempt: int
    item: int | None  #: the one that is known to run; None: too short to tell, or it waits for a slot
    held_s: float


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """One queue."""

    name: str
    waiting: int = 0  #: items that could run now
    scheduled: int = 0  #: items that wait for their countdown or the next attempt
    running: int = 0
    workers: int = 0  #: that serve it
    slots: int = 0


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A broker at one moment."""

    workers: list[WorkerView]
    runs: list[RunView]
    clients: int
    refused_events: int  #: late or repeated reports that were ignored
    payload_bytes: int
    chunks: list[ChunkView] = []
    queues: list[QueueView] = []
    run_count: int = 0  #: of all runs; *runs* has only the newest ones
