"""The hub's process: ``python -m nbqueue.cli.hub ARGUMENTS``, started by the first client that finds no hub.

Whoever starts it waits for it, so it loads next to nothing before it starts the process that slots are forked from.
"""

from __future__ import annotations

import os

if __name__ == "__main__" and os.fork() > 0:
    os._exit(0)  # whoever started us need not wait for the hub, and never has to reap it

import gc
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nbqueue.processes import HubArguments, worker_environment
from nbqueue.worker.zygote_process import ZygoteProcess, usual_name

if TYPE_CHECKING:
    from selectors import BaseSelector

    from nbqueue.brokers.zmq.doors import Host
    from nbqueue.brokers.zmq.remote_door import RemoteDoor
    from nbqueue.wire.blobs import BlobStore


def main() -> None:
    """Serve as the embedded broker of this user."""
    arguments = HubArguments.decode(sys.argv[1:])
    os.chdir(arguments.folder)
    os.set_inheritable(arguments.lock_fd, False)
    os.set_inheritable(arguments.ready_fd, False)

    def announce(endpoint: str) -> None:
        os.write(arguments.ready_fd, b"1")
        os.close(arguments.ready_fd)

    serve(arguments, announce)


def serve(arguments: HubArguments, announce: Callable[[str], None]) -> None:
    """Be a hub until the end; *announce* is called when it listens, with its address for other machines, if any.

    Raises:
        BrokerUnavailable: It cannot listen.
        KeyFileError: It has no keys to listen on TCP.
    """
    # For `nbqueue stop`, should the connection file be unreadable.
    os.ftruncate(arguments.lock_fd, 0)
    os.pwrite(arguments.lock_fd, str(os.getpid()).encode(), 0)
    # Before we load what we need ourselves: it loads its modules meanwhile, on another core.
    zygote = _first_zygote(arguments)

    import random
    from pathlib import Path

    from nbqueue.brokers.zmq.connection import Connection, HubFiles
    from nbqueue.brokers.zmq.hub import Hub, HubOptions
    from nbqueue.cli.local_workers import hire
    from nbqueue.cli.log import log_events
    from nbqueue.core.dispatcher import Dispatcher
    from nbqueue.wire.blobs import BlobStore, sweep
    from nbqueue.wire.messages import PROTOCOL_VERSION
    from nbqueue.wire.versions import own_versions

    log_events()
    files = HubFiles(Path(arguments.folder), arguments.name)
    options = HubOptions(
        socket=files.socket,
        token=os.urandom(32),
        epoch=os.urandom(16),
        versions=own_versions(),
        idle_timeout_s=arguments.idle_timeout_s,
    )
    blobs = BlobStore(files.blob_roots)
    blobs.destroy()  # what a hub of this name left behind when it was killed
    sweep()  # and others
    blobs.create()
    hub = Hub(
        options,
        dispatcher=Dispatcher(rng=random.Random()),
        clock=time.monotonic,
        blobs=blobs,
        hire=hire(arguments, files, blobs, zygote),
        pid=os.getpid(),
        open_remote_door=_remote_door(arguments, blobs) if arguments.bind else None,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: hub.stop())
    if arguments.workers:
        hub.start_workers(arguments.workers)
    files.write_connection(
        Connection(
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            endpoint=str(options.socket),
            token=options.token,
            epoch=options.epoch,
            python=options.versions.python,
            blob_roots=[str(root) for root in blobs.roots],
            log=str(files.log),
        )
    )
    announce(hub.remote_endpoint)
    gc.collect()
    gc.freeze()  # what is here now stays: no need to look at it again and again
    gc.set_threshold(10_000)  # messages come and go without cycles
    try:
        hub.serve()
    finally:
        files.connection.unlink(missing_ok=True)
        hub.close()
        blobs.destroy()


def _first_zygote(arguments: HubArguments) -> ZygoteProcess | None:
    """The process that the first slots are forked from; None: there are none, or they need another interpreter."""
    if not arguments.workers or arguments.worker_python != sys.executable:
        return None
    environment = worker_environment(arguments.folder, arguments.name)
    return ZygoteProcess(usual_name(), slots=arguments.workers, environment=environment)


def _remote_door(arguments: HubArguments, blobs: BlobStore) -> Callable[[Host, BaseSelector], RemoteDoor]:
    """How to open the door for other machines; ZeroMQ is loaded only by hubs that have one."""
    from pathlib import Path

    from nbqueue.brokers.zmq.curve import read_hub_keys
    from nbqueue.brokers.zmq.remote_door import RemoteDoor

    keys = read_hub_keys(Path(arguments.keys))
    return lambda host, selector: RemoteDoor(arguments.bind, keys, host, selector, blobs=blobs)


if __name__ == "__main__":
    main()
