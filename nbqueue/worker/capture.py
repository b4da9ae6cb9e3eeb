"""A slot's side of output capture: descriptors 1 and 2 are pipes to the supervisor, and `sys.stdout` writes frames.

There is no thread, and nothing happens for a task that prints nothing. What is written goes out line by line, so that
the last words of a process that is killed are known.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import io
import logging
import os
import sys
import termios
import threading
from typing import Any, TextIO

from nbqueue.wire.frames import MESSAGE, TEXT, frames, new_mark, tick
from nbqueue.worker.cell import ITEM

#: Loggers below this one are shown from INFO on.
TASK_LOGGER = "nbqueue.task"
_LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(name)s] %(message)s"
_LINE_BUFFERED = 1


class Capture:
    """Owns the standard streams of a slot's process."""

    def __init__(self, descriptors: tuple[int, int], numbers: memoryview) -> None:
        """Write into the pipes *descriptors*, in the name of the item that *numbers* (of the `Cell`) names."""
        self.mark = new_mark()
        self._descriptors = descriptors
        self._numbers = numbers
        self._number = 0
        self._lock = threading.RLock()
        self._is_forked = False  # a child of the slot: it writes as any program does
        self._streams = [_Stream(self, stream, numbers) for stream in (0, 1)]
        self._libc = ctypes.CDLL(None)

    def install(self) -> None:
        """Take over descriptors 1 and 2 and the streams of `sys`, for the rest of the process's life."""
        os.register_at_fork(after_in_child=self._become_child)
        for name in ("stdout", "stderr"):
            with contextlib.suppress(ValueError, AttributeError):  # a C library that names them otherwise
                file = ctypes.c_void_p.in_dll(self._libc, name)
                self._libc.setvbuf(file, None, _LINE_BUFFERED, ctypes.c_size_t(0))
        handler = logging.StreamHandler(_CurrentStderr())
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        logger = logging.getLogger(TASK_LOGGER)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for descriptor, target in zip(self._descriptors, (1, 2), strict=True):
            os.dup2(descriptor, target)
        self.restore()

    def restore(self) -> None:
        """Put the streams back in their places in `sys`, whatever a task has put there."""
        sys.stdout = sys.__stdout__ = self._streams[0]  # type: ignore[misc]  # `Final` for others
        sys.stderr = sys.__stderr__ = self._streams[1]  # type: ignore[misc]

    def flush(self) -> None:
        """Send what was written without the end of a line."""
        for stream in self._streams:
            with contextlib.suppress(ValueError, OSError):  # a task has closed it
                stream.flush()
        self._libc.fflush(None)

    def end_item(self) -> None:
        """Say that the item ended, if there is something that may be taken for the next one's."""
        self.flush()
        if any(map(_unread_bytes, self._descriptors)):
            self._tick()

    def print(self, stream: int, data: bytes, item: int) -> None:
        """Python code has written *data*."""
        if self._is_forked:
            _write_all(stream + 1, data)
        else:
            self._write(stream, TEXT, data, item)

    def send(self, message: bytes) -> None:
        """Send a message in order with what is printed."""
        for stream in self._streams:
            stream.flush()
        if not self._is_forked:
            self._write(0, MESSAGE, message, self._numbers[ITEM])

    def _write(self, stream: int, kind: int, data: bytes, item: int) -> None:
        with self._lock:
            self._number += 1
            # The other pipe first: whoever sees the frame finds its number there already.
            os.write(self._descriptors[1 - stream], tick(self.mark, self._number, item))
            for piece in frames(self.mark, self._number, item, kind, data):
                os.write(self._descriptors[stream], piece)

    def _tick(self) -> None:
        with self._lock:
            self._number += 1
            for descriptor in self._descriptors:
                os.write(descriptor, tick(self.mark, self._number, self._numbers[ITEM]))

    def _become_child(self) -> None:
        self._is_forked = True
        self._lock = threading.RLock()  # whoever held it is not here


class _Stream(io.TextIOWrapper):
    """`sys.stdout` or `sys.stderr` of a slot."""

    def __init__(self, capture: Capture, stream: int, numbers: memoryview) -> None:
        self._raw = _Raw(capture, stream)
        self._numbers = numbers
        super().__init__(io.BufferedWriter(self._raw), "utf-8", "backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        item = self._numbers[ITEM]
        if item != self._raw.item:
            self.flush()  # the beginning of a line that another item wrote
            self._raw.item = item
        return super().write(text)


class _Raw(io.RawIOBase):
    """The lower end of a stream."""

    def __init__(self, capture: Capture, stream: int) -> None:
        self._capture = capture
        self._stream = stream
        self.item = 0
        self.name = ("<stdout>", "<stderr>")[stream]

    def write(self, data: Any) -> int:
        body = bytes(data)
        self._capture.print(self._stream, body, self.item)
        return len(body)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream + 1

    def close(self) -> None:
        pass  # the slot will need it again


class _CurrentStderr:
    """What `sys.stderr` is at the moment, for a log handler."""

    def write(self, text: str) -> int:
        return _stderr().write(text)

    def flush(self) -> None:
        _stderr().flush()


def _stderr() -> TextIO:
    return sys.stderr


def _unread_bytes(descriptor: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
