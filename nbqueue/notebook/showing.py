"""Shows in a notebook or a terminal how a run goes.

``show`` picks the display. It is the only thing here that the rest of the package knows, and importing it loads
none of IPython, ipywidgets and tqdm.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from nbqueue.client.kernel import kernel_shell
from nbqueue.notebook.painter import PAINTER, Handle, Style, View

if TYPE_CHECKING:  # slots import this package, too
    from nbqueue.client.result import AsyncResult

__all__ = ["Handle", "View", "draw", "show"]

logger = logging.getLogger(__name__)


def show(handle: Handle, *, progress: bool | str | dict[str, Any] = True, desc: str | None = None) -> View | None:
    """Show how a run goes, from now until it has ended.

    In a notebook that is a card in the cell that runs now, in a terminal a bar on stderr. With
    ``NBQUEUE_NONINTERACTIVE=1`` nothing moves: a notebook gets the card's last state, a terminal nothing.

    Args:
        handle: The run.
        progress: False shows nothing, ``"text"`` only text; a dict may hold ``desc``, ``unit`` and ``leave``.
        desc: What to call the run, instead of its label.

    Returns:
        The view, whose ``finish()`` draws the end of the run from the calling thread; None if there is none.

    Guarantees: never raises. A display that cannot be made is replaced by a simpler one, or left out.
    """
    if progress is False:
        return None
    try:
        style = msgspec.structs.replace(_style(progress, desc), is_single=not _is_map(handle))
        displays = list(_displays(handle, style, text_only=progress == "text"))
    except Exception:
        logger.debug("no progress display", exc_info=True)
        return None
    for open_view in displays:
        try:
            view = open_view()
        except Exception:
            logger.debug("progress display failed, trying a simpler one", exc_info=True)
        else:
            _let_print_to(handle, view)
            PAINTER.add(view)
            return view
    return None


def draw(handle: AsyncResult) -> bool:
    """Show *handle*, since it is the value of a cell or was given to ``display``; False where that cannot be done.

    A run that goes on gets another live card, one that has ended a static one; what the same cell shows already is
    enough.
    """
    shell = kernel_shell()
    if shell is None:
        return False
    shown = handle.view
    if isinstance(shown, View) and shown.is_in_running_cell():
        return True
    if not handle.done():
        handle.show_in(show(handle))
        return True
    from nbqueue.notebook.card import Cell, StaticCard

    card = StaticCard(handle, Style(is_single=not _is_map(handle)), Cell(shell))
    _let_print_to(handle, card)
    card.finish()
    return True


def _let_print_to(handle: Any, view: View) -> None:
    """Let the tasks of a map print to its card; a single task prints to its cell."""
    from nbqueue.client.map_result import MapResult

    if isinstance(handle, MapResult):
        handle.print_to(view.tail)


def _is_map(handle: Handle) -> bool:
    from nbqueue.client.map_result import MapResult
    from nbqueue.client.result import AsyncResult

    return not isinstance(handle, AsyncResult) or isinstance(handle, MapResult)


def _style(progress: bool | str | dict[str, Any], desc: str | None) -> Style:
    chosen = progress if isinstance(progress, dict) else {}
    return Style(
        desc=chosen.get("desc") if desc is None else desc,
        unit=str(chosen.get("unit") or ""),
        leave=bool(chosen.get("leave", True)),
    )


def _displays(handle: Handle, style: Style, *, text_only: bool) -> Iterator[Callable[[], View]]:
    """Ways to show the run, best first."""
    still = os.environ.get("NBQUEUE_NONINTERACTIVE", "") not in ("", "0")
    shell = kernel_shell()
    if shell is not None:
        from nbqueue.notebook.card import Cell, StaticCard, WidgetCard

        every_s = math.inf if still else 0.5
        if not still and not text_only:
            yield lambda: WidgetCard(handle, style, Cell(shell))
        yield lambda: StaticCard(handle, style, Cell(shell), every_s=every_s, html=not text_only)
        return

    from nbqueue.notebook.text import Bar, Lines

    if text_only:
        yield lambda: Lines(handle, style)
    elif not still and sys.stderr is not None and sys.stderr.isatty():
        yield lambda: Bar(handle, style)
