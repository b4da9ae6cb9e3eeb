"""The last words of a map's tasks: one line for each that shows a bar, else the last line that any of them printed.

Pure: events go in, lines come out. Bars are recognised as tqdm writes them, so tasks need nothing but tqdm itself.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Sequence

import msgspec

from nbqueue.core.output import Display, Gap, OutputEvent, Text

__all__ = ["Tail", "TailLine", "parse_bar"]

#: Bars shown at once.
BARS = 4
#: Lines kept for the log.
LOG_LINES = 200
_LINE_CHARS = 160

_BAR = re.compile(
    r"^(?P<desc>.*?):?\s*\d+%\|[^|]*\|\s*(?P<n>[\d.]+\w?)/(?P<total>[\d.]+\w?) "
    r"\[(?P<time>[^\],]*)(, (?P<rate>[^\],]*))?.*\]"
)
_SCALE = {"k": 1e3, "M": 1e6, "G": 1e9}


class TailLine(msgspec.Struct, frozen=True):
    """One line under the bar of a card."""

    label: str  #: ``[6] epoch``
    share: float | None  #: of the task's own bar; None: the line is text
    text: str  #: ``31/50 · 4.1 it/s``, or what was printed


class Tail:
    """Follows what the tasks of a run print. Written by whoever reads the news, read by the painter."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, str], str] = {}
        self._bars: dict[int, TailLine] = {}
        self._last: TailLine | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES)

    def take(self, events: Sequence[OutputEvent]) -> None:
        """Take in what is new."""
        with self._lock:
            for event in events:
                match event.what:
                    case Text(stream, text):
                        self._take_text(event.item, stream, text)
                    case Gap(size_bytes):
                        self._log.append(f"[{event.item}] … {size_bytes:,} bytes left out …")
                    case Display(data=data) if "text/plain" in data:
                        self._take_line(event.item, str(data["text/plain"]).partition("\n")[0])

    def settle(self) -> None:
        """Nothing waits to be shown."""

    def lines(self) -> tuple[TailLine, ...]:
        """What to show now."""
        with self._lock:
            bars = list(self._bars.values())[-BARS:]
            return tuple(bars) if bars or self._last is None else (self._last,)

    def log(self) -> tuple[str, ...]:
        """The last lines of all tasks, in order."""
        with self._lock:
            return tuple(self._log)

    def __bool__(self) -> bool:
        return bool(self._log or self._bars)

    def _take_text(self, item: int, stream: str, text: str) -> None:
        *lines, rest = (self._open.pop((item, stream), "") + text.replace("\r\n", "\n")).split("\n")
        for line in lines:
            self._take_line(item, line)
        if rest:
            self._open[item, stream] = rest[-_LINE_CHARS * 4 :]
            self._take_unfinished(item, rest)

    def _take_unfinished(self, item: int, line: str) -> None:
        bar = parse_bar(_visible(line))
        if bar is not None:
            self._set_bar(item, bar)

    def _take_line(self, item: int, line: str) -> None:
        line = _visible(line)
        bar = parse_bar(line)
        if bar is not None:
            self._set_bar(item, bar)
        elif line:
            self._last = TailLine(f"[{item}]", None, line)
            self._log.append(f"[{item}] {line}")

    def _set_bar(self, item: int, bar: TailLine) -> None:
        self._bars.pop(item, None)  # the latest stands last
        if bar.share is not None and bar.share < 1.0:
            self._bars[item] = msgspec.structs.replace(bar, label=f"[{item}] {bar.label}".rstrip())


def parse_bar(line: str) -> TailLine | None:
    """The bar that tqdm has drawn; None when the line is something else."""
    found = _BAR.match(line)
    if found is None:
        return None
    total = _number(found["total"])
    rate = f" · {found['rate'].strip()}" if found["rate"] and "?" not in found["rate"] else ""
    share = _number(found["n"]) / total if total else 1.0
    return TailLine(found["desc"].strip(), min(1.0, share), f"{found['n']}/{found['total']}{rate}")


def _number(text: str) -> float:
    scale = _SCALE.get(text[-1:], 1.0)
    try:
        return float(text.rstrip("kMG")) * scale
    except ValueError:
        return 0.0


def _visible(line: str) -> str:
    """What of a line a terminal would show: the part behind the last carriage return."""
    parts = [part for part in line.split("\r") if part.strip()]
    return "".join(c if c.isprintable() else " " for c in parts[-1][:_LINE_CHARS]).rstrip() if parts else ""
