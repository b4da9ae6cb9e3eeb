"""Files that belong to this user alone: made private from their first byte, and checked before they are read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nbqueue.errors import BrokerUnavailable, NBQueueError, UnsafeConnectionFile


def secure_folder(folder: Path) -> None:
    """Make *folder* with mode 0700, or check that it is ours alone.

    Raises:
        UnsafeConnectionFile: It belongs to somebody else or others may enter it.
        BrokerUnavailable: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerUnavailable(f"the folder {folder} cannot be made: {error.strerror}") from error
    check_private(folder, folder.lstat())


def check_private(
    path: Path,
    status: os.stat_result,
    *,
    error: type[NBQueueError] = UnsafeConnectionFile,
    remedy: str = "if you trust what is in it, or `nbqueue stop` and delete it",
    elsewhere: str = "delete it or set NBQUEUE_RUNTIME_DIR",
) -> None:
    """Raise *error* unless *path* is ours and closed to all others."""
    if status.st_uid != os.getuid():
        raise error(f"{path} belongs to user {status.st_uid}, not to you: {elsewhere}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        right = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise error(
            f"{path} is open to other users (mode {mode:04o}), who could run code as you: run `chmod {right} {path}` "
            f"{remedy}"
        )
