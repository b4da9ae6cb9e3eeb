"""How a broker's records look from outside: supervisors and runs as `Inspection` shows them."""

from __future__ import annotations

from collections.abc import Mapping

from nbqueue.core.inspection import RunView, WorkerView
from nbqueue.core.run import Run
from nbqueue.core.states import State
from nbqueue.core.workforce import Worker


def worker_view(worker: Worker, runs: Mapping[bytes, Run], now: float) -> WorkerView:
    """A supervisor now."""
    labels = {runs[claim.run_id].spec.label for claim in worker.claims.values() if claim.run_id in runs}
    info = worker.info
    return WorkerView(
        worker_id=info.worker_id,
        name=info.name,
        host=info.host,
        pid=info.pid,
        slots=info.slots,
        claims=len(worker.claims),
        running=sorted(labels),
        done=worker.done,
        seen_s_ago=now - worker.seen_at,
        offer=info.offer,
        versions=info.versions,
    )


def run_view(run: Run, unserved: str, now: float) -> RunView:
    """A run now; *unserved* says why nobody could run it."""
    options = run.spec.options
    return RunView(
        run_id=run.spec.run_id,
        label=run.spec.label,
        counts=run.counts(),
        age_s=now - run.submitted_at,
        finished=run.is_finished,
        queue=options.queue,
        tags=options.tags,
        priority=options.priority,
        scheduled=run.count(State.SCHEDULED) + run.count(State.RETRY),
        unserved=unserved,
    )
