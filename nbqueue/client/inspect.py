"""What a broker had at one moment, in tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nbqueue.client.tables import Fact, Table
from nbqueue.core.inspection import ChunkView, Inspection, RunView, WorkerView
from nbqueue.wire.messages import Inspected


class Active(NamedTuple):
    """Items that a worker holds."""

    worker: str
    run: str  #: the beginning of its id
    label: str
    items: str  #: "3", or "0-9" when they were taken together
    running: int | None  #: the item that is known to run
    attempt: int
    held_s: float


class Waiting(NamedTuple):
    """A run of which items wait."""

    run: str
    label: str
    queue: str
    tags: tuple[str, ...]
    priority: int
    waiting: int
    of: int
    why: str  #: if nobody could run it


class Scheduled(NamedTuple):
    """A run of which items wait for their time."""

    run: str
    label: str
    queue: str
    scheduled: int
    of: int


class Revoked(NamedTuple):
    """A run of which items were revoked."""

    run: str
    label: str
    revoked: int
    of: int


class Run(NamedTuple):
    """A run, and how far it is."""

    run: str
    label: str
    queue: str
    done: int
    failed: int
    revoked: int
    running: int
    waiting: int
    of: int
    age_s: float


class Queue(NamedTuple):
    """A queue, and who serves it."""

    queue: str
    waiting: int
    scheduled: int
    running: int
    workers: int
    slots: int


class Worker(NamedTuple):
    """A connected worker."""

    worker: str
    host: str
    pid: int
    slots: int
    queues: tuple[str, ...]
    tags: tuple[str, ...]
    running: tuple[str, ...]
    items_done: int
    python: str
    heard_s: float


class Inspect:
    """What a broker had at the moment of the call, in tables.

    Its methods read that one answer, so they agree with each other; `ping` alone asks the workers again.
    """

    def __init__(self, inspected: Inspected, *, ping: Callable[[float], Table[Any]]) -> None:
        self.inspection: Inspection = inspected.inspection  #: the same as plain values
        self._inspected = inspected
        self._ping = ping

    def active(self) -> Table[Active]:
        """What runs: chunks of which an item is known to run, by worker."""
        return Table((_active(chunk) for chunk in self._chunks() if chunk.item is not None), empty="nothing runs")

    def reserved(self) -> Table[Active]:
        """What workers hold and no item is known to run of: it has just begun, or waits for a slot."""
        return Table((_active(chunk) for chunk in self._chunks() if chunk.item is None), empty="nothing is reserved")

    def queued(self) -> Table[Waiting]:
        """Runs of which items could run now, by priority."""
        runs = sorted(self.inspection.runs, key=lambda run: -run.priority)
        return Table((_waiting(run) for run in runs if _ready(run)), empty="nothing waits")

    def scheduled(self) -> Table[Scheduled]:
        """Runs of which items wait for their countdown, or for the next attempt."""
        runs = [run for run in self.inspection.runs if run.scheduled]
        rows = (Scheduled(_short(run), run.label, run.queue, run.scheduled, run.counts.total) for run in runs)
        return Table(rows, empty="nothing is scheduled")

    def revoked(self) -> Table[Revoked]:
        """Runs of which items were revoked."""
        runs = [run for run in self.inspection.runs if run.counts.revoked]
        rows = (Revoked(_short(run), run.label, run.counts.revoked, run.counts.total) for run in runs)
        return Table(rows, empty="nothing was revoked")

    def runs(self) -> Table[Run]:
        """All runs that the broker remembers; of more than 10,000 the newest."""
        return Table(map(_run, self.inspection.runs), empty="no runs")

    def queues(self) -> Table[Queue]:
        """All queues in which something waits or runs, or that somebody serves."""
        views = self.inspection.queues
        rows = (
            Queue(view.name, view.waiting, view.scheduled, view.running, view.workers, view.slots) for view in views
        )
        return Table(rows, empty="no queues")

    def workers(self) -> Table[Worker]:
        """The connected workers."""
        return Table(map(_worker, self.inspection.workers), empty="no workers")

    def stats(self) -> dict[str, Any]:
        """Figures of the broker as a whole."""
        inspection = self.inspection
        return {
            "pid": self._inspected.pid,
            "uptime_s": round(self._inspected.uptime_s, 1),
            "clients": inspection.clients,
            "workers": len(inspection.workers),
            "slots": sum(worker.slots for worker in inspection.workers),
            "runs": inspection.run_count,
            "items_waiting": sum(queue.waiting for queue in inspection.queues),
            "items_scheduled": sum(queue.scheduled for queue in inspection.queues),
            "items_running": sum(queue.running for queue in inspection.queues),
            "payload_bytes": inspection.payload_bytes,
        }

    def ping(self, timeout: float = 1.0) -> Table[Any]:
        """Ask every worker whether it lives, and wait up to *timeout* seconds for their answers."""
        return self._ping(timeout)

    def _chunks(self) -> list[ChunkView]:
        return self.inspection.chunks

    def __repr__(self) -> str:
        return "\n\n".join(repr(table) for table in self._overview())

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self._overview())

    def _overview(self) -> list[Table[Any]]:
        facts = Table(Fact(what.replace("_", " "), value) for what, value in self.stats().items())
        return [facts, self.workers(), self.queues(), self.active()]


def _short(view: RunView | ChunkView) -> str:
    return view.run_id.hex()[:8]


def _ready(run: RunView) -> int:
    return run.counts.waiting - run.scheduled


def _active(chunk: ChunkView) -> Active:
    items = str(chunk.start) if chunk.stop == chunk.start + 1 else f"{chunk.start}-{chunk.stop - 1}"
    return Active(chunk.worker, _short(chunk), chunk.label, items, chunk.item, chunk.attempt, chunk.held_s)


def _waiting(run: RunView) -> Waiting:
    return Waiting(
        _short(run), run.label, run.queue, run.tags, run.priority, _ready(run), run.counts.total, run.unserved
    )


def _run(run: RunView) -> Run:
    counts = run.counts
    return Run(
        run=_short(run),
        label=run.label,
        queue=run.queue,
        done=counts.done,
        failed=counts.failed,
        revoked=counts.revoked,
        running=counts.running,
        waiting=counts.waiting,
        of=counts.total,
        age_s=run.age_s,
    )


def _worker(worker: WorkerView) -> Worker:
    return Worker(
        worker=worker.name,
        host=worker.host,
        pid=worker.pid,
        slots=worker.slots,
        queues=worker.offer.queues,
        tags=worker.offer.abilities,
        running=tuple(worker.running),
        items_done=worker.done,
        python=worker.versions.python,
        heard_s=worker.seen_s_ago,
    )
