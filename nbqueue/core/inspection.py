"""What a broker tells about itself when asked."""

from __future__ import annotations

import msgspec

from nbqueue.core.progress import Counts


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


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    run_id: bytes
    label: str
    counts: Counts
    age_s: float
    finished: bool


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A broker at one moment."""

    workers: list[WorkerView]
    runs: list[RunView]
    clients: int
    refused_events: int  #: late or repeated reports that were ignored
    payload_bytes: int
