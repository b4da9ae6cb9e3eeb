"""How a broker's records look from outside: supervisors, runs and queues as `Inspection` shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from nbqueue.core.inspection import ChunkView, QueueView, RunView, WorkerView
from nbqueue.core.run import Claim, Run
from nbqueue.core.states import State
from nbqueue.core.workforce import Worker, Workforce


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


def chunk_views(workforce: Workforce, runs: Mapping[bytes, Run], now: float) -> list[ChunkView]:
    """All that supervisors hold now."""
    return [
        _chunk_view(worker, claim, runs[claim.run_id], now)
        for worker in workforce
        for claim in worker.claims.values()
        if claim.run_id in runs
    ]


def _chunk_view(worker: Worker, claim: Claim, run: Run, now: float) -> ChunkView:
    segments = run.items.segments(claim.start, claim.stop)
    started = (start for start, _, item in segments if item.state is State.STARTED and item.token == claim.token)
    return ChunkView(
        worker=worker.info.name,
        run_id=claim.run_id,
        label=run.spec.label,
        start=claim.start,
        stop=claim.stop,
        attempt=claim.attempt,
        item=next(started, None),
        held_s=now - claim.since,
    )


def queue_views(runs: Iterable[Run], workforce: Workforce) -> list[QueueView]:
    """All queues in which something waits or runs, or that somebody serves, by name."""
    waiting: Counter[str] = Counter()
    scheduled: Counter[str] = Counter()
    running: Counter[str] = Counter()
    for run in runs:
        if run.unfinished:
            queue = run.spec.options.queue
            waiting[queue] += run.waiting
            scheduled[queue] += run.count(State.SCHEDULED) + run.count(State.RETRY)
            running[queue] += run.counts().running
    offered = {queue for worker in workforce for queue in worker.info.offer.queues}
    views = []
    for queue in sorted(offered | waiting.keys()):
        serving = [worker.info for worker in workforce if queue in worker.info.offer.queues]
        views.append(
            QueueView(
                name=queue,
                waiting=waiting[queue],
                scheduled=scheduled[queue],
                running=running[queue],
                workers=len(serving),
                slots=sum(info.slots for info in serving),
            )
        )
    return views
