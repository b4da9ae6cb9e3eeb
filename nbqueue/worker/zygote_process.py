"""The supervisor's hold on its zygote, the process that forks slots.

Imports little: the zygote is started before all else, so that it loads its modules while the supervisor loads its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nbqueue.worker.zygote_protocol import BORN, RECORD, SlotEnds, encode_roots

#: What keeps numerical libraries from starting a thread per core in every slot; they read it when they are imported.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def usual_name() -> str:
    """What a worker of this process is called that nobody has named."""
    return f"{socket.gethostname()}-{os.getpid()}"


def thread_caps(slots: int) -> dict[str, str]:
    """Environment variables that share the usable cores between the slots; what the user has set stands."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return dict.fromkeys(_THREAD_VARIABLES, str(max(1, cores // max(1, slots))))


class Birth:
    """A slot that was asked for."""

    def __init__(self) -> None:
        self.pid: int | None = None  #: known once it is born


class SlotDeath(NamedTuple):
    """A slot ended; *pid* is None when the zygote itself did."""

    pid: int | None
    signal: str = ""  #: that killed it; empty: it ended by itself
    status: int = 0
    peak_bytes: int = 0


class ZygoteProcess:
    """The process that forks slots and tells how they die."""

    def __init__(self, name: str, *, slots: int, environment: Mapping[str, str] = os.environ) -> None:
        """Start it with *environment*.

        *name* is the worker's, for error messages; *slots* shares the cores between its forks.
        """
        self._name = name
        self._slots = slots
        self._environment = environment
        self._roots: list[str] = []
        self._unborn: list[Birth] = []
        self._buffer = b""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "nbqueue.worker.zygote", str(theirs.fileno()), name],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**thread_caps(slots), **environment},
            )

    def fileno(self) -> int:
        """Readable when a slot was born or died, or the zygote did."""
        return self._control.fileno()

    def use_roots(self, roots: list[str]) -> None:
        """Tell it in which folders large payloads lie, before the first slot is forked."""
        self._roots = roots
        with contextlib.suppress(OSError):  # a dead zygote is told by `deaths`
            self._control.sendall(encode_roots(roots))

    def fork(self, ends: SlotEnds) -> Birth:
        """Ask for one more slot; its descriptors stay ours to close."""
        with contextlib.suppress(OSError):  # a dead zygote is told by `deaths`, and the slot replaced then
            socket.send_fds(self._control, [b"F"], ends)
        birth = Birth()
        self._unborn.append(birth)
        return birth

    def preload(self, modules: Sequence[str]) -> None:
        """Let it import modules, so that the slots that are forked from now on have them."""
        with contextlib.suppress(OSError):
            self._control.sendall(b"P" + encode_roots(modules))

    def deaths(self) -> list[SlotDeath]:
        """Slots that died since the last call; births are noted on the way."""
        data = self._read()
        if not data:
            return [SlotDeath(None)]
        self._buffer += data
        found = []
        while len(self._buffer) >= RECORD.size:
            kind, pid, status, peak_bytes = RECORD.unpack_from(self._buffer)
            self._buffer = self._buffer[RECORD.size :]
            if kind == BORN:
                self._unborn.pop(0).pid = pid
            else:
                found.append(_death(pid, status, peak_bytes))
        return found

    def restart(self) -> ZygoteProcess:
        """A new zygote in the place of this one, which is dead."""
        self.close()
        successor = ZygoteProcess(self._name, slots=self._slots, environment=self._environment)
        successor.use_roots(self._roots)
        return successor

    def close(self) -> None:
        """End it, and with it all its slots."""
        self._control.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> bytes:
        try:
            return self._control.recv(4096)
        except OSError:
            return b""


def _death(pid: int, status: int, peak_bytes: int) -> SlotDeath:
    if os.WIFSIGNALED(status):
        return SlotDeath(pid, signal.Signals(os.WTERMSIG(status)).name, 0, peak_bytes)
    return SlotDeath(pid, "", os.WEXITSTATUS(status), peak_bytes)
