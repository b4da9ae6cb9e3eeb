"""Finding the hub of this user, or starting one.

The lock file decides between two kernels that start at once: who gets it starts the hub, which inherits the lock with
its descriptor and keeps it for life. Existence of a connection file proves nothing, the lock does.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from nbqueue.brokers.zmq.broker import ZmqBroker
from nbqueue.brokers.zmq.connection import Connection, HubFiles
from nbqueue.errors import BrokerUnavailable
from nbqueue.processes import HubArguments, process_environment

#: A hub is up within this time, on any machine that is not on its knees.
START_TIMEOUT_S = 15.0
_POLL_S = 0.02


def find_hub(folder: Path, name: str) -> ZmqBroker | None:
    """The hub that runs; None when there is none.

    Raises:
        UnsafeConnectionFile: Others could read or replace its connection file.
        EnvironmentMismatch: It is of another version.
    """
    files = HubFiles(folder, name)
    if not folder.exists():
        return None
    files.secure_folder()
    connection = files.read_connection() if files.is_hub_alive() else None  # a dead hub's file may look as it likes
    if connection is None:
        return None
    return ZmqBroker(connection)


def find_or_start_hub(folder: Path, name: str, *, workers: int, idle_timeout_s: float, worker_python: str) -> ZmqBroker:
    """The hub that runs, or a new one.

    Args:
        folder: Private folder for its files.
        name: Which hub: users of different environments have different ones.
        workers: Local slots that a new hub starts at once.
        idle_timeout_s: When a new hub ends itself.
        worker_python: Interpreter of the local workers.

    Raises:
        BrokerUnavailable: It cannot be started, or does not answer.
        UnsafeConnectionFile: Others could read or replace its connection file.
        EnvironmentMismatch: A hub of another version runs.
    """
    files = HubFiles(folder, name)
    files.secure_folder()
    files.socket  # noqa: B018 -- refuses a path that is too long, before anything is started
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        lock = files.try_lock()
        if lock is None:
            connection = files.read_connection()
        else:
            try:
                connection = _start(files, lock, workers, idle_timeout_s, worker_python)
            finally:
                os.close(lock)
        if connection is not None and connection.pid == files.pid_in_any_version():  # else it is a dead hub's file
            return ZmqBroker(connection)
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"a hub is starting but does not get ready; its log is {files.log}")
        time.sleep(_POLL_S)  # another process starts it: its lock is held, its file not yet written


def _start(files: HubFiles, lock: int, workers: int, idle_timeout_s: float, worker_python: str) -> Connection:
    files.connection.unlink(missing_ok=True)  # of a hub that is dead: we have its lock
    os.ftruncate(lock, 0)  # its pid
    ready_reader, ready_writer = os.pipe()
    arguments = HubArguments(
        folder=str(files.folder),
        name=files.name,
        workers=workers,
        idle_timeout_s=idle_timeout_s,
        worker_python=worker_python,
        lock_fd=lock,
        ready_fd=ready_writer,
    )
    command = [sys.executable, "-P", "-m", "nbqueue.cli.hub", *arguments.encode()]
    try:
        _spawn_detached(command, files.log, keep=(lock, ready_writer))
    except OSError as error:
        os.close(ready_reader)
        raise BrokerUnavailable(f"the hub cannot be started: {error}") from error
    finally:
        os.close(ready_writer)
    try:
        _await_ready(files, ready_reader)
    finally:
        os.close(ready_reader)
    connection = files.read_connection()
    if connection is None:
        raise BrokerUnavailable(f"the hub started but wrote no connection file; its log is {files.log}")
    return connection


def _spawn_detached(command: list[str], log: Path, *, keep: tuple[int, ...]) -> None:
    """Start a process that no signal to our process group reaches and nobody has to wait for.

    It forks once more right after its start (see cli.hub), so our own child ends at once.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=keep,
            env=process_environment(),
        )
    process.wait(START_TIMEOUT_S)


def _await_ready(files: HubFiles, ready_reader: int) -> None:
    readable, _, _ = select.select([ready_reader], [], [], START_TIMEOUT_S)
    if not readable:
        raise BrokerUnavailable(f"the hub did not get ready in {START_TIMEOUT_S:.0f} s; its log is {files.log}")
    if not os.read(ready_reader, 1):
        reason = files.log_tail(1) or "it said nothing"
        raise BrokerUnavailable(f"the hub could not be started: {reason} (its log is {files.log})")
