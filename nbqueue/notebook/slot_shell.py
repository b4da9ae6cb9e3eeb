"""IPython in a slot: what tasks display, and the figures that they draw, go to the notebook.

`PREPARATION` travels with every function that a notebook submits. It costs next to nothing until a task asks for
``display`` or for pyplot; then the slot gets a shell of IPython's own, which is made once for each process.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import functools
import os
import sys
import types
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

import msgspec

from nbqueue.core.output import Clear, Display
from nbqueue.worker.context import SLATE, show

__all__ = ["PREPARATION", "Last", "prepare", "slot_shell"]

_BACKEND = "module://matplotlib_inline.backend_inline"
#: A widget's model lives in the slot, where no page can reach it.
_WIDGET = "application/vnd.jupyter.widget-view+json"


class _Preparation:
    """Unpickled before the function that it travels with; to unpickle it is to prepare the slot."""

    def __reduce__(self) -> tuple[Any, ...]:
        return prepare, ()


PREPARATION = _Preparation()


@functools.cache
def prepare() -> None:
    """Let tasks of this process display things, as they do in a notebook."""
    if SLATE.capture is None:
        return  # not a slot: nobody would see them
    setattr(builtins, "display", _display)  # noqa: B010  # where it is in a notebook, too
    sys.meta_path.insert(0, _WATCH)


def _display(*values: Any, **options: Any) -> Any:
    """``display`` before there is a shell."""
    slot_shell()
    from IPython.display import display

    return display(*values, **options)


class _Watch:
    """Sees IPython or matplotlib being imported, and makes the shell that they will look for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find IPython, with the shell made at the end of its import; nothing else."""
        if name == "matplotlib":
            slot_shell()
        if name != "IPython":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_make_shell(module: types.ModuleType) -> None:
                load(module)
                slot_shell()

            spec.loader.exec_module = load_and_make_shell  # type: ignore[method-assign]
        return spec


_WATCH: Any = _Watch()


@functools.cache
def slot_shell() -> Any:
    """The shell of this process; it takes a fifth of a second to make."""
    if _WATCH in sys.meta_path:
        sys.meta_path.remove(_WATCH)
    from traitlets.config import Config

    os.environ.setdefault("MPLBACKEND", _BACKEND)
    # A history would be a thread and a file, in each slot, of what nobody typed there.
    shell = _shell_class().instance(config=Config({"HistoryManager": {"enabled": False}}))
    SLATE.item_ended = functools.partial(_end_item, shell)
    return shell


def _end_item(shell: Any) -> None:
    """Show the figures that a task has left open, as the end of a cell does."""
    with contextlib.suppress(Exception):  # a figure that cannot be drawn has said so
        if "matplotlib.pyplot" in sys.modules and sys.modules["matplotlib.pyplot"].get_fignums():
            shell.events.trigger("post_execute")


class Last(msgspec.Struct):
    """The value of a cell's last expression, and how it looks."""

    value: Any
    data: dict[str, Any]
    metadata: dict[str, Any]


class _Cell(msgspec.Struct):
    """The cell that runs in the shell."""

    raw: str
    source: str
    filename: str


@functools.cache
def _shell_class() -> type[Any]:
    from IPython.core.compilerop import CachingCompiler
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets import Type

    class Compiler(CachingCompiler):  # type: ignore[misc]  # published without types
        """Gives a cell the file name by which the notebook knows it."""

        def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> Any:
            cell = SlotShell.instance().cell
            if cell is not None and raw_code == cell.raw:
                return cell.filename
            return super().get_code_name(raw_code, transformed_code, number)

    class Hook(DisplayHook):  # type: ignore[misc]
        """Keeps the last value instead of printing it."""

        last: Last | None = None

        def __call__(self, result: Any = None) -> None:
            if result is None:
                return
            cell = self.shell.cell
            if cell is not None and self.semicolon_at_end_of_expression(cell.raw):
                self.last = None
                return
            data, metadata = self.compute_format_data(result)
            self.last = Last(result, _plain(data), metadata)

    class Publisher(DisplayPublisher):  # type: ignore[misc]
        """Sends displays to the notebook."""

        def publish(
            self,
            data: dict[str, Any],
            metadata: dict[str, Any] | None = None,
            source: Any = None,
            *,
            transient: dict[str, Any] | None = None,
            update: bool = False,
            **_: Any,
        ) -> None:
            show(Display(_plain(data), _json(metadata or {}), _json(transient or {}), update))

        def clear_output(self, wait: bool = False) -> None:
            show(Clear(wait))

    class SlotShell(InteractiveShell):  # type: ignore[misc]
        """A shell whose cells come from a notebook elsewhere."""

        display_pub_class = Type(Publisher)
        displayhook_class = Type(Hook)
        compiler_class = Type(Compiler)

        cell: _Cell | None = None
        own_names: frozenset[str] = frozenset()

        def begin(self, **cell: str) -> dict[str, Any]:
            """Make a fresh namespace for a cell."""
            self.cell = _Cell(**cell)
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

    return SlotShell


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """A bundle as the Jupyter protocol wants it: JSON, with bytes as base64."""
    return {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else _json(value)
        for kind, value in data.items()
        if kind != _WIDGET
    }


def _json(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True, enc_hook=str)
