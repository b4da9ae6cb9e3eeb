"""What a task has done to its process, and putting it back: the next task is to find what the first one found.

Working directory, environment variables and signal handlers are put back. What cannot be put back (a closed standard
stream; after a revoke, processes and threads that go on) makes the process spent: a fresh one takes its place.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # a part of CPython without annotations
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from nbqueue.worker.cell import PLEASE_REPORT

_HANDLERS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGABRT, signal.SIGSEGV, signal.SIGFPE),
    PLEASE_REPORT,
)
_STREAMS = (0, 1, 2)


class Tidy:
    """Remembers a process as it was before a chunk."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._variables: dict[bytes, bytes] = {}
        self._handlers: dict[signal.Signals, Any] = {}
        self._streams: list[tuple[int, int] | None] = []
        self._threads = 0

    def remember(self) -> None:
        """Note how the process is."""
        if not self._streams:  # the rest is as `restore` left it
            self._variables = _variables().copy()
            self._handlers = {number: _handler(number) for number in _HANDLERS}
            self._streams = [_identity(stream) for stream in _STREAMS]
        self._folder = _folder()
        self._threads = threading.active_count()

    def why_spent(self) -> str:
        """Why nothing can be run here any more; empty when all is well."""
        if [_identity(stream) for stream in _STREAMS] != self._streams and self._streams:
            return "a task closed or replaced its standard streams"
        return ""

    def what_is_left_behind(self) -> str:
        """What a task that was interrupted has left running, in words; empty when nothing."""
        if threading.active_count() > self._threads:
            return "an interrupted task left threads behind"
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return "an interrupted task left processes behind"
        return ""

    def restore(self) -> None:
        """Put back what can be put back."""
        if not self._streams:
            return
        if self._folder is not None and _folder() != self._folder:
            with contextlib.suppress(OSError):  # it was removed
                os.chdir(self._folder)
        if _variables() != self._variables:
            os.environb.clear()
            os.environb.update(self._variables)
        for number, handler in self._handlers.items():
            if _handler(number) is not handler and handler is not None:
                signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, 0)


#: As `signal.getsignal`, without making an enum of what it finds, twelve times per chunk.
_handler: Callable[[int], Any] = _signal.getsignal


def _variables() -> dict[bytes, bytes]:
    """The environment as `os.environ` keeps it; to decode all of it would take longer than most tasks."""
    return os.environ._data  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _identity(stream: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(stream)
    except OSError:
        return None
    return status.st_dev, status.st_ino
