"""Runs a cell in a slot as a kernel would, and packs what it leaves behind.

The function `run_cell` is what `%%remote` submits. It works in a shell of IPython's own, so the last expression,
magics, ``!commands``, top-level ``await`` and figures are what they are in a notebook.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from typing import Any

import msgspec

from nbqueue.wire.namespace import PackedNames, pack_names, unpack_names, unpackable

__all__ = ["CellResult", "RemoteCell", "Shown", "run_cell", "take_names"]

#: The last value of a cell, among its names.
VALUE = "last value"
#: Where an exception carries the names that its cell had set.
_LEFT_BEHIND = "_nbqueue_left_behind"
_BACKEND = "module://matplotlib_inline.backend_inline"


class RemoteCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell on its way to a worker."""

    raw: str  #: as typed, for the semicolon at its end
    source: str  #: Python, after the input transformers
    filename: str  #: by which the notebook knows its lines
    names: PackedNames  #: that it reads
    wanted: tuple[str, ...] | None = None  #: names that are to come back; None: those that it sets


class Shown(str):
    """Stands for a last value that could not come back: only how it looks did."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell has left in its namespace."""

    names: PackedNames
    deleted: tuple[str, ...] = ()
    stayed: dict[str, str] = {}  #: names that cannot be sent back, and why


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell that ended well has left behind."""

    left: Left
    has_value: bool = False
    data: dict[str, Any] | None = None  #: the last value as it looks; None: it is not to be shown
    metadata: dict[str, Any] = {}


def run_cell(cell: RemoteCell) -> CellResult:
    """Run a cell in this slot.

    Raises:
        BaseException: What the cell raised; `take_names` finds in it what the cell had set before.
    """
    shell = _shell()
    namespace = shell.begin(cell)
    unpack_names(cell.names, namespace)
    before = dict(namespace)
    result = shell.run_cell(cell.raw, store_history=False)
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        _leave_behind(error, _left(shell, cell, before, {}))
        raise error.with_traceback(_own_part(error.__traceback__, cell.filename))
    last = shell.displayhook.last
    value = {} if last is None else {VALUE: last.value}
    return CellResult(
        left=_left(shell, cell, before, value),
        has_value=last is not None,
        data=None if last is None else last.data,
        metadata={} if last is None else last.metadata,
    )


def take_names(error: BaseException) -> Left | None:
    """What the cell that raised *error* had set; at most once."""
    left = getattr(error, "__dict__", {}).pop(_LEFT_BEHIND, None)
    return left if isinstance(left, Left) else None


def _left(shell: Any, cell: RemoteCell, before: dict[str, Any], value: dict[str, Any]) -> Left:
    namespace = shell.user_ns
    changed = {
        name: now
        for name, now in namespace.items()
        if name not in shell.own_names and (name not in before or before[name] is not now)
    }
    if cell.wanted is not None:
        changed = {name: namespace[name] for name in cell.wanted if name in namespace}
    deleted = tuple(name for name in before if name not in namespace and name not in shell.own_names)
    stayed = (
        {} if cell.wanted is None else {name: "the cell did not set it" for name in cell.wanted if name not in changed}
    )
    names = changed | value
    try:
        return Left(names=pack_names(names, namespace), deleted=deleted, stayed=stayed)
    except Exception:
        for name, problem in unpackable(names, namespace).items():
            kind = type(names.pop(name)).__name__
            if name != VALUE:
                stayed[name] = f"a {kind} cannot be sent ({problem})"
    return Left(names=pack_names(names, namespace), deleted=deleted, stayed=stayed)


def _leave_behind(error: BaseException, left: Left) -> None:
    try:
        setattr(error, _LEFT_BEHIND, left)
    except Exception:
        return  # an exception without room for attributes


def _own_part(trace: types.TracebackType | None, filename: str) -> types.TracebackType | None:
    """The traceback from the cell's own first line on."""
    start = trace
    while start is not None and start.tb_frame.f_code.co_filename != filename:
        start = start.tb_next
    return start or trace


class _Last(msgspec.Struct):
    """The value of a cell's last expression."""

    value: Any
    data: dict[str, Any]
    metadata: dict[str, Any]


@functools.cache
def _shell() -> Any:
    """The shell of this process; made when the first cell comes, in a tenth of a second."""
    from traitlets.config import Config

    # A history would be a thread and a file, in each slot, of what nobody typed there.
    return _shell_class().instance(config=Config({"HistoryManager": {"enabled": False}}))


@functools.cache
def _shell_class() -> type[Any]:
    from IPython.core.compilerop import CachingCompiler
    from IPython.core.displayhook import DisplayHook
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets import Type

    from nbqueue.notebook.slot_display import SlotDisplayPublisher

    class Compiler(CachingCompiler):  # type: ignore[misc]  # published without types
        """Gives a cell the file name by which the notebook knows it."""

        def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> Any:
            cell = shell_class.instance().cell
            if cell is not None and raw_code == cell.raw:
                return cell.filename
            return super().get_code_name(raw_code, transformed_code, number)

    class Hook(DisplayHook):  # type: ignore[misc]
        """Keeps the last value instead of printing it."""

        last: _Last | None = None

        def __call__(self, result: Any = None) -> None:
            if result is None:
                return
            cell = self.shell.cell
            if cell is not None and self.semicolon_at_end_of_expression(cell.raw):
                self.last = None
                return
            data, metadata = self.compute_format_data(result)
            self.last = _Last(result, data, metadata)

    class SlotShell(InteractiveShell):  # type: ignore[misc]
        """A shell whose cells come from a notebook elsewhere."""

        display_pub_class = Type(SlotDisplayPublisher)
        displayhook_class = Type(Hook)
        compiler_class = Type(Compiler)

        cell: RemoteCell | None = None
        own_names: frozenset[str] = frozenset()

        def begin(self, cell: RemoteCell) -> dict[str, Any]:
            """Make a fresh namespace for *cell*."""
            self.cell = cell
            self.displayhook.last = None
            os.environ.setdefault("MPLBACKEND", _BACKEND)
            self.user_module = types.ModuleType("__main__")
            self.user_ns = self.user_module.__dict__
            self.init_user_ns()
            sys.modules["__main__"] = self.user_module
            self.own_names = frozenset(self.user_ns)
            return self.user_ns

        def transform_cell(self, raw_cell: str) -> str:
            if self.cell is not None and raw_cell == self.cell.raw:
                return self.cell.source  # the notebook has done it, with its own transformers
            return str(super().transform_cell(raw_cell))

        def enable_gui(self, gui: Any = None) -> None:
            """There is no window to be kept alive."""

        def system(self, cmd: str) -> None:
            self.system_piped(cmd)

        def showtraceback(self, *args: Any, **kwargs: Any) -> None:
            """The notebook shows it."""

        def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
            """The notebook shows it."""

        def showindentationerror(self) -> None:
            """The notebook shows it."""

    shell_class = SlotShell
    return shell_class
