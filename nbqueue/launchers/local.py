"""Starts supervisors on this machine, for a hub; they die with it.

Each holds the read end of a pipe (its standard input) whose write end the hub keeps: when the hub dies, however it
dies, the pipe closes and the supervisor ends its slots and itself.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from nbqueue.brokers.workers import WorkerExit
from nbqueue.core.routing import Offer, encode_offer
from nbqueue.processes import worker_environment

#: How long a supervisor may take to stop its slots before it is killed.
STOP_TIMEOUT_S = 5.0


class LocalLauncher:
    """Supervisors as child processes of the hub."""

    def __init__(self, *, folder: Path, hub_name: str, python: str, log: Callable[[int], Path]) -> None:
        """Start workers for the hub *hub_name* of *folder* with *python*; *log* names their log files."""
        self._folder = folder
        self._hub_name = hub_name
        self._python = python
        self._log = log
        self._environment = worker_environment(str(folder), hub_name)
        self._count = 0
        self._children: list[_Child] = []
        self._failed: list[WorkerExit] = []

    @property
    def slots(self) -> int:
        """Slots of all processes that live, connected or not."""
        return sum(child.slots for child in self._children)

    def owns(self, pid: int) -> bool:
        """Whether this process is one of them, and its end has not come out of `exits` yet."""
        return any(child.process.pid == pid for child in self._children)

    def slots_offering(self, offer: Offer) -> int:
        """Slots of those processes that take on just this."""
        return sum(child.slots for child in self._children if child.offer == offer)

    def start(self, key: str, slots: int, python: str | None, offer: Offer) -> None:
        """Start a supervisor for the request *key*; what goes wrong comes out of `exits`."""
        self._count += 1
        log = self._log(self._count)
        command = [
            *(python or self._python, "-P", "-m", "nbqueue.cli.launched"),
            *(str(self._folder), self._hub_name, str(slots), encode_offer(offer)),
        ]
        try:
            with open(log, "wb") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=self._environment,
                )
        except OSError as error:
            reason = f"no worker could be started with {command[0]}: {error.strerror}"
            self._failed.append(WorkerExit(key, 0, slots, reason, python, offer))
            return
        self._children.append(_Child(key, slots, process, log, python, offer))

    def exits(self) -> list[WorkerExit]:
        """Processes that ended since the last call and were not asked to."""
        exits, self._failed = self._failed, []
        for child in list(self._children):
            status = child.process.poll()
            if status is not None:
                self._children.remove(child)
                child.close_lifeline()
                exits.append(child.exit(status))
        return exits

    def resized(self, pid: int, slots: int) -> None:
        """A supervisor has changed its number of slots; a pid that is not of ours is passed over."""
        for child in self._children:
            if child.process.pid == pid:
                child.slots = slots

    def stop(self, key: str | None = None) -> None:
        """Stop the supervisors of one request, or all: ask, wait, then kill."""
        leaving = [child for child in self._children if key is None or child.key == key]
        self._children = [child for child in self._children if child not in leaving]
        for child in leaving:
            child.close_lifeline()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in leaving:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


class _Child:
    def __init__(
        self, key: str, slots: int, process: subprocess.Popen[bytes], log: Path, python: str | None, offer: Offer
    ) -> None:
        self.key = key
        self.slots = slots
        self.process = process
        self.offer = offer
        self._log = log
        self._python = python

    def exit(self, status: int) -> WorkerExit:
        """What the hub is told of its end."""
        pid = self.process.pid
        return WorkerExit(self.key, pid, self.slots, self.epitaph(status), self._python, self.offer)

    def close_lifeline(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def epitaph(self, status: int) -> str:
        """Why the supervisor ended, in one sentence."""
        if status < 0:
            return f"the worker process (pid {self.process.pid}) was killed by {signal.Signals(-status).name}"
        last_line = _last_line(self._log) or "it said nothing"
        return f"the worker process ended with status {status}: {last_line} (its log is {self._log})"


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
