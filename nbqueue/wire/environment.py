"""Which modules a function may import: a slot serves one such environment, and a fresh one is forked for another.

Without this, a slot that imported `helper.py` of one project would serve it to another, and an edited `helper.py` would
run in its old form.
"""

from __future__ import annotations

import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterator

import msgspec

_LIBRARIES = tuple(
    os.path.join(os.path.realpath(path), "")
    for path in {
        *sysconfig.get_paths().values(),
        *site.getsitepackages(),
        site.getusersitepackages(),
        os.path.dirname(os.path.dirname(__file__)),  # nbqueue itself, wherever it is installed
    }
)


class Environment(msgspec.Struct, frozen=True):
    """Where a function finds what it imports."""

    folder: str  #: the working directory
    path: tuple[str, ...]  #: the import path
    digest: bytes  #: of both, and of the user's modules as they are on disk


class _UserModules:
    """Files of imported modules that belong neither to Python nor to an installed package."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last_look: tuple[int, str] = 0, ""
        self._files: list[str] = []

    def files(self) -> list[str]:
        """All of them; only modules that are new since the last call are looked at."""
        look = len(sys.modules), next(reversed(sys.modules), "")  # an import changes at least one of them
        if look != self._last_look:
            self._last_look = look
            for name in list(sys.modules):
                if name not in self._seen:
                    self._seen.add(name)
                    self._look_at(name)
        return self._files

    def _look_at(self, name: str) -> None:
        file = getattr(sys.modules.get(name), "__file__", None)
        if name != "__main__" and file and not os.path.realpath(file).startswith(_LIBRARIES):
            self._files.append(file)


_USER_MODULES = _UserModules()
_Facts = tuple[str, list[str], list[tuple[str, int, int]]]
_last: tuple[_Facts, Environment] | None = None


def current_environment() -> Environment:
    """The environment of this process at this moment."""
    global _last  # noqa: PLW0603 -- one process, one environment; told anew with every submit
    facts = os.getcwd(), list(sys.path), list(_states(_USER_MODULES.files()))
    if _last is None or _last[0] != facts:
        _last = facts, _describe(facts)
    return _last[1]


def _describe(facts: _Facts) -> Environment:
    folder, path, states = facts
    entries = [entry for entry in path if isinstance(entry, str)]  # type: ignore[redundant-expr]  # it may hold anything
    lines = [folder, *entries, *(f"{file} {mtime_ns} {size}" for file, mtime_ns, size in states)]
    digest = hashlib.blake2b("\0".join(lines).encode(errors="surrogateescape"), digest_size=16).digest()
    return Environment(_utf8(folder), tuple(map(_utf8, entries)), digest)


def _states(files: list[str]) -> Iterator[tuple[str, int, int]]:
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            continue
        yield file, status.st_mtime_ns, status.st_size


def _utf8(path: str) -> str:
    """A path that can be sent: names that are no UTF-8 lose what makes them so, and are not found on the worker."""
    return path.encode(errors="replace").decode()
