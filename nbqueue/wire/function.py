"""A function and what it needs to run elsewhere on this host, packed once per run."""

from __future__ import annotations

import linecache
import operator
import os
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cloudpickle
import msgspec
from blake3 import blake3

from nbqueue.core.compatibility import why_unreadable
from nbqueue.core.exchange import Versions
from nbqueue.errors import EnvironmentMismatch, NotSerializable
from nbqueue.wire.blobs import INLINE_BYTES, BlobStore
from nbqueue.wire.environment import Environment
from nbqueue.wire.payload import pickle_parts, refuse_too_large, unpack
from nbqueue.wire.requirements import function_requirements, home, remarks_on
from nbqueue.wire.versions import own_versions

#: How an item becomes arguments.
Call = str  # "one": f(item); "star": f(*item); "call": args, kwargs = item
#: Source text of cells that travels with a function, so that tracebacks on the worker show it.
MAX_SOURCE = 64_000


class FunctionBody(msgspec.Struct, frozen=True, array_like=True):
    """The packed function."""

    packed: bytes  #: (preparation, function, exceptions to retry on); or ``N`` + name of a task that the worker has
    call: Call
    sources: dict[str, str]  #: file name -> text, of files that exist only in the client's memory
    folder: str  #: working directory of the client
    path: list[str]  #: its sys.path
    versions: Versions = Versions()  #: of who packed it
    home: str = ""  #: the installation that it used
    requires: dict[str, str] = {}  #: packages that the function imports
    variables: dict[str, str | None] = {}  #: environment variables that the client has changed; None: removed


class LoadedFunction(msgspec.Struct, frozen=True):
    """A function in a slot, ready to be called."""

    function: Callable[..., Any]
    retry_on: tuple[type[BaseException], ...]
    call: Call
    speaks_json: bool = False  #: its arguments and results are JSON


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FunctionBody).decode


def pack_function(
    function: Callable[..., Any],
    *,
    call: Call,
    retry_on: tuple[type[BaseException], ...],
    environment: Environment,
    blobs: BlobStore | None,
    preparation: object = None,
) -> tuple[bytes, bytes]:
    """Pack *function* for workers on this host.

    Args:
        function: To be called with each item.
        call: How an item becomes its arguments.
        retry_on: Exceptions after which an item may run again.
        environment: Of this process.
        blobs: Where large functions go; None: they stay inline.
        preparation: Unpickled before the function, which may need what that does to the process.

    Returns:
        The digest by which workers know it, and its body.

    Raises:
        NotSerializable: It, or something that it uses, cannot be pickled.
    """
    contents = None if retry_on else _steady_contents(function)
    if contents is None:
        return _pack(function, call, retry_on, environment, blobs, preparation)[0]
    known = _PACKED.get(function)
    key = call, environment.digest, preparation
    if known is not None and known.key == key and _are_identical(known.contents, contents):
        return known.packed
    packed, is_inline = _pack(function, call, retry_on, environment, blobs, preparation)
    if is_inline:  # a file might be gone when the function is next submitted
        _PACKED[function] = _Packed(key, contents, packed)
    return packed


def _pack(
    function: Callable[..., Any],
    call: Call,
    retry_on: tuple[type[BaseException], ...],
    environment: Environment,
    blobs: BlobStore | None,
    preparation: object,
) -> tuple[tuple[bytes, bytes], bool]:
    """The digest and the body, and whether the body holds everything itself."""
    try:
        parts = pickle_parts((preparation, function, retry_on))
    except NotSerializable as error:
        from nbqueue.wire.blame import refusal  # looks into code and frames, which only this case needs

        raise refusal(function, error=error) from None
    sources = dict(_cell_sources(function))
    requires = function_requirements(function)
    places = environment.folder, environment.path, home(), list(environment.variables.items())
    facts = _encode([call, sources, places, own_versions(), sorted(requires.items())])
    size = sum(len(part) for part in parts)
    is_large = size > INLINE_BYTES
    digest = blake3(facts, max_threads=blake3.AUTO if is_large else 1)
    for part in parts:
        digest.update(part)
    if is_large and blobs is not None:
        packed = b"F" + blobs.write(digest.hexdigest(), parts, name="function").encode()
    else:
        refuse_too_large("a function with what it captures", size)
        packed = b"".join(parts)
    path = list(environment.path)
    body = FunctionBody(
        packed, call, sources, environment.folder, path, own_versions(), home(), requires, environment.variables
    )
    return (digest.digest(), _encode(body)), not packed.startswith(b"F")


def pack_name(name: str) -> tuple[bytes, bytes]:
    """What stands for a task that workers know by its name; see `pack_function`.

    Nothing of this process goes along: the task finds what its worker has, and its arguments are ``args, kwargs``.
    """
    body = FunctionBody(b"N" + name.encode(), "call", {}, "", [])
    encoded = _encode(body)
    return blake3(encoded).digest(), encoded


def name_in(body: bytes) -> str | None:
    """The name that stands for a task; None for a function that is pickled, of which nothing is read."""
    packed = _decode(body).packed
    return str(packed[1:], "utf-8") if packed[:1] == b"N" else None


class _Packed(NamedTuple):
    """A packed function, with all that it was made from."""

    key: tuple[object, ...]
    contents: list[object]
    packed: tuple[bytes, bytes]


#: Functions that carry only what cannot change in place; in a loop of submits pickling would cost the most.
_PACKED: weakref.WeakKeyDictionary[Callable[..., Any], _Packed] = weakref.WeakKeyDictionary()

#: Values of these types are the same for ever.
_IMMUTABLE = frozenset({types.NoneType, bool, int, float, complex, str, bytes})


def _steady_contents(function: object) -> list[object] | None:
    """All that the pickle of a function is made from: the same objects, the same pickle.

    Returns:
        None when it carries something that can be changed in place, e.g. a list or a helper of the notebook.
    """
    if cloudpickle.list_registry_pickle_by_value():
        return None
    if type(function) is types.BuiltinFunctionType:
        return [function] if _is_named(function) else None
    if type(function) is not types.FunctionType or function.__dict__:
        return None
    contents: list[object] = [function.__code__]
    if _is_named(function):
        return contents
    for value in _carried(function):
        if not _is_steady(value):
            return None
        contents.append(value)
    return contents


def _carried(function: types.FunctionType) -> Iterator[object]:
    """Names and values that a function has from elsewhere."""
    yield from function.__defaults__ or ()
    for attributes in (function.__kwdefaults__, function.__annotations__):
        for name, value in (attributes or {}).items():
            yield name
            yield value
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is empty
            yield cell
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield name
            yield function.__globals__[name]


def _is_steady(value: object) -> bool:
    """Whether it cannot change in place, as far as its pickle goes."""
    if type(value) in _IMMUTABLE or value is types.NoneType:
        return True
    if isinstance(value, types.ModuleType):  # one made in the notebook travels with what is in it
        return sys.modules.get(value.__name__) is value
    if isinstance(value, (types.GenericAlias, types.UnionType)):
        return all(map(_is_steady, value.__args__))
    return isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)) and _is_named(value)


def _is_named(value: type | types.FunctionType | types.BuiltinFunctionType) -> bool:
    """Whether it travels by its name, since workers can import it."""
    module = sys.modules.get(value.__module__)
    return module is not None and module.__name__ != "__main__" and getattr(module, value.__name__, None) is value


def _are_identical(some: list[object], others: list[object]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def load_function(
    body: bytes, blobs: BlobStore | None, *, where: str = "", remark: Callable[[str], object] | None = None
) -> LoadedFunction:
    """Unpack a function in a slot, in the client's folder and with its import path.

    Args:
        body: As `pack_function` made it.
        blobs: Where large payloads are.
        where: Names this place in remarks and errors, e.g. "worker gpu-1".
        remark: Called with each sentence about packages that differ here from the client's.

    Raises:
        EnvironmentMismatch: It was packed by a Python or cloudpickle whose pickles cannot be read here.
    """
    decoded = _decode(body)
    _check_readable(decoded, where)
    _adopt_environment(decoded)
    if remark is not None and decoded.home != home():
        for sentence in remarks_on(decoded.requires, where):
            remark(sentence)
    _, function, retry_on = unpack(decoded.packed, blobs)
    return LoadedFunction(function, retry_on, decoded.call)


def _check_readable(body: FunctionBody, where: str) -> None:
    difference = why_unreadable(body.versions, own_versions(), there="there", here="on the worker")
    if difference:
        raise EnvironmentMismatch(
            f"{where} cannot read what was pickled where the task was submitted ({difference}): "
            "start the worker with the same Python and cloudpickle"
        )


def _adopt_environment(body: FunctionBody) -> None:
    if os.path.isdir(body.folder):
        os.chdir(body.folder)
    sys.path.extend(entry for entry in body.path if entry not in sys.path)
    for name, value in body.variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for name, text in body.sources.items():
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)


def _cell_sources(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Texts of the notebook cells in which *function*, and functions that it uses, are defined."""
    budget = MAX_SOURCE
    seen: set[str] = set()
    for code in _codes(function, set()):
        name = code.co_filename
        if name in seen or os.path.exists(name):
            continue
        seen.add(name)
        text = "".join(linecache.getlines(name))
        if text and len(text) <= budget:
            budget -= len(text)
            yield name, text


def _codes(function: object, seen: set[int]) -> Iterator[types.CodeType]:
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType) or id(function) in seen or len(seen) > 200:
        return
    seen.add(id(function))
    yield function.__code__
    for name in function.__code__.co_names:
        yield from _codes(function.__globals__.get(name), seen)
    for cell in function.__closure__ or ():
        try:
            yield from _codes(cell.cell_contents, seen)
        except ValueError:  # an empty cell
            continue
