"""The supervisor's hold on its child processes: one zygote, and through it the slots."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import Generic, TypeVar

import msgspec

from nbqueue.core.dispatcher import ForgetFunctions
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.messages import Forgotten, FromSlot
from nbqueue.worker.cell import Cell
from nbqueue.worker.pipe import Pipe
from nbqueue.worker.zygote_protocol import BORN, RECORD, encode_roots

Work = TypeVar("Work")


class SlotDeath(msgspec.Struct, frozen=True):
    """A slot ended; *pid* is None when the zygote itself did."""

    pid: int | None
    reason: str
    peak_bytes: int = 0


class SlotProcess(Generic[Work]):
    """One slot: its pipe, its cell, and what it works on."""

    def __init__(self, end: socket.socket, cell: Cell) -> None:
        self._pipe: Pipe[FromSlot] = Pipe(end, FromSlot)
        self.cell = cell
        self.pid: int | None = None  #: known once it is born
        self.is_ready = False
        self.work: Work | None = None
        self.functions: set[bytes] = set()
        self.environment: bytes | None = None  #: of the functions that it has run; None: it is fresh

    def fileno(self) -> int:
        """Readable when it has reported."""
        return self._pipe.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Send it something; if it is dead already, its death is told elsewhere."""
        with contextlib.suppress(OSError):  # the zygote reports the death; what it should have run is found in `work`
            self._pipe.send(message)

    def receive_available(self) -> list[FromSlot]:
        """What it has reported."""
        return self._pipe.receive_available()

    def forget(self, functions: ForgetFunctions) -> None:
        """Free functions that no run needs any more."""
        if self.functions.intersection(functions.digests):
            self.functions.difference_update(functions.digests)
            self.send(Forgotten(functions))

    def signal(self, number: signal.Signals) -> None:
        """SIGINT to the slot itself, anything harder to its whole process group."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it ended in this moment
            if number is signal.SIGINT:
                os.kill(self.pid, number)
            else:
                os.killpg(self.pid, number)

    def close(self) -> None:
        """Let go of it."""
        self._pipe.close()
        self.cell.close()


class ZygoteProcess:
    """The process that forks slots and tells how they die."""

    def __init__(self, name: str) -> None:
        """Start it; *name* is the worker's, for error messages."""
        self._name = name
        self._blobs: BlobStore | None = None
        self._unborn: list[SlotProcess[object]] = []
        self._buffer = b""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "nbqueue.worker.zygote", str(theirs.fileno()), name],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def fileno(self) -> int:
        """Readable when a slot was born or died, or the zygote did."""
        return self._control.fileno()

    def use_blobs(self, blobs: BlobStore | None) -> None:
        """Tell it where large payloads lie, before the first slot is forked."""
        self._blobs = blobs
        roots = [str(root) for root in blobs.roots] if blobs is not None else []
        with contextlib.suppress(OSError):  # a dead zygote is told by `deaths`
            self._control.sendall(encode_roots(roots))

    def fork_slot(self) -> SlotProcess[Work]:
        """Ask for one more slot; it says `SlotReady` when it is up."""
        ours, theirs = socket.socketpair()
        with theirs, Cell.make_file() as file:
            slot: SlotProcess[Work] = SlotProcess(ours, Cell(file.fileno()))
            with contextlib.suppress(OSError):  # a dead zygote is told by `deaths`, and the slot replaced then
                socket.send_fds(self._control, [b"F"], [theirs.fileno(), file.fileno()])
        self._unborn.append(slot)  # type: ignore[arg-type]  # its work is of no concern here
        return slot

    def deaths(self) -> list[SlotDeath]:
        """Slots that died since the last call; births are noted on the way."""
        data = self._read()
        if not data:
            return [SlotDeath(None, "the zygote died")]
        self._buffer += data
        found = []
        while len(self._buffer) >= RECORD.size:
            kind, pid, status, peak_bytes = RECORD.unpack_from(self._buffer)
            self._buffer = self._buffer[RECORD.size :]
            if kind == BORN:
                self._unborn.pop(0).pid = pid
            else:
                found.append(SlotDeath(pid, _epitaph(pid, status, peak_bytes), peak_bytes))
        return found

    def restart(self) -> ZygoteProcess:
        """A new zygote in the place of this one, which is dead."""
        self.close()
        successor = ZygoteProcess(self._name)
        successor.use_blobs(self._blobs)
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


def _epitaph(pid: int, status: int, peak_bytes: int) -> str:
    peak = f"its memory peaked at {peak_bytes / 2**20:,.0f} MiB"
    if os.WIFSIGNALED(status):
        return f"the process (pid {pid}) that ran it was killed by {signal.Signals(os.WTERMSIG(status)).name}; {peak}"
    return f"the process (pid {pid}) that ran it ended with status {os.WEXITSTATUS(status)}; {peak}"
