"""What becomes of a chunk's items, collected in the slot and reported in batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from nbqueue.core.exchange import Delivery
from nbqueue.core.task import Failed, Outcome, Stopped, Succeeded
from nbqueue.errors import NBQueueError, NotSerializable
from nbqueue.wire.as_json import AsJson
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.failure import pack_failure
from nbqueue.wire.messages import ChunkReport, FromSlot
from nbqueue.wire.payload import pack_values
from nbqueue.worker.context import RetryAsked
from nbqueue.worker.memory import own_peak_bytes

#: Finished items are reported at least this often while a chunk runs.
REPORT_S = 0.1


class Reporter:
    """Collects what becomes of a chunk's items and sends it in batches, in item order."""

    def __init__(
        self,
        delivery: Delivery,
        send: Callable[[FromSlot], None],
        blobs: BlobStore | None,
        where: str,
        *,
        with_pickles: bool,
    ) -> None:
        """Report on *delivery*; unless *with_pickles*, no exception travels as a pickle."""
        self._delivery = delivery
        self._send = send
        self._blobs = blobs
        self._where = where
        self._with_pickles = with_pickles
        self._speaks_json = False
        self._outcomes: list[Outcome] = []
        self._next = delivery.start  # item to which the first of `values` belongs
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        self.values: list[Any] = []  #: the same list all the time, so that the slot's inner loop can hold it
        self.next_report_at = self._wall + REPORT_S
        self.was_interrupted = False  #: a task of this chunk was

    def speak_json(self) -> None:
        """Results are JSON, and nothing else is pickled, either: whoever asks for JSON may accept nothing else."""
        self._speaks_json = True
        self._with_pickles = False

    def stop(self, item: int, how: str = "") -> None:
        """The item was stopped, or not begun."""
        self._close_values(item)
        self._outcomes.append(Stopped(item, item + 1, how, own_peak_bytes() if how else 0))
        self._next = item + 1

    def fail(self, item: int, error: BaseException, retry_on: tuple[type[BaseException], ...], item_repr: str) -> None:
        """The item raised."""
        self._close_values(item)
        if isinstance(error, RetryAsked):
            cause = error.cause or NBQueueError(str(error)).with_traceback(error.__traceback__)
            self._add_failure(item, cause, True, item_repr)
            asked = {"retry_after_s": error.countdown_s, "max_retries": error.max_retries}
            self._outcomes[-1] = msgspec.structs.replace(self._outcomes[-1], **asked)
        else:
            self._add_failure(item, error, isinstance(error, retry_on), item_repr)
        self._next = item + 1

    def fail_all(self, error: BaseException) -> None:
        """No item of the chunk can run."""
        for item in range(self._delivery.start, self._delivery.stop):
            self._add_failure(item, error, False, "")
        self._next = self._delivery.stop

    def pack(self) -> None:
        """Turn all values so far into outcomes."""
        self._close_values(self._next + len(self.values))

    def send(self, *, final: bool, spent: str = "") -> None:
        """Report everything collected so far; *spent*: why this process can serve no more."""
        self.pack()
        outcomes, self._outcomes = self._outcomes, []
        if outcomes or final:
            self._send(ChunkReport(self._delivery.token, outcomes, final, spent))
        self.next_report_at = time.perf_counter() + REPORT_S

    def save(self) -> None:
        """Report what is finished while an item still runs, which is not to be taken for their time."""
        now, cpu = time.perf_counter(), time.process_time()
        self._wall, wall = now - REPORT_S, self._wall
        self._wall = max(self._wall, wall)
        self.send(final=False)
        self._wall, self._cpu = min(now, wall + REPORT_S), cpu

    def _lap(self) -> tuple[float, float]:
        """Wall and CPU seconds since the last call."""
        wall, cpu = time.perf_counter(), time.process_time()
        lap = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        return lap

    def _close_values(self, stop: int) -> None:
        """Turn the values collected so far, which end before item *stop*, into outcomes."""
        if not self.values:
            return
        # A stopped or interrupted append may have left one value more or less: the items decide.
        values = self.values[: stop - self._next]
        if self._speaks_json:
            values = [AsJson(value) for value in values]
        self.values.clear()
        wall_s, cpu_s = self._lap()
        start, count, peak_bytes = self._next, len(values), own_peak_bytes()
        self._next += count
        folder = self._delivery.run_id.hex()
        try:
            packed = list(pack_values(values, start=start, blobs=self._blobs, folder=folder))
        except NotSerializable:
            self._pack_one_by_one(values, start, wall_s / count, cpu_s / count, peak_bytes)
            return
        for length, payload in packed:
            share = length / count
            self._outcomes.append(Succeeded(start, start + length, payload, wall_s * share, cpu_s * share, peak_bytes))
            start += length

    def _pack_one_by_one(self, values: list[Any], start: int, wall_s: float, cpu_s: float, peak_bytes: int) -> None:
        folder = self._delivery.run_id.hex()
        for item, value in enumerate(values, start):
            try:
                [(_, payload)] = pack_values([value], start=item, blobs=self._blobs, folder=folder)
            except NotSerializable as error:
                self._add_failure(item, _refusal(error, value, item), False, "", wall_s)
            else:
                self._outcomes.append(Succeeded(item, item + 1, payload, wall_s, cpu_s, peak_bytes))

    def _add_failure(
        self, item: int, error: BaseException, is_retryable: bool, item_repr: str, wall_s: float | None = None
    ) -> None:
        lap_wall_s, cpu_s = self._lap()
        record = pack_failure(error, item_repr=item_repr, where=self._where, with_pickles=self._with_pickles)
        wall_s = lap_wall_s if wall_s is None else wall_s
        self._outcomes.append(Failed(item, record, is_retryable, wall_s, cpu_s, peak_bytes=own_peak_bytes()))


def _refusal(error: NotSerializable, value: Any, item: int) -> NotSerializable:
    """The error for a result that cannot be sent back."""
    if error.hint:  # it says all there is to say
        return NotSerializable(f"the result of {error}", path=error.path, hint=error.hint)
    from nbqueue.wire.blame import refusal_of_result  # looks into values, which only this case needs

    return refusal_of_result(value, item=item)
