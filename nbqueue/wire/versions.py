"""Versions of Python and of installed packages, read as cheaply as each caller can afford.

A client and a worker that start up ask for three versions, which takes a millisecond; a list of everything that is
installed takes a tenth of a second or more, and is made only when somebody wants to compare.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from nbqueue._version import __version__
from nbqueue.core.exchange import Versions

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_VERSION_LINE = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.MULTILINE)


def own_versions() -> Versions:
    """Those of this process, which decide whether it can work with others."""
    return Versions(python=PYTHON, nbqueue=__version__, cloudpickle=_version_in_source("cloudpickle"))


def installed_versions() -> dict[str, str]:
    """All packages that this interpreter can import, and Python itself, by lower-case name."""
    from importlib.metadata import distributions

    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:  # a folder that was half removed has none
            found.setdefault(name.lower().replace("_", "-"), distribution.version)
    return found


def _version_in_source(module: str) -> str:
    """The ``__version__`` of a module, without importing it; empty when it does not say."""
    if module in sys.modules:
        return str(getattr(sys.modules[module], "__version__", ""))
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    found = _VERSION_LINE.search(Path(spec.origin).read_text(errors="replace"))
    return found[1] if found else ""
