"""Which variable it is that cannot be sent, when something cannot: a path to it, and the line that uses it.

An error of pickle says only of which type the innermost culprit is. So the value is walked again, part by part: of each
thing that cannot be pickled, the first part that cannot be pickled either, until one has no such part.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import linecache
import pickle
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nbqueue.errors import NotSerializable
from nbqueue.wire.pickler import Pickler

__all__ = [
    "Blame",
    "blame",
    "captured_bytes",
    "line_of_use",
    "pickled_bytes",
    "refusal",
    "refusal_of_arguments",
    "refusal_of_result",
]

#: Deeper than this nobody wants to read; it also ends walks through objects that make new ones when they are asked.
MAX_STEPS = 12
HINT = "Create it inside the function, or pass what is needed to make it"
#: What to do about results of these types.
_RESULT_HINTS = {
    "generator": "Return a list of what it yields",
    "coroutine": "Map an ordinary function that calls asyncio.run() on the asynchronous one",
}


class Blame(NamedTuple):
    """The culprit."""

    path: str  #: from the outside in: ``score() → global 'client' (Redis) → ._lock (lock)``
    variable: str  #: the name by which the user knows what holds it: ``client``
    line: int | None  #: where the function uses that name
    source: str  #: that line's text
    what: str  #: type of the culprit itself: ``lock``
    error: Exception  #: pickle's own words about it


class _Part(NamedTuple):
    """A part of a value, and how it is reached."""

    step: str
    value: Any
    variable: str = ""
    line: int | None = None
    filename: str = ""


def blame(value: Any, *, name: str = "") -> Blame | None:
    """Find out why *value* cannot be pickled; None when it can.

    Args:
        value: A function, or anything else.
        name: What to call it.
    """
    error = _problem(value)
    if error is None:
        return None
    steps = [name or _name_of(value)]
    first: _Part | None = None
    seen = {id(value)}
    for _ in range(MAX_STEPS):
        found = _first_bad(value, seen)
        if found is None or (isinstance(error, NotSerializable) and not isinstance(found[1], NotSerializable)):
            break  # nothing is in it, or it is a thing of ours, which says itself what is wrong
        part, error = found
        if part.variable and (first is None or not first.variable):
            first = part
        steps.append(f"{part.step} ({_type_name(part.value)})")
        value = part.value
        seen.add(id(value))
    line, filename = (first.line, first.filename) if first is not None else (None, "")
    return Blame(
        path=" → ".join(steps),
        variable=first.variable if first is not None else name,
        line=line,
        source=linecache.getline(filename, line).strip() if line is not None else "",
        what=_type_name(value),
        error=error,
    )


def refusal(value: Any, *, name: str = "", error: Exception | None = None) -> NotSerializable:
    """The error for something that cannot be sent, which names what is to blame."""
    subject = name or _name_of(value)
    found = blame(value, name=subject)
    if found is None:
        return NotSerializable(f"{subject} cannot be sent to a worker: {error}")
    where = f" in line {found.line} (`{found.source}`)" if found.source else ""
    used = f"it uses {found.variable!r}{where}: " if found.variable and found.variable != subject else ""
    says_more = isinstance(found.error, NotSerializable)  # it is a thing of ours, which says what to do instead
    trouble = (
        str(found.error) if found.path == subject or says_more else f"{found.path} cannot be pickled ({found.error})"
    )
    return NotSerializable(
        f"{subject} cannot be sent to a worker: {used}{trouble}. {'' if says_more else HINT + '.'}".rstrip(),
        path=found.path,
        variable=found.variable,
        line=found.line,
        hint="" if says_more else HINT,
    )


def refusal_of_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> NotSerializable | None:
    """The error for the first argument of a call that cannot be sent; None when all can."""
    named = [*((f"argument {position}", value) for position, value in enumerate(args, 1)), *kwargs.items()]
    for name, value in named:
        if _problem(value) is not None:
            return refusal(value, name=f"{name} ({_type_name(value)})")
    return None


def refusal_of_result(value: Any, *, item: int) -> NotSerializable:
    """The error for a result that cannot be sent back from a worker."""
    found = blame(value)
    path, error = (found.path, found.error) if found is not None else (_name_of(value), None)
    hint = _RESULT_HINTS.get(_type_name(value), "Return plain data that it is made of")
    return NotSerializable(f"the result of item {item} cannot be sent back: {path} ({error}). {hint}.", path=path)


def _first_bad(value: Any, seen: set[int]) -> tuple[_Part, Exception] | None:
    for part in _parts(value):
        if id(part.value) not in seen and (error := _problem(part.value)) is not None:
            return part, error
    return None


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def _problem(value: Any) -> Exception | None:
    try:
        Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: False).dump(value)
    except Exception as error:
        return error
    return None


# -- what a value consists of ------------------------------------------------------------------------------------------


def _parts(value: Any) -> Iterator[_Part]:
    match value:
        case types.FunctionType():
            yield from _parts_of_function(value)
        case types.MethodType(__self__=owner, __func__=function):
            yield _Part("self", owner, "self", *line_of_use(function.__code__, "self"))
            yield _Part(f"{function.__name__}()", function)
        case functools.partial(func=function, args=args, keywords=keywords):
            yield _Part("the function of the partial", function)
            yield from (_Part(f"argument {index}", arg) for index, arg in enumerate(args))
            yield from (_Part(f"argument {key!r}", arg, key) for key, arg in keywords.items())
        case dict():
            for key, part in list(value.items()):
                yield _Part(f"key {_short(key)}", key)
                yield _Part(f"[{_short(key)}]", part)
        case list() | tuple():
            yield from (_Part(f"[{index}]", part) for index, part in enumerate(value))
        case set() | frozenset():
            yield from (_Part("an element", part) for part in value)
        case types.ModuleType() | type():
            yield from (_Part(f".{key}", part) for key, part in list(vars(value).items()) if key[:2] != "__")
        case _:
            yield from _parts_of_object(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[_Part]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            content = cell.cell_contents
        except ValueError:  # not set yet
            continue
        yield _Part(f"variable {name!r}", content, name, *line_of_use(code, name))
    for name in dict.fromkeys(_global_names(code)):
        if name in function.__globals__:
            yield _Part(f"global {name!r}", function.__globals__[name], name, *line_of_use(code, name))
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for name, default in (*zip(names, defaults, strict=True), *(function.__kwdefaults__ or {}).items()):
        yield _Part(f"default of {name!r}", default, name, code.co_firstlineno, code.co_filename)
    for name, part in function.__dict__.items():
        yield _Part(f".{name}", part, name)


def _parts_of_object(value: Any) -> Iterator[_Part]:
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, Mapping):
        yield from (_Part(f".{name}", part) for name, part in list(attributes.items()))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield _Part(f".{name}", getattr(value, name))
    if type(value).__module__ not in ("builtins", "__main__"):
        return
    yield _Part(f"class {type(value).__qualname__}", type(value))


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def line_of_use(code: types.CodeType, name: str) -> tuple[int | None, str]:
    """The first line of *code* that uses *name*, and its file."""
    for instruction in dis.get_instructions(code):
        is_load = instruction.opname.startswith("LOAD_") and not instruction.opname.startswith("LOAD_CLOSURE")
        if is_load and instruction.argval == name and instruction.positions is not None:
            return instruction.positions.lineno, code.co_filename
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType) and (found := line_of_use(constant, name))[0] is not None:
            return found
    return None, code.co_filename


def _name_of(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    if isinstance(value, types.FunctionType | types.MethodType) and name:
        return f"{name.rpartition('.<locals>.')[2]}()"
    kind = _type_name(value)
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def _type_name(value: Any) -> str:
    return type(value).__qualname__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:38]} …"


# -- how large it is ---------------------------------------------------------------------------------------------------


class _Counting(_Nowhere):
    """A file that keeps only its size."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)

    def add(self, buffer: pickle.PickleBuffer) -> bool:
        self.size += buffer.raw().nbytes
        return False


def pickled_bytes(value: Any) -> int:
    """How large *value* is on the wire; nothing is copied to find out. Raises what pickling raises."""
    file = _Counting()
    Pickler(file, protocol=5, buffer_callback=file.add).dump(value)
    return file.size


def captured_bytes(function: Any) -> dict[str, int]:
    """The variables that travel with a function, and their sizes; the largest first."""
    sizes: dict[str, int] = {}
    for part in _parts(function):
        if part.variable and not isinstance(part.value, types.ModuleType | types.FunctionType | type):
            with contextlib.suppress(Exception):  # `blame` says which
                sizes[part.variable] = pickled_bytes(part.value)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))
