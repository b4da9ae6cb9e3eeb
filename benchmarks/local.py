"""Measure nbqueue and its peers in one run: `python -m benchmarks.local`.

Every figure comes from a fresh process. Rounds are interleaved (A B C, A B C), so that a slow minute of
a shared machine hits every engine, and the report gives medians and ratios.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks.engines import ENGINES
from benchmarks.measures import MEASURES, applies
from benchmarks.processes import TAG_VARIABLE, reap
from benchmarks.report import Report, Sample, as_json, as_markdown

ROOT = Path(__file__).resolve().parents[1]
FOREIGN_SETTINGS = ("NBQUEUE_", "RAY_", "DASK_", "IPP_", "JOBLIB_", "LOKY_")


def _names_of(known: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Make the callback of an option that takes comma-separated names, or "all"."""
    names = tuple(known)

    def choose(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        chosen = names if value == "all" else tuple(value.split(","))
        if unknown := [name for name in chosen if name not in names]:
            raise click.BadParameter(f"{', '.join(unknown)} is not one of {', '.join(names)}", context, parameter)
        return chosen

    return choose


@click.command()
@click.option("--engines", callback=_names_of(ENGINES), default="all", show_default=True, help="Comma-separated.")
@click.option("--measures", callback=_names_of(MEASURES), default="all", show_default=True, help="Comma-separated.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Interleaved rounds.")
@click.option("--limit-s", type=float, default=60.0, show_default=True, help="Longest time of one measurement.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "benchmarks" / "results",
    help="Folder for local.md and local.json.  [default: benchmarks/results]",
)
def main(engines: tuple[str, ...], measures: tuple[str, ...], repeat: int, limit_s: float, out: Path) -> None:
    """Run the same work on nbqueue and on its peers, with two local workers each."""
    absent = {
        name: f"not installed: {', '.join(ENGINES[name].missing())}" for name in engines if ENGINES[name].missing()
    }
    present = tuple(name for name in engines if name not in absent)
    for name, why in absent.items():
        click.echo(f"{name}: {why}", err=True)

    compileall.compile_dir(ROOT / "nbqueue", quiet=1)  # as pip has done with the peers
    machine = _machine(present, repeat)
    samples = tuple(_samples(present, measures, repeat, limit_s))
    report = Report(machine=machine, engines=present, absent=absent, samples=samples)

    text = as_markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "local.md").write_text(text, encoding="utf-8")
    (out / "local.json").write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8")
    click.echo(text)


def _samples(engines: Sequence[str], measures: Sequence[str], repeat: int, limit_s: float) -> Iterator[Sample]:
    pairs = [(m, e) for m in measures for e in engines if applies(m, ENGINES[e])]
    hopeless = set()
    for round_number in range(1, repeat + 1):
        for measure, engine in pairs:
            if (measure, engine) not in hopeless:
                sample = _measure(engine, measure, round_number, limit_s)
                click.echo(f"{round_number}/{repeat} {measure} {engine}: {_brief(sample)}", err=True)
                yield sample
                if sample.timed_out:
                    hopeless.add((measure, engine))  # one lost minute each is enough


def _measure(engine: str, measure: str, round_number: int, limit_s: float) -> Sample:
    """Run one measure of one engine in a process of its own, and leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="nbq-", ignore_cleanup_errors=True) as folder:
        answer_file = Path(folder, "answer.json")
        timed_out = False
        with open(Path(folder, "log"), "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.measures", engine, measure, str(answer_file)],
                cwd=ROOT,
                env=_environment(Path(folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                timed_out = True
                process.kill()
                process.wait()
            finally:
                left_behind = reap(folder)

        answer = json.loads(answer_file.read_text(encoding="utf-8")) if answer_file.exists() else {}
        figures, problem = answer.get("figures", {}), answer.get("problem")
        if timed_out:
            problem = problem or f"did not end within {limit_s:g} s"
        elif process.returncode:
            problem = problem or _last_line(Path(folder, "log"))
    return Sample(
        engine=engine,
        measure=measure,
        round=round_number,
        figures=figures,
        problem=problem,
        timed_out=timed_out,
        left_behind=tuple(left_behind),
    )


def _environment(folder: Path) -> dict[str, str]:
    """Ours without the user's settings of any engine; every engine writes below *folder*."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN_SETTINGS)}
    return inherited | {
        TAG_VARIABLE: str(folder),
        "TMPDIR": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "NBQUEUE_RUNTIME_DIR": str(folder / "nbqueue"),
    }


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:160] for line in reversed(lines) if line.strip()), "ended without a word")


def _brief(sample: Sample) -> str:
    figures = ", ".join(f"{key}={value:.4g}" for key, value in sample.figures.items())
    left = f"left {len(sample.left_behind)} processes" if sample.left_behind else None
    return " · ".join(part for part in (figures, sample.problem, left) if part)


def _machine(engines: Sequence[str], repeat: int) -> dict[str, str]:
    packages = {package for engine in engines for package in ENGINES[engine].requires}
    versions = ", ".join(f"{package} {_version(package)}" for package in sorted(packages))
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.2f} before the start",
        "python": platform.python_version(),
        "packages": versions or "standard library only",
        "rounds": f"{repeat}, interleaved, each figure from a fresh process",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from source"


if __name__ == "__main__":
    main()
