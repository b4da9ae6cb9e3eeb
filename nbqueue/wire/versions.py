"""Versions of Python and of installed packages, read as cheaply as each caller can afford.

A client and a worker that start up ask for three versions, which takes a millisecond; a list of everything that is
installed takes a tenth of a second or more, and is made only when somebody wants to compare.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from nbqueue._version import __version__
from nbqueue.core.exchange import Versions

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_VERSION_LINE = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.MULTILINE)


@functools.cache
def own_versions() -> Versions:
    """Those of this process, which decide whether it can work with others."""
    return Versions(python=PYTHON, nbqueue=__version__, cloudpickle=module_version("cloudpickle"))


def installed_versions(more: Iterable[str] = ()) -> dict[str, str]:
    """All packages that this interpreter can import, also with *more* on its path, and Python itself, by name."""
    from importlib.metadata import distributions

    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for distribution in distributions(path=[*sys.path, *more]):  # what comes first is what is imported
        name = distribution.metadata["Name"]
        if name:  # a folder that was half removed has none
            found.setdefault(name.lower().replace("_", "-"), distribution.version)
    return found


def module_version(module: str) -> str:
    """The version of a top-level module, without importing it; empty when it has none."""
    loaded = getattr(sys.modules.get(module), "__version__", None)
    return loaded if isinstance(loaded, str) else _version_on_disk(module)


@functools.cache
def _version_on_disk(module: str) -> str:
    spec = sys.modules[module].__spec__ if module in sys.modules else importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
        found = _VERSION_LINE.search(Path(spec.origin).read_text(errors="replace"))
        if found:
            return found[1]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(module)
    except (PackageNotFoundError, ValueError):
        return ""
