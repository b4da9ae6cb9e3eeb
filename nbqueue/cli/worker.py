"""``nbqueue-worker``: a supervisor and its slots, started by hand."""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path

import click

from nbqueue.core.routing import DEFAULT_QUEUE, Offer
from nbqueue.errors import NBQueueError
from nbqueue.settings import Settings, usable_cores
from nbqueue.worker.program import work
from nbqueue.worker.zygote_process import ZygoteProcess


@click.command()
@click.option("-c", "--concurrency", type=click.IntRange(min=1), default=None, help="Slots; default: usable cores.")
@click.option("-n", "--name", default=None, help="Shown on cards and in errors; default: host name and pid.")
@click.option("-Q", "--queues", default=DEFAULT_QUEUE, help="Queues to serve, with commas between them.")
@click.option("-t", "--tags", default="", help="What this worker has, e.g. gpu,big: work asks for it by tags=.")
@click.option("--only-tagged", is_flag=True, help="Leave work without tags to other workers.")
@click.option("--hub-name", default=None, help="Which hub of this user; default: that of this environment.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), default=None, help="Folder of the hub's files.")
@click.option("--loglevel", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
def main(
    concurrency: int | None,
    name: str | None,
    queues: str,
    tags: str,
    only_tagged: bool,
    hub_name: str | None,
    runtime_dir: Path | None,
    loglevel: str,
) -> None:
    """Run tasks for the embedded broker of this user, until it ends or Ctrl-C."""
    logging.basicConfig(level=loglevel, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    settings = Settings.load(hub_name=hub_name, runtime_dir=runtime_dir)
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    offer = Offer(queues=_names(queues), tags=_names(tags), only_tagged=only_tagged)
    if not offer.queues:
        raise click.BadParameter("name at least one queue", param_hint="--queues")
    try:
        slots = concurrency or usable_cores()
        work(settings, slots, name, offer=offer, zygote=ZygoteProcess(name, slots=slots))
    except NBQueueError as error:
        raise click.ClickException(str(error)) from error


def _names(text: str) -> tuple[str, ...]:
    """The names in ``"a, b"``, sorted and without doubles."""
    return tuple(sorted({name.strip() for name in text.split(",")} - {""}))


if __name__ == "__main__":
    main()
