"""The packages that a function imports, with their versions: noted where it is sent, compared where it runs."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import socket
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nbqueue.core.compatibility import is_notable
from nbqueue.wire.versions import module_version


@functools.cache
def home() -> str:
    """Names the installation that this process uses: where it is the same, no version can differ."""
    return f"{socket.gethostname()}:{sys.prefix}"


def requirements(codes: Iterable[types.CodeType], namespace: Mapping[str, Any]) -> dict[str, str]:
    """Versions of the packages that these codes use: from *namespace*, or by their own imports.

    Modules of the standard library and those that tell no version (the user's own) are left out.
    """
    found: dict[str, str] = {}
    for name in {package for code in codes for package in _packages(code, namespace)}:
        version = _own_version(name)
        if version:
            found[name] = version
    return found


def function_requirements(function: Callable[..., Any]) -> dict[str, str]:
    """`requirements` of a function as a user writes it; nothing for what is not made of Python code."""
    inner: Any = getattr(function, "__func__", getattr(function, "func", function))
    if not isinstance(inner, types.FunctionType):
        return {}
    return requirements(_nested(inner.__code__), ChainMap(_enclosed(inner), inner.__globals__))


def remarks_on(needed: Mapping[str, str], where: str) -> list[str]:
    """One sentence for each package that differs here so much that results may, too."""
    remarks = []
    for name, wanted in needed.items():
        found = module_version(name) if _is_there(name) else None
        if found == "" or not is_notable(wanted, found):
            continue
        what = f"{name} {found}" if found is not None else f"no {name}"
        remarks.append(f"{where} has {what}, here is {name} {wanted}; nbqueue.env_diff() shows all differences")
    return remarks


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _enclosed(function: types.FunctionType) -> dict[str, Any]:
    """What the function has from the functions around it."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    return found


def _packages(code: types.CodeType, namespace: Mapping[str, Any]) -> Iterator[str]:
    """Top-level packages behind the names in the code."""
    for name in (*code.co_names, *code.co_freevars):
        value = namespace.get(name)
        if isinstance(value, types.ModuleType):
            module: object = value.__name__
        elif value is not None:
            module = getattr(value, "__module__", None)
        else:
            module = name  # of an import inside the function, or nothing
        if isinstance(module, str):
            package = module.partition(".")[0]
            if package not in sys.stdlib_module_names and package not in ("__main__", "nbqueue"):
                yield package


def _own_version(package: str) -> str:
    """Its version if it is loaded here; a name that is no package has none."""
    module = sys.modules.get(package)
    if module is None:
        return ""
    return module_version(package)


def _is_there(package: str) -> bool:
    if package in sys.modules:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # half of it is there
        return False
