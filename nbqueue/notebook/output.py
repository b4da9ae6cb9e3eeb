"""What a single task prints and displays, in the cell that has submitted it.

Everything is sent with the parent that was captured at the submit: where the ``print`` or ``display`` of a thread would
land differs from one ipykernel version to the next, and some never come back from the first cell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from nbqueue.client.kernel import kernel_shell
from nbqueue.client.output import Prints
from nbqueue.core.output import Clear, Display, Gap, OutputEvent, Sealed, Text
from nbqueue.notebook.terminal import TERMINAL

__all__ = ["CellOutput", "Labelled", "Printer", "StreamOutput", "follow", "printer"]

logger = logging.getLogger(__name__)

#: A notebook server drops what comes faster than 1 MB/s; what is not shown is still in ``handle.stdout``.
_BYTES_PER_S = 400_000
_BURST_BYTES = 800_000


class Printer(Protocol):
    """Shows output; see `nbqueue.client.output.Listener`."""

    def take(self, events: Sequence[OutputEvent]) -> None:
        """The next events."""

    def settle(self) -> None:
        """All of them should be shown."""


def follow(prints: Prints) -> None:
    """Show in the cell that runs now what it prints; in a terminal, print it."""
    try:
        prints.print_to(printer(prints.id))
    except Exception:
        logger.debug("the output of a task is not shown", exc_info=True)


def printer(run_id: str) -> Printer:
    """What shows the output of a run in the cell that runs now, or on the terminal."""
    shell = kernel_shell()
    return StreamOutput() if shell is None else CellOutput(shell, run_id)


class CellOutput:
    """The output of one task, in one cell. Called by whoever reads the news."""

    def __init__(self, shell: Any, run_id: str) -> None:
        self._kernel = shell.kernel
        self._parent = {"header": shell.get_parent()["header"]}
        self._run_id = run_id
        self._budget = _BURST_BYTES
        self._filled_at = time.monotonic()
        self._hidden_bytes = 0

    def take(self, events: Sequence[OutputEvent]) -> None:
        """Send what is new."""
        try:
            self._refill()
            for what in merged(events):
                self._show(what)
        except Exception:
            logger.debug("the output of a task is not shown", exc_info=True)

    def settle(self) -> None:
        """Everything was sent when it was taken; say what was too much."""
        self._tell_hidden()

    def _show(self, what: Text | Display | Clear | Gap) -> None:
        match what:
            case Text(stream, text):
                self._stream(stream, text)
            case Gap(size_bytes):
                self._send("stream", {"name": "stdout", "text": f"[… {size_bytes:,} bytes of output left out …]\n"})
            case Display(data, metadata, transient, update):
                if "display_id" in transient:  # of the task's own: not that of another run
                    transient = {**transient, "display_id": f"nbqueue-{self._run_id}-{transient['display_id']}"}
                kind = "update_display_data" if update else "display_data"
                self._send(kind, {"data": data, "metadata": metadata, "transient": transient})
            case Clear(wait):
                self._send("clear_output", {"wait": wait})

    def _stream(self, name: str, text: str) -> None:
        if len(text) > self._budget:
            self._hidden_bytes += len(text)
            return
        self._tell_hidden()
        self._budget -= len(text)
        self._send("stream", {"name": name, "text": text})

    def _tell_hidden(self) -> None:
        hidden, self._hidden_bytes = self._hidden_bytes, 0
        if hidden:
            text = f"[… {hidden:,} bytes came too fast to be shown; the handle's .stdout and .logs() have them …]\n"
            self._send("stream", {"name": "stderr", "text": text})

    def _refill(self) -> None:
        now = time.monotonic()
        self._budget = min(_BURST_BYTES, self._budget + round((now - self._filled_at) * _BYTES_PER_S))
        self._filled_at = now

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        session = self._kernel.session
        session.send(self._kernel.iopub_socket, kind, content, parent=self._parent, ident=kind.encode())


class StreamOutput:
    """The output of one task, on the terminal."""

    def take(self, events: Sequence[OutputEvent]) -> None:
        """Print what is new."""
        for what in merged(events):
            match what:
                case Text(stream, text):
                    TERMINAL.write(stream, text)
                case Display(data=data) if "text/plain" in data:
                    TERMINAL.write("stdout", f"{data['text/plain']}\n")
                case Gap(size_bytes):
                    TERMINAL.write("stdout", f"[… {size_bytes:,} bytes of output left out …]\n")

    def settle(self) -> None:
        """Let it be printed."""
        TERMINAL.settle()


class Labelled:
    """Puts a label before every line, so that the lines of several tasks can be told apart; lines stay whole."""

    def __init__(self, printer: Printer, label: Callable[[OutputEvent], str]) -> None:
        """Show through *printer*; *label* is asked for each line."""
        self._printer = printer
        self._label = label
        self._open: dict[tuple[int, str], OutputEvent] = {}

    def take(self, events: Sequence[OutputEvent]) -> None:
        """Show the lines that are complete."""
        self._printer.take([whole for event in events for whole in self._whole(event)])

    def settle(self) -> None:
        """Show what has no end, too."""
        rests, self._open = list(self._open.values()), {}
        self._printer.take([self._labelled(event, f"{_text(event)}\n") for event in rests])
        self._printer.settle()

    def _whole(self, event: OutputEvent) -> list[OutputEvent]:
        if not isinstance(event.what, Text):
            return [event]
        place = event.item, event.what.stream
        before = self._open.pop(place, None)
        *lines, rest = ((_text(before) if before else "") + event.what.text).split("\n")
        if rest:
            self._open[place] = msgspec.structs.replace(event, what=Text(event.what.stream, rest))
        return [self._labelled(event, f"{line}\n") for line in lines]

    def _labelled(self, event: OutputEvent, line: str) -> OutputEvent:
        assert isinstance(event.what, Text)
        text = f"[{self._label(event)}] {_settled(line).lstrip(chr(13))}"
        return msgspec.structs.replace(event, what=Text(event.what.stream, text))


def _text(event: OutputEvent) -> str:
    return event.what.text if isinstance(event.what, Text) else ""


def merged(events: Sequence[OutputEvent]) -> list[Text | Display | Clear | Gap]:
    """What is to be shown, with neighbouring texts joined, and without what a carriage return has overwritten."""
    shown: list[Text | Display | Clear | Gap] = []
    for event in events:
        what, last = event.what, shown[-1] if shown else None
        if isinstance(what, Text) and isinstance(last, Text) and what.stream == last.stream:
            shown[-1] = Text(what.stream, last.text + what.text)
        elif not isinstance(what, Sealed):  # the port has opened it, or left it out
            shown.append(what)
    return [Text(what.stream, _settled(what.text)) if isinstance(what, Text) else what for what in shown]


def _settled(text: str) -> str:
    """The text as a terminal shows it in the end: of each line, what came after its last carriage return."""
    if "\r" not in text:
        return text
    return "\n".join(_last_of(line) for line in text.replace("\r\n", "\n").split("\n"))


def _last_of(line: str) -> str:
    head, *rest = line.split("\r")
    if not rest:
        return head
    last = next((part for part in reversed(rest) if part), "")
    return f"\r{last}"
