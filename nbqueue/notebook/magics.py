"""The magics: ``%%remote`` and its kin run code elsewhere, ``%nbq`` looks after what runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand, output_can_be_silenced
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from nbqueue.client.app import App
from nbqueue.client.interrupts import answer_together
from nbqueue.notebook.completion import complete_in
from nbqueue.notebook.errors import rendered_here
from nbqueue.notebook.lookout import TABLES, WITH_ID, check_ids, look_after
from nbqueue.notebook.remote import CellHandle, prepare, submit_cell
from nbqueue.notebook.remote_all import run_everywhere
from nbqueue.notebook.showing import show

__all__ = ["register"]


def _unquoted(text: str) -> str:
    """IPython keeps the quotes around words with spaces."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _names(text: str) -> tuple[str, ...]:
    """``a,b``; ``-`` for none."""
    names = tuple(filter(None, (part.strip() for part in text.split(",")))) if text != "-" else ()
    if not all(name.isidentifier() for name in names):
        raise argparse.ArgumentTypeError(f"not names: {text}")
    return names


_NAMES_SENT = argument(
    "-i",
    "--in",
    dest="sent",
    type=_names,
    metavar="A,B",
    help="send these names along, not those that the cell reads; -i - for none",
)
_WHERE = (
    argument("-n", "--name", type=_unquoted, help="what the card says"),
    argument("-q", "--queue", help="only workers that serve this queue"),
    argument("-t", "--tags", type=_names, help="only workers that have all these tags, such as gpu"),
    argument("--timeout", type=float, metavar="S", help="end it when it has run for S seconds"),
    argument("--memory", metavar="SIZE", help="end it when it takes more memory, such as 4G"),
    argument(
        "--progress-after", type=float, default=0.5, metavar="S", help="show a card when it takes longer than S seconds"
    ),
)
_OPTIONS = (
    argument("-a", "--noblock", action="store_true", help="do not wait: the cell's value is the handle"),
    argument("-b", "--block", action="store_true", help="wait for the end; the default"),
    argument("--handle", metavar="NAME", help="do not wait, and call the handle NAME"),
    _NAMES_SENT,
    argument(
        "-o",
        "--out",
        dest="wanted",
        type=_names,
        metavar="X,Y",
        help="bring back these names, not those that the cell sets; -o - for none",
    ),
    *_WHERE,
    argument("--retries", type=int, default=0, help="run it again so often when it fails"),
)


def _with(*options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@magics_class
class NbqueueMagics(Magics):  # type: ignore[misc]  # published without types
    """Run cells on workers."""

    def __init__(self, shell: Any, app: Callable[[], App]) -> None:
        super().__init__(shell)
        self._app = app

    @no_var_expand
    @output_can_be_silenced
    @cell_magic
    @magic_arguments()
    @_with(*_OPTIONS)
    def remote(self, line: str, cell: str) -> Any:
        """Run this cell on a worker, as if it ran here.

        The names that it reads are sent along, the names that it sets come back, its last expression is its value.
        """
        options = parse_argstring(self.remote, line)
        if not cell.strip():
            raise UsageError("%%remote: there is nothing to run")
        with rendered_here(self.shell):
            return self._run(options, f"%%remote {line}", cell)

    @no_var_expand
    @output_can_be_silenced
    @line_magic("remote")
    def remote_line(self, line: str) -> Any:
        """Run the rest of the line on a worker: ``%remote slow(x)``."""
        if not line.strip():
            raise UsageError("%remote: there is nothing to run; %remote EXPRESSION, or %%remote above a cell")
        with rendered_here(self.shell):
            return self._run(parse_argstring(self.remote, ""), "%remote", line)

    @no_var_expand
    @output_can_be_silenced
    @cell_magic
    @magic_arguments()
    @_with(_NAMES_SENT, *_WHERE)
    def remote_all(self, line: str, cell: str) -> Any:
        """Run this cell once on every worker that is connected.

        The names that it reads are sent along. Its value is a dict: that of the last expression, by worker.
        """
        options = parse_argstring(self.remote_all, line)
        if not cell.strip():
            raise UsageError("%%remote_all: there is nothing to run")
        with rendered_here(self.shell):
            remote = prepare(self.shell, f"%%remote_all {line}", cell, sent=options.sent, wanted=())
            label = options.name or f"%%remote_all · In [{self.shell.execution_count - 1}]"
            everywhere = run_everywhere(
                self._app(), self.shell, remote, label=label, options=_task_options(options, label)
            )
            everywhere.wait(options.progress_after)
            values = everywhere.values()
            return None if all(value is None for value in values.values()) else values

    @no_var_expand
    @output_can_be_silenced
    @line_magic
    @magic_arguments()
    @argument("what", nargs="?", default="status", choices=(*TABLES, *WITH_ID), help="status if left out")
    @argument("ids", nargs="*", metavar="ID", help="of runs, or the beginnings of their ids")
    def nbq(self, line: str) -> Any:
        """Look after what runs.

        ``%nbq status``, ``runs``, ``workers`` and ``queues`` show what the broker has; ``%nbq revoke ID`` stops runs,
        ``run = %nbq attach ID`` gets the handle of one, ``%nbq logs ID`` shows what it prints until it ends.
        """
        options = parse_argstring(self.nbq, line)
        check_ids(options.what, options.ids)
        with rendered_here(self.shell):
            return look_after(self._app(), options.what, options.ids)

    def _run(self, options: Any, line: str, cell: str) -> Any:
        remote = prepare(self.shell, line, cell, sent=options.sent, wanted=options.wanted)
        number = self.shell.execution_count - 1
        label = options.name or f"%%remote · In [{number}]"
        submitter = self._app().options(**_task_options(options, label), max_retries=options.retries)
        handle = submit_cell(submitter, self.shell, remote, kind=CellHandle)
        if options.handle:
            self.shell.user_ns[options.handle] = handle
            handle.show_in(show(handle, desc=label))
            return None
        if options.noblock:
            return handle  # as the cell's value it is shown as a card
        _wait(handle, options.progress_after, label)
        handle.show_value()
        return None


def _task_options(options: Any, label: str) -> dict[str, Any]:
    chosen = {"queue": options.queue, "tags": options.tags, "time_limit": options.timeout, "memory": options.memory}
    return {"label": label} | {name: value for name, value in chosen.items() if value is not None}


def _wait(handle: CellHandle, progress_after_s: float, label: str) -> None:
    """Wait for the end, with a card if it takes long."""
    try:
        handle.exception(progress_after_s)
    except TimeoutError:
        try:
            handle.show_in(show(handle, desc=label))
            handle.exception()
        except KeyboardInterrupt as interrupt:  # it may have come while the card was made
            raise answer_together(interrupt, [handle]) from None


def register(shell: Any, app: Callable[[], App]) -> None:
    """Make the magics known to *shell*; work goes to what *app* returns."""
    magics = NbqueueMagics(shell, app)
    shell.register_magics(magics)
    complete_in(shell, magics, app)
