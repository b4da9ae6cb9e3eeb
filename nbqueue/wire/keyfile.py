"""The file with the sealing key: made on first use, private, carried to other machines by their owner.

Whoever reads it can run code on all workers, so it is 0600 in a folder that nobody else may write to, never in a
broker, on a command line or in a log. Each line holds one key; the first seals, all of them open, so that a key can be
replaced without losing what is under way.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path

from nbqueue.errors import KeyFileError
from nbqueue.wire.private import check_private
from nbqueue.wire.seal import KEY_BYTES, SealingKey

#: Begins the text form of a key, so that it is recognised where a path could stand.
PREFIX = "nbqueue-key-1:"
_MAX_FILE_BYTES = 64 * 1024


def default_key_file() -> Path:
    """``~/.config/nbqueue/key``, or where `XDG_CONFIG_HOME` says."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(home, "nbqueue", "key")


def format_key(key: SealingKey) -> str:
    """The key as one line of text; a secret."""
    return PREFIX + base64.urlsafe_b64encode(key.secret).decode().rstrip("=")


def is_key_text(text: str) -> bool:
    """Whether it is meant as a key, not as the path of a file with one."""
    return text.strip().startswith(PREFIX)


def parse_key(text: str) -> SealingKey:
    """The key of a line.

    Raises:
        KeyFileError: It is none; the message does not repeat it.
    """
    encoded = text.strip().removeprefix(PREFIX)
    try:
        secret = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.strip().startswith(PREFIX) or len(secret) != KEY_BYTES:
        raise KeyFileError(f"that is no key of nbqueue: a key is one line that begins with {PREFIX!r}")
    return SealingKey(secret)


def load_keys(path: Path) -> list[SealingKey]:
    """The keys of a file, the one that seals first.

    Raises:
        KeyFileError: There is none, it is damaged, or others can read or replace it.
    """
    text = read_private(path, "copy it from the machine of the notebook; `nbqueue key` there tells how").decode(
        errors="replace"
    )
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise KeyFileError(f"the key file {path} is empty: delete it, and the next use makes a new one")
    try:
        return [parse_key(line) for line in lines]
    except KeyFileError as error:
        raise KeyFileError(f"the key file {path} is damaged: {error}") from None


def load_or_make_keys(path: Path) -> list[SealingKey]:
    """The keys of a file, which is made with a new key if it does not exist. Raises as `load_keys` does."""
    if not os.path.lexists(path):
        make_key_file(path)
    return load_keys(path)


def add_new_key(path: Path) -> list[SealingKey]:
    """Put a new key before those of a file, so that it seals from now on. Raises as `write_private` does."""
    keys = [SealingKey(secrets.token_bytes(KEY_BYTES)), *load_keys(path)]
    unfinished = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    write_private(unfinished, "".join(f"{format_key(key)}\n" for key in keys).encode())
    unfinished.replace(path)
    return keys


def make_key_file(path: Path) -> None:
    """Write a new key; a file that appears meanwhile wins. Raises as `write_private` does."""
    write_private(path, f"{format_key(SealingKey(secrets.token_bytes(KEY_BYTES)))}\n".encode())


def read_private(path: Path, advice: str) -> bytes:
    """What stands in a file of secrets.

    Args:
        path: Not a link.
        advice: What to do when there is no such file.

    Raises:
        KeyFileError: There is none, or others can read or replace it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(f"there is no key file {path}: {advice}") from None
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be opened safely: {error.strerror}") from error
    try:
        _check(path, os.fstat(descriptor))
        return os.read(descriptor, _MAX_FILE_BYTES)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes) -> bool:
    """Make a file of secrets, private from its first byte; False when there is one already, which stays as it is.

    Raises:
        KeyFileError: It cannot be written, or its folder is open to others.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(path.parent)
        unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.link(unfinished, path, follow_symlinks=False)  # two processes at once: the first one's counts
        except FileExistsError:
            return False
        finally:
            unfinished.unlink()
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be made: {error.strerror}; set NBQUEUE_KEY_FILE") from error
    return True


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"the key file {path} is no file")
    _check_folder(path.parent)
    check_private(
        path,
        status,
        error=KeyFileError,
        remedy="if nobody can have read it, else delete it and use a new key",
        elsewhere="use a copy of your own",
    )


def _check_folder(folder: Path) -> None:
    """Others may look into the folder, but not put another file in the place of ours."""
    status = folder.stat()
    is_open = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    if is_open or status.st_uid not in (os.getuid(), 0):
        raise KeyFileError(
            f"others may write to {folder}, and so replace the key in it: run `chmod go-w {folder}` or set "
            "NBQUEUE_KEY_FILE"
        )
