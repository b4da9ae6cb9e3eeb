"""The connection file of a hub: where it listens and the proof that one may speak to it.

Who can read the file can run code as its owner, so the file is 0600 in a folder 0700, both are checked before every
use, and a lock held for the hub's life tells a live hub from a stale file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

import msgspec

from nbqueue.errors import BrokerUnavailable, EnvironmentMismatch, UnsafeConnectionFile
from nbqueue.wire.blobs import blob_roots
from nbqueue.wire.messages import PROTOCOL_VERSION
from nbqueue.wire.private import check_private, secure_folder

#: A unix socket's path may not be longer (sun_path is 108 bytes on Linux, 104 on macOS).
MAX_SOCKET_PATH = 100


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer must know to speak to a hub."""

    protocol: int
    pid: int
    endpoint: str  #: path of its socket
    token: bytes
    epoch: bytes
    python: str  #: "3.11"
    blob_roots: list[str]
    log: str


class HubFiles:
    """The files of the hub called *name*, all in one private folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.connection = folder / f"hub-{name}.json"
        self.lock = folder / f"hub-{name}.lock"
        self.log = folder / f"hub-{name}.log"

    def worker_log(self, number: int) -> Path:
        """Where the local worker *number* writes."""
        return self.folder / f"hub-{self.name}-worker-{number}.log"

    @property
    def socket(self) -> Path:
        """Where the hub listens for peers of this machine.

        Raises:
            BrokerUnavailable: The folder's path is too long for a socket.
        """
        path = self.folder / f"{self.name}.sock"
        length = len(os.fsencode(path))
        if length > MAX_SOCKET_PATH:
            raise BrokerUnavailable(
                f"the path {path} is too long for a socket ({length} > {MAX_SOCKET_PATH} bytes): "
                "set NBQUEUE_RUNTIME_DIR to a shorter folder"
            )
        return path

    @property
    def blob_roots(self) -> list[Path]:
        """Folders for large payloads: memory first, then disk."""
        folder = hashlib.blake2b(os.fsencode(self.folder.absolute()), digest_size=4).hexdigest()
        return blob_roots(f"{self.name}-{folder}")

    def secure_folder(self) -> None:
        """Make the folder, private; refuse one that is not.

        Raises:
            UnsafeConnectionFile: It belongs to somebody else or others may enter it.
        """
        secure_folder(self.folder)

    def write_connection(self, connection: Connection) -> None:
        """Publish the hub: written aside, private from the first byte, then moved into place."""
        unfinished = self.connection.with_suffix(f".{os.getpid()}")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(connection))
        unfinished.replace(self.connection)

    def read_connection(self) -> Connection | None:
        """The published hub; None when there is no file.

        Raises:
            UnsafeConnectionFile: Others can read or replace the file.
            EnvironmentMismatch: It was written by another version.
            BrokerUnavailable: It is damaged.
        """
        try:
            descriptor = os.open(self.connection, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnsafeConnectionFile(f"{self.connection} cannot be opened safely: {error.strerror}") from error
        with open(descriptor, "rb") as file:
            check_private(self.connection, os.fstat(file.fileno()))
            data = file.read()
        return _decode_connection(self.connection, data)

    def pid_in_any_version(self) -> int | None:
        """The process that holds the hub's lock, whatever its connection file looks like; None if it does not say."""
        try:
            return int(self.lock.read_bytes())
        except (OSError, ValueError):
            return None

    def try_lock(self) -> int | None:
        """Take the hub's lock; a descriptor that keeps it while it is open, or None when a live hub has it."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_hub_alive(self) -> bool:
        """Whether a process holds the hub's lock."""
        if not self.lock.exists():
            return False
        descriptor = self.try_lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def log_tail(self, lines: int = 5) -> str:
        """The last lines of the hub's log, for an error message."""
        return tail(self.log, lines)


def tail(path: Path, lines: int) -> str:
    """The last *lines* lines of a text file, or nothing if it cannot be read."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


class _Version(msgspec.Struct):
    protocol: int
    pid: int


def _decode_connection(path: Path, data: bytes) -> Connection:
    try:
        version = msgspec.json.decode(data, type=_Version)
        if version.protocol != PROTOCOL_VERSION:
            raise EnvironmentMismatch(
                f"the hub of {path} (pid {version.pid}) speaks protocol {version.protocol}, this nbqueue "
                f"{PROTOCOL_VERSION}: run `nbqueue stop`, then try again"
            )
        return msgspec.json.decode(data, type=Connection)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokerUnavailable(f"{path} is damaged ({error}): run `nbqueue stop`, then try again") from error
