"""What ``%nbq`` does: show what the broker has, and stop, join or read a run by its id."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError

from nbqueue.client.app import App
from nbqueue.client.map_result import MapResult
from nbqueue.client.result import AsyncResult
from nbqueue.notebook.output import Labelled, printer

__all__ = ["TABLES", "WITH_ID", "check_ids", "look_after"]

#: Words that show what the broker has.
TABLES = ("status", "runs", "workers", "queues")
#: Words that are followed by the id of a run.
WITH_ID = ("attach", "revoke", "logs")


def check_ids(what: str, ids: list[str]) -> None:
    """Whether the ids fit the word.

    Raises:
        UsageError: They do not; says what would.
    """
    if what in TABLES and ids:
        raise UsageError(f"%nbq {what} takes no ids")
    if what in WITH_ID and not ids:
        raise UsageError(f"%nbq {what}: say which run, by its id or the beginning of it; `%nbq runs` lists them")
    if what in ("attach", "logs") and len(ids) > 1:
        raise UsageError(f"%nbq {what} takes one id, not {len(ids)}")


def look_after(app: App, what: str, ids: list[str]) -> Any:
    """Do what the line says; its value."""
    match what:
        case "revoke":
            reports = app.revoke(ids)
            return reports[0] if isinstance(reports, list) and len(reports) == 1 else reports
        case "attach":
            return app.attach(ids[0])
        case "logs":
            return _show_log(app.attach(ids[0]))
        case _:
            seen = app.inspect()
            return seen if what == "status" else getattr(seen, what)()


def _show_log(handle: AsyncResult) -> None:
    """Show what the tasks have printed, and what they print until they end or an interrupt comes."""
    shown = printer(handle.id)
    if isinstance(handle, MapResult):
        shown = Labelled(shown, lambda event: str(event.item))
    handle.print_to(shown)
    try:
        handle.exception()
    finally:
        shown.settle()
        handle.print_no_more_to(shown)
