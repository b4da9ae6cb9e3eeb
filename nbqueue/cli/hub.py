"""The hub's process: ``python -m nbqueue.cli.hub ARGUMENTS``, started by the first client that finds no hub.

Whoever starts it waits for it, so it loads little before it starts the workers, and its arguments are one JSON object.
"""

from __future__ import annotations

import os

if __name__ == "__main__" and os.fork() > 0:
    os._exit(0)  # whoever started us need not wait for the hub, and never has to reap it

import gc
import logging
import random
import secrets
import signal
import sys
import time
from pathlib import Path

from nbqueue.core.routing import DEFAULT_OFFER
from nbqueue.launchers.local import LocalLauncher
from nbqueue.settings import HubArguments


def main() -> None:
    """Serve as the embedded broker of this user."""
    arguments = HubArguments.decode(sys.argv[1])
    folder, name = Path(arguments.folder), arguments.name
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.chdir(folder)
    os.set_inheritable(arguments.lock_fd, False)
    os.set_inheritable(arguments.ready_fd, False)
    # For `nbqueue stop`, should the connection file be unreadable.
    os.pwrite(arguments.lock_fd, str(os.getpid()).encode(), 0)
    launcher = LocalLauncher(
        folder=folder,
        hub_name=name,
        python=arguments.worker_python,
        log=lambda number: folder / f"hub-{name}-worker-{number}.log",
    )
    if arguments.workers:
        launcher.start(
            "hub", arguments.workers, None, DEFAULT_OFFER
        )  # first, so that they load their modules while we load ours
    _serve(folder, name, arguments.idle_timeout_s, launcher, arguments.ready_fd)


def _serve(folder: Path, name: str, idle_timeout: float, launcher: LocalLauncher, ready_fd: int) -> None:
    from nbqueue.brokers.zmq.connection import Connection, HubFiles
    from nbqueue.brokers.zmq.hub import Hub, HubOptions
    from nbqueue.core.dispatcher import Dispatcher
    from nbqueue.wire.blobs import BlobStore
    from nbqueue.wire.messages import PROTOCOL_VERSION
    from nbqueue.wire.private import secure_folder
    from nbqueue.wire.versions import own_versions

    files = HubFiles(folder, name)
    options = HubOptions(
        socket=files.socket,
        token=secrets.token_bytes(32),
        epoch=secrets.token_bytes(16),
        versions=own_versions(),
        idle_timeout_s=idle_timeout,
    )
    blobs = BlobStore(files.blob_roots)
    blobs.destroy()  # what a hub of this name left behind when it was killed
    for root in blobs.roots:
        secure_folder(root)
    hub = Hub(
        options,
        dispatcher=Dispatcher(rng=random.Random()),
        clock=time.monotonic,
        blobs=blobs,
        workers=launcher,
        pid=os.getpid(),
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
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    gc.collect()
    gc.freeze()  # what is here now stays: no need to look at it again and again
    gc.set_threshold(10_000)  # messages come and go without cycles
    try:
        hub.serve()
    finally:
        files.connection.unlink(missing_ok=True)
        hub.close()
        blobs.destroy()


if __name__ == "__main__":
    main()
