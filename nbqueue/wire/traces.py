"""Tracebacks as plain data, and made into tracebacks again.

A traceback cannot be pickled, but IPython, `traceback` and debuggers can show only real ones. So for every frame a tiny
function is compiled that has its name, file, line and columns, and raises; what that leaves behind is linked together.
The source is that which the reader has, in `linecache` or on disk; where he has none, the lines that came along.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, TracebackType
from typing import Any

import msgspec

#: Of a longer traceback, so many outermost and so many innermost frames travel.
HALF_OF_FRAMES = 60
#: Lines around the one that was running, for readers who do not have the file.
CONTEXT_LINES = 5
MAX_LINE_CHARS = 500

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_LIBRARIES = tuple({str(Path(path)) + os.sep for path in sysconfig.get_paths().values()})
_MARKER = "__nbqueue_marker__"


class FrameRecord(msgspec.Struct, frozen=True, array_like=True):
    """One frame of a traceback."""

    filename: str
    line: int
    name: str
    qualified_name: str
    first_line: int = 1
    end_line: int = 0
    columns: tuple[int, int] = (0, 0)  #: of what was running; equal: not known
    arguments: tuple[str, ...] = ()
    varargs: str = ""
    keywords: str = ""
    module: str = ""
    file: str | None = None  #: ``__file__`` of the module


#: Lines of source by file and line number.
Sources = dict[str, dict[int, str]]


# -- taking apart ------------------------------------------------------------------------------------------------------


def theirs(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not of this package; all of it if there is none."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        found = found.tb_next
    return trace if found is None else found


def take_frames(trace: TracebackType | None) -> list[FrameRecord]:
    """The frames of a traceback, outermost first; of a very long one the middle is left out."""
    entries = list(_entries(trace))
    if len(entries) > 2 * HALF_OF_FRAMES:
        entries = entries[:HALF_OF_FRAMES] + entries[-HALF_OF_FRAMES:]
    return [_take_frame(entry) for entry in entries]


def _entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _take_frame(entry: TracebackType) -> FrameRecord:
    code, names = entry.tb_frame.f_code, entry.tb_frame.f_globals
    line, end_line, start, end = next(islice(code.co_positions(), entry.tb_lasti // 2, None), (None,) * 4)
    is_known = line == entry.tb_lineno and None not in (end_line, start, end)
    arguments, varargs, keywords = inspect.getargs(code)
    file = names.get("__file__")
    return FrameRecord(
        filename=code.co_filename,
        line=entry.tb_lineno or code.co_firstlineno,
        name=code.co_name,
        qualified_name=code.co_qualname,
        first_line=code.co_firstlineno,
        end_line=(end_line or 0) if is_known else 0,
        columns=(start or 0, end or 0) if is_known else (0, 0),
        arguments=tuple(name for name in arguments if name.isidentifier()),
        varargs=varargs or "",
        keywords=keywords or "",
        module=str(names.get("__name__", "")),
        file=file if isinstance(file, str) else None,
    )


def take_sources(frames: Sequence[FrameRecord]) -> Sources:
    """The lines around those that the frames were at; libraries are what they are everywhere."""
    sources: Sources = {}
    for frame in frames:
        if frame.filename.startswith(_LIBRARIES):
            continue
        lines = linecache.getlines(frame.filename)
        found = sources.setdefault(frame.filename, {})
        for number in range(max(1, frame.line - CONTEXT_LINES), min(len(lines), frame.line + CONTEXT_LINES) + 1):
            found[number] = lines[number - 1].rstrip("\n")[:MAX_LINE_CHARS]
    return {filename: lines for filename, lines in sources.items() if lines}


# -- putting together --------------------------------------------------------------------------------------------------


def make_trace(frames: Sequence[FrameRecord], sources: Mapping[str, Mapping[int, str]]) -> TracebackType | None:
    """A traceback of these frames; None when there are none."""
    for filename, lines in sources.items():
        _provide(filename, lines)
    head = None
    for frame in reversed(frames):
        trace = _raise_in(frame)
        trace.tb_next = head
        head = trace
    return head


def _provide(filename: str, lines: Mapping[int, str]) -> None:
    """Put lines of a file where everybody looks for them, unless the file is known here."""
    known = linecache.cache.get(filename)
    is_ours = known is not None and known[1] is None and getattr(known[2], "is_excerpt", False)  # type: ignore[misc]
    if not is_ours and (linecache.getlines(filename) or os.path.exists(filename)):
        return
    text = _Excerpt(known[2] if is_ours and known is not None else ())  # type: ignore[misc]
    text.extend("\n" for _ in range(max(lines) - len(text)))
    for number, line in lines.items():
        text[number - 1] = line + "\n"
    linecache.cache[filename] = (sum(map(len, text)), None, text, filename)


class _Excerpt(list[str]):
    """Some lines of a file."""

    is_excerpt = True


class _Raised(Exception):
    """Raised in the frames that are made; its traceback is what they are made for."""


def _raise_in(frame: FrameRecord) -> TracebackType:
    code = _code_of(frame)
    names: dict[str, Any] = {"__name__": frame.module, "__file__": frame.file, "__builtins__": {}, _MARKER: _Raised()}
    try:
        FunctionType(code, names)(*[None] * code.co_argcount)
    except _Raised as error:
        made = error.__traceback__.tb_next if error.__traceback__ is not None else None
    assert made is not None, "the frame has raised"
    return made


@functools.lru_cache(maxsize=1024)
def _code_of(frame: FrameRecord) -> CodeType:
    """A function that raises where the frame was, and looks like its own."""
    line = max(frame.line, 1)
    start, end = frame.columns
    place = {"lineno": line, "end_lineno": max(frame.end_line, line), "col_offset": start, "end_col_offset": end}
    first = {"lineno": min(max(frame.first_line, 1), line), "end_lineno": place["end_lineno"]}
    whole: dict[str, Any] = {**first, "col_offset": 0, "end_col_offset": 0}
    raising = ast.Raise(exc=ast.Name(id=_MARKER, ctx=ast.Load(), **place), cause=None, **place)

    def argument(name: str) -> ast.arg | None:
        return ast.arg(arg=name, annotation=None, **whole) if name else None

    arguments = ast.arguments(
        posonlyargs=[],
        args=[ast.arg(arg=name, annotation=None, **whole) for name in frame.arguments],
        vararg=argument(frame.varargs),
        kwonlyargs=[],
        kw_defaults=[],
        kwarg=argument(frame.keywords),
        defaults=[],
    )
    function = ast.FunctionDef(name="f", args=arguments, body=[raising], decorator_list=[], returns=None, **whole)
    if "type_params" in ast.FunctionDef._fields:
        function.type_params = []  # type: ignore[attr-defined,unused-ignore]  # from Python 3.12 on
    module = compile(ast.Module(body=[function], type_ignores=[]), frame.filename, "exec", dont_inherit=True)
    [code] = [constant for constant in module.co_consts if isinstance(constant, CodeType)]
    return code.replace(co_name=frame.name, co_qualname=frame.qualified_name)
