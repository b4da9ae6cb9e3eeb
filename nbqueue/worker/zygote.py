"""The zygote: a fresh, single-threaded interpreter that has everything loaded and forks slots.

Forking it takes a millisecond, so a slot that was killed is back at once; and since it never ran a task, nothing of one
task can be found by another. It is also the slots' parent, so it knows how each of them died.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys

from nbqueue.settings import Settings
from nbqueue.wire.blobs import BlobStore
from nbqueue.worker.catalog import Catalog
from nbqueue.worker.family import adopt_orphans, die_with, kill_adopted, kill_group
from nbqueue.worker.slot import run_slot
from nbqueue.worker.zygote_protocol import BORN, DIED, RECORD, SlotEnds, receive_roots

_KILOBYTE = 1024
#: What a dead slot has left behind is gone within this time, or else goes on dying without being waited for.
_SWEEP_S = 1.0


class Zygote:
    """Forks slots on demand, reaps them, and takes them all with it when its supervisor is gone."""

    def __init__(self, control: socket.socket, *, name: str, catalog: Catalog) -> None:
        self._control = control
        self._name = name
        self._catalog = catalog
        self._blobs: BlobStore | None = None
        self._slots: set[int] = set()
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup_reader, False)
        os.set_blocking(self._wakeup_writer, False)

    def serve(self) -> None:
        """Work until the supervisor closes the control socket, however it ends."""
        roots = receive_roots(self._control)
        self._blobs = BlobStore(roots) if roots else None
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        adopt_orphans()
        try:
            while True:
                control = self._control.fileno()
                readable, _, _ = select.select([control, self._wakeup_reader], [], [])
                if self._wakeup_reader in readable:
                    os.read(self._wakeup_reader, 4096)
                self._reap()
                if control in readable and not self._fork_one():
                    return
        finally:
            self._kill_all()

    def _fork_one(self) -> bool:
        request, descriptors, _, _ = socket.recv_fds(self._control, 1, len(SlotEnds._fields))
        if not request:
            return False
        if request == b"P":
            self._preload()
            return True
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_slot(parent, SlotEnds(*descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        self._slots.add(pid)
        self._tell(BORN, pid, 0, 0)
        return True

    def _preload(self) -> None:
        """Import what the slots will need, once for all."""
        for name in receive_roots(self._control):
            with contextlib.suppress(ImportError):
                importlib.import_module(str(name))
        gc.collect()
        gc.freeze()

    def _become_slot(self, parent: int, ends: SlotEnds) -> None:
        """Turn the fork into a slot; never returns."""
        status = 1
        try:
            os.setsid()
            die_with(parent)
            adopt_orphans()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._wakeup_reader)
            os.close(self._wakeup_writer)
            run_slot(ends, name=self._name, blobs=self._blobs, catalog=self._catalog)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _reap(self) -> None:
        while self._slots:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self._slots:
                self._slots.discard(pid)
                kill_group(pid)  # what its tasks left behind
                kill_adopted(self._slots, timeout_s=_SWEEP_S)  # likewise, even if it has left the group
                self._tell(DIED, pid, status, usage.ru_maxrss * _KILOBYTE)

    def _tell(self, kind: bytes, pid: int, status: int, peak_bytes: int) -> None:
        try:
            self._control.sendall(RECORD.pack(kind, pid, status, peak_bytes))
        except OSError:
            pass  # the supervisor is gone; the next read of the control socket says so

    def _kill_all(self) -> None:
        for pid in self._slots:
            kill_group(pid)
        kill_adopted((), timeout_s=_SWEEP_S)  # the slots themselves, and what has left their groups


def main() -> None:
    """``python -m nbqueue.worker.zygote CONTROL_FD NAME``."""
    descriptor, name = sys.argv[1:]
    sys.argv = [name]
    settings = Settings.load()
    catalog = Catalog(settings.accept, settings.imports, folder=os.getcwd(), worker=name)
    gc.collect()
    gc.freeze()  # keep the collector from touching, and so copying, shared pages in the forks
    Zygote(socket.socket(fileno=int(descriptor)), name=name, catalog=catalog).serve()


if __name__ == "__main__":
    main()
