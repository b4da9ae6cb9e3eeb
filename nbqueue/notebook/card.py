"""A run's card in a notebook: a live widget that turns into static HTML and text when the run has ended.

The widget is one ``HTML`` under three buttons (16 comms). Its display bundle is *replaced* at the end: a saved
output that still holds a widget is shown as "model not found" by JupyterLab and VS Code, whatever else it holds.

What is sent from which thread matters here. The main thread publishes as any cell does. Other threads send with
the parent that was captured at the submit, since where their ``print`` or ``display`` would land differs from
one ipykernel version to the next.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from nbqueue.notebook.painter import Handle, Style, View
from nbqueue.notebook.pump import PUMP
from nbqueue.notebook.view_model import CardView, Retry, State, render_html, render_text, when_saved

__all__ = ["Cell", "StaticCard", "WidgetCard"]

logger = logging.getLogger(__name__)

#: Between two buttons.
_GAP_PX = 6


class Cell:
    """One output of the cell that runs now, to be filled and refilled from any thread."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._parent = _PLACE.get() or {"header": shell.get_parent()["header"]}
        self._transient = {"display_id": f"nbqueue-{uuid.uuid4().hex}"}

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """While this is open, new outputs of this thread are opened in this cell, whatever runs meanwhile."""
        token = _PLACE.set(self._parent)
        try:
            yield
        finally:
            _PLACE.reset(token)

    def open(self, bundle: dict[str, Any]) -> None:
        """Add the output to the cell."""
        if self.is_running():
            self._publish("display_data", bundle)
        else:
            self._send("display_data", bundle)
        self._shell.events.register("post_run_cell", _settle)  # once, however often it is asked for

    def replace(self, bundle: dict[str, Any]) -> None:
        """Put *bundle* in the place of what the output shows."""
        self._publish("update_display_data", bundle)

    def is_running(self) -> bool:
        """Whether the main thread still runs this cell, or is idle after it."""
        return bool(self._shell.get_parent()["header"]["msg_id"] == self._parent["header"]["msg_id"])

    def _publish(self, msg_type: str, bundle: dict[str, Any]) -> None:
        if _in_main_thread():
            update = msg_type == "update_display_data"
            self._shell.display_pub.publish(data=bundle, metadata={}, transient=self._transient, update=update)
            return
        self._send(msg_type, bundle)

    def _send(self, msg_type: str, bundle: dict[str, Any]) -> None:
        kernel = self._shell.kernel
        content = {"data": bundle, "metadata": {}, "transient": self._transient}
        kernel.session.send(kernel.iopub_socket, msg_type, content, parent=self._parent, ident=msg_type.encode())


#: The cell for new outputs, when that is not the one that runs.
_PLACE: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("nbqueue place", default=None)


class _Card(View):
    """What both cards share: the static drawings, and making sure that the last one arrives."""

    def __init__(self, handle: Handle, style: Style, cell: Cell) -> None:
        super().__init__(handle, style)
        self._cell = cell

    def is_in_running_cell(self) -> bool:
        """Whether the cell that it was opened in still runs, or was the last to run."""
        return self._cell.is_running()

    def settle(self) -> None:
        """Send the last drawing again, with the cell that runs now as its parent.

        nbclient and papermill drop every message whose parent is not the cell that they execute at the time.
        """
        if not self._cell.is_running():
            self._cell.replace(self._last(self._shown))

    def _beside(self) -> AbstractContextManager[None]:
        return self._cell.beside()

    def _draw_end(self, view: CardView) -> None:
        self._cell.replace(self._last(view))
        if not _in_main_thread():
            _unsettled.append(self)

    def _draw_pending(self, view: CardView) -> None:
        self._cell.replace(self._static(when_saved(view)))

    def _static(self, view: CardView) -> dict[str, Any]:
        return {"text/html": render_html(view), "text/plain": render_text(view)}

    def _last(self, view: CardView) -> dict[str, Any]:
        return self._static(view) if self._style.leave else {"text/html": "", "text/plain": ""}


class WidgetCard(_Card):
    """A live ipywidgets card with buttons.

    They go with the run: at its end the output becomes static, since a button in a saved notebook would be a widget
    that nobody can draw. So what has failed is marked for another try while the others still run.
    """

    #: Finished cards whose widget stays open, for pages that were reloaded during the run and so cannot
    #: follow the replacement.
    KEPT_OPEN = 32

    _RETRY_PX = 98
    _CANCEL_PX = 92
    _LOG_PX = 62

    _kept: ClassVar[collections.deque[WidgetCard]] = collections.deque()

    def __init__(self, handle: Handle, style: Style, cell: Cell) -> None:
        import ipywidgets

        super().__init__(handle, style, cell)
        # All in the one cell of a grid: the buttons lie over the upper right corner of the card.
        place = {"grid_area": "1 / 1 / 2 / 2", "align_self": "flex-start"}
        self._html = ipywidgets.HTML(
            render_html(self._shown, button_px=self._room_px),
            layout=ipywidgets.Layout(margin="0", width="100%", min_width="0", **place),
        )
        of = f"of {self._shown.label}"
        self._retry_failed = _button(  # until something has failed
            "Retry failed", self._RETRY_PX, f"Run the failed items {of} again at its end", display="none"
        )
        self._cancel = _button(
            "Cancel", self._CANCEL_PX, f"Revoke the rest {of}: nothing more starts, and what runs is stopped"
        )
        self._log = _button(  # until something was printed
            "Log", self._LOG_PX, f"Show or hide the last lines that the tasks {of} have printed", display="none"
        )
        self._retry_failed.on_click(self._on_retry)
        self._cancel.on_click(self._on_cancel)
        self._log.on_click(self._on_log)
        for button in self._all_buttons:
            PUMP.add(button)
        self._buttons = ipywidgets.HBox(self._all_buttons, layout=ipywidgets.Layout(margin="13px 13px 0 auto", **place))
        self._box = ipywidgets.GridBox(
            [self._html, self._buttons],
            # On the right as much as JupyterLab leaves beside HTML, so that the end does not change the width.
            layout=ipywidgets.Layout(max_width="860px", margin="0 20px 0 0", grid_template_columns="minmax(0, 1fr)"),
        )
        self._cell.open(self._box._repr_mimebundle_() | self._static(when_saved(self._shown)))

    @property
    def _all_buttons(self) -> list[Any]:
        return [self._retry_failed, self._cancel, self._log]

    @property
    def _room_px(self) -> int:
        """Room that the head of the card leaves for the buttons."""
        retry_px = self._RETRY_PX + _GAP_PX if self._shown.can_retry else 0
        log_px = self._LOG_PX + _GAP_PX if self.tail else 0
        return retry_px + self._CANCEL_PX + log_px + 10

    # Clicks are handled in the main thread or in a subshell's, beside user code: they ask, and the painter draws.

    def _on_retry(self, _: Any) -> None:
        self.retry()

    def _on_cancel(self, _: Any) -> None:
        try:
            self.revoke()
        except Exception:
            logger.debug("revoke failed", exc_info=True)

    def _on_log(self, _: Any) -> None:
        self._log_is_open = not self._log_is_open

    def _draw(self, view: CardView) -> None:
        self._html.value = render_html(view, button_px=self._room_px)
        for button, is_of_use in ((self._retry_failed, view.can_retry), (self._log, bool(self.tail))):
            if is_of_use and button.layout.display == "none":
                button.layout.display = "flex"
        if view.retry is Retry.AT_THE_END:
            self._retry_failed.description = "Will retry"
            self._retry_failed.disabled = True
        if view.state is State.CANCELLING:
            self._retry_failed.disabled = True
            self._cancel.description = "Cancelling …"
            self._cancel.disabled = True

    def _draw_end(self, view: CardView) -> None:
        super()._draw_end(view)  # first: whoever sees the end may save
        self._html.value = render_html(view)  # for pages that were reloaded, which do not hear of the replacement
        self._buttons.layout.display = "none"
        self._kept.append(self)
        while len(self._kept) > self.KEPT_OPEN:
            self._kept.popleft().close()

    def close(self) -> None:
        """Take the widget out of every page; the replaced output stays."""
        for widget in (*self._all_buttons, self._html):
            widget.style.close()
        for widget in (*self._all_buttons, self._html, self._buttons, self._box):
            widget.layout.close()
            widget.close()


def _button(description: str, width_px: int, tooltip: str, *, display: str = "flex") -> Any:
    import ipywidgets

    return ipywidgets.Button(
        description=description,
        tooltip=tooltip,
        layout=ipywidgets.Layout(
            margin=f"0 0 0 {_GAP_PX}px",
            width=f"{width_px}px",
            height="24px",
            padding="0",
            border="1px solid var(--jp-border-color2, var(--vscode-panel-border, #e0e0e0))",
            display=display,  # flex centres the word: a button's own line is higher than ours
            align_items="center",
            justify_content="center",
        ),
        style={"button_color": "transparent", "font_size": "12px"},
    )


class StaticCard(_Card):
    """The same card without a widget: the output itself is replaced, seldom, and there is no button."""

    def __init__(self, handle: Handle, style: Style, cell: Cell, *, every_s: float = 0.5, html: bool = True) -> None:
        """Show the card.

        Args:
            handle: The run.
            style: What the user chose.
            cell: Where to show it.
            every_s: Least seconds between two replacements; each one marks the notebook as changed.
            html: False shows text only.
        """
        super().__init__(handle, style, cell)
        self.every_s = every_s
        self._with_html = html
        self._cell.open(self._static(when_saved(self._shown)))

    def _draw(self, view: CardView) -> None:
        self._cell.replace(self._static(view))

    def _static(self, view: CardView) -> dict[str, Any]:
        bundle = super()._static(view)
        return bundle if self._with_html else {"text/plain": bundle["text/plain"]}


#: Cards whose end was drawn by the painter's thread, until the next cell ends.
_unsettled: collections.deque[_Card] = collections.deque()


def _settle(*_: Any) -> None:
    try:
        while _unsettled:
            _unsettled.popleft().settle()
    except Exception:
        logger.debug("progress display failed", exc_info=True)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
