"""The magics: ``%%remote`` and ``%remote`` run code elsewhere, ``%nbq`` looks after what runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand, output_can_be_silenced
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from nbqueue.client.app import App
from nbqueue.client.submitter import Submitter
from nbqueue.notebook import show
from nbqueue.notebook.errors import rendered_here
from nbqueue.notebook.remote import CellHandle, prepare, submit_cell

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


_OPTIONS = (
    argument("-a", "--noblock", action="store_true", help="do not wait: the cell's value is the handle"),
    argument("-b", "--block", action="store_true", help="wait for the end; the default"),
    argument("--handle", metavar="NAME", help="do not wait, and call the handle NAME"),
    argument(
        "-i",
        "--in",
        dest="sent",
        type=_names,
        metavar="A,B",
        help="send these names along, not those that the cell reads; -i - for none",
    ),
    argument(
        "-o",
        "--out",
        dest="wanted",
        type=_names,
        metavar="X,Y",
        help="bring back these names, not those that the cell sets; -o - for none",
    ),
    argument("-n", "--name", type=_unquoted, help="what the card says"),
    argument("-q", "--queue", help="only workers that serve this queue"),
    argument("-t", "--tags", type=_names, help="only workers that have all these tags, such as gpu"),
    argument("--timeout", type=float, metavar="S", help="end it when it has run for S seconds"),
    argument("--memory", metavar="SIZE", help="end it when it takes more memory, such as 4G"),
    argument("--retries", type=int, default=0, help="run it again so often when it fails"),
    argument(
        "--progress-after", type=float, default=0.5, metavar="S", help="show a card when it takes longer than S seconds"
    ),
)


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


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
    @_with_options
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
    @line_magic
    @magic_arguments()
    @argument("what", nargs="?", default="status", choices=("status", "runs", "workers", "queues", "revoke"))
    @argument("ids", nargs="*", metavar="ID", help="of runs, or the beginnings of their ids")
    def nbq(self, line: str) -> Any:
        """Look after what runs: ``%nbq runs``, ``%nbq workers``, ``%nbq revoke ID``."""
        options = parse_argstring(self.nbq, line)
        if options.what == "revoke":
            if not options.ids:
                raise UsageError("%nbq revoke: say which run, by its id or the beginning of it; `%nbq runs` lists them")
            with rendered_here(self.shell):
                reports = self._app().revoke(options.ids)
                return reports[0] if isinstance(reports, list) and len(reports) == 1 else reports
        if options.ids:
            raise UsageError(f"%nbq {options.what} takes no ids")
        with rendered_here(self.shell):
            seen = self._app().inspect()
            return seen if options.what == "status" else getattr(seen, options.what)()

    def _run(self, options: Any, line: str, cell: str) -> Any:
        remote = prepare(self.shell, line, cell, sent=options.sent, wanted=options.wanted)
        number = self.shell.execution_count - 1
        label = options.name or f"%%remote · In [{number}]"
        handle = submit_cell(self._submitter(options, label), self.shell, remote)
        if options.handle:
            self.shell.user_ns[options.handle] = handle
        if options.handle:
            handle.show_in(show(handle, desc=label))
            return None
        if options.noblock:
            return handle  # as the cell's value it is shown as a card
        _wait(handle, options.progress_after, label)
        handle.show_value()
        return None

    def _submitter(self, options: Any, label: str) -> Submitter:
        chosen: dict[str, Any] = {"label": label, "max_retries": options.retries}
        if options.queue:
            chosen["queue"] = options.queue
        if options.tags:
            chosen["tags"] = options.tags
        if options.timeout is not None:
            chosen["time_limit"] = options.timeout
        if options.memory is not None:
            chosen["memory"] = options.memory
        return self._app().options(**chosen)


def _wait(handle: CellHandle, progress_after_s: float, label: str) -> None:
    """Wait for the end, with a card if it takes long."""
    try:
        handle.exception(progress_after_s)
    except TimeoutError:
        handle.show_in(show(handle, desc=label))
        handle.exception()


def register(shell: Any, app: Callable[[], App]) -> None:
    """Make the magics known to *shell*; work goes to what *app* returns."""
    magics = NbqueueMagics(shell, app)
    shell.register_magics(magics)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if getattr(matcher, "matcher_identifier", "") != _MATCHER]
    matchers.append(_complete_options)


_MATCHER = "nbqueue.options"


@context_matcher(identifier=_MATCHER)
def _complete_options(context: CompletionContext) -> dict[str, Any]:
    """Options behind ``%%remote``, and only those."""
    first = context.full_text.partition("\n")[0]
    if not first.startswith("%%remote") or context.cursor_line > 0 or not context.token.startswith("-"):
        return {"completions": []}
    parser = NbqueueMagics.remote.parser
    flags = sorted(flag for flag in parser._option_string_actions if flag.startswith(context.token))  # noqa: SLF001
    return {"completions": [SimpleCompletion(flag, type="option") for flag in flags], "suppress": bool(flags)}
