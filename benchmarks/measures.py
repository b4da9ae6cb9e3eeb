"""What is measured. `python -m benchmarks.measures ENGINE MEASURE FILE` does one measure in this process.

The task functions live here because this module is `__main__` then, as a notebook or a script is: engines
that ship code by value do so. Only light modules may be imported at the top: what an engine needs is
part of its start-up time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.engines import ENGINES, Engine, Streaming

MAP_ITEMS = 100_000
STREAM_ITEMS = 1_000_000
TASKS = 5_000
ROUND_TRIPS = 500
CAPTURING_TASKS = 40
BIG_ARRAY_FLOATS = 32 * 1024 * 1024  # 256 MiB
CAPTURED_FLOATS = 8 * 1024 * 1024  # 64 MiB


class Figure(NamedTuple):
    """One number of the report."""

    key: str
    title: str
    unit: str
    more_is_better: bool = False
    has_ratio: bool = True


FIGURES = (
    Figure("start_s", "import + start → first result", "s"),
    Figure("rtt_p50_us", "round trip p50", "µs"),
    Figure("rtt_p99_us", "round trip p99", "µs"),
    Figure("tasks_per_s", "single tasks", "tasks/s", more_is_better=True),
    Figure("map_per_s", "map `x*x`, own chunks or 1000 by hand", "items/s", more_is_better=True),
    Figure("map_plain_per_s", "map `x*x`, no chunk size given", "items/s", more_is_better=True),
    Figure("argument_gb_per_s", "256 MiB array argument", "GB/s", more_is_better=True),
    Figure("result_gb_per_s", "256 MiB array result", "GB/s", more_is_better=True),
    Figure("capture_s", "40 tasks capturing 64 MiB", "s"),
    Figure("memory_client_mb", "1 M items streamed: RSS growth, client", "MB", has_ratio=False),
    Figure("memory_other_mb", "1 M items streamed: RSS growth, largest other process", "MB", has_ratio=False),
)

Figures = dict[str, float]


def noop(*_: object) -> None:
    """Do nothing."""


def square(x: int) -> int:
    """Do next to nothing."""
    return x * x


def total(array: Any) -> float:
    """Read every byte of an array."""
    return float(array.sum())


def ones(n: int) -> Any:
    """Write every byte of an array."""
    import numpy as np

    return np.ones(n)


def start(engine: Engine) -> Figures:
    """Seconds from before the library's import to the first result."""
    began = time.perf_counter()
    engine.start()
    engine.gather([engine.submit(noop)])
    return {"start_s": time.perf_counter() - began}


def round_trip(engine: Engine) -> Figures:
    """One task at a time: submit, wait, again."""
    engine.gather([engine.submit(noop) for _ in range(50)])

    trips_us = sorted(_seconds(lambda: engine.gather([engine.submit(noop)])) * 1e6 for _ in range(ROUND_TRIPS))
    return {"rtt_p50_us": trips_us[ROUND_TRIPS // 2], "rtt_p99_us": trips_us[ROUND_TRIPS * 99 // 100]}


def tasks(engine: Engine) -> Figures:
    """Submit 5000 tasks one by one, then gather them all."""
    engine.gather([engine.submit(noop) for _ in range(50)])

    spent_s = _seconds(lambda: engine.gather([engine.submit(noop, i) for i in range(TASKS)]))
    return {"tasks_per_s": TASKS / spent_s}


def map_chunked(engine: Engine) -> Figures:
    """A map in chunks: the engine's own, else 1000 items a task by hand."""
    return {"map_per_s": _map_rate(engine.map, MAP_ITEMS)}


def map_plain(engine: Engine) -> Figures:
    """A map as one writes it first, with no chunk size."""
    return {"map_plain_per_s": _map_rate(engine.map_plain, engine.plain_items)}


def argument(engine: Engine) -> Figures:
    """A big array goes to a task that sums it."""
    array = ones(BIG_ARRAY_FLOATS)
    engine.gather([engine.submit(total, array[:10])])

    spent_s = _best_s(lambda: _expect([float(array.size)], engine.gather([engine.submit(total, array)])))
    return {"argument_gb_per_s": array.nbytes / 1e9 / spent_s}


def result(engine: Engine) -> Figures:
    """A task makes a big array and returns it."""
    engine.gather([engine.submit(ones, 10)])

    spent_s = _best_s(lambda: engine.gather([engine.submit(ones, BIG_ARRAY_FLOATS)]))
    return {"result_gb_per_s": BIG_ARRAY_FLOATS * 8 / 1e9 / spent_s}


def capture(engine: Engine) -> Figures:
    """A closure over a big array is submitted 40 times."""
    array = ones(CAPTURED_FLOATS)
    engine.gather([engine.submit(ones, 10)])

    def pick(index: int) -> float:
        return float(array[index])

    began = time.perf_counter()
    picked = engine.gather([engine.submit(pick, index) for index in range(CAPTURING_TASKS)])
    spent_s = time.perf_counter() - began
    _expect([1.0] * CAPTURING_TASKS, picked)
    return {"capture_s": spent_s}


def memory(engine: Engine) -> Figures:
    """Highest RSS over the start while one map of a million items is consumed by iteration."""
    if not isinstance(engine, Streaming):
        raise TypeError(f"{engine.name} does not hand out results one by one")
    from benchmarks.processes import TAG_VARIABLE, rss_mb, tagged

    for _ in engine.stream(noop, range(10_000)):
        pass
    before = {process: rss_mb(process) for process in tagged(os.environ[TAG_VARIABLE])}
    growth = dict.fromkeys(before, 0.0)

    count = 0
    for count, _ in enumerate(engine.stream(noop, range(STREAM_ITEMS)), start=1):
        if count % 50_000 == 0:
            growth = {process: max(growth[process], rss_mb(process) - before[process]) for process in before}
    _expect(STREAM_ITEMS, count)

    client_mb = next(mb for process, mb in growth.items() if process.pid == os.getpid())
    others_mb = [mb for process, mb in growth.items() if process.pid != os.getpid()]
    return {"memory_client_mb": client_mb, "memory_other_mb": max(others_mb)}


MEASURES: dict[str, Callable[[Engine], Figures]] = {
    "start": start,
    "rtt": round_trip,
    "tasks": tasks,
    "map": map_chunked,
    "map-plain": map_plain,
    "argument": argument,
    "result": result,
    "capture": capture,
    "memory": memory,
}


def applies(measure: str, engine: type[Engine]) -> bool:
    """Whether *engine* has what *measure* needs."""
    return measure != "memory" or issubclass(engine, Streaming)


class WrongResultError(Exception):
    """An engine returned something else than the work's result."""


def _expect(expected: object, actual: object) -> None:
    if expected != actual:
        raise WrongResultError(f"expected {expected!r:.80}, got {actual!r:.80}")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _best_s(work: Callable[[], object], *, times: int = 3, enough_s: float = 5.0) -> float:
    """Shortest of up to *times* runs; no further run once *enough_s* have been spent."""
    spent_s: list[float] = []
    while len(spent_s) < times and sum(spent_s) < enough_s:
        spent_s.append(_seconds(work))
    return min(spent_s)


def _map_rate(mapper: Callable[[Callable[[int], int], range], list[Any]], items: int) -> float:
    mapper(square, range(1000))
    spent_s = _best_s(lambda: _expect((items - 1) ** 2, mapper(square, range(items))[-1]))
    return items / spent_s


def main(engine_name: str, measure: str, file: str) -> None:
    """Start the engine, measure, write the figures or the problem as JSON, stop the engine."""
    engine = ENGINES[engine_name]()
    answer: dict[str, object]
    try:
        started = start(engine)
        answer = {"figures": started if measure == "start" else MEASURES[measure](engine)}
    except Exception as error:  # the report says it; the other engines go on
        answer = {"problem": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
    import json

    with open(file, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    engine.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
