"""Waiting for several handles, in the words of `concurrent.futures`."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent import futures
from typing import Any

from nbqueue.client.interrupts import answer_together
from nbqueue.client.map_result import MapResult
from nbqueue.client.result import AsyncResult
from nbqueue.client.waiting import slices


def wait(
    handles: AsyncResult | Iterable[AsyncResult],
    timeout: float | None = None,
    return_when: str = futures.ALL_COMPLETED,
) -> tuple[set[AsyncResult], set[AsyncResult]]:
    """Wait for several handles, as `concurrent.futures.wait` does.

    Args:
        handles: One, or several of any kind.
        timeout: Seconds to wait at most.
        return_when: "ALL_COMPLETED", "FIRST_COMPLETED" or "FIRST_EXCEPTION".

    Returns:
        Those that are done, and those that are not.

    Raises:
        ValueError: One is a map with ``buffersize``, which goes on only while its results are consumed.
    """
    if return_when not in (futures.ALL_COMPLETED, futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION):
        raise ValueError(f"return_when must be ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION, not {return_when!r}")
    listed: Collection[AsyncResult] = ()
    try:
        listed = waited = set(_listed(handles))
        done = {handle for handle in waited if handle.done()}
        if waited - done and not _is_enough(done, return_when):
            _wait(waited, timeout, return_when)
        done = {handle for handle in waited if handle.done()}
        for handle in waited:
            _finish_view(handle)
        return done, waited - done
    except KeyboardInterrupt as interrupt:
        raise answer_together(interrupt, listed or _given(handles)) from None


def _wait(waited: set[AsyncResult], timeout: float | None, return_when: str) -> None:
    with contextlib.suppress(TimeoutError):
        for handle in as_completed(waited, timeout):
            if _is_enough([handle], return_when):
                break


def as_completed(handles: AsyncResult | Iterable[AsyncResult], timeout: float | None = None) -> Iterator[AsyncResult]:
    """Handles in the order in which they end.

    Raises:
        TimeoutError: Not all were done in *timeout* seconds.
    """
    listed: Collection[AsyncResult] = ()
    try:
        listed = waited = list(dict.fromkeys(_listed(handles)))
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for handle in waited:  # their own `add_done_callback` would go through the blocked event loop
            futures.Future.add_done_callback(handle, ended.put)
        deadline = None if timeout is None else time.monotonic() + timeout
        for position in range(len(waited)):
            next_one = _next_of(ended, waited, deadline)
            if next_one is None:
                left = len(waited) - position
                raise TimeoutError(f"{left} of {len(waited)} handles are not done after {timeout:g} s")
            _finish_view(next_one)
            yield next_one  # not inside of the wait: whoever works on it does not wait
    except KeyboardInterrupt as interrupt:
        raise answer_together(interrupt, listed or _given(handles)) from None


def _next_of(
    ended: queue.SimpleQueue[AsyncResult], waited: list[AsyncResult], deadline: float | None
) -> AsyncResult | None:
    """Wait for one of the handles, which come into *ended* when they end; None: none came in time."""
    links = {handle.link for handle in waited}
    for pause in slices(waited[0].attendant, deadline):
        if len(links) == 1:
            waited[0].link.wait(lambda: not ended.empty(), pause)
            pause = 0.0  # noqa: PLW2901 -- it was waited
        try:
            return ended.get(timeout=pause)
        except queue.Empty:
            continue
    return None


def _listed(handles: AsyncResult | Iterable[AsyncResult]) -> list[AsyncResult]:
    """The handles; a map is one of them, though it can be iterated, too."""
    listed = [handles] if isinstance(handles, AsyncResult) else list(handles)
    for handle in listed:
        if not isinstance(handle, AsyncResult):
            raise TypeError(f"what is waited for must be handles of nbqueue, not {type(handle).__name__}")
        if isinstance(handle, MapResult) and handle.is_stream and not handle.run.counts.closed:
            raise ValueError(f"{handle!r} reads its input as its results are consumed: iterate it, or get() it")
    return listed


def _given(handles: AsyncResult | Iterable[AsyncResult]) -> Collection[AsyncResult]:
    """The handles, when the wait for them ends before they are listed; what an iterator would bring nobody knows."""
    if isinstance(handles, AsyncResult):
        return [handles]
    return handles if isinstance(handles, Collection) else ()


def _finish_view(handle: AsyncResult) -> None:
    """Draw the end of a run from here, whose cell may end next, and with it the chance to be stored in it."""
    if handle.done() and handle.view is not None:
        handle.view.finish()


def _is_enough(done: Iterable[futures.Future[Any]], return_when: str) -> bool:
    """Whether the handles that are done end a wait for the first one, or for the first that failed."""
    if return_when == futures.FIRST_EXCEPTION:
        return any(futures.Future.exception(handle) is not None for handle in done)
    return return_when == futures.FIRST_COMPLETED and any(True for _ in done)
