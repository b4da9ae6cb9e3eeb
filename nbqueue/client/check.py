"""A look at a call before it is mapped over thousands of items: can it travel, how large is it, what does one take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from nbqueue.client.env_diff import EnvDiff
from nbqueue.client.tables import Fact, Table
from nbqueue.errors import NotSerializable
from nbqueue.wire.blame import captured_bytes, pickled_bytes, refusal

#: A captured variable above this is named.
LARGE_BYTES = 2**20
#: Work that a worker takes at once should last about so long.
CHUNK_S = 0.2
_MOST_ITEMS = 10_000


class Trial(NamedTuple):
    """One run of the call in a slot."""

    wall_s: float
    cpu_s: float
    peak_bytes: int  #: by which the most memory of the slot grew
    result_bytes: int


class CheckReport(Table[Fact]):
    """What `check` has found; it prints as a table.

    Attributes:
        problem: Why the call cannot be sent, or what it raised; None: all is well.
        function_bytes: Size of the function with all that it captures.
        captured: Size of each variable that it captures, the largest first.
        argument_bytes: Size of the arguments.
        trial: What one run took; None: none was made, or it failed.
        chunksize: Items that should be sent at once; None: not known.
        advice: Sentences.
    """

    def __init__(self) -> None:
        super().__init__(empty="nothing was checked")
        self.problem: BaseException | None = None
        self.function_bytes = self.argument_bytes = 0
        self.captured: dict[str, int] = {}
        self.trial: Trial | None = None
        self.chunksize: int | None = None
        self.advice: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether it can be sent, and ran if it was tried."""
        return self.problem is None


def try_out(fn: Callable[..., Any], args: tuple[Any, ...]) -> Trial:
    """Run the call in this slot and measure it."""
    before = _peak_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    result = fn(*args)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return Trial(wall_s, cpu_s, _peak_bytes() - before, pickled_bytes(result))


def check(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    submit: Callable[..., Any] | None,
    env_diff: Callable[[], EnvDiff],
) -> CheckReport:
    """Examine a call.

    Args:
        fn: The function.
        args: Of one call.
        submit: Runs a trial; None: there shall be none.
        env_diff: Compares the workers' packages with those here.
    """
    report = CheckReport()
    try:
        report.function_bytes = _size(fn)
        report.argument_bytes = sum(map(_size, args))
    except NotSerializable as error:
        report.problem = error
        report.append(Fact("can be sent", f"no: {error}"))
        return report
    report.captured = captured_bytes(fn)
    report.append(Fact("can be sent", "yes"))
    report.append(Fact("function, bytes", report.function_bytes))
    report.extend(Fact(f"captures {name!r}, bytes", size) for name, size in list(report.captured.items())[:5])
    report.append(Fact("arguments, bytes", report.argument_bytes))
    if submit is not None:
        _add_trial(report, submit, fn, args)
        differing = sorted({row.package for row in env_diff() if row.notable})
        report.append(Fact("packages that differ", ", ".join(differing[:8]) or "none"))
    _advise(report)
    report.extend(Fact("advice", sentence) for sentence in report.advice)
    return report


def _add_trial(report: CheckReport, submit: Callable[..., Any], fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    handle = submit(try_out, fn, args)
    error = handle.exception()
    if error is not None:
        report.problem = error
        report.append(Fact("one run", f"failed: {type(error).__name__}: {error}"))
        return
    report.trial = trial = handle.get()
    report.chunksize = max(1, min(_MOST_ITEMS, round(CHUNK_S / max(trial.wall_s, 1e-7))))
    report.append(Fact("one run, s", f"{trial.wall_s:.3g} ({trial.cpu_s:.3g} of CPU)"))
    report.append(Fact("memory that it added, bytes", trial.peak_bytes))
    report.append(Fact("result, bytes", trial.result_bytes))
    report.append(Fact("chunksize that fits", report.chunksize))


def _advise(report: CheckReport) -> None:
    for name, size in report.captured.items():
        if size > LARGE_BYTES:
            report.advice.append(
                f"{name!r} travels with the function: {size / 2**20:,.0f} MiB, once to each machine, not once per item"
            )
    if report.argument_bytes > LARGE_BYTES:
        report.advice.append("the arguments travel with every item: let the function read large data itself")
    if report.trial is not None and report.trial.result_bytes > 16 * LARGE_BYTES:
        report.advice.append("the result is large: let the function write it, and return where it is")
    if report.trial is not None and report.trial.wall_s < 20e-6:
        report.advice.append("one call takes microseconds: a loop here may be faster")


def _size(value: Any) -> int:
    try:
        return pickled_bytes(value)
    except Exception as error:
        raise refusal(value, error=error) from None


def _peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
