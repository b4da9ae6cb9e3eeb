"""From samples to tables: medians, ratios of nbqueue to each peer, goals, notes. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from benchmarks.measures import FIGURES, Figure

OURS = "nbqueue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One process: one engine, one measure, one round."""

    engine: str
    measure: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    problem: str | None = None  #: why there are no figures
    timed_out: bool = False
    left_behind: tuple[str, ...] = ()  #: names of processes that had to be killed afterwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run."""

    machine: dict[str, str]
    engines: tuple[str, ...]
    absent: dict[str, str]  #: engine -> why it was not measured
    samples: tuple[Sample, ...]

    def median(self, figure: str, engine: str) -> float | None:
        """Median over the rounds; None without a sample."""
        values = [s.figures[figure] for s in self.samples if s.engine == engine and figure in s.figures]
        return statistics.median(values) if values else None

    def ratio(self, figure: Figure, peer: str) -> float | None:
        """How many times better nbqueue is than *peer*: above 1 is better."""
        ours, theirs = self.median(figure.key, OURS), self.median(figure.key, peer)
        if not (figure.has_ratio and ours and theirs):
            return None
        return ours / theirs if figure.more_is_better else theirs / ours

    def measured(self) -> list[Figure]:
        """Figures with at least one sample."""
        return [f for f in FIGURES if any(f.key in sample.figures for sample in self.samples)]


class Goal(NamedTuple):
    """nbqueue is to be at least *factor* times as good as *peer*; without a peer, at most *factor*."""

    figure: str
    peer: str | None
    factor: float


GOALS = (
    Goal("start_s", "loky", 0.5),
    Goal("start_s", "dask", 3),
    Goal("rtt_p50_us", "ray", 4),
    Goal("tasks_per_s", "cf", 2),
    Goal("map_per_s", "cf", 1),
    Goal("map_per_s", "loky", 1),
    Goal("map_per_s", "ipyparallel", 1),
    Goal("argument_gb_per_s", "ray", 2),
    Goal("result_gb_per_s", "ray", 2),
    Goal("capture_s", "ray", 5),
    Goal("memory_client_mb", None, 50),
    Goal("memory_other_mb", None, 50),
)


def as_json(report: Report) -> dict[str, Any]:
    """Everything measured, with every sample."""
    peers = [engine for engine in report.engines if engine != OURS]
    return {
        "machine": report.machine,
        "absent": report.absent,
        "medians": {f.key: {e: report.median(f.key, e) for e in report.engines} for f in report.measured()},
        "ratios": {f.key: {e: report.ratio(f, e) for e in peers} for f in report.measured() if f.has_ratio},
        "samples": [asdict(sample) for sample in report.samples],
    }


def as_markdown(report: Report) -> str:
    """The report for people; aligned, so that a terminal shows it as well."""
    sections = [
        "# nbqueue and its peers: two local workers, one machine, one run",
        _bullets(f"{key}: {value}" for key, value in report.machine.items()),
        "## Medians",
        _medians(report),
        "## Ratios: how many times better nbqueue is (above 1: better)",
        _ratios(report),
        "## Goals",
        _goals(report),
        "## Notes",
        _bullets(_notes(report)),
    ]
    return "\n\n".join(sections) + "\n"


def _medians(report: Report) -> str:
    rows = [
        [f"{figure.title}, {figure.unit}", *(_number(report.median(figure.key, e)) for e in report.engines)]
        for figure in report.measured()
    ]
    return _table(["median", *report.engines], rows)


def _ratios(report: Report) -> str:
    peers = [engine for engine in report.engines if engine != OURS]
    if OURS not in report.engines or not peers:
        return "None: they need nbqueue and a peer in the same run."
    rows = [
        [figure.title, *(_number(report.ratio(figure, peer)) for peer in peers)]
        for figure in report.measured()
        if figure.has_ratio
    ]
    return _table(["nbqueue against", *peers], rows)


def _goals(report: Report) -> str:
    figures = {figure.key: figure for figure in report.measured()}
    rows = [
        _judged(report, goal, figures[goal.figure])
        for goal in GOALS
        if goal.figure in figures and {OURS, goal.peer or OURS} <= set(report.engines)
    ]
    return _table(["goal", "wanted", "measured", ""], rows) if rows else "None could be judged in this run."


def _judged(report: Report, goal: Goal, figure: Figure) -> list[str]:
    if goal.peer is None:
        wanted, actual = f"≤ {goal.factor:g} {figure.unit}", report.median(figure.key, OURS)
        met = actual is not None and actual <= goal.factor
    else:
        wanted, actual = f"≥ {goal.factor:g} × {goal.peer}", report.ratio(figure, goal.peer)
        met = actual is not None and actual >= goal.factor
    verdict = "met" if met else "MISSED" if actual is not None else "no figure, see the notes"
    return [figure.title, wanted, _number(actual), verdict]


def _notes(report: Report) -> list[str]:
    absent = [f"{engine}: not measured, {why}" for engine, why in report.absent.items()]
    seen = Counter(f"{s.engine} {s.measure}: {s.problem}" for s in report.samples if s.problem)
    seen += Counter(
        f"{s.engine} {s.measure}: left running and killed afterwards: {', '.join(sorted(s.left_behind))}"
        for s in report.samples
        if s.left_behind
    )
    happened = [f"{what} ({times} ×)" for what, times in seen.items()]
    return [*absent, *happened] or ["Every engine did every measure and ended all its processes."]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join([cells[0].ljust(len(first)), *rest]) + " |"

    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])
