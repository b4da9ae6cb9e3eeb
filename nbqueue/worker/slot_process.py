"""The supervisor's hold on one slot: its pipe, its cell, and what it works on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Generic, TypeVar

import msgspec

from nbqueue.core.exchange import ForgetFunctions
from nbqueue.errors import ProtocolError
from nbqueue.wire.messages import Forgotten, FromSlot
from nbqueue.wire.stream import Stream
from nbqueue.worker.cell import PLEASE_REPORT, Cell
from nbqueue.worker.lending import Wait
from nbqueue.worker.output import SlotOutput, output_pipe
from nbqueue.worker.pipe import MAX_BYTES
from nbqueue.worker.zygote_process import Birth, ZygoteProcess
from nbqueue.worker.zygote_protocol import SlotEnds

Work = TypeVar("Work")


def fork_slot(zygote: ZygoteProcess) -> SlotProcess[Work]:
    """Ask the zygote for one more slot; it says `SlotReady` when it is up."""
    ours, theirs = socket.socketpair()
    readers, writers = zip(output_pipe(), output_pipe(), strict=True)
    with theirs, Cell.make_file() as file:
        cell = Cell(file.fileno())
        birth = zygote.fork(SlotEnds(theirs.fileno(), file.fileno(), *writers))
        for writer in writers:
            os.close(writer)
        return SlotProcess(ours, cell, SlotOutput(readers, cell), birth)


class SlotProcess(Generic[Work]):
    """One slot: its pipe, its cell, what it prints, and what it works on."""

    def __init__(self, end: socket.socket, cell: Cell, output: SlotOutput, birth: Birth) -> None:
        self._stream: Stream[FromSlot] = Stream(end, FromSlot, max_bytes=MAX_BYTES)
        self._birth = birth
        self.cell = cell
        self.output = output
        self.is_ready = False
        self.is_watched_for_room = False  #: by its supervisor
        self.work: Work | None = None
        self.items_begun = 0
        self.wait = Wait()  #: of its task, for other tasks
        self.functions: set[bytes] = set()
        self.environment: bytes | None = None  #: of the functions that it has run; None: it is fresh

    @property
    def pid(self) -> int | None:
        """Its process; None until it is born."""
        return self._birth.pid

    def take_birth(self, pid: int) -> None:
        """It is up; it may say so before the zygote does."""
        self._birth.pid = pid
        self.is_ready = True

    def fileno(self) -> int:
        """Readable when it has reported."""
        return self._stream.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Send it something, or keep it until there is room; if it is dead already, its death is told elsewhere."""
        with contextlib.suppress(OSError):  # the zygote reports the death; what it should have run is found in `work`
            self._stream.send([message])

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until it reads; then call `flush`."""
        return self._stream.has_unsent

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        with contextlib.suppress(OSError):  # as above
            self._stream.flush()

    def receive_available(self) -> list[FromSlot]:
        """What it has reported."""
        self._stream.read()
        reports: list[FromSlot] = []
        try:
            while (packet := self._stream.next()) is not None:
                reports += packet
        except ProtocolError:  # a task wrote into its descriptor: nothing that follows can be trusted
            self._stream.break_off()
        return reports

    def forget(self, functions: ForgetFunctions) -> None:
        """Free functions that no run needs any more."""
        if self.functions.intersection(functions.digests):
            self.functions.difference_update(functions.digests)
            self.send(Forgotten(functions))

    def strike(self, token: int, item: int, number: signal.Signals) -> bool:
        """Send a signal that must hit *item* of the claim *token* and nothing else; False: it runs no more."""
        if number is signal.SIGINT:
            self.signal(number)  # the slot itself looks for whom it is meant
            return True
        if not self.cell.aim(token, item):
            return False
        self.signal(number)
        if number is not signal.SIGKILL:
            self.cell.lower()
        return True

    def signal(self, number: signal.Signals) -> None:
        """SIGINT and what is harmless to the slot itself, anything harder to its whole process group."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it ended in this moment
            if number in (signal.SIGINT, PLEASE_REPORT):
                os.kill(self.pid, number)
            else:
                os.killpg(self.pid, number)

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()
        self.output.close()
        self.cell.close()
