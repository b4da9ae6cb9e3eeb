"""Writes what tasks print on the terminal, in a thread of its own: one that does not read must not hold up results."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections import deque

from nbqueue.client.condition import Condition

__all__ = ["TERMINAL", "Terminal"]

#: What waits for a terminal that does not read; what comes then is left out.
MAX_WAITING_CHARS = 4 * 2**20
#: Whoever has waited for a task waits so long for its last words to be shown.
SETTLE_S = 1.0


class Terminal:
    """The two standard streams of this process."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: deque[tuple[str, str]] = deque()
        self._size = 0
        self._left_out = 0
        self._is_writing = False
        self._pid = 0  #: of the process in which the thread runs

    def write(self, stream: str, text: str) -> None:
        """Write *text* to "stdout" or "stderr" soon; never blocks."""
        with self._changed:
            if self._size > MAX_WAITING_CHARS:
                self._left_out += len(text)
                return
            self._waiting.append((stream, text))
            self._size += len(text)
            self._changed.notify_all()
        if self._pid != os.getpid():
            self._pid = os.getpid()
            threading.Thread(target=self._serve, name="nbqueue-terminal", daemon=True).start()
            atexit.register(self.settle, None)  # as a print of the program itself would wait

    def settle(self, timeout_s: float | None = SETTLE_S) -> None:
        """Return when everything is written, or after that time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_writing, timeout_s)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                while not self._waiting:
                    self._changed.wait()
                self._is_writing = True
                stream, text = self._waiting.popleft()
                self._size -= len(text)
                left_out, self._left_out = (0, self._left_out) if self._waiting else (self._left_out, 0)
            if left_out:
                text += f"[… {left_out:,} characters came faster than they could be shown …]\n"
            file = sys.stderr if stream == "stderr" else sys.stdout
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not there
                file.write(text)
                file.flush()


TERMINAL = Terminal()
