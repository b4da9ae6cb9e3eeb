"""Handles of many items: maps, and the streams that lazy maps are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, overload

import msgspec

from nbqueue.client.concerns import CONCERNS
from nbqueue.client.feeder import Feeder
from nbqueue.client.held_back import handed_over
from nbqueue.client.link import Link
from nbqueue.client.options import MapOptions
from nbqueue.client.output import Printed
from nbqueue.client.result import PATIENCE_S, AsyncResult
from nbqueue.client.revoking import RevokeReport, item_index, item_ranges, manner, report
from nbqueue.client.run import ClientRun
from nbqueue.client.waiting import Attendant, slices, wait_until
from nbqueue.core.output import STDERR, STDOUT
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Entry
from nbqueue.errors import NBQueueError
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.payload import PackedValues

#: Whoever waits for a map that is revoked waits so long for all of its items to be stopped.
REVOKE_S = 2.0
_CONSUMED = "these results were consumed: a map with buffersize hands out each of them once"


class ItemError(NamedTuple):
    """One item that did not succeed."""

    index: int  # type: ignore[assignment]  # the field hides tuple.index
    item_repr: str
    exception: BaseException


class MapResult(AsyncResult):
    """The handle of a map: iterate it, index it, or `get` the whole list.

    Iterating waits for each item in turn. A map with ``buffersize`` is a stream: its input is read as its results are
    consumed, and each result can be had once.
    """

    run: ClientRun

    def __init__(
        self,
        run: ClientRun,
        link: Link,
        blobs: BlobStore | None,
        *,
        options: MapOptions = MapOptions(),  # noqa: B008 -- it is frozen
        feeder: Feeder | None = None,
        attendant: Attendant | None = None,
    ) -> None:
        super().__init__(run, link, blobs, attendant=attendant, on_interrupt=options.on_interrupt)
        self._options = options
        self._deadline = None if options.timeout is None else time.monotonic() + options.timeout
        self._feeder = feeder
        self._is_stream = options.buffersize is not None and feeder is not None

    # -- results -------------------------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """Wait for all results.

        Args:
            timeout: Seconds to wait at most; None: the map's own timeout, if it has one.
            propagate: False puts exceptions into the list instead of raising the first one.

        Returns:
            The results in the order of the input; without those that failed if the map was made with
            ``on_error="skip"``.

        Raises:
            TimeoutError: Not all are there yet; the map goes on.
            Exception: The error of the first item, in input order, that failed (unless ``on_error`` says otherwise);
            the
                other items go on, and `errors` lists all.
        """
        __tracebackhide__ = True  # IPython shows the user's frames only
        deadline = self._deadline if timeout is None else time.monotonic() + timeout
        on_error = self._options.on_error if propagate else "return"
        values: list[Any] = []
        try:
            for entry in self._entries_in_order(deadline):
                if on_error == "raise" and entry.state is not State.SUCCESS:
                    raise self._error_now(entry, entry.start)
                values += self._values_of(entry, on_error)
            super()._wait(None)  # it is over, but the I/O thread may just be about to say so
        except KeyboardInterrupt as interrupt:
            raise self._answered(interrupt) from None
        return values

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for all items; the first error in input order, or None."""
        try:
            self._wait(timeout)
        except KeyboardInterrupt as interrupt:
            raise self._answered(interrupt) from None
        if self.run.error is not None:
            return self.run.error.with_traceback(None)
        if not self.run.failures:
            return None
        entry = min(self.run.failures, key=lambda failure: failure.start)
        return self._error_of(entry, entry.start)

    def __iter__(self) -> Iterator[Any]:
        """Results as they come: in input order, or in the order of their ends if made with ``ordered=False``."""
        __tracebackhide__ = True
        try:  # around all of it: an interrupt may fall beside the wait as well
            entries = self._entries_in_order if self._options.ordered else self._entries_as_done
            for entry in entries(self._deadline):
                if self._options.on_error == "raise" and entry.state is not State.SUCCESS:
                    raise self._error_now(entry, entry.start)
                yield from self._values_of(entry, self._options.on_error)
            self._finish_view()
            CONCERNS.of_environment(self.run.remarks)
        except KeyboardInterrupt as interrupt:
            raise self._answered(interrupt) from None

    def __len__(self) -> int:
        """Number of items.

        Raises:
            TypeError: Its input is read lazily and not used up yet.
        """
        if not self.run.counts.closed:
            raise TypeError("the length is not known yet: this map reads its input as its results are consumed")
        return self.run.counts.total

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One result, or a list of some; waits for them."""
        __tracebackhide__ = True
        try:
            if isinstance(index, slice):
                return [self._item(item) for item in range(*index.indices(len(self)))]
            return self._item(item_index(index, len(self)))
        except KeyboardInterrupt as interrupt:
            raise self._answered(interrupt) from None

    def _item(self, item: int) -> Any:
        __tracebackhide__ = True
        entry = self._await_item(item, self._deadline)
        if entry is None:
            raise IndexError(item)
        if entry.state is not State.SUCCESS:
            raise self._error_now(entry, item)
        return PackedValues(entry.payload, self._blobs).get(entry.offset + item - entry.start)

    @property
    def is_stream(self) -> bool:
        """Whether its input is read as its results are consumed (``buffersize``)."""
        return self._is_stream

    @property
    def counts(self) -> Counts:
        """How many items are done, failed, running, waiting, revoked."""
        return self._counts()

    def errors(self) -> list[ItemError]:
        """The items that have failed so far, by index; revoked ones are not among them."""
        from nbqueue.wire.failure import unpack_failure

        found = []
        for entry in sorted(self.run.failures, key=lambda failure: failure.start):
            if entry.state is State.REVOKED:
                continue
            for item in range(entry.start, entry.stop):
                item_repr = unpack_failure(entry.payload).item_repr if entry.payload else ""
                found.append(ItemError(item, item_repr, self._error_of(entry, item)))
        return found

    # -- stopping ------------------------------------------------------------------------------------------------------

    def revoke(
        self,
        items: int | slice | Iterable[int] | None = None,
        *,
        terminate: bool = False,
        signal: str | int | None = None,
        grace_s: float | None = None,
        wait: bool = False,
    ) -> RevokeReport:
        """Stop the map, or only some of its items; what is finished is kept.

        Args:
            items: One index, several, or a slice; None: all, and whatever its input would still bring.
            terminate: Begin with SIGTERM; see `AsyncResult.revoke`.
            signal: Begin with this one, e.g. "SIGUSR1"; SIGKILL follows.
            grace_s: Seconds between one step and the next; default 2.
            wait: Until these items have ended, and processes that were killed are confirmed dead.

        Returns:
            What came of it; without *wait*, only what is known at once.

        Raises:
            IndexError: There is no such item.
        """
        if items is None:
            return super().revoke(terminate=terminate, signal=signal, grace_s=grace_s, wait=wait)
        how = manner(terminate=terminate, signal=signal, grace_s=grace_s)
        ranges = item_ranges(items, self.run.counts.total)
        began = time.monotonic()
        if not self.run.is_over:
            for start, stop in ranges:
                for first, last in self.run.on_broker(start, stop):
                    self._link.revoke(self.run.run_id, first, last, how)
        if wait:
            self._await_ends(ranges)
        return report(self.run, ranges, began=began if wait else None)

    def _await_ends(self, ranges: list[tuple[int, int]]) -> None:
        """Wait until these items have ended; unlike `_await_item`, it reads no further input."""
        for start, stop in ranges:
            item = start
            while item < stop:
                self._await(partial(self._has_ended, item), None)
                entry = self.run.entry_of(item)
                item = stop if entry is None else entry.stop

    def output(self, item: int) -> Printed:
        """What one item has printed so far."""
        item = item_index(item, len(self))
        self._output.settle()
        return Printed(self._output.text(STDOUT, item), self._output.text(STDERR, item))

    def logs(self, item: int | None = None, *, follow: bool = False) -> Iterator[str]:
        """Lines of both streams, of one item or of all, in the order in which they arrived; see `AsyncResult.logs`."""
        if not follow:
            self._output.settle()
        return self._output.lines(item, follow=follow)

    # -- again ---------------------------------------------------------------------------------------------------------

    @handed_over
    def retry(self, *, failed: bool = True, **override: Any) -> MapResult:
        """Run the items again that have not succeeded, and keep the results of the others.

        Args:
            failed: Only those that failed, were lost, revoked, or not started in time. There is no other way yet.
            **override: Task options to be changed, e.g. ``max_retries=3``.

        Returns:
            A new handle with all items under their numbers; this one stays as it is.

        Raises:
            ValueError: The map has not ended, has no such items, or reads its input lazily (``buffersize``).
        """
        if not failed:
            raise ValueError("retry runs only items that have not succeeded; to run all of them, call map again")
        return super().retry(**override)  # type: ignore[return-value]  # of its own kind

    @property
    def retried(self) -> MapResult | None:
        """The handle of its last `retry`, which the button of its card may have asked for; None: there was none."""
        return super().retried  # type: ignore[return-value]  # of its own kind

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _entries_in_order(self, deadline: float | None) -> Iterator[Entry]:
        item = 0
        while (entry := self._await_item(item, deadline)) is not None:
            item = entry.stop
            if self._is_stream:
                self.run.let_go(entry)
            yield entry

    def _entries_as_done(self, deadline: float | None) -> Iterator[Entry]:
        position = ended = 0
        while True:
            self._feed(ended)
            self._await(partial(self._has_arrived, position), deadline)
            if position >= len(self.run.arrived):
                if self.run.error is not None:
                    raise self.run.error
                return
            entry = self.run.entry_of(self.run.arrived[position])
            if entry is None:
                raise LookupError(_CONSUMED)
            position += 1
            ended += entry.stop - entry.start
            if self._is_stream:
                self.run.let_go(entry)
            yield entry

    def _await_item(self, item: int, deadline: float | None) -> Entry | None:
        """How *item* ended, waiting for it; None when there is no such item."""
        self._feed(item)
        self._await(partial(self._has_ended, item), deadline)
        run = self.run
        entry = run.entry_of(item)
        if entry is not None:
            return entry
        if run.error is not None:
            raise run.error
        if item < run.counts.total:
            raise LookupError(_CONSUMED)
        return None

    def _has_ended(self, item: int) -> bool:
        """Whether it is known how *item* ended, or will never be."""
        return self.run.entry_of(item) is not None or self.run.is_over

    def _has_arrived(self, position: int) -> bool:
        """Whether there is an entry behind the first *position* ones, or there will never be."""
        return position < len(self.run.arrived) or self.run.is_over

    def _await(self, is_reached: Callable[[], bool], deadline: float | None) -> None:
        """Wait for news that bring it about.

        Raises:
            TimeoutError: They have not come in time.
        """
        if is_reached():
            return
        self._refuse_to_wait_in_vain()
        try:
            if not any(self._is_reached_within(is_reached, pause) for pause in slices(self._attendant, deadline)):
                raise TimeoutError(f"{self!r} is not done in time; it goes on")
        except KeyboardInterrupt as interrupt:
            raise self._answered(interrupt) from None

    def _is_reached_within(self, is_reached: Callable[[], bool], timeout: float | None) -> bool:
        """As `_ends_within`, for any news."""
        first = PATIENCE_S if timeout is None else min(timeout, PATIENCE_S)
        if self._link.wait(is_reached, first) or first == timeout:
            return is_reached()
        self._say_what_it_waits_for()
        return self._link.wait(is_reached, None if timeout is None else timeout - first)

    def _feed(self, ended: int) -> None:
        if self._is_stream and self._feeder is not None:
            self._feeder.top_up(ended)

    def _wait(self, timeout: float | None) -> None:
        if self._is_stream and not self.done():
            for _ in self._entries_in_order(None if timeout is None else time.monotonic() + timeout):
                pass  # its input is read only as its results are consumed
        super()._wait(timeout)

    # -- internals -----------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        """As for one task; a stream is read in another thread, since its input is read as results are consumed."""
        if not self._is_stream:
            return super().__await__()
        import asyncio

        return asyncio.to_thread(self.get).__await__()

    def _error_now(self, entry: Entry, item: int) -> BaseException:
        """The error to be raised for an item; of a run that is being revoked when it is over, or soon."""
        if entry.state is State.REVOKED and self._is_revoking:
            wait_until(self._ends_within, self._attendant, REVOKE_S)
            self._finish_view()  # before the cell ends
        return self._error_of(entry, item)

    def _values_of(self, entry: Entry, on_error: str) -> list[Any]:
        count = entry.stop - entry.start
        if entry.state is State.SUCCESS:
            return PackedValues(entry.payload, self._blobs).slice(entry.offset, entry.offset + count)
        match on_error:
            case "skip":
                return []
            case _:
                return [self._error_of(entry, item) for item in range(entry.start, entry.stop)]

    def _counts(self) -> Counts:
        counts = self.run.counts
        total = self._options.total
        if total is None or counts.closed or total <= counts.total:
            return counts
        return msgspec.structs.replace(counts, total=total, closed=True)

    def _name_of(self, item: int) -> str:
        return f"item {item} of {self.label!r}"

    def _others(self) -> str:
        others = self.run.counts.failed - 1
        return f"; {others} more of {self.run.counts.total} failed, see .errors()" if others > 0 else ""

    def __repr__(self) -> str:
        counts = self.run.counts
        total = f"{counts.total}" if counts.closed else f"{counts.total}+"
        failed = f", {counts.failed} failed" if counts.failed else ""
        return f"<MapResult {self._short_id} {self.label!r} {self.state} {counts.ended}/{total}{failed}>"


class Stream:
    """Results of a lazy map as an iterator; when it is dropped before its end, the rest is not run."""

    def __init__(self, handle: MapResult) -> None:
        self._handle = handle
        self._results = iter(handle)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._results)

    def close(self) -> None:
        """Stop the map; results that were not read are lost. May be called twice."""
        self._handle.revoke()

    revoke = close  #: as handles have it

    def __del__(self) -> None:
        with contextlib.suppress(NBQueueError):  # the broker has gone: so has the map
            self.close()
