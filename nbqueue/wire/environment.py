"""Which modules a function may import, and which variables it finds: a slot serves one such environment.

For another one a fresh slot is forked. Without this, a slot that imported `helper.py` of one project would serve it to
another, an edited `helper.py` would run in its old form, and tasks would not know a variable that their notebook sets.
"""

from __future__ import annotations

import hashlib
import operator
import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator

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


#: So much of the time may be spent on looking at files that nothing says have changed.
_SHARE_OF_TIME = 0.02


class Environment(msgspec.Struct, frozen=True):
    """Where a function finds what it imports."""

    folder: str  #: the working directory; empty: it was removed
    path: tuple[str, ...]  #: the import path
    digest: bytes  #: of all the others, and of the user's modules as they are on disk
    variables: dict[str, str | None] = {}  #: environment variables that were changed since the start; None: removed


class _UserModules:
    """Files of imported modules that belong neither to Python nor to an installed package.

    To look at the files of a large project takes longer than a submit. They are looked at anew when a module was
    loaded, and else so seldom that it takes little of the time: an edit that was not loaded here is seen within
    milliseconds.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last_look: tuple[int, str] = 0, ""
        self._files: dict[str, str] = {}  # of modules, by name
        self._specs: list[object] = []  # a module that is loaded again gets a new one
        self._states: list[tuple[str, int, int]] = []
        self._again_at = 0.0

    def states(self) -> list[tuple[str, int, int]]:
        """The files, when they were changed, in ns, and their sizes; those that are gone are left out."""
        look = len(sys.modules), next(reversed(sys.modules), "")  # an import changes at least one of them
        if look != self._last_look:
            self._last_look = look
            self._add_new()
        began = time.monotonic()
        specs = [getattr(sys.modules.get(name), "__spec__", None) for name in self._files]
        is_loaded_anew = len(specs) != len(self._specs) or not all(map(operator.is_, specs, self._specs))
        if is_loaded_anew or began >= self._again_at:
            self._specs = specs
            self._states = list(_states_of(self._files.values()))
            self._again_at = began + (time.monotonic() - began) / _SHARE_OF_TIME
        return self._states

    def _add_new(self) -> None:
        for name in list(sys.modules):
            if name not in self._seen:
                self._seen.add(name)
                file = getattr(sys.modules.get(name), "__file__", None)
                if name != "__main__" and file and not os.path.realpath(file).startswith(_LIBRARIES):
                    self._files[name] = file


class _Variables:
    """The environment variables that this process has changed since it was started."""

    #: Of those that begin like this a task has its own, or no use for them.
    _OURS = (b"NBQUEUE_", b"PYTEST_")

    def __init__(self) -> None:
        self._first: dict[bytes, bytes] | None = None
        self._last: dict[bytes, bytes] = {}
        self._changed: dict[str, str | None] = {}

    def changed(self) -> dict[str, str | None]:
        """Those that were set, with their values, and those that were removed."""
        now: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001 -- decoding all takes longer than a submit
        if self._first is None or now != self._last:
            self._first = _first_variables() if self._first is None else self._first
            self._last = dict(now)
            names = {name for name, _ in now.items() ^ self._first.items() if not name.startswith(self._OURS)}
            self._changed = {_text(name): _text(now[name]) if name in now else None for name in sorted(names)}
        return self._changed


def _first_variables() -> dict[bytes, bytes]:
    """What this process was started with; where nobody knows, what it has now."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
    except OSError:
        return dict(os.environb)


_USER_MODULES = _UserModules()
_VARIABLES = _Variables()
_Facts = tuple[str, list[str], list[tuple[str, int, int]], dict[str, str | None]]
_last: tuple[_Facts, Environment] | None = None


def current_environment(*, with_variables: bool = False) -> Environment:
    """The environment of this process at this moment.

    Args:
        with_variables: With the environment variables that it has changed; they are nobody's business elsewhere.
    """
    global _last  # noqa: PLW0603 -- one process, one environment; told anew with every submit
    variables = _VARIABLES.changed() if with_variables else {}
    facts = _folder(), list(sys.path), _USER_MODULES.states(), variables
    if _last is None or _last[0] != facts:
        _last = facts, _describe(facts)
    return _last[1]


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _describe(facts: _Facts) -> Environment:
    folder, path, states, variables = facts
    entries = [entry for entry in path if isinstance(entry, str)]  # type: ignore[redundant-expr]  # it may hold anything
    lines = [folder, *entries, *(f"{file} {mtime_ns} {size}" for file, mtime_ns, size in states)]
    lines += [name if value is None else f"{name}={value}" for name, value in variables.items()]
    digest = hashlib.blake2b("\0".join(lines).encode(errors="surrogateescape"), digest_size=16).digest()
    return Environment(_utf8(folder), tuple(map(_utf8, entries)), digest, variables)


def _states_of(files: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            continue
        yield file, status.st_mtime_ns, status.st_size


def _utf8(path: str) -> str:
    """A path that can be sent: names that are no UTF-8 lose what makes them so, and are not found on the worker."""
    return path.encode(errors="replace").decode()


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
