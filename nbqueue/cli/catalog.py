"""What tasks a worker would offer: ``python -m nbqueue.cli.catalog WORKER FOLDER MODULE...``.

Asked once when a worker starts, so that a module that cannot be imported is told then, and not by each task. The
modules are imported in a process of its own, since nobody's code runs in a supervisor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence

import click

from nbqueue.errors import NotRegistered
from nbqueue.worker.catalog import Catalog


def tasks_of(modules: Sequence[str], *, worker: str) -> list[str]:
    """The names of the tasks of *modules*, as slots of *worker* will find them from here.

    Raises:
        NotRegistered: A module cannot be imported, or two tasks have one name.
    """
    command = [sys.executable, "-P", "-m", "nbqueue.cli.catalog", worker, os.getcwd(), *modules]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    try:
        answer = json.loads(ran.stdout.splitlines()[-1])  # the modules may have printed something, too
    except (IndexError, ValueError):
        answer = {"error": f"modules that were named for their tasks end the process that imports them: {modules}"}
    if "error" in answer:
        raise NotRegistered(answer["error"])
    return [str(name) for name in answer["tasks"]]


def main() -> None:
    """Print the names of the tasks as JSON, or why there are none."""
    worker, folder, *modules = sys.argv[1:]
    try:
        answer: dict[str, object] = {"tasks": sorted(Catalog(("json",), modules, folder=folder, worker=worker).tasks())}
    except NotRegistered as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        answer = {"error": str(error)}
    click.echo("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
