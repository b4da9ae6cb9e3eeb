"""A cell that runs elsewhere, seen from the notebook: what is sent along, and what comes back into it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, TypeVar

from nbqueue.client.result import AsyncResult
from nbqueue.client.submitter import Submitter
from nbqueue.errors import NotSerializable
from nbqueue.notebook.errors import CellSyntaxError
from nbqueue.notebook.names import analyse, compile_cell
from nbqueue.notebook.remote_cell import VALUE, CellResult, Left, RemoteCell, Shown, run_cell, take_names
from nbqueue.wire.blame import blame, line_of_use
from nbqueue.wire.namespace import PackedNames, pack_names, unpack_names, unpackable

__all__ = ["CellHandle", "last_value", "prepare", "submit_cell"]

#: Names that every notebook has, and that mean something else on a worker.
_NOT_SENT = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})


class CellHandle(AsyncResult):
    """The handle of a cell: its value is that of the last expression, its names come into the notebook with it."""

    shell: Any = None
    _result: CellResult | None = None
    _has_landed = False

    def get(self, timeout: float | None = None, propagate: bool = True) -> Any:
        """Wait for the cell; its names are set in the notebook, and its last value is returned.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.
            propagate: False returns the exception instead of raising it.

        Raises:
            TimeoutError: It is not there yet; it goes on.
            TaskRevoked: It was revoked.
            Exception: Whatever the cell raised; what it had set before is set in the notebook.
        """
        return super().get(timeout, propagate)

    def show_value(self) -> None:
        """Show the last value as the value of the notebook's own cell, ``Out[n]`` and all."""
        value = self.get()
        result = self._result
        if result is None or not result.has_value:
            return
        hook = self.shell.displayhook
        hook.start_displayhook()
        hook.write_output_prompt()
        hook.write_format_data(result.data or {}, result.metadata)
        hook.update_user_ns(value)
        hook.fill_exec_result(value)
        hook.finish_displayhook()

    def _value(self) -> Any:
        if self._result is None:
            self._result = super()._value()
        return self._land(self._result.left, self._result)

    def _error_of(self, entry: Any, item: int) -> BaseException:
        error = super()._error_of(entry, item)
        left = take_names(error)
        if left is not None:
            self._land(left, None)
        return error

    _last: Any = None

    def _land(self, left: Left, result: CellResult | None) -> Any:
        """Bring what the cell left behind into the notebook, once."""
        if not self._has_landed:
            self._has_landed = True
            values = unpack_names(left.names, self.shell.user_ns)
            self.shell.user_ns.pop(VALUE, None)
            self._last = last_value(values, result)
            for name in left.deleted:
                self.shell.user_ns.pop(name, None)
            for name, reason in left.stayed.items():
                sys.stderr.write(f"nbqueue: {name} stayed on the worker: {reason}\n")
        return self._last


def last_value(values: Mapping[str, Any], result: CellResult | None) -> Any:
    """The value of a cell's last expression, which is among the *values* that it has left behind; None: it has none."""
    if result is None or not result.has_value:
        return None
    return values[VALUE] if VALUE in values else Shown((result.data or {}).get("text/plain", ""))


Kind = TypeVar("Kind", bound=CellHandle)


def prepare(
    shell: Any, line: str, body: str, *, sent: tuple[str, ...] | None, wanted: tuple[str, ...] | None
) -> RemoteCell:
    """Find out what a cell needs, and pack it.

    Args:
        shell: The notebook's.
        line: The first line, with the magic.
        body: The rest.
        sent: Names to send along; None: those that the cell reads.
        wanted: Names that are to come back; None: those that it sets.

    Raises:
        CellSyntaxError: The cell does not compile.
        NameError: A name in *sent* does not exist.
        NotSerializable: A name cannot be sent; says which.
    """
    raw = f"{line}\n{body}"
    source = "\n" + shell.transform_cell(body)  # the magic's line: line numbers are those of the notebook
    filename = shell.compile.cache(source, number=shell.execution_count - 1, raw_code=raw)
    try:
        code = compile_cell(source, filename)
    except SyntaxError as error:
        raise CellSyntaxError(error) from None
    namespace = shell.user_ns
    if sent is None:
        read = analyse(source, shell.transform_cell).read
        names = [name for name in sorted(read) if name in namespace and not _is_of_the_shell(shell, name)]
    else:
        names = list(sent)
        for name in names:
            if name not in namespace:
                raise NameError(f"name {name!r} is not defined, so it cannot be sent (-i)")
    packed = _pack({name: namespace[name] for name in names}, namespace, code)
    return RemoteCell(raw=body, source=source, filename=filename, names=packed, wanted=wanted)


def submit_cell(submitter: Submitter, shell: Any, cell: RemoteCell, *, kind: Callable[..., Kind]) -> Kind:
    """Send a cell to a worker; its handle is made by *kind*."""
    handle = submitter.submit_as(kind, run_cell, cell)
    handle.shell = shell
    return handle


def _is_of_the_shell(shell: Any, name: str) -> bool:
    hidden = shell.user_ns_hidden
    return name in _NOT_SENT or (name in hidden and hidden[name] is shell.user_ns[name])


def _pack(values: Mapping[str, Any], namespace: dict[str, Any], code: CodeType) -> PackedNames:
    try:
        return pack_names(values, namespace)
    except Exception as problem:
        errors = unpackable(values, namespace) or {"": problem}
    name, error = next(iter(errors.items()))
    found = blame(values.get(name), name=name)
    path = found.path if found is not None else name
    line, _ = line_of_use(code, name)
    hint = "Create it inside the cell, or say with -i which names the cell is to have"
    raise NotSerializable(
        f"the cell uses {name!r}, a {type(values.get(name)).__name__}, in line {line}, and that cannot be sent to a "
        f"worker: {path} cannot be pickled ({error}). {hint}.",
        path=path,
        variable=name,
        line=line,
        hint=hint,
    )
