"""What a run's tasks have printed, as far as it has arrived."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from nbqueue.client.condition import Condition
from nbqueue.core.exchange import OutputNote
from nbqueue.core.output import STDERR, STDOUT, Display, Gap, GapFinder, OutputEvent, OutputLog, Text

#: Results never wait for output; who reads the output of a task that is over waits so long for what is on its way.
SETTLE_S = 1.0
#: The log of runs that have printed nothing, as most never do: a handle should be a handful of objects.
_NOTHING = OutputLog()


class Listener(Protocol):
    """Shows output while it comes."""

    def take(self, events: Sequence[OutputEvent]) -> None:
        """The next events, in order, a `Gap` where some are missing. Called by who reads the news: must not block."""

    def settle(self) -> None:
        """Return when all that was taken is shown, or soon. Called by whoever has waited for the end of the run."""


class Printed(NamedTuple):
    """What one item has printed."""

    stdout: str
    stderr: str


class Prints(Protocol):
    """What prints."""

    @property
    def id(self) -> str:
        """What it is known by."""

    def print_to(self, listener: Listener) -> None:
        """Where its output is shown while it comes."""


class Output(Protocol):
    """What a run has printed, or a part of it."""

    def listen(self, listener: Listener) -> None:
        """From now on, and from the beginning, show it there, too."""

    def stop_listening(self, listener: Listener) -> None:
        """Show it there no more."""

    def settle(self) -> None:
        """Wait a moment for what is still on its way, if the run is over."""

    def finish_showing(self) -> None:
        """Wait a moment for the listeners, if there are any and anything to show."""

    def text(self, stream: str, item: int | None = None) -> str:
        """What was written to *stream*."""

    def lines(self, item: int | None = None, *, follow: bool) -> Iterator[str]:
        """Lines of both streams, in order; *follow*: until the run is over."""


class RunOutput:
    """Output of one run. Whoever reads the news writes, everybody looks."""

    def __init__(self, changed: Condition | None = None) -> None:
        """Notify *changed* with every arrival."""
        self.cursor = 0  #: events that have arrived, or will not
        self._end = 0  #: events that the broker has spoken of
        self._is_over = False  #: the run is; no more will come than what is spoken of
        self._changed = changed or Condition()
        self._log = _NOTHING
        self._gaps: GapFinder
        self._listeners: list[Listener] = []

    # -- who writes ----------------------------------------------------------------------------------------------------

    def fold(self, note: OutputNote) -> None:
        """Take in news; what was heard before is passed over, what comes too early is left for a repetition."""
        with self._changed:
            if note.cursor > self.cursor:
                return
            if self._log is _NOTHING:
                self._log, self._gaps = OutputLog(), GapFinder()
            events = [event for event in note.events if event.number >= self.cursor]
            for event in events:
                self._log.add(event)
            self.cursor = max(self.cursor, note.until)
            self._changed.notify_all()
            if self._listeners:
                events = list(self._gaps.with_gaps(events))
                for listener in self._listeners:
                    listener.take(events)

    def expect(self, end: int, *, is_over: bool) -> None:
        """The broker has so many events; *is_over*: and there will be no more."""
        with self._changed:
            self._end = max(self._end, end)
            if is_over and not self._is_over:
                self._is_over = True
                self._changed.notify_all()

    def give_up(self) -> None:
        """Nothing will come any more."""
        with self._changed:
            self._end, self._is_over = self.cursor, True
            self._changed.notify_all()

    @property
    def is_complete(self) -> bool:
        """Whether everything that the broker has spoken of is here."""
        return self.cursor >= self._end

    # -- anybody -------------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """From now on, and from the beginning, show it there, too."""
        with self._changed:
            if events := self._log.events():
                gaps = GapFinder()
                listener.take(list(gaps.with_gaps(events)))
                if not self._listeners:
                    self._gaps = gaps
            self._listeners.append(listener)

    def stop_listening(self, listener: Listener) -> None:
        """Show it there no more."""
        with self._changed:
            self._listeners.remove(listener)

    def settle(self) -> None:
        """Wait a moment for what is still on its way, if the run is over."""
        with self._changed:
            if self._is_over:
                self._changed.wait_for(lambda: self.is_complete, SETTLE_S)

    def finish_showing(self) -> None:
        """Wait a moment for the listeners, if there are any and anything to show."""
        listeners = list(self._listeners)
        if listeners and self._end:
            self.settle()
            for listener in listeners:
                listener.settle()

    def events(self, item: int | None = None) -> list[OutputEvent]:
        """All that was kept, in order, of one item or of all; with gaps."""
        with self._changed:
            return list(GapFinder().with_gaps(self._log.events(item)))

    def text(self, stream: str, item: int | None = None) -> str:
        """What was written to *stream*."""
        return "".join(_text_of(event, stream) for event in self.events(item))

    def lines(self, item: int | None = None, *, follow: bool) -> Iterator[str]:
        """Lines of both streams, in order; *follow*: until the run is over."""
        splitter = _Lines()
        gaps = GapFinder()
        number = 0
        while True:
            with self._changed:
                while follow and number >= self._log.end and not (self._is_over and self.is_complete):
                    if not self._changed.wait(SETTLE_S if self._is_over else None):
                        break
                events = self._log.since(number, max_bytes=2**62)
                number = self._log.end
                is_last = not follow or self._is_over
            for event in gaps.with_gaps(event for event in events if item is None or event.item == item):
                yield from splitter.add(event)
            if is_last and not events:
                break
        yield from splitter.rest()


class _Lines:
    """Joins what was written in pieces into lines, for each task and stream."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], str] = {}

    def add(self, event: OutputEvent) -> Iterator[str]:
        match event.what:
            case Text(stream, text):
                key = event.item, stream
                *lines, rest = (self._open.pop(key, "") + text).split("\n")
                if rest:
                    self._open[key] = rest
                yield from lines
            case Gap() | Display():
                yield _text_of(event, STDOUT).rstrip("\n")

    def rest(self) -> Iterator[str]:
        yield from self._open.values()


def _text_of(event: OutputEvent, stream: str) -> str:
    match event.what:
        case Text(written, text):
            return text if written == stream else ""
        case Gap(size_bytes):
            return f"[… {size_bytes:,} bytes of output left out …]\n"
        case Display(data, update=False) if stream == STDOUT and "text/plain" in data:
            return f"{data['text/plain']}\n"
        case _:
            return ""


class HasOutput:
    """The part of a handle that tells what its tasks print."""

    @property
    @abstractmethod
    def _output(self) -> Output:
        """Its output."""

    @property
    def stdout(self) -> str:
        """What was printed so far: by Python, C code and child processes; the middle is missing if it was too much."""
        self._output.settle()
        return self._output.text(STDOUT)

    @property
    def stderr(self) -> str:
        """What was written to stderr so far: warnings, log records, messages of child processes."""
        self._output.settle()
        return self._output.text(STDERR)

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Lines of both streams in the order in which they were written.

        Args:
            follow: Go on until the task is over, instead of ending with the last line there is.
        """
        if not follow:
            self._output.settle()
        return self._output.lines(follow=follow)
