"""What processes of this package are started with; imports next to nothing, since whoever starts one waits for it."""

from __future__ import annotations

import os
import site
from collections.abc import Sequence
from typing import NamedTuple


class HubArguments(NamedTuple):
    """What a hub's process is told when it is started."""

    folder: str
    name: str
    workers: int
    idle_timeout_s: float
    worker_python: str
    lock_fd: int  #: held for the hub's life
    ready_fd: int  #: written to when the hub serves
    bind: str = ""  #: where peers of other machines connect, ``tcp://host:port``; empty: nowhere
    keys: str = ""  #: file with the hub's keys for them

    def encode(self) -> list[str]:
        """As arguments of a command."""
        return [f"{name}={value}" for name, value in self._asdict().items()]

    @classmethod
    def decode(cls, arguments: Sequence[str]) -> HubArguments:
        """What `encode` made."""
        given = dict(argument.split("=", 1) for argument in arguments)
        return cls(
            folder=given["folder"],
            name=given["name"],
            workers=int(given["workers"]),
            idle_timeout_s=float(given["idle_timeout_s"]),
            worker_python=given["worker_python"],
            lock_fd=int(given["lock_fd"]),
            ready_fd=int(given["ready_fd"]),
            bind=given["bind"],
            keys=given["keys"],
        )


def process_environment() -> dict[str, str]:
    """The environment for processes of this package: the same, but able to import it where it is not installed."""
    environment = dict(os.environ)
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        known = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (known, home)))
    return environment


def worker_environment(runtime_dir: str, hub_name: str) -> dict[str, str]:
    """The environment of a hub's local workers: a task that uses nbqueue finds this hub, and starts no workers."""
    return process_environment() | {
        "NBQUEUE_RUNTIME_DIR": runtime_dir,
        "NBQUEUE_HUB_NAME": hub_name,
        "NBQUEUE_WORKERS": "0",
    }
