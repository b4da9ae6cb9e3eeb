"""What supervisor and zygote say to each other, on a stream socket.

First the supervisor sends the folders of large payloads (`encode_roots`), then, for every slot, one byte that carries
four descriptors (`SlotEnds`). The zygote answers with `RECORD`s: a slot was born, a slot died.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

RECORD = struct.Struct("<ciiq")  #: kind, pid, wait status, peak resident bytes
BORN, DIED = b"B", b"D"


class SlotEnds(NamedTuple):
    """The descriptors that a slot is born with."""

    pipe: int  #: to its supervisor
    cell: int
    stdout: int  #: what it is to use for descriptor 1
    stderr: int


_LENGTH = struct.Struct("<I")


def encode_roots(roots: Sequence[str]) -> bytes:
    """The supervisor's first words."""
    data = "\0".join(roots).encode()
    return _LENGTH.pack(len(data)) + data


def receive_roots(control: socket.socket) -> list[Path]:
    """Read the supervisor's first words; nothing when it is gone already."""
    (length,) = _LENGTH.unpack(_receive_exactly(control, _LENGTH.size) or b"\0\0\0\0")
    data = _receive_exactly(control, length)
    return [Path(root) for root in data.decode().split("\0")] if data else []


def _receive_exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = control.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data
