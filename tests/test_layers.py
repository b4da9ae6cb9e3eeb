"""Who may import whom: the layers, top down, and where each third-party package may appear.

Reads the source only, so it also sees imports inside functions and works while a package is still missing.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

#: From the top down; a module imports only lower lines, and siblings on one line never import each other.
LAYERS = (
    ("cli", "__init__", "__main__", "_api"),
    ("notebook", "testing", "interop"),
    ("client", "worker", "launchers"),
    ("brokers",),
    ("settings", "processes", "telemetry"),
    ("wire",),
    ("core",),
    ("errors",),
    ("_version",),
)
RANK = {name: rank for rank, line in enumerate(LAYERS) for name in line}
TOP = LAYERS[0]

#: What others wrote, and the only parts of nbqueue that may import it.
PLACES = {
    "IPython": ("notebook",),
    "click": ("cli",),
    "blake3": ("wire",),
    "cloudpickle": ("wire",),
    "cryptography": ("wire.seal",),
    "hiredis": ("brokers.redis",),
    "ipykernel": ("notebook",),
    "ipywidgets": ("notebook",),
    "msgpack": ("brokers.redis",),
    "msgspec": ("notebook", "client", "worker", "launchers", "brokers", "settings", "telemetry", "wire", "core"),
    "psutil": ("worker",),
    "redis": ("brokers.redis",),
    "rich": ("cli",),
    "tqdm": ("notebook",),
    "traitlets": ("notebook",),
    "zmq": ("brokers.zmq",),
}

TRANSPORTS = ("memory", "redis", "zmq")

#: The core decides; it never looks at the world. `random` may be named for the type `random.Random` that is passed in.
IMPURE = frozenset(
    "_thread asyncio concurrent datetime io logging mmap multiprocessing os pathlib queue secrets select selectors"
    " shutil signal socket socketserver sqlite3 ssl subprocess tempfile threading time urllib uuid".split()
)


class Import(NamedTuple):
    """One import statement's target, in a module named without the leading "nbqueue."."""

    module: str
    target: str
    line: int
    is_lazy: bool  # inside a function or under TYPE_CHECKING: not run when the module is imported


def test_every_import_goes_down_the_layers():
    assert [] == _violations(_package(), _against_layers)


def test_third_party_packages_stay_in_their_places():
    assert [] == _violations(_package(), _against_places)


def test_core_takes_clock_and_chance_as_arguments():
    assert [] == _violations(_package(), _against_purity)
    assert [] == [use for path, module in _package() if module.startswith("core") for use in _chance(path.read_text())]


def test_no_modules_import_each_other():
    modules = {module for _, module in _package()}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for path, module in _package():
        for found in _imports(path.read_text(), module, modules, is_package=path.name == "__init__.py"):
            target = found.target.removeprefix("nbqueue.")
            if not found.is_lazy and target in modules and target != module:
                graph[module].add(target)

    # A cycle raises CycleError, which names it
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.run", "import nbqueue.wire.codec"),
        ("core.run", "from nbqueue import wire"),
        ("core.run", "def f():\n    from nbqueue.client.app import App"),
        ("errors", "from nbqueue.core import states"),
        ("wire.codec", "from nbqueue.settings import Settings"),
        ("client.app", "from nbqueue.worker import slot"),
        ("client.app", "from nbqueue.launchers.local import LocalLauncher"),
        ("client.app", "from nbqueue.brokers.zmq import hub"),
        ("client.app", "from nbqueue.brokers import memory"),
        ("client.app", "from ..notebook import card"),
        ("client.app", "import nbqueue"),
        ("client.app", "from nbqueue._api import map"),
        ("worker.slot", "from nbqueue.cli.main import main"),
        ("notebook.card", "from nbqueue.brokers.memory import MemoryBroker"),
        ("notebook.card", "from nbqueue.testing import FakeClock"),
        ("brokers.base", "from nbqueue.brokers.registry import open_broker"),
        ("brokers.memory", "from nbqueue.brokers.zmq.hub import Hub"),
        ("brokers.zmq.hub", "from nbqueue.brokers.registry import open_broker"),
        ("brokers.registry", "from nbqueue.brokers.zmq.broker import ZmqBroker"),
        ("_api", "from nbqueue.notebook.showing import show"),
        ("client.app", "from nbqueue.unheard_of import thing"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_seen(module, source):
    assert 1 == len(_against(source, module, _against_layers))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli.main", "from nbqueue.brokers.zmq.hub import serve"),
        ("client.app", "from nbqueue.brokers.base import Broker\nfrom nbqueue.brokers.registry import open_broker"),
        ("brokers.registry", "def f():\n    from nbqueue.brokers.zmq.broker import ZmqBroker"),
        ("brokers.zmq.hub", "from nbqueue.brokers.zmq.sockets import bind\nfrom nbqueue.brokers.base import Broker"),
        ("_api", "def f():\n    from nbqueue.notebook.showing import show"),
        ("_api", "from nbqueue.client.app import App"),
        ("__main__", "from nbqueue.cli.main import main"),
        ("client.app", "from nbqueue._version import __version__"),
    ],
)
def test_an_import_that_goes_down_is_allowed(module, source):
    assert [] == _against(source, module, _against_layers)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("client.app", "import zmq"),
        ("brokers.memory", "import zmq"),
        ("brokers.zmq.hub", "import redis.asyncio"),
        ("worker.slot", "def f():\n    import cloudpickle"),
        ("client.app", "from IPython import get_ipython"),
        ("worker.slot", "from tqdm.auto import tqdm"),
        ("core.run", "import cloudpickle"),
        ("errors", "import msgspec"),
        ("wire.codec", "import numpy"),
    ],
)
def test_a_third_party_package_out_of_its_place_is_seen(module, source):
    assert 1 == len(_against(source, module, _against_places))


@pytest.mark.parametrize(
    "source", ["import time", "from os import environ", "import concurrent.futures", "def f():\n    import socket"]
)
def test_a_core_that_looks_at_the_world_is_seen(source):
    assert 1 == len(_against(source, "core.run", _against_purity))


@pytest.mark.parametrize(
    "source", ["import random\nrandom.random()", "import random\nrandom.Random()", "from random import choice"]
)
def test_a_core_that_draws_by_itself_is_seen(source):
    assert 1 == len(_chance(source))


def test_a_core_that_is_given_its_generator_is_allowed():
    assert [] == _chance("import random\ndef f(rng: random.Random) -> float:\n    return rng.random()")


def _against_layers(found):
    if found.target != "nbqueue" and not found.target.startswith("nbqueue."):
        return None
    source, target = found.module.split("."), found.target.removeprefix("nbqueue").strip(".").split(".")
    source_layer, target_layer = source[0], target[0] or "__init__"
    if target_layer not in RANK:
        return f"{target_layer} stands in no layer"
    if source_layer in TOP:
        is_early = source_layer in ("__init__", "_api") and target_layer in ("cli", *LAYERS[1]) and not found.is_lazy
        return f"{source_layer} imports {target_layer} only inside a function" if is_early else None
    if source_layer == target_layer:
        return _among_brokers(source, target, is_lazy=found.is_lazy) if source_layer == "brokers" else None
    if RANK[source_layer] >= RANK[target_layer]:
        return f"{source_layer} stands below or beside {target_layer}"
    is_open = (
        source_layer == "testing"
        or target_layer != "brokers"
        or target[1:2] in (["base"], ["nesting"], ["registry"], ["workers"])
    )
    return (
        None
        if is_open
        else f"{source_layer} sees only the interfaces of brokers (base, nesting, workers) and the registry"
    )


def _among_brokers(source, target, *, is_lazy):
    """Base and what else is shared at the bottom; registry and the transports above; transports never meet."""
    source_part, target_part = (*source[1:2], *("",))[0], (*target[1:2], *("",))[0]
    if source_part == target_part:
        return None
    if target_part == "registry":
        return "only what uses brokers imports brokers.registry"
    if target_part in TRANSPORTS and not (source_part == "registry" and is_lazy):
        return f"brokers.{target_part} is opened by brokers.registry alone, inside a function"
    return None


def _against_places(found):
    package = found.target.split(".")[0]
    if package == "nbqueue" or package in sys.stdlib_module_names:
        return None
    if package not in PLACES:
        return f"{package} is no dependency"
    places = PLACES[package]
    is_at_home = any(f"{found.module}.".startswith(f"{place}.") for place in places)
    return None if is_at_home else f"{package} is imported only in {', '.join(places)}"


def _against_purity(found):
    is_impure = found.module.split(".")[0] == "core" and found.target.split(".")[0] in IMPURE
    return f"the core must not know {found.target}" if is_impure else None


def _chance(source):
    """Uses of the global generator, or of one that seeds itself."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.ImportFrom) and node.module == "random")
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "random.Random")
        or (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random")
    ]


def _package() -> list[tuple[Path, str]]:
    """Every module of nbqueue with its name less the leading "nbqueue."; a package has its own name."""
    named = []
    for path in sorted((ROOT / "nbqueue").rglob("*.py")):
        parts = path.relative_to(ROOT / "nbqueue").with_suffix("").parts
        is_subpackage = parts[-1] == "__init__" and len(parts) > 1
        named.append((path, ".".join(parts[:-1] if is_subpackage else parts)))
    return named


def _violations(package, rule):
    modules = {module for _, module in package}
    return [
        f"{path.relative_to(ROOT)}:{found.line}: {problem}"
        for path, module in package
        for found in _imports(path.read_text(), module, modules, is_package=path.name == "__init__.py")
        if (problem := rule(found))
    ]


def _against(source, module, rule):
    modules = {name for _, name in _package()} | {f"brokers.{name}" for name in ("base", "registry", *TRANSPORTS)}
    return [problem for found in _imports(source, module, modules, is_package=False) if (problem := rule(found))]


def _imports(source: str, module: str, modules: set[str], *, is_package: bool) -> Iterator[Import]:
    lazy = _lazy_nodes(ast.parse(source))
    for node, is_lazy in lazy:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(module, alias.name, node.lineno, is_lazy)
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = _absolute(origin or "", module, level, is_package=is_package)
                for target in sorted({_target(base, alias.name, modules) for alias in names}):
                    yield Import(module, target, node.lineno, is_lazy)


def _lazy_nodes(node: ast.AST, *, is_lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    is_typing = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    is_lazy = is_lazy or is_typing or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    yield node, is_lazy
    for child in ast.iter_child_nodes(node):
        yield from _lazy_nodes(child, is_lazy=is_lazy)


def _absolute(origin: str, module: str, level: int, *, is_package: bool) -> str:
    if level == 0:
        return origin
    inside = ["nbqueue", *module.split(".")]
    kept = inside[: len(inside) - level + is_package]
    return ".".join([*kept, origin] if origin else kept)


def _target(base: str, name: str, modules: set[str]) -> str:
    """`from nbqueue.brokers import zmq` names a module, `from nbqueue.errors import TaskRevoked` does not."""
    full = f"{base}.{name}"
    inner = full.removeprefix("nbqueue.")
    is_module = base.startswith("nbqueue") and (inner in modules or inner in RANK)
    return full if is_module else base
