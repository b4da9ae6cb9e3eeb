"""What the Tab key offers behind the magics: options, words, and the ids of runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from nbqueue.client.app import App
from nbqueue.errors import NBQueueError
from nbqueue.notebook.lookout import TABLES, WITH_ID

__all__ = ["complete_in"]

_MATCHER = "nbqueue.magics"
_NBQ = re.compile(r"%nbq\s+(?P<words>(?:\S+\s+)*)\S*$")


def complete_in(shell: Any, magics: Any, app: Callable[[], App]) -> None:
    """Let *shell* complete the lines of *magics*."""

    @context_matcher(identifier=_MATCHER)  # type: ignore[untyped-decorator]  # published without types
    def complete(context: CompletionContext) -> dict[str, Any]:
        found = _options(magics, context) or _words(context, app)
        return {"completions": found, "suppress": bool(found)}

    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if getattr(matcher, "matcher_identifier", "") != _MATCHER]
    matchers.append(complete)


def _options(magics: Any, context: CompletionContext) -> list[SimpleCompletion]:
    """Options of a cell magic, on its own line and only there."""
    words = context.full_text.partition("\n")[0].split()
    magic = {"%%remote": magics.remote, "%%remote_all": magics.remote_all}.get(words[0]) if words else None
    if magic is None or context.cursor_line > 0 or not context.token.startswith("-"):
        return []
    return _beginning_with(context.token, magic.parser._option_string_actions, "option")  # noqa: SLF001


def _words(context: CompletionContext, app: Callable[[], App]) -> list[SimpleCompletion]:
    """The first word behind ``%nbq``, or an id of a run."""
    found = _NBQ.search(context.line_with_cursor[: context.cursor_position])
    if found is None:
        return []
    words = found["words"].split()
    if not words:
        return _beginning_with(context.token, (*TABLES, *WITH_ID), "word")
    return _beginning_with(context.token, _ids(app()), "run") if words[0] in WITH_ID else []


def _ids(app: App) -> list[str]:
    """Runs that the broker knows, the newest first; a broker is not started for them."""
    if not app.is_connected:
        return []
    try:
        runs = app.inspect().inspection.runs
    except NBQueueError:
        return []
    return [run.run_id.hex()[:8] for run in sorted(runs, key=lambda run: run.age_s)]


def _beginning_with(token: str, words: Iterable[str], kind: str) -> list[SimpleCompletion]:
    return [SimpleCompletion(word, type=kind) for word in words if word.startswith(token)]
