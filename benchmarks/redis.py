"""Measure nbqueue and its peers on one Redis, in one run: `python -m benchmarks.redis`.

Every engine has a server of its own, with nothing persisted, and two worker processes, keeps results, and runs no-op
tasks. Each is measured as it comes out of the box; so nbqueue seals what passes through the server.

* round trip: from the call that submits one task to its result, with nothing else under way; the median of 1,000 in a
  row, after 200 that are not counted.
* tasks/s: so many single tasks submitted one after the other, then the result of each.
* nbqueue map: the same number of tasks in one call.

Rounds are interleaved, so that a slow minute of a shared machine hits every engine; the report gives medians of the
rounds, and ratios.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import click

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
NEEDS = {"nbqueue": ("nbqueue",), "taskiq": ("taskiq", "taskiq_redis"), "celery": ("celery",)}
WARM_UP_TASKS = 200
LATENCY_TASKS = 1000


@click.command()
@click.option("--engine", default="", hidden=True)
@click.option("--tasks", default=3000, show_default=True)
@click.option("--repeat", default=3, show_default=True, help="Interleaved rounds.")
def main(engine: str, tasks: int, repeat: int) -> None:
    """Round trip and throughput of single tasks, side by side."""
    if engine:
        click.echo(json.dumps(ENGINES[engine](tasks)))
        return
    found = {name: all(map(importlib.util.find_spec, modules)) for name, modules in NEEDS.items()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name, is_there in found.items() if is_there}
    for _ in range(repeat):
        for name, figures in rounds.items():
            figures.append(_measure(name, tasks))
    _report(rounds)


def _report(rounds: dict[str, list[dict[str, float]]]) -> None:
    medians = {
        name: {figure: statistics.median(one[figure] for one in figures) for figure in figures[0]}
        for name, figures in rounds.items()
    }
    ours = medians["nbqueue"]
    click.echo(
        "| engine | round trip p50, µs | tasks/s | nbqueue is faster by (round trip, tasks, map) |\n|---|---|---|---|"
    )
    for name, figures in medians.items():
        ratios = (
            figures["rtt_us"] / ours["rtt_us"],
            ours["tasks_per_s"] / figures["tasks_per_s"],
            ours["map_per_s"] / figures["tasks_per_s"],
        )
        text = ", ".join(f"{ratio:.1f} ×" for ratio in ratios)
        click.echo(f"| {name} | {figures['rtt_us']:.0f} | {figures['tasks_per_s']:.0f} | {text} |")
    click.echo(f"\nnbqueue map: {ours['map_per_s']:.0f} tasks/s")


def _measure(engine: str, tasks: int) -> dict[str, float]:
    """One engine, in a process of its own, on a server of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="nbqb")
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", folder, "--logfile", f"{folder}/log"]
    server = subprocess.Popen(command)
    try:
        _await_port(port)
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.redis", "--engine", engine, "--tasks", str(tasks)],
            env={**os.environ, "BENCH_PORT": str(port)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=180,
            check=True,
        )
        return json.loads(result.stdout.splitlines()[-1])
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port}")


class Workers:
    """Worker processes of one engine, ended with the block."""

    def __init__(self, *commands: list[str], **environment: str) -> None:
        self._processes = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for command in commands
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _figures(latencies: list[float], tasks: int, seconds: float, **more: float) -> dict[str, float]:
    return {"rtt_us": statistics.median(latencies) * 1e6, "tasks_per_s": tasks / seconds, **more}


def _nbqueue(tasks: int) -> dict[str, float]:
    import nbqueue

    url = f"redis://127.0.0.1:{os.environ['BENCH_PORT']}"
    worker = [sys.executable, "-m", "nbqueue.cli.worker", "-c", "2"]
    with Workers(worker, NBQUEUE_URL=url), nbqueue.App(url) as app:
        latencies, seconds = _measure_calls(
            lambda value: app.submit(abs, value), lambda task: task.get(timeout=60), tasks
        )
        began = time.perf_counter()
        app.map(abs, range(tasks), progress=False).get(timeout=60)
        return _figures(latencies, tasks, seconds, map_per_s=tasks / (time.perf_counter() - began))


def _celery(tasks: int) -> dict[str, float]:
    from benchmarks.redis_peers.celery_app import noop

    worker = [str(BIN / "celery"), "-A", "benchmarks.redis_peers.celery_app", "worker", "-c", "2", "-l", "error"]
    with Workers([*worker, "--without-gossip", "--without-mingle"]):
        latencies, seconds = _measure_calls(noop.delay, lambda task: task.get(timeout=120), tasks)
        return _figures(latencies, tasks, seconds)


def _measure_calls(submit, get, tasks: int) -> tuple[list[float], float]:
    for value in range(WARM_UP_TASKS):
        get(submit(value))
    latencies = []
    for value in range(LATENCY_TASKS):
        began = time.perf_counter()
        get(submit(value))
        latencies.append(time.perf_counter() - began)
    began = time.perf_counter()
    handles = [submit(value) for value in range(tasks)]
    for handle in handles:
        get(handle)
    return latencies, time.perf_counter() - began


def _taskiq(tasks: int) -> dict[str, float]:
    worker = [
        str(BIN / "taskiq"),
        "worker",
        "benchmarks.redis_peers.taskiq_app:broker",
        "-w",
        "2",
        "--max-prefetch",
        "64",
    ]
    with Workers(worker):
        return asyncio.run(_measure_taskiq(tasks))


async def _measure_taskiq(tasks: int) -> dict[str, float]:
    from benchmarks.redis_peers.taskiq_app import broker, noop

    await broker.startup()
    for value in range(WARM_UP_TASKS):
        await (await noop.kiq(value)).wait_result(check_interval=0.0005, timeout=60)
    latencies = []
    for value in range(LATENCY_TASKS):
        began = time.perf_counter()
        await (await noop.kiq(value)).wait_result(check_interval=0.0005)
        latencies.append(time.perf_counter() - began)
    began = time.perf_counter()
    handles = [await noop.kiq(value) for value in range(tasks)]
    for handle in handles:
        await handle.wait_result(check_interval=0.001)
    seconds = time.perf_counter() - began
    await broker.shutdown()
    return _figures(latencies, tasks, seconds)


ENGINES = {"nbqueue": _nbqueue, "taskiq": _taskiq, "celery": _celery}

if __name__ == "__main__":
    main()
