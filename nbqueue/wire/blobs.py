"""Large payloads on one host: files in memory instead of copies through sockets.

A payload above `INLINE_BYTES` is written once into a file on tmpfs and mapped where it is needed, privately, so that
the receiver gets arrays it may change without a copy being made before it does (ADR 0003). The files of a run lie in
one folder, which the hub deletes when it forgets the run. What was left by a process that was killed is deleted by the
next one that makes such folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from nbqueue.errors import BrokerUnavailable
from nbqueue.wire.private import secure_folder

#: Payloads above this size become files.
INLINE_BYTES = 256 * 1024
#: Free space that must remain on a file system after a write.
RESERVE_BYTES = 64 * 2**20

#: In each root a file that is locked for as long as its owner lives.
MARK = ".in-use"
#: Roots that are younger may be about to be marked.
SWEEP_AFTER_S = 60.0

Buffer = bytes | bytearray | memoryview


def blob_roots(owner: str) -> list[Path]:
    """Folders of *owner* for large payloads: memory first, then disk."""
    return [base / f"{_prefix()}{owner}" for base in _bases()]


def sweep() -> None:
    """Delete the roots of owners that are dead."""
    for base in _bases():
        for root in base.glob(f"{_prefix()}*"):
            with contextlib.suppress(OSError):  # it bears no mark, or another one is sweeping
                if _is_left_behind(root):
                    shutil.rmtree(root)


class BlobStore:
    """Files under a few private folders, the fastest first."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [Path(root) for root in roots]
        self._marks: list[int] = []

    @property
    def roots(self) -> list[Path]:
        """The folders, fastest first."""
        return list(self._roots)

    def create(self) -> None:
        """Make the folders, open to nobody else; until `destroy` they are this process's.

        Raises:
            UnsafeConnectionFile: There is one already, of somebody else or open to others.
        """
        for root in self._roots:
            secure_folder(root)
            mark = os.open(root / MARK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(mark, fcntl.LOCK_SH)
            self._marks.append(mark)

    def write(self, folder: str, parts: Sequence[Buffer], *, name: str | None = None) -> str:
        """Store *parts* one behind the other.

        Args:
            folder: What the file belongs to, e.g. a run id in hex.
            parts: The content.
            name: The file's name, if its content is known by it; an existing file is then taken as it is.

        Returns:
            A name for `open`.

        Raises:
            BrokerUnavailable: No folder has room, or the hub has gone and taken them away.
        """
        size = sum(len(part) for part in parts)
        errors = []
        for index, root in enumerate(self._roots):
            if not _has_room(root, size):
                errors.append(f"{root} has no room for {size / 2**20:.0f} MiB")
                continue
            try:
                return f"{index}/{folder}/{_write_file(root / folder, parts, name)}"
            except OSError as error:
                errors.append(str(error))
        raise BrokerUnavailable(f"cannot store a large payload: {'; '.join(errors) or 'no folder is configured'}")

    def open(self, name: str) -> memoryview:
        """Map a stored payload: writable for the caller alone, copied page by page only where it writes.

        Raises:
            BrokerUnavailable: The payload was deleted with its run.
        """
        index, _, path = name.partition("/")
        try:
            with open(self._roots[int(index)] / path, "rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        except (OSError, ValueError, IndexError) as error:
            raise BrokerUnavailable(f"a large payload is gone, its run was forgotten: {error}") from None

    def discard(self, folders: Collection[str]) -> None:
        """Delete all payloads of *folders*; those that are mapped somewhere stay readable there."""
        for root in self._roots:
            with contextlib.suppress(OSError):
                for folder in set(os.listdir(root)).intersection(folders):  # most runs have none
                    shutil.rmtree(root / folder, ignore_errors=True)

    def destroy(self) -> None:
        """Delete everything."""
        for root in self._roots:
            shutil.rmtree(root, ignore_errors=True)
        while self._marks:
            os.close(self._marks.pop())


def _prefix() -> str:
    return f"nbqueue-{os.getuid()}-"


def _bases() -> list[Path]:
    memory = Path("/dev/shm")  # noqa: S108 -- `secure_folder` checks that what is made there is ours
    bases = [memory] if memory.is_dir() and os.access(memory, os.W_OK) else []
    return [*bases, Path(tempfile.gettempdir())]


def _is_left_behind(root: Path) -> bool:
    """Whether nobody needs it any more; what bears no mark is no root."""
    status = root.lstat()
    if status.st_uid != os.getuid() or time.time() - status.st_mtime < SWEEP_AFTER_S:
        return False
    mark = os.open(root / MARK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(mark)
    return True


def _has_room(root: Path, size: int) -> bool:
    try:
        stats = os.statvfs(root)
    except OSError:
        return False
    return stats.f_bavail * stats.f_frsize >= size + RESERVE_BYTES


def _write_file(folder: Path, parts: Sequence[Buffer], name: str | None) -> str:
    folder.mkdir(mode=0o700, exist_ok=True)
    if name is not None and (folder / name).exists():
        return name
    unfinished = folder / f".{os.urandom(8).hex()}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    view = view[file.write(view) :]
        final = name or unfinished.name[1:]
        unfinished.rename(folder / final)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return final
