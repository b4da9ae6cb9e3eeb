"""One cell on every worker once: its output side by side, one card for all, and its value by worker."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from nbqueue.client.app import App
from nbqueue.client.interrupts import answer_together
from nbqueue.client.several import wait
from nbqueue.core.inspection import WorkerView
from nbqueue.core.progress import Counts, RunSnapshot
from nbqueue.core.routing import DEFAULT_QUEUE, Route, address, serves, why_unserved
from nbqueue.errors import NoWorkers
from nbqueue.notebook.output import Labelled, Printer
from nbqueue.notebook.remote import CellHandle, last_value, submit_cell
from nbqueue.notebook.remote_cell import CellResult, Left, RemoteCell
from nbqueue.notebook.showing import show
from nbqueue.wire.namespace import unpack_names

__all__ = ["Everywhere", "run_everywhere"]


class _CellOfWorker(CellHandle):
    """A cell on one of several workers: its value comes back, its names do not, since there are many of each."""

    def __init__(self, *args: Any, worker: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._worker = worker

    def print_to(self, listener: Printer) -> None:
        """Where its output is shown, with the worker's name before each line."""
        super().print_to(Labelled(listener, lambda _: self._worker))

    def _land(self, left: Left, result: CellResult | None) -> Any:
        return last_value(unpack_names(left.names, dict(self.shell.user_ns)), result)


class Everywhere:
    """The handles of one cell on several workers, shown as one run. Safe to look at from any thread."""

    def __init__(self, label: str, handles: Mapping[str, CellHandle]) -> None:
        """Hold *handles*, by worker."""
        self.label = label
        self._handles = handles

    def snapshot(self) -> RunSnapshot:
        """How they stand together."""
        seen = {worker: handle.snapshot() for worker, handle in self._handles.items()}
        counts = [one.counts for one in seen.values()]
        first = next(((worker, one.first_error) for worker, one in seen.items() if one.first_error), None)
        return RunSnapshot(
            label=self.label,
            counts=Counts(
                total=len(counts),
                done=sum(one.done for one in counts),
                failed=sum(one.failed for one in counts),
                revoked=sum(one.revoked for one in counts),
                running=sum(one.running for one in counts),
            ),
            elapsed_s=max(one.elapsed_s for one in seen.values()),
            work_s=sum(one.work_s for one in seen.values()),
            slots=len(counts),
            cancelling=any(one.cancelling for one in seen.values()),
            first_error=None if first is None else f"{first[1]} (on {first[0]})",
            hint=next((one.hint for one in seen.values() if one.hint), None),
            can_retry=False,
        )

    def done(self) -> bool:
        """Whether all are over."""
        return all(handle.done() for handle in self._handles.values())

    def revoke(self) -> None:
        """Stop all of them."""
        for handle in self._handles.values():
            handle.revoke()

    def retry(self) -> None:
        """There is no way: another cell has to be run."""

    def wait(self, progress_after_s: float) -> None:
        """Wait for all, with a card if it takes longer than that."""
        handles, view = self._handles.values(), None
        try:
            if wait(handles, progress_after_s)[1]:
                view = show(self)
                wait(handles)
        except KeyboardInterrupt as interrupt:  # it may have come while the card was made
            raise answer_together(interrupt, handles) from None
        finally:
            if view is not None:
                view.finish()

    def values(self) -> dict[str, Any]:
        """The value of the cell's last expression, by worker; all have ended.

        Raises:
            Exception: What the cell has raised on the first worker on which it failed.
        """
        errors = {worker: handle.exception() for worker, handle in self._handles.items()}
        failed = [worker for worker, error in errors.items() if error is not None]
        for error in filter(None, errors.values()):
            if len(failed) > 1:
                error.add_note(f"{len(failed)} of {len(errors)} workers failed: {', '.join(failed)}")
            raise error
        return {worker: handle.get() for worker, handle in self._handles.items()}


def run_everywhere(app: App, shell: Any, cell: RemoteCell, *, label: str, options: dict[str, Any]) -> Everywhere:
    """Send *cell* to every worker that serves the queue and the tags in *options*, if there are any, once.

    Raises:
        NoWorkers: There is none.
    """
    handles = {}
    for name, worker in _named(_workers(app, options)).items():
        submitter = app.options(**{**options, **_route(worker, options)._asdict(), "label": label})
        handles[name] = submit_cell(submitter, shell, cell, kind=functools.partial(_CellOfWorker, worker=name))
    return Everywhere(label, handles)


def _workers(app: App, options: dict[str, Any]) -> list[WorkerView]:
    workers = app.inspect().inspection.workers
    if not workers and app.settings.workers:
        app.submit(int).get()  # the local ones are about to come
        workers = app.inspect().inspection.workers
    if not workers:
        raise NoWorkers("no worker is connected: start one with nbqueue-worker, or nbqueue.start_workers()")
    found = [worker for worker in workers if serves(worker.offer, _route(worker, options))]
    if not found:
        offers = [worker.offer for worker in workers]
        raise NoWorkers(why_unserved(Route(options.get("queue") or DEFAULT_QUEUE, options.get("tags", ())), offers))
    return found


def _route(worker: WorkerView, options: dict[str, Any]) -> Route:
    """The way to this worker and no other."""
    queue = options.get("queue") or worker.offer.queues[0]
    return Route(queue, (*options.get("tags", ()), address(worker.worker_id)))


def _named(workers: list[WorkerView]) -> dict[str, WorkerView]:
    """The workers by name; of those with the same name the later ones get a number."""
    named: dict[str, WorkerView] = {}
    for worker in sorted(workers, key=lambda worker: worker.name):
        alike = sum(other.name == worker.name for other in named.values())
        named[f"{worker.name} ({alike + 1})" if alike else worker.name] = worker
    return named
