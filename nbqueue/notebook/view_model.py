"""The words and the bar of a run's card, and their drawing as HTML and as text.

Pure functions: a ``RunSnapshot`` and a ``Pace`` go in, a ``CardView`` and then a string come out. No widget, no
clock, no kernel. The look: one calm line while all is well, the first error in red, a sentence when nothing can
run. State is always in words too, never in colour alone.
"""

from __future__ import annotations

import enum
import html
import re
from typing import assert_never

import msgspec

from nbqueue.core.progress import Counts, Pace, RunSnapshot
from nbqueue.notebook.tail import TailLine

__all__ = ["CardView", "ErrorLine", "Retry", "State", "describe", "render_html", "render_text", "when_saved"]

_LABEL_CHARS = 80
_ERROR_CHARS = 200
_NOTE_CHARS = 300
#: Less would be shown as nothing.
_LEAST_WORK_S = 0.001


class State(enum.Enum):
    """What a run is doing, as the word that the card says."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    REVOKED = "revoked"


class Retry(enum.Enum):
    """What becomes of the failed items."""

    NOT_ASKED = enum.auto()
    AT_THE_END = enum.auto()
    SENT = enum.auto()


class ErrorLine(msgspec.Struct, frozen=True, kw_only=True):
    """The first error, in the parts that are drawn differently."""

    #: ``1 failed · item 3: `` or empty.
    where: str
    #: ``ValueError``, or empty when the error does not start with a type's name.
    kind: str
    #: ``: Input X contains NaN.``
    message: str
    #: Where the others are; empty while the run goes on or when there is only one.
    more: str


class CardView(msgspec.Struct, frozen=True, kw_only=True):
    """All that a card says. Two equal views look the same, so the second need not be painted."""

    state: State
    label: str
    #: ``1,204 / 2,000`` or ``1,381 of 2,000 done, revoked``.
    count: str
    #: The right side: ``61/s · 13 s left · 8 of 8 slots``.
    facts: str
    #: Items done and failed, and of how many; ``of`` is None while that is unknown.
    done: int
    failed: int
    of: int | None
    error: ErrorLine | None = None
    #: Why nothing can run, or what is left of a revoked run. Text between backticks is code.
    note: str = ""
    #: One call, not a map: it has no bar.
    is_single: bool = False
    #: What the tasks of a map say while they run.
    tail: tuple[TailLine, ...] = ()
    #: Their last lines, when somebody wants to read them.
    log: tuple[str, ...] = ()
    #: Something has failed that can be run again, once the run is over.
    can_retry: bool = False
    retry: Retry = Retry.NOT_ASKED


def describe(
    snapshot: RunSnapshot,
    pace: Pace,
    *,
    ended: bool | None = None,
    cancelling_s: float = 0.0,
    unit: str = "",
    is_single: bool = False,
    retry: Retry = Retry.NOT_ASKED,
) -> CardView:
    """Say in words how a run stands.

    Args:
        snapshot: The run now.
        pace: Fed with the run's earlier snapshots.
        ended: The run is over; None takes it from the counts.
        cancelling_s: Seconds since the revoke was asked for.
        unit: What an item is, in the plural: ``files``. Empty says nothing.
        is_single: It is one call, not a map.
        retry: What becomes of the failed items.
    """
    counts = snapshot.counts
    state = _state(snapshot, ended=counts.finished if ended is None else ended)
    return CardView(
        state=state,
        label=_one_line(snapshot.label, _LABEL_CHARS),
        count=state.value if is_single else _count(counts, state, _one_line(unit, _LABEL_CHARS // 4)),
        facts=_single_facts(snapshot, state) if is_single else _facts(snapshot, pace, state, cancelling_s),
        done=counts.done,
        failed=counts.failed,
        of=counts.total if counts.closed or state in _OVER else None,
        error=_error(snapshot, state, retry, is_single=is_single),
        note=_note(snapshot, state),
        is_single=is_single,
        can_retry=snapshot.can_retry and counts.failed > 0 and not is_single,
        retry=retry,
    )


def when_saved(view: CardView) -> CardView:
    """Make of a live view what a notebook that is saved now should keep of it."""
    return msgspec.structs.replace(view, facts=f"{view.state.value} when saved", note="", tail=(), log=())


_OVER = (State.DONE, State.FAILED, State.REVOKED)


def _state(snapshot: RunSnapshot, *, ended: bool) -> State:
    counts = snapshot.counts
    if ended:
        if counts.failed or snapshot.first_error:
            return State.REVOKED if counts.revoked else State.FAILED
        return State.DONE if counts.closed and counts.done == counts.total else State.REVOKED
    if snapshot.cancelling:
        return State.CANCELLING
    nothing_yet = not counts.running and not counts.ended
    return State.WAITING if nothing_yet or snapshot.hint else State.RUNNING


def _count(counts: Counts, state: State, unit: str) -> str:
    unit = f" {unit}" if unit else ""
    if state in (State.FAILED, State.REVOKED):
        failed = f", {counts.failed:,} failed" if counts.failed else ""
        revoked = ", revoked" if state is State.REVOKED else ""
        how = failed + revoked or ", failed"  # the run as a whole may fail without a failed item
        return f"{counts.done:,} of {counts.total:,}{unit} done{how}"
    so_far = "" if counts.closed else " so far"
    return f"{counts.done + counts.failed:,} / {counts.total:,}{unit}{so_far}"


def _facts(snapshot: RunSnapshot, pace: Pace, state: State, cancelling_s: float) -> str:
    counts = snapshot.counts
    match state:
        case State.WAITING:
            since_start = f"waiting {_about(snapshot.elapsed_s)}"
            facts = ["waiting", _plural(snapshot.slots, "slot")] if counts.ended else [since_start]
        case State.RUNNING:
            facts = [*_speed(snapshot, pace), _busy(snapshot)]
        case State.CANCELLING:
            running = f" {_plural(counts.running, 'running item')}" if counts.running else ""
            facts = [f"stopping{running}", _exactly(cancelling_s) if cancelling_s >= 0.1 else ""]
        case State.REVOKED:
            left = counts.total - counts.done - counts.failed
            facts = [f"after {_exactly(snapshot.elapsed_s)}", f"{left:,} not finished" if left else ""]
        case State.DONE | State.FAILED:
            worked = state is State.DONE and snapshot.work_s >= _LEAST_WORK_S
            work = f"{_exactly(snapshot.work_s)} of work" if worked else ""
            facts = [_took(snapshot), work, _gain(snapshot)]
        case _:
            assert_never(state)
    return " · ".join(filter(None, facts))


def _single_facts(snapshot: RunSnapshot, state: State) -> str:
    return _exactly(snapshot.elapsed_s) if state in _OVER else _about(snapshot.elapsed_s)


def _speed(snapshot: RunSnapshot, pace: Pace) -> list[str]:
    rate = pace.rate()
    if not rate:
        return [_about(snapshot.elapsed_s)]
    remaining = snapshot.counts.total - snapshot.counts.ended
    eta_s = pace.eta_s(remaining) if snapshot.counts.closed else None
    return [_per_time(rate), "" if eta_s is None else f"{_about(eta_s)} left"]


def _busy(snapshot: RunSnapshot) -> str:
    if not snapshot.slots:
        return ""
    busy = min(snapshot.counts.running, snapshot.slots)
    return f"{busy:,} of {_plural(snapshot.slots, 'slot')}"


def _took(snapshot: RunSnapshot) -> str:
    on = f" on {_plural(snapshot.slots, 'slot')}" if snapshot.slots else ""
    return f"{_exactly(snapshot.elapsed_s)}{on}"


def _gain(snapshot: RunSnapshot) -> str:
    """How many times faster than the same work in one process; nothing when it was not faster."""
    gain = snapshot.work_s / snapshot.elapsed_s if snapshot.elapsed_s > 0 else 0.0
    return f"{gain:.1f}×" if gain >= 1.05 else ""


def _error(snapshot: RunSnapshot, state: State, retry: Retry, *, is_single: bool) -> ErrorLine | None:
    if not snapshot.first_error:
        return None
    failed = snapshot.counts.failed
    item = "" if snapshot.first_error_item is None else f"item {snapshot.first_error_item:,}: "
    line = _one_line(snapshot.first_error, _ERROR_CHARS)
    kind = re.match(r"[A-Za-z_][\w.]*(?=:|$)", line)
    return ErrorLine(
        where=f"{failed:,} failed · {item}" if failed and not is_single else "",
        kind=kind[0].rpartition(".")[2] if kind else "",
        message=line[kind.end() :] if kind else line,
        more="" if is_single else _more(snapshot, state, retry),
    )


def _more(snapshot: RunSnapshot, state: State, retry: Retry) -> str:
    """Where the other errors are, and how the items run again."""
    failed = snapshot.counts.failed
    if state not in _OVER:
        return " · again at the end" if retry is Retry.AT_THE_END and state is not State.CANCELLING else ""
    errors = " · all of them: `.errors()`" if failed > 1 else ""
    if retry is Retry.SENT:
        return f"{errors} · sent again: `.retried`"
    return f"{errors} · again: `.retry()`" if failed and snapshot.can_retry else errors


def _note(snapshot: RunSnapshot, state: State) -> str:
    if state is State.REVOKED:
        kept = "Finished items are kept. " if snapshot.counts.done else ""
        retry = "`.retry()` runs the others." if snapshot.can_retry else ""
        return (kept + retry).rstrip() if snapshot.counts.total > 1 else ""
    return _one_line(snapshot.hint or "", _NOTE_CHARS) if state not in _OVER else ""


def _one_line(text: str, chars: int) -> str:
    """Make *text* safe to show in one line: nothing that moves the cursor or turns the writing direction."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * chars]).split())
    return text if len(text) <= chars else text[: chars - 1].rstrip() + "…"


def _plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _per_time(rate: float) -> str:
    """``61/s``, ``0.2/s``, ``3.5/min`` or ``2.0/h``: two figures that can be read."""
    for per, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if rate * per >= 0.15 or unit == "h":
            break
    return f"{rate * per:,.0f}/{unit}" if rate * per >= 9.95 else f"{rate * per:.1f}/{unit}"


def _about(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else _clock(seconds)


def _exactly(seconds: float) -> str:
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 59.95 else _clock(seconds)


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days:,} d {h:02} h"
    return f"{h} h {m:02} min" if h else f"{m} min {s:02} s"


def render_text(view: CardView) -> str:
    """Say the view in one line, and the error and the note in a line each."""
    state = view.state.value
    count = view.count if state in f"{view.count} {view.facts}" else f"{state}, {view.count}"
    lines = [f"{view.label}: {count} · {view.facts}"]
    if view.error:
        lines.append(f"  {view.error.where}{view.error.kind}{view.error.message}{view.error.more}")
    if view.note:
        lines.append(f"  {view.note}")
    return "\n".join(lines)


_COLOUR = {
    State.WAITING: "#d97706",
    State.RUNNING: "#3b82f6",
    State.CANCELLING: "#d97706",
    State.DONE: "#16a34a",
    State.FAILED: "#dc2626",
    State.REVOKED: "#9ca3af",
}
_RED = "#dc2626"
_TEXT = "var(--jp-ui-font-color1, var(--vscode-foreground, #1f2937))"
_MUTED = "var(--jp-ui-font-color2, var(--vscode-descriptionForeground, #6b7280))"
_CARD = (
    "font:13px/1.5 var(--jp-ui-font-family, system-ui, -apple-system, 'Segoe UI', sans-serif);"
    f"color:{_TEXT};background:var(--jp-layout-color1, var(--vscode-editor-background, #ffffff));"
    "border:1px solid var(--jp-border-color2, var(--vscode-panel-border, #e0e0e0));"
    "border-radius:8px;padding:9px 13px;max-width:860px;margin:4px 0;box-sizing:border-box"
)
_NARROWEST_HEAD_PX = 200
_HEAD = "display:flex;flex-wrap:wrap;align-items:center;gap:2px 12px"
# For screen readers and for pages that strip styles: elsewhere the dot and the distances say the same.
_UNSEEN = "font-size:0"
_DOT = f"width:8px;height:8px;border-radius:50%;margin-right:-4px;flex:none;overflow:hidden;{_UNSEEN};background:"
_LABEL = "font-weight:600;min-width:0;overflow-wrap:anywhere"
_FIGURES = "font-variant-numeric:tabular-nums"
_TRACK = (
    "height:6px;border-radius:3px;background:var(--jp-border-color2, var(--vscode-panel-border, #e5e7eb));"
    "overflow:hidden;display:flex;clear:both;margin:7px 0 6px"
)
_LINE = "font-size:12px;overflow-wrap:anywhere;color:"


def render_html(view: CardView, *, button_px: int = 0) -> str:
    """Draw the view as one element with inline styles and theme variables, at most 4 KB.

    Args:
        view: What to draw.
        button_px: Room to leave in the upper right corner for a button that lies over the card; 0 makes the
            static card, which announces nothing.
    """
    room, narrowest = "", ""
    if button_px:  # where the head would become too narrow beside the buttons, it goes below them
        room = f'<div style="float:right;width:{button_px}px;height:26px"></div>'
        narrowest = f";min-width:{_NARROWEST_HEAD_PX}px;min-height:24px"
    live = ' role="status" aria-live="polite"' if button_px else ""
    bar = "" if view.is_single else _bar(view, html.escape(view.count))
    state, count, facts = view.state.value, html.escape(view.count), html.escape(view.facts)
    return (
        f'<div style="{_CARD}">{room}<div style="{_HEAD}{narrowest}">'
        f'<span title="{state}" style="{_DOT}{_COLOUR[view.state]}">{state}</span> '
        f'<b style="{_LABEL}">{html.escape(view.label)}</b> '
        f'<span style="{_FIGURES}">{count}<span style="{_UNSEEN}"> · </span></span>'
        f'<span style="margin-left:auto;color:{_MUTED};{_FIGURES}">{facts}</span></div>'
        f"{bar}<div{live}>{_lines(view)}</div>{_tail(view)}{_log(view, is_live=bool(button_px))}</div>"
    )


def _bar(view: CardView, count: str) -> str:
    colour = _COLOUR[State.DONE if view.state is State.FAILED else view.state]
    if view.of is None:  # how far along it is cannot be said: a pale bar over the whole width
        position = ""
        parts = f'<div style="width:100%;opacity:.3;background:{colour}"></div>'
    else:
        position = f' aria-valuemin="0" aria-valuemax="{view.of}" aria-valuenow="{view.done + view.failed}"'
        parts = f'<div style="width:{_share(view.done, view.of)};background:{colour}"></div>'
        if view.failed:
            parts += f'<div style="width:{_share(view.failed, view.of)};min-width:3px;background:{_RED}"></div>'
    return (
        f'<div role="progressbar" aria-label="items ended"{position} aria-valuetext="{count}" style="{_TRACK}">'
        f"{parts}</div>"
    )


def _share(part: int, of: int) -> str:
    return f"{part / of if of else 1.0:.2%}"


def _lines(view: CardView) -> str:
    lines = ""
    if view.error:
        where, kind, message = map(html.escape, (view.error.where, view.error.kind, view.error.message))
        more = f'<span style="color:{_MUTED}">{_with_code(view.error.more)}</span>'
        lines += f'<div style="{_LINE}{_RED}">{where}<b>{kind}</b>{message}{more}</div>'
    if view.note:
        colour = _MUTED if view.state in _OVER else _COLOUR[State.WAITING]
        lines += f'<div style="{_LINE}{colour}">{_with_code(view.note)}</div>'
    return lines


_MONO = "font:12px/1.5 var(--jp-code-font-family, ui-monospace, Menlo, Consolas, monospace);"
_CLIPPED = "white-space:nowrap;overflow:hidden;text-overflow:ellipsis"


def _tail(view: CardView) -> str:
    return "".join(map(_tail_line, view.tail))


def _tail_line(line: TailLine) -> str:
    label, text = html.escape(line.label), html.escape(line.text)
    if line.share is None:
        return f'<div style="{_MONO}color:{_MUTED};{_CLIPPED}">{label} {text}</div>'
    track = "height:3px;border-radius:2px;background:var(--jp-border-color2, var(--vscode-panel-border, #e5e7eb))"
    filled = f"display:block;height:3px;width:{line.share:.1%};background:{_COLOUR[State.RUNNING]}"
    return (
        f'<div style="display:flex;align-items:center;gap:10px;{_MONO}color:{_MUTED}">'
        f'<span style="width:130px;flex:none;{_CLIPPED}">{label}</span>'
        f'<span role="progressbar" aria-label="{label}" aria-valuetext="{text}" '
        f'style="flex:1;max-width:220px;overflow:hidden;{track}"><span style="{filled}"></span></span>'
        f'<span style="{_FIGURES}">{text}</span></div>'
    )


_SAVED_LOG_LINES = 12
_SAVED_LINE_CHARS = 120


def _log(view: CardView, *, is_live: bool) -> str:
    """All of it while somebody looks; in a saved notebook the end, folded."""
    if not view.log:
        return ""
    if is_live:
        text = html.escape("\n".join(view.log))
        style = f"{_MONO}color:{_TEXT};max-height:220px;overflow:auto;margin:6px 0 0;white-space:pre-wrap"
        return f'<pre tabindex="0" aria-label="log" style="{style}">{text}</pre>'
    lines = [line[:_SAVED_LINE_CHARS] for line in view.log[-_SAVED_LOG_LINES:]]
    text = html.escape("\n".join(lines))
    return (
        f'<details style="font-size:12px;color:{_MUTED}"><summary style="cursor:pointer">last lines · all of them: '
        f'<code>.logs()</code></summary><pre style="{_MONO}margin:4px 0 0;white-space:pre-wrap">{text}</pre></details>'
    )


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
