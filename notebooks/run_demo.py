"""Run the quickstart notebook from top to bottom and print what it found.

``make demo`` calls this. The notebook runs in a temporary copy, with a
hub and workers of its own that are stopped at the end, so that a hub you
already have is never touched. Every printed figure is read from the
executed notebook: its last cell shows them as ``application/json``.

Exit status: 0; 1 with one sentence on stderr when the run failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE / "01_quickstart.ipynb"
OUTPUT = HERE.parent / "demo-output"

LEADS_ELSEWHERE = {"NBQUEUE_URL", "NBQUEUE_HUB_NAME", "MPLBACKEND"}
KERNEL_LOG = "kernel.log"
CELL_TIMEOUT_S = 300
STOP_TIMEOUT_S = 30


class DemoError(Exception):
    """The demo cannot go on; the message is one sentence for the reader."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    arguments = parse(argv)
    try:
        run(arguments.notebook, arguments.output)
    except DemoError as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run the quickstart notebook and print what it found.")
    parser.add_argument("notebook", nargs="?", type=Path, default=QUICKSTART, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the result; default: %(default)s")
    return parser.parse_args(argv)


def run(source: Path, output: Path) -> None:
    """Execute *source*, keep the result in *output* and print its figures.

    Raises:
        DemoError: A cell failed, a figure is missing, or the hub did not stop.
    """
    print(f"Running {source.name} on this machine ...", flush=True)
    notebook = nbformat.read(source, as_version=4)
    output.mkdir(parents=True, exist_ok=True)

    # A short name: the path of a Unix socket has room for about 100 characters.
    with tempfile.TemporaryDirectory(prefix="nbq-") as folder:
        environment = private_environment(Path(folder) / "run")
        try:
            execute(notebook, folder=Path(folder), environment=environment, log=output / KERNEL_LOG)
        finally:
            saved = save(notebook, output / source.name)
            stop_problem = stop_hub(environment)
    if stop_problem:
        raise DemoError(stop_problem)

    print(report(figures(notebook)))
    print("\n".join(f"{kind:<17}{path}" for kind, path in saved.items()))


def private_environment(runtime_dir: Path) -> dict[str, str]:
    """Return an environment in which nbqueue finds only a hub of its own, and charts are drawn into the notebook."""
    environment = {name: value for name, value in os.environ.items() if name not in LEADS_ELSEWHERE}
    return environment | {"NBQUEUE_RUNTIME_DIR": str(runtime_dir)}


def execute(notebook: nbformat.NotebookNode, *, folder: Path, environment: dict[str, str], log: Path) -> None:
    """Run every cell of *notebook* in *folder*; its outputs are filled in.

    What the kernel itself writes to stderr goes to *log*.

    Raises:
        DemoError: A cell raised, took too long, or its kernel died.
    """
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        with log.open("w", encoding="utf-8") as stderr:
            client.execute(env=environment, stderr=stderr)
    except CellExecutionError as error:
        raise DemoError(f"cell {failed_cell(notebook)} raised {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise DemoError(f"a cell took longer than {CELL_TIMEOUT_S} s.") from error
    except DeadKernelError as error:
        raise DemoError(f"the kernel died; {log} has its last words.") from error


def failed_cell(notebook: nbformat.NotebookNode) -> int:
    """Return the execution count of the last cell that ran."""
    return max(cell.execution_count or 0 for cell in notebook.cells if cell.cell_type == "code")


def stop_hub(environment: dict[str, str]) -> str | None:
    """Stop the private hub; return what went wrong, if anything did."""
    command = [sys.executable, "-m", "nbqueue", "stop"]
    try:
        stopped = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"`nbqueue stop` took longer than {STOP_TIMEOUT_S} s."
    return f"`nbqueue stop` said: {stopped.stderr.strip()}" if stopped.returncode else None


def save(notebook: nbformat.NotebookNode, path: Path) -> dict[str, Path]:
    """Write the executed notebook, and a web page where nbconvert is installed."""
    nbformat.write(notebook, path)
    saved = {"notebook": path}
    try:
        from nbconvert import HTMLExporter
    except ImportError:
        return saved

    page, _resources = HTMLExporter().from_notebook_node(notebook)
    saved["web page"] = path.with_suffix(".html")
    saved["web page"].write_text(page, encoding="utf-8")
    return saved


def figures(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return the figures that the last cell of *notebook* shows.

    Raises:
        DemoError: There are none, or serial and nbqueue results differ.
    """
    shown = [output.data for output in notebook.cells[-1].get("outputs", []) if "data" in output]
    found = next((data["application/json"] for data in shown if "application/json" in data), None)
    if found is None:
        raise DemoError("the last cell of the notebook shows no figures.")
    if not found["same_results"]:
        raise DemoError("nbqueue's results differ from the serial ones.")
    return dict(found)


def report(found: dict[str, Any]) -> str:
    """Return the figures as the lines that ``make demo`` prints."""
    lines = {
        "modules": f"{found['modules']:,} of the standard library, measured twice with the same results",
        "lines": f"{found['lines']:,}",
        "largest module": f"{found['largest_module']}, {found['largest_module_lines']:,} lines",
        "serial": f"{found['serial_s']:.1f} s",
        "nbqueue": f"{found['nbqueue_s']:.1f} s with {found['workers']} workers, start-up included",
        "speed-up": f"{found['speed_up']:.2f}",
    }
    return "\n".join(f"{name:<17}{value}" for name, value in lines.items())


if __name__ == "__main__":
    sys.exit(main())
