"""The local workers of a hub: the first supervisor lives in the hub's own process, all others have their own."""

from __future__ import annotations

import math
import os
import selectors
import sys
from collections.abc import Callable
from functools import partial

from nbqueue.brokers.workers import WorkerExit
from nbqueue.brokers.zmq.connection import HubFiles
from nbqueue.brokers.zmq.doors import Host
from nbqueue.brokers.zmq.inner_door import open_inner_door
from nbqueue.core.routing import DEFAULT_OFFER, Offer
from nbqueue.launchers.local import LocalLauncher
from nbqueue.processes import HubArguments, worker_environment
from nbqueue.settings import Settings
from nbqueue.wire.blobs import BlobStore
from nbqueue.worker.resident import Resident, worker_info, worker_limits
from nbqueue.worker.zygote_process import ZygoteProcess, usual_name


def hire(
    arguments: HubArguments, files: HubFiles, blobs: BlobStore, zygote: ZygoteProcess | None
) -> Callable[[Host, selectors.BaseSelector], HubWorkers]:
    """How the hub of *arguments* finds workers; *zygote* is for the first of them, if it is there already."""
    launcher = LocalLauncher(
        folder=files.folder, hub_name=files.name, python=arguments.worker_python, log=files.worker_log
    )
    environment = worker_environment(arguments.folder, arguments.name)
    limits = worker_limits(Settings.load())
    spare = [] if zygote is None else [zygote]

    def take_in(host: Host, selector: selectors.BaseSelector, slots: int) -> Resident:
        info = worker_info(usual_name(), slots, DEFAULT_OFFER)
        zygote = spare.pop() if spare else ZygoteProcess(info.name, slots=slots, environment=environment)
        zygote.use_roots([str(root) for root in blobs.roots])
        try:
            return Resident(
                info,
                zygote,
                open_port=lambda on_message: open_inner_door(host, info, on_message),
                selector=selector,
                limits=limits,
            )
        except BaseException:
            zygote.close()
            raise

    has_room = arguments.worker_python == sys.executable  # else the slots are no forks of this interpreter
    return lambda host, selector: HubWorkers(launcher, partial(take_in, host, selector) if has_room else None)


class HubWorkers:
    """Starts workers for a hub (a `LocalWorkers`)."""

    def __init__(self, launcher: LocalLauncher, take_in: Callable[[int], Resident] | None) -> None:
        """Start processes with *launcher*, and one worker with so many slots in this process with *take_in*."""
        self._launcher = launcher
        self._take_in = take_in
        self._resident: Resident | None = None
        self._resident_key = ""
        self._resident_slots = 0
        self._failed: list[WorkerExit] = []

    @property
    def look_at(self) -> float:
        """When `look` is to be called at the latest."""
        return math.inf if self._resident is None else self._resident.look_at

    def look(self) -> None:
        """Do what time has brought."""
        if self._resident is not None:
            self._resident.look()

    @property
    def slots(self) -> int:
        """Slots of all that live, connected or not."""
        return self._launcher.slots + self._resident_slots

    def owns(self, pid: int) -> bool:
        """Whether this process has one of them, and its end has not come out of `exits` yet."""
        return self._launcher.owns(pid) or (self._resident is not None and pid == os.getpid())

    def slots_offering(self, offer: Offer) -> int:
        """Slots of those that take on just this."""
        return self._launcher.slots_offering(offer) + (self._resident_slots if offer == DEFAULT_OFFER else 0)

    def start(self, key: str, slots: int, python: str | None, offer: Offer) -> None:
        """Start a supervisor for the request *key*; what goes wrong comes out of `exits`."""
        if self._resident is None and self._take_in is not None and python is None and offer == DEFAULT_OFFER:
            try:
                self._resident = self._take_in(slots)
            except OSError as error:  # no process, descriptor or file to be had
                self._failed.append(WorkerExit(key, 0, slots, f"no worker could be started: {error}", python, offer))
            else:
                self._resident_key, self._resident_slots = key, slots
        else:
            self._launcher.start(key, slots, python, offer)

    def exits(self) -> list[WorkerExit]:
        """Those that ended since the last call and were not asked to."""
        exits, self._failed = [*self._failed, *self._launcher.exits()], []
        if self._resident is not None and self._resident.reason:
            reason, slots = self._resident.reason, self._resident_slots
            exits.append(WorkerExit(self._resident_key, os.getpid(), slots, reason, None, DEFAULT_OFFER))
            self._resident, self._resident_slots = None, 0
        return exits

    def resized(self, pid: int, slots: int) -> None:
        """A supervisor has changed its number of slots; a pid that is not of ours is passed over."""
        if self._resident is not None and pid == os.getpid():
            self._resident_slots = slots
        else:
            self._launcher.resized(pid, slots)

    def stop(self, key: str | None = None) -> None:
        """Stop the supervisors of one request, or all."""
        if self._resident is not None and key in (None, self._resident_key):
            self._resident.close("it was told to end")
            self._resident, self._resident_slots = None, 0
        self._launcher.stop(key)
