"""The hub's process: ``python -m nbqueue.cli.hub ARGUMENTS``, started by the first client that finds no hub.

Whoever starts it waits for it, so it loads little before it starts the workers, and its arguments are one JSON object.
"""

from __future__ import annotations

import os

if __name__ == "__main__" and os.fork() > 0:
    os._exit(0)  # whoever started us need not wait for the hub, and never has to reap it

import gc
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nbqueue.cli.log import log_events
from nbqueue.core.routing import DEFAULT_OFFER
from nbqueue.launchers.local import LocalLauncher
from nbqueue.settings import HubArguments

if TYPE_CHECKING:
    from selectors import BaseSelector

    from nbqueue.brokers.zmq.doors import Host
    from nbqueue.brokers.zmq.remote_door import RemoteDoor
    from nbqueue.wire.blobs import BlobStore


def main() -> None:
    """Serve as the embedded broker of this user."""
    arguments = HubArguments.decode(sys.argv[1])
    log_events()
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
    folder, name = Path(arguments.folder), arguments.name
    # For `nbqueue stop`, should the connection file be unreadable.
    os.ftruncate(arguments.lock_fd, 0)
    os.pwrite(arguments.lock_fd, str(os.getpid()).encode(), 0)
    launcher = LocalLauncher(
        folder=folder,
        hub_name=name,
        python=arguments.worker_python,
        log=lambda number: folder / f"hub-{name}-worker-{number}.log",
    )
    if arguments.workers:  # first, so that they load their modules while we load ours
        launcher.start("hub", arguments.workers, None, DEFAULT_OFFER)
    try:
        _serve(arguments, launcher, announce)
    finally:
        launcher.stop()


def _serve(arguments: HubArguments, launcher: LocalLauncher, announce: Callable[[str], None]) -> None:
    from nbqueue.brokers.zmq.connection import Connection, HubFiles
    from nbqueue.brokers.zmq.hub import Hub, HubOptions
    from nbqueue.core.dispatcher import Dispatcher
    from nbqueue.wire.blobs import BlobStore, sweep
    from nbqueue.wire.messages import PROTOCOL_VERSION
    from nbqueue.wire.versions import own_versions

    files = HubFiles(Path(arguments.folder), arguments.name)
    options = HubOptions(
        socket=files.socket,
        token=secrets.token_bytes(32),
        epoch=secrets.token_bytes(16),
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
        workers=launcher,
        pid=os.getpid(),
        open_remote_door=_remote_door(arguments, blobs) if arguments.bind else None,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: hub.stop())
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


def _remote_door(arguments: HubArguments, blobs: BlobStore) -> Callable[[Host, BaseSelector], RemoteDoor]:
    """How to open the door for other machines; ZeroMQ is loaded only by hubs that have one."""
    from nbqueue.brokers.zmq.curve import read_hub_keys
    from nbqueue.brokers.zmq.remote_door import RemoteDoor

    keys = read_hub_keys(Path(arguments.keys))
    return lambda host, selector: RemoteDoor(arguments.bind, keys, host, selector, blobs=blobs)


if __name__ == "__main__":
    main()
