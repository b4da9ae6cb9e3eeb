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

_LIBRARIES = tuple(
    os.path.join(os.path.realpath(path), "")
    for path in {
        *sysconfig.get_paths().values(),
        *site.getsitepackages(),
        site.getusersitepackages(),
        os.path.dirname(os.path.dirname(__file__)),  # nbqueue itself, wherever it is installed
    }
)


class _UserModules:
    """Files of imported modules that belong neither to Python nor to an installed package."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._files: list[str] = []

    def files(self) -> list[str]:
        """All of them; only modules that are new since the last call are looked at."""
        for name in list(sys.modules):
            if name not in self._seen:
                self._seen.add(name)
                file = getattr(sys.modules.get(name), "__file__", None)
                if name != "__main__" and file and not os.path.realpath(file).startswith(_LIBRARIES):
                    self._files.append(file)
        return self._files


_USER_MODULES = _UserModules()


def import_path() -> list[str]:
    """What Python itself takes from `sys.path`: it passes over whatever is no string."""
    entries: list[object] = list(sys.path)
    return [entry for entry in entries if isinstance(entry, str)]


def environment_digest() -> bytes:
    """A digest of the working directory, the import path, and the user's modules as they are on disk now."""
    facts = [os.getcwd(), *import_path()]
    for file in _USER_MODULES.files():
        try:
            status = os.stat(file)
        except OSError:
            continue
        facts.append(f"{file} {status.st_mtime_ns} {status.st_size}")
    return hashlib.blake2b("\0".join(facts).encode(errors="surrogateescape"), digest_size=16).digest()
