"""Runs a cell in a slot as a kernel would, and packs what it leaves behind.

The function `run_cell` is what `%%remote` submits. It works in a shell of IPython's own, so the last expression,
magics, ``!commands``, top-level ``await`` and figures are what they are in a notebook.
"""

from __future__ import annotations

import types
from typing import Any

import msgspec

from nbqueue.notebook.slot_shell import slot_shell
from nbqueue.wire.namespace import PackedNames, pack_names, unpack_names, unpackable

__all__ = ["CellResult", "RemoteCell", "Shown", "run_cell", "take_names"]

#: The last value of a cell, among its names.
VALUE = "last value"
#: Where an exception carries the names that its cell had set.
_LEFT_BEHIND = "_nbqueue_left_behind"


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
    shell = slot_shell()
    namespace = shell.begin(raw=cell.raw, source=cell.source, filename=cell.filename)
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
