"""A handle for what was submitted before: by another process, or under a handle that is gone."""

from __future__ import annotations

import time

from nbqueue.client.link import Link
from nbqueue.client.map_result import MapResult
from nbqueue.client.options import MapOptions
from nbqueue.client.recall import ANSWER_TIMEOUT_S, full_id
from nbqueue.client.result import AsyncResult
from nbqueue.client.run import ClientRun
from nbqueue.client.waiting import Attendant
from nbqueue.core.inspection import RunView
from nbqueue.errors import UnknownTask
from nbqueue.wire.blobs import BlobStore


def attach(link: Link, blobs: BlobStore | None, text: str, *, attendant: Attendant) -> AsyncResult:
    """The handle of the run that an id names.

    Args:
        link: To the broker that has it.
        blobs: Where large results are.
        text: An id in hex, or a prefix of it that no other run has.
        attendant: Of waits for the handle.

    Returns:
        A `MapResult` if it has several items, or may get more; the live handle of this process if there is one.

    Raises:
        UnknownTask: The broker knows no such run, or several.
    """
    run_id = full_id(link, text.strip().lower())
    follower = link.follower(run_id)
    if isinstance(follower, AsyncResult):
        return follower
    view = _view(link, run_id)
    run = ClientRun(run_id, view.label, total=view.counts.total, closed=view.counts.closed)
    run.started_at = time.monotonic() - view.age_s
    # An interrupt stops what its own cell has begun, and this was begun elsewhere.
    if view.counts.closed and view.counts.total == 1:
        handle = AsyncResult(run, link, blobs, attendant=attendant, on_interrupt="detach")
    else:
        handle = MapResult(run, link, blobs, attendant=attendant, options=MapOptions(on_interrupt="detach"))
    handle.share()
    link.follow(handle, cursor=0)
    return handle


def _view(link: Link, run_id: bytes) -> RunView:
    runs = link.inspect().result(ANSWER_TIMEOUT_S).inspection.runs
    for view in runs:
        if view.run_id == run_id:
            return view
    raise UnknownTask(f"the broker does not know the run {run_id.hex()[:8]}: it has expired, or another one had it")
