"""A run's progress without a notebook: a tqdm bar, or one line at the start and one at the end."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from nbqueue.notebook.painter import Handle, Style, View
from nbqueue.notebook.view_model import CardView, State, render_text

__all__ = ["Bar", "Lines"]


class Bar(View):
    """A tqdm bar on stderr; silent when stderr is not a terminal, and for runs that end at once."""

    #: Shorter runs show nothing.
    DELAY_S = 0.5

    def __init__(self, handle: Handle, style: Style, *, file: TextIO | None = None) -> None:
        super().__init__(handle, style)
        self._bar: Any = _tqdm_class()(
            desc=self._shown.label,
            total=self._shown.of,
            unit=f" {style.unit}" if style.unit else "it",
            leave=style.leave,
            file=sys.stderr if file is None else file,
            disable=None,
            delay=self.DELAY_S,
            miniters=0,  # draw also when only the words behind the bar have changed
            dynamic_ncols=True,
        )

    def _draw(self, view: CardView) -> None:
        if not _prompt_is_open():
            self._advance(view)

    def _draw_end(self, view: CardView) -> None:
        if _prompt_is_open():
            self._bar.disable = True
            return
        self._advance(view)
        self._bar.close()

    def _draw_pending(self, view: CardView) -> None:
        self._bar.close()

    def _advance(self, view: CardView) -> None:
        self._bar.total = view.of
        self._bar.set_postfix_str(_behind(view), refresh=False)
        self._bar.update(view.done + view.failed - self._bar.n)


class Lines(View):
    """One line when the run starts and one when it has ended, also where stderr is a file.

    Outside a kernel there is no cell that a line could land in wrongly, so the thread that sees the end writes
    it, in one call; an open prompt is left alone.
    """

    def __init__(self, handle: Handle, style: Style, *, file: TextIO | None = None) -> None:
        super().__init__(handle, style)
        self._file = sys.stderr if file is None else file
        self._say(f"{self._shown.label}: started, {self._shown.count}")

    def _draw(self, view: CardView) -> None:
        pass

    def _draw_end(self, view: CardView) -> None:
        if self._style.leave and not _prompt_is_open():
            self._say(render_text(view))

    def _draw_pending(self, view: CardView) -> None:
        self._say(f"{view.label}: still running, {view.count}")

    def _say(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()


def _behind(view: CardView) -> str:
    """What the bar itself does not say."""
    failed = f"{view.failed:,} failed" if view.failed else ""
    state = "" if view.state in (State.RUNNING, State.DONE, State.FAILED) else view.state.value
    return ", ".join(filter(None, (state, failed, view.note if view.state is State.WAITING else "")))


def _tqdm_class() -> type[Any]:
    from tqdm import tqdm

    class QuietTqdm(tqdm):  # type: ignore[misc]  # published without types
        monitor_interval = 0  # the painter draws often enough: no thread of tqdm's own

    return QuietTqdm


def _prompt_is_open() -> bool:
    """Whether an IPython terminal is reading a line, which a bar would overwrite."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    prompt = getattr(shell, "pt_app", None)
    return bool(prompt is not None and prompt.app.is_running)
