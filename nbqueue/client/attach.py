"""A handle for what was submitted before: by another process, or under a handle that is gone."""

from __future__ import annotations

import time

from nbqueue.client.followed import Nobody
from nbqueue.client.items import OneItem
from nbqueue.client.link import Link
from nbqueue.client.map_result import MapResult
from nbqueue.client.options import MapOptions
from nbqueue.client.recall import ANSWER_TIMEOUT_S, check_item, parse_id
from nbqueue.client.result import AsyncResult
from nbqueue.client.run import ClientRun
from nbqueue.client.waiting import Attendant
from nbqueue.core.inspection import RunView
from nbqueue.errors import UnknownTask
from nbqueue.wire.blobs import BlobStore


def attach(link: Link, blobs: BlobStore | None, text: str, *, attendant: Attendant) -> AsyncResult:
    """The handle of the run, or of the item of a run, that an id names.

    Args:
        link: To the broker that has it.
        blobs: Where large results are.
        text: An id in hex, or a prefix of it that no other run has; with ``.7`` behind it, that of item 7.
        attendant: Of waits for the handle.

    Returns:
        A `MapResult` if it has several items, or may get more; the live handle of this process if there is one.

    Raises:
        UnknownTask: The broker knows no such run, or several, or it has no such item.
    """
    run_id, item = parse_id(link, text)
    if item is not None:
        return _attach_item(link, blobs, run_id, item, attendant)
    handle = link.follower(run_id)
    if isinstance(handle, AsyncResult):
        return handle
    return _attach_whole(link, blobs, run_id, attendant)


def _attach_whole(link: Link, blobs: BlobStore | None, run_id: bytes, attendant: Attendant) -> AsyncResult:
    live = link.followed(run_id)
    run = live if live is not None and live.is_from_its_begin else _seen(link, run_id)
    # An interrupt stops what its own cell has begun, and this was begun elsewhere.
    if run.counts.closed and run.counts.total == 1:
        handle = AsyncResult(run, link, blobs, attendant=attendant, on_interrupt="detach")
    else:
        handle = MapResult(run, link, blobs, attendant=attendant, options=MapOptions(on_interrupt="detach"))
    handle.share()
    if run is live:
        link.tell_too(run, handle)
    else:
        link.follow(run, handle, cursor=0)
    return handle


def _attach_item(link: Link, blobs: BlobStore | None, run_id: bytes, item: int, attendant: Attendant) -> AsyncResult:
    live = link.followed(run_id)
    run = live if live is not None and live.is_from_its_begin else _seen(link, run_id)
    check_item(item, run.counts)
    member = run.members.get(item)
    if member is not None and isinstance(member.handle, AsyncResult):
        return member.handle
    one = OneItem(run, item)
    handle = AsyncResult(one, link, blobs, attendant=attendant, on_interrupt="detach")
    link.join(run, one, handle)
    if run is not live:
        link.follow(run, Nobody(), cursor=0)
    return handle


def _seen(link: Link, run_id: bytes) -> ClientRun:
    """A run of which nothing is known here yet."""
    view = _view(link, run_id)
    run = ClientRun(run_id, view.label, total=view.counts.total, closed=view.counts.closed)
    run.started_at = time.monotonic() - view.age_s
    return run


def _view(link: Link, run_id: bytes) -> RunView:
    runs = link.questions.inspect().result(ANSWER_TIMEOUT_S).inspection.runs
    for view in runs:
        if view.run_id == run_id:
            return view
    raise UnknownTask(f"the broker does not know the run {run_id.hex()[:8]}: it has expired, or another one had it")
