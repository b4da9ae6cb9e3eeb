"""``nbqueue-worker``: a supervisor and its slots."""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbqueue.errors import BrokerUnavailable, NBQueueError
from nbqueue.settings import Settings, usable_cores

if TYPE_CHECKING:
    from nbqueue.brokers.base import Broker
    from nbqueue.worker.processes import ZygoteProcess

#: How long a worker that the hub itself started waits for the hub to listen.
HUB_TIMEOUT_S = 15.0


@click.command()
@click.option("-c", "--concurrency", type=click.IntRange(min=1), default=None, help="Slots; default: usable cores.")
@click.option("-n", "--name", default=None, help="Shown on cards and in errors; default: host name and pid.")
@click.option("--hub-name", default=None, help="Which hub of this user; default: that of this environment.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), default=None, help="Folder of the hub's files.")
@click.option("--loglevel", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
@click.option("--lifeline", is_flag=True, hidden=True, help="Started by the hub: end when standard input closes.")
def main(
    concurrency: int | None,
    name: str | None,
    hub_name: str | None,
    runtime_dir: Path | None,
    loglevel: str,
    lifeline: bool,
) -> None:
    """Run tasks for the embedded broker of this user, until it ends or Ctrl-C."""
    logging.basicConfig(level=loglevel, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    settings = Settings.load(hub_name=hub_name, runtime_dir=runtime_dir)
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    try:
        _work(settings, concurrency or usable_cores(), name, lifeline=sys.stdin.fileno() if lifeline else None)
    except NBQueueError as error:
        raise click.ClickException(str(error)) from error


def _work(settings: Settings, slots: int, name: str, *, lifeline: int | None) -> None:
    from nbqueue.worker.processes import ZygoteProcess

    zygote = ZygoteProcess(name)  # before all else, so that it loads its modules while we load ours
    try:
        _supervise(settings, slots, name, zygote, lifeline=lifeline)
    finally:
        zygote.close()


def _supervise(settings: Settings, slots: int, name: str, zygote: ZygoteProcess, *, lifeline: int | None) -> None:
    from nbqueue.core.dispatcher import WorkerInfo
    from nbqueue.worker.supervisor import Supervisor

    broker = _find_broker(settings, lifeline)
    zygote.use_blobs(broker.blobs)
    info = WorkerInfo(
        worker_id=secrets.token_bytes(16),
        name=name,
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=slots,
        prefetch=slots,
    )
    supervisor = Supervisor(broker.open_worker(info), zygote, slots=slots, name=name, lifeline=lifeline)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: supervisor.stop())
    supervisor.serve()


def _find_broker(settings: Settings, lifeline: int | None) -> Broker:
    """The running broker; one that has started us may still be about to listen."""
    from nbqueue.brokers.registry import open_broker

    deadline = time.monotonic() + HUB_TIMEOUT_S
    while (broker := open_broker(settings.url, settings, start=False)) is None:
        if lifeline is None:
            raise BrokerUnavailable("no hub runs on this machine: a notebook that uses nbqueue starts it")
        if time.monotonic() > deadline or select.select([lifeline], [], [], 0.01)[0]:
            raise BrokerUnavailable("the hub that started this worker does not listen")
    return broker


if __name__ == "__main__":
    main()
