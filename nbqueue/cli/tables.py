"""What `nbqueue status` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from nbqueue.core.inspection import RunView, WorkerView
from nbqueue.core.progress import Counts
from nbqueue.core.routing import Offer
from nbqueue.wire.messages import Inspected


def show_status(inspected: Inspected, name: str) -> None:
    """Print the broker, its workers and its runs."""
    console = Console()
    inspection = inspected.inspection
    slots = sum(worker.slots for worker in inspection.workers)
    console.print(
        f"[bold]{name}[/bold]  pid {inspected.pid}, up {_duration(inspected.uptime_s)}, "
        f"{inspection.clients} clients, {slots} slots, {inspection.payload_bytes / 2**20:.1f} MiB held"
    )
    console.print(_workers_table(inspection.workers) if inspection.workers else "No workers.")
    console.print(_runs_table(inspection.runs) if inspection.runs else "No runs.")
    for sentence in dict.fromkeys(run.unserved for run in inspection.runs if run.unserved):
        console.print(sentence, style="yellow", markup=False)


def _workers_table(workers: list[WorkerView]) -> Table:
    table = Table("worker", "pid", "slots", "takes", "running", "items done", "heard", box=None, pad_edge=False)
    for worker in workers:
        running = ", ".join(worker.running) or "idle"
        seen = f"{worker.seen_s_ago:.1f} s ago"
        takes = _takes(worker.offer)
        table.add_row(worker.name, str(worker.pid), str(worker.slots), takes, running, f"{worker.done:,}", seen)
    return table


def _takes(offer: Offer) -> str:
    """Queues and tags of a worker: ``default, night + gpu``."""
    tags = f"{' only' if offer.only_tagged else ''} + {', '.join(offer.abilities)}" if offer.abilities else ""
    return f"{', '.join(offer.queues)}{tags}"


def _runs_table(runs: list[RunView]) -> Table:
    table = Table("run", "what", "state", "done", "failed", "running", "waiting", "age", box=None, pad_edge=False)
    for run in sorted(runs, key=lambda run: run.age_s):
        counts = run.counts
        table.add_row(
            run.run_id.hex()[:8],
            run.label,
            _state(counts),
            f"{counts.done:,} of {counts.total:,}",
            f"{counts.failed:,}",
            f"{counts.running:,}",
            f"{counts.waiting:,}",
            _duration(run.age_s),
        )
    return table


def _state(counts: Counts) -> str:
    if not counts.finished:
        return "running" if counts.running else "waiting"
    if counts.failed:
        return "failed"
    return "revoked" if counts.revoked else "done"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
