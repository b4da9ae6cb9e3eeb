"""How errors of cells that ran elsewhere are shown: as if they had run here, without the frames of ours in between."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["CellSyntaxError", "rendered_here"]

_OURS = str(Path(__file__).parents[1])


class CellSyntaxError(Exception):
    """A `SyntaxError` of a cell, found before anything was sent.

    It is no `SyntaxError` itself: for those IPython shows the way by which it got to them, which is no business of the
    cell's.
    """

    def __init__(self, error: builtins.SyntaxError) -> None:
        super().__init__(str(error))
        self.error = error


CellSyntaxError.__name__ = CellSyntaxError.__qualname__ = "SyntaxError"


@contextlib.contextmanager
def rendered_here(shell: Any) -> Iterator[None]:
    """Let errors raised inside be shown with the frames of the cell only."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # Where in the waiting an interrupt fell tells nobody anything.
        raised, theirs = error, None if isinstance(error, KeyboardInterrupt) else _not_ours(error.__traceback__)
        with contextlib.suppress(Exception):  # an exception without room for attributes is shown in full
            vars(error)["_render_traceback_"] = lambda: _render(shell, raised, theirs)
        raise


def _not_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not part of this package."""
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    return trace


def _is_ours(trace: TracebackType) -> bool:
    filename = trace.tb_frame.f_code.co_filename
    return filename.startswith(_OURS) or filename.endswith("contextlib.py")


def _render(shell: Any, error: BaseException, theirs: TracebackType | None) -> list[str]:
    if isinstance(error, CellSyntaxError):
        return list(shell.SyntaxTB.structured_traceback(builtins.SyntaxError, error.error, []))
    if theirs is None:
        return list(shell.InteractiveTB.get_exception_only(type(error), error))
    return list(shell.InteractiveTB.structured_traceback(type(error), error, theirs, tb_offset=0))
