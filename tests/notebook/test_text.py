import io
import os
import subprocess
import sys
import termios
import textwrap
import threading

import pytest
from msgspec.structs import replace

from nbqueue.core.progress import Counts, RunSnapshot
from nbqueue.notebook import showing, text
from nbqueue.notebook.painter import Style
from nbqueue.notebook.text import Bar, Lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


class FakeRun:
    """A run that stands where the test puts it."""

    def __init__(self, **counts):
        self.now = RunSnapshot(label="squares", counts=Counts(**counts), elapsed_s=0.0)
        self.ended = threading.Event()

    def move(self, elapsed_s, **counts):
        self.now = replace(self.now, elapsed_s=elapsed_s, counts=Counts(**counts))

    def end(self, elapsed_s, **counts):
        self.move(elapsed_s, **counts)
        self.ended.set()

    def snapshot(self):
        return self.now

    def done(self):
        return self.ended.is_set()

    def revoke(self):
        raise AssertionError("a bar has no button")


@pytest.fixture
def at_once(monkeypatch):
    """Bars that do not wait to see whether the run is a short one."""
    monkeypatch.setattr(Bar, "DELAY_S", 0.0)


def last_line(terminal):
    return terminal.getvalue().replace("\n", "\r").rstrip("\r").split("\r")[-1]


@pytest.mark.usefixtures("at_once")
def test_a_bar_ends_exactly_at_its_total_and_stays():
    # Given a bar of a run
    run, terminal = FakeRun(total=100), Terminal()
    bar = Bar(run, Style(unit="files"), file=terminal)
    run.move(1.0, total=100, done=40, running=2)
    assert bar.repaint()

    # When the run ends
    run.end(2.0, total=100, done=100)
    bar.finish()

    # Then the last line is full and followed by a new one
    assert "squares: 100%" in last_line(terminal)
    assert "100/100" in last_line(terminal)
    assert " files/s" in last_line(terminal)
    assert terminal.getvalue().endswith("\n")


@pytest.mark.usefixtures("at_once")
def test_failures_and_a_revoke_stand_behind_the_bar():
    run, terminal = FakeRun(total=100), Terminal()
    bar = Bar(run, Style(), file=terminal)

    run.end(2.0, total=100, done=50, failed=3, revoked=47)
    bar.finish()

    assert "53/100" in last_line(terminal)
    assert "revoked, 3 failed" in last_line(terminal)


@pytest.mark.usefixtures("at_once")
def test_a_bar_learns_its_total_when_a_lazy_input_ends():
    run, terminal = FakeRun(total=10, closed=False), Terminal()
    bar = Bar(run, Style(), file=terminal)
    assert "%" not in last_line(terminal)

    run.end(2.0, total=20, done=20)
    bar.finish()

    assert "100%" in last_line(terminal)
    assert "20/20" in last_line(terminal)


@pytest.mark.usefixtures("at_once")
def test_a_bar_that_is_not_to_be_left_clears_its_line():
    run, terminal = FakeRun(total=10), Terminal()
    bar = Bar(run, Style(leave=False), file=terminal)

    run.end(2.0, total=10, done=10)
    bar.finish()

    assert last_line(terminal).strip() == ""


def test_a_short_run_shows_no_bar():
    run, terminal = FakeRun(total=10), Terminal()
    bar = Bar(run, Style(), file=terminal)

    run.end(0.1, total=10, done=10)
    bar.finish()

    assert terminal.getvalue() == ""


@pytest.mark.usefixtures("at_once")
def test_a_bar_is_silent_where_stderr_is_a_file():
    run, file = FakeRun(total=10), io.StringIO()
    bar = Bar(run, Style(), file=file)

    run.end(1.0, total=10, done=10)
    bar.finish()

    assert file.getvalue() == ""


@pytest.mark.usefixtures("at_once")
def test_a_bar_does_not_write_over_an_open_prompt(monkeypatch):
    run, terminal = FakeRun(total=10), Terminal()
    bar = Bar(run, Style(), file=terminal)
    before = terminal.getvalue()

    monkeypatch.setattr(text, "_prompt_is_open", lambda: True)
    run.move(1.0, total=10, done=5)
    bar.repaint()
    run.end(2.0, total=10, done=10)
    bar.finish()

    assert before == terminal.getvalue()


def test_lines_say_the_start_and_the_end_once_also_in_a_file():
    run, file = FakeRun(total=1_000), io.StringIO()
    lines = Lines(run, Style(desc="parse"), file=file)
    run.move(1.0, total=1_000, done=400, running=2)
    lines.repaint()

    run.end(2.0, total=1_000, done=1_000)
    lines.finish()
    lines.finish()

    assert file.getvalue().splitlines() == ["parse: started, 0 / 1,000", "parse: done, 1,000 / 1,000 · 2.0 s"]


def test_lines_say_when_the_interpreter_exits_before_the_end():
    run, file = FakeRun(total=10), io.StringIO()
    lines = Lines(run, Style(), file=file)
    run.move(1.0, total=10, done=4, running=1)
    lines.repaint()

    lines.leave_pending()

    assert file.getvalue().splitlines()[-1] == "squares: still running, 4 / 10"


@pytest.mark.parametrize(
    ("progress", "stderr", "expected"),
    [
        (True, Terminal, Bar),
        ({"desc": "mine"}, Terminal, Bar),
        (True, io.StringIO, None),
        ("text", io.StringIO, Lines),
        (False, Terminal, None),
    ],
)
def test_without_a_kernel_the_display_fits_stderr(monkeypatch, progress, stderr, expected):
    monkeypatch.setattr(sys, "stderr", stderr())
    run = FakeRun(total=1)
    run.end(0.0, total=1, done=1)

    view = showing.show(run, progress=progress)

    assert expected is (None if view is None else type(view))


def test_non_interactive_shows_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("NBQUEUE_NONINTERACTIVE", "1")

    assert showing.show(FakeRun(total=1)) is None


def test_a_script_with_a_terminal_shows_the_bar_and_loads_no_notebook():
    # Given a script whose stderr is a terminal, with a run that ends while the script waits for it
    script = textwrap.dedent("""
        import sys, threading
        from nbqueue.notebook import showing
        from nbqueue.core.progress import Counts, RunSnapshot
        from nbqueue.notebook import text

        drawn = threading.Event()
        draw = text.Bar._draw
        text.Bar._draw = lambda bar, view: (draw(bar, view), drawn.set())
        text.Bar.DELAY_S = 0.0

        class Run:
            items = 0

            def snapshot(self):
                counts = Counts(total=100, done=self.items)
                return RunSnapshot(label="squares", counts=counts, elapsed_s=float(self.items))

            def done(self):
                return self.items == 100

        run = Run()
        view = showing.show(run)
        run.items = 50
        assert drawn.wait(10), "the painter never drew"
        run.items = 100
        view.finish()
        print("loaded:", sorted({"IPython", "ipywidgets", "ipykernel"} & set(sys.modules)))
    """)
    main, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))

    # When it is run
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stderr=terminal, stdout=subprocess.PIPE, timeout=20, check=False)
    os.close(terminal)
    shown = os.read(main, 100_000).decode()
    os.close(main)

    # Then the bar went to its end, and nothing of a notebook was loaded
    assert (0, b"loaded: []\n") == (done.returncode, done.stdout), shown
    assert "squares: 100%" in shown
    assert "100/100" in shown
