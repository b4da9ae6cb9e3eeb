import queue
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace
from typing import NamedTuple

import nbformat
import pytest
from msgspec.structs import replace
from nbclient import NotebookClient

from nbqueue.core.progress import Counts, RunSnapshot
from nbqueue.notebook import card, showing
from nbqueue.notebook.card import Cell, StaticCard, WidgetCard
from nbqueue.notebook.painter import Painter, Style, View
from nbqueue.notebook.pump import keep_frontend_routing

WIDGET = "application/vnd.jupyter.widget-view+json"


class FakeRun:
    """A run that stands where the test puts it."""

    def __init__(self, *, label="squares", **counts):
        self.now = RunSnapshot(label=label, counts=Counts(**counts), elapsed_s=0.0)
        self.ended = threading.Event()
        self.revoked = threading.Event()
        self.retry = lambda: None

    def move(self, elapsed_s, **counts):
        self.now = replace(self.now, elapsed_s=elapsed_s, counts=Counts(**counts))

    def fail(self, elapsed_s, **counts):
        self.move(elapsed_s, **counts)
        self.now = replace(self.now, first_error="ValueError: bad", first_error_item=3)

    def end(self, elapsed_s, **counts):
        self.move(elapsed_s, **counts)
        self.ended.set()

    def snapshot(self):
        return self.now

    def done(self):
        return self.ended.is_set()

    def revoke(self):
        self.revoked.set()


class Sent(NamedTuple):
    kind: str
    data: dict
    display_id: str
    parent: str


class FakeShell:
    """The parts of a kernel that a card talks to; what is sent can be waited for."""

    def __init__(self):
        self.cell = "cell 1"
        self.sent = queue.Queue()
        self.callbacks = []
        self.events = SimpleNamespace(register=self._register)
        self.display_pub = SimpleNamespace(publish=self._publish)
        self.kernel = SimpleNamespace(iopub_socket=object(), session=SimpleNamespace(send=self._send))

    def get_parent(self):
        return {"header": {"msg_id": self.cell}, "content": {"code": "…"}}

    def end_cell(self):
        for callback in self.callbacks:
            callback(None)

    def next(self):
        return self.sent.get(timeout=10)

    def _register(self, event, callback):
        assert event == "post_run_cell"
        if callback not in self.callbacks:
            self.callbacks.append(callback)

    def _publish(self, *, data, metadata, transient, update):
        assert threading.current_thread() is threading.main_thread()
        kind = "update_display_data" if update else "display_data"
        self.sent.put(Sent(kind, data, transient["display_id"], self.cell))

    def _send(self, socket, kind, content, *, parent, ident):
        assert self.kernel.iopub_socket is socket
        self.sent.put(Sent(kind, content["data"], content["transient"]["display_id"], parent["header"]["msg_id"]))


@pytest.fixture
def shell():
    return FakeShell()


@pytest.fixture
def run():
    return FakeRun(total=100)


@pytest.fixture(autouse=True)
def closed_cards():
    yield
    card._unsettled.clear()
    while WidgetCard._kept:
        WidgetCard._kept.popleft().close()


def in_a_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_a_card_opens_as_a_widget_that_also_reads_as_html_and_text(shell, run):
    WidgetCard(run, Style(), Cell(shell))

    opened = shell.next()
    assert opened.kind == "display_data"
    assert {WIDGET, "text/html", "text/plain"} == set(opened.data)
    assert opened.data["text/plain"] == "squares: 0 / 100 · waiting when saved"


def test_the_end_replaces_the_widget_by_exactly_html_and_text(shell, run):
    # Given a live card
    view = WidgetCard(run, Style(), Cell(shell))
    opened = shell.next()

    # When the run ends, and the waiting cell finishes the view twice
    run.end(2.0, total=100, done=100)
    view.finish()
    view.finish()

    # Then the same output was replaced once
    end = shell.next()
    assert (end.kind, end.display_id) == ("update_display_data", opened.display_id)
    assert {"text/html", "text/plain"} == set(end.data)
    assert end.data["text/plain"] == "squares: done, 100 / 100 · 2.0 s"
    assert "100 / 100" in end.data["text/html"]
    assert shell.sent.empty()


def test_the_live_widget_follows_the_run_and_keeps_its_end(shell, run):
    # Given a card whose page was reloaded: it sees the widget only
    view = WidgetCard(run, Style(), Cell(shell))

    run.move(1.0, total=100, done=40, running=2)
    view.repaint()
    assert "40 / 100" in view._html.value
    assert 'aria-live="polite"' in view._html.value

    run.end(2.0, total=100, done=100)
    view.finish()
    assert "100 / 100" in view._html.value
    assert view._buttons.layout.display == "none"


def test_a_run_that_stands_still_is_not_drawn_again(shell, run):
    view = StaticCard(run, Style(), Cell(shell), every_s=0.0)
    run.move(1.0, total=100, done=40, running=1)
    view.repaint()
    assert shell.sent.qsize() == 2

    view.repaint()

    assert shell.sent.qsize() == 2


def test_a_click_on_cancel_revokes_the_run_and_says_so(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    run.move(1.0, total=100, done=40, running=8)

    view._cancel.click()
    assert run.revoked.is_set()

    view.repaint()
    assert view._cancel.description == "Cancelling …"
    assert view._cancel.disabled
    assert "stopping 8 running items" in view._html.value


def test_failed_items_run_again_at_the_end_and_are_shown_in_the_same_cell(shell, run):
    # Given a card of cell 1 with a failed item, whose button was pressed
    view = WidgetCard(run, Style(), Cell(shell))
    shell.next()
    run.retry = lambda: WidgetCard(FakeRun(label="again", total=100), Style(), Cell(shell))
    assert view._retry_failed.layout.display == "none"
    run.fail(1.0, total=100, done=40, failed=1, running=8)
    view.repaint()
    assert view._retry_failed.layout.display == "flex"
    view._retry_failed.click()
    view.repaint()
    assert (view._retry_failed.description, view._retry_failed.disabled) == ("Will retry", True)
    assert "again at the end" in view._html.value

    # When the run ends while another cell runs
    shell.cell = "cell 2"
    run.end(2.0, total=100, done=99, failed=1)
    view.repaint()

    # Then the items run again, with a card in cell 1, and the first card says so
    again, end = shell.next(), shell.next()
    assert ("display_data", "cell 1") == (again.kind, again.parent)
    assert "again" in again.data["text/plain"]
    assert "sent again: `.retried`" in end.data["text/plain"]


def test_a_revoke_forgets_the_retry(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    run.retry = lambda: pytest.fail("it was revoked")
    run.fail(1.0, total=100, done=40, failed=1, running=8)
    view._retry_failed.click()
    view._cancel.click()
    view.repaint()
    assert view._retry_failed.disabled

    run.end(2.0, total=100, done=40, failed=1, revoked=59)
    view.repaint()

    assert "revoked" in view._html.value


def test_a_retry_that_fails_leaves_the_way_to_it_on_the_card(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    shell.next()
    run.retry = lambda: 1 / 0
    run.fail(1.0, total=100, done=40, failed=1)
    view._retry_failed.click()

    run.end(2.0, total=100, done=99, failed=1)
    view.repaint()

    assert "again: `.retry()`" in shell.next().data["text/plain"]


def test_what_cannot_be_run_again_has_no_button(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    run.fail(1.0, total=100, done=40, failed=1)
    run.now = replace(run.now, can_retry=False)

    view.repaint()

    assert view._retry_failed.layout.display == "none"


def test_a_click_from_a_frontend_arrives(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))

    view._cancel._handle_msg({"content": {"data": {"method": "custom", "content": {"event": "click"}}}, "buffers": []})

    assert run.revoked.is_set()


def test_a_revoke_that_fails_does_not_break_the_card(shell, run, monkeypatch):
    view = WidgetCard(run, Style(), Cell(shell))
    monkeypatch.setattr(run, "revoke", lambda: 1 / 0)

    view._cancel.click()

    assert view.repaint()


def test_a_click_after_the_end_does_nothing(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    run.end(1.0, total=100, done=100)
    view.finish()

    view._cancel.click()

    assert not run.revoked.is_set()


def test_a_label_cannot_become_markup_in_any_output(shell):
    run = FakeRun(label="<script>alert(1)</script>", total=1)
    view = WidgetCard(run, Style(), Cell(shell))
    run.end(1.0, total=1, done=1)
    view.finish()

    outputs = [shell.next().data["text/html"], shell.next().data["text/html"], view._html.value]
    for html in outputs:
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_another_thread_sends_the_end_to_the_cell_of_the_submit(shell, run):
    # Given a card of cell 1, while cell 2 runs
    view = WidgetCard(run, Style(), Cell(shell))
    shell.next()
    shell.cell = "cell 2"

    # When the painter's thread sees the end
    run.end(1.0, total=100, done=100)
    in_a_thread(view.repaint)

    # Then it names cell 1 as the parent
    assert shell.next().parent == "cell 1"


def test_an_end_that_nbclient_would_drop_is_sent_again_when_the_running_cell_ends(shell, run):
    # Given a run whose end was drawn by the painter's thread while another cell ran
    view = WidgetCard(run, Style(), Cell(shell))
    shell.next()
    shell.cell = "cell 2"
    run.end(1.0, total=100, done=100)
    in_a_thread(view.repaint)
    first = shell.next()

    # When that cell ends, and the one after it
    shell.end_cell()
    shell.cell = "cell 3"
    shell.end_cell()

    # Then the same end was sent once more, as part of that cell
    assert first._replace(parent="cell 2") == shell.next()
    assert shell.sent.empty()


def test_an_end_within_its_own_cell_is_sent_once(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    run.end(1.0, total=100, done=100)
    in_a_thread(view.repaint)
    shell.next()
    shell.next()

    shell.end_cell()

    assert shell.sent.empty()


def test_the_main_thread_draws_the_end_as_part_of_the_cell_that_waits(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    shell.next()
    shell.cell = "cell 2"
    run.end(1.0, total=100, done=100)

    view.finish()
    shell.end_cell()

    assert shell.next().parent == "cell 2"
    assert shell.sent.empty()


def test_a_run_that_is_pending_at_exit_says_so_in_the_saved_notebook(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    shell.next()
    run.move(1.0, total=100, done=40, running=2)
    view.repaint()

    view.leave_pending()

    end = shell.next()
    assert {"text/html", "text/plain"} == set(end.data)
    assert end.data["text/plain"] == "squares: 40 / 100 · running when saved"


def test_finishing_before_the_end_draws_the_present_and_stays_live(shell, run):
    # Given a wait that ran into its timeout
    view = WidgetCard(run, Style(), Cell(shell))
    run.move(1.0, total=100, done=40, running=2)

    view.finish()

    assert "40 / 100" in view._html.value
    assert view.repaint()


def test_a_finished_card_keeps_no_run_alive(shell, run):
    view = WidgetCard(run, Style(), Cell(shell))
    run.end(1.0, total=100, done=100)
    view.finish()

    assert view._handle is None


def test_a_display_that_is_not_to_be_left_is_emptied(shell, run):
    view = WidgetCard(run, Style(leave=False), Cell(shell))
    shell.next()
    run.end(1.0, total=100, done=100)
    view.finish()

    assert shell.next().data == {"text/html": "", "text/plain": ""}


def test_only_the_last_finished_widgets_stay_open(shell, monkeypatch):
    # Given room for two finished cards
    monkeypatch.setattr(WidgetCard, "KEPT_OPEN", 2)

    # When three finish
    views = []
    for _ in range(3):
        run = FakeRun(total=1)
        views.append(WidgetCard(run, Style(), Cell(shell)))
        run.end(1.0, total=1, done=1)
        views[-1].finish()

    # Then the oldest is closed
    assert [view._box.comm is None for view in views] == [True, False, False]


def test_clicks_keep_the_route_that_the_frontend_chose():
    comm = SimpleNamespace(_reply_subshell_for=lambda data, default: None)

    keep_frontend_routing(SimpleNamespace(comm=comm))

    assert comm._reply_subshell_for({}, "subshell-1") == "subshell-1"


def test_the_painter_draws_every_live_view_and_ends_with_the_last():
    # Given a painter with a view that breaks and one that is live for three looks
    class Looks(View):
        def __init__(self, looks):
            super().__init__(FakeRun(total=1), Style())
            self.looks = looks

        def repaint(self):
            self.looks -= 1
            if self.looks < 0:
                raise RuntimeError("broken frontend")
            return self.looks > 0

        def _draw(self, view): ...

        def _draw_end(self, view): ...

        def _draw_pending(self, view): ...

    painter = Painter()
    painter.PERIOD_S = 0.001
    broken, good = Looks(0), Looks(3)

    # When both are added
    painter.add(broken)
    first = painter._thread
    painter.add(good)

    # Then the broken one is dropped, the good one is drawn to its end, and the thread ends
    for thread in (first, painter._thread):
        if thread is not None:
            thread.join(10)
    assert (broken.looks, good.looks) == (-1, 0)
    assert painter._thread is None
    assert painter._live == []

    # And a later view gets a new thread
    later = Looks(1)
    painter.add(later)
    if painter._thread is not None:
        painter._thread.join(10)
    assert later.looks == 0


def test_show_opens_a_card_in_a_kernel_and_the_painter_ends_it(shell, run, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    view = showing.show(run, progress={"desc": "mine", "unit": "files"})
    run.end(1.0, total=100, done=100)

    assert type(view) is WidgetCard
    assert WIDGET in shell.next().data
    assert shell.next().data["text/plain"] == "mine: done, 100 / 100 files · 1.0 s"


def test_without_ipywidgets_the_output_itself_is_replaced(shell, run, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)

    view = showing.show(run)
    run.end(1.0, total=100, done=100)

    assert type(view) is StaticCard
    opened, end = shell.next(), shell.next()
    assert {"text/html", "text/plain"} == set(opened.data)
    assert (end.kind, end.display_id) == ("update_display_data", opened.display_id)
    assert end.data["text/plain"] == "squares: done, 100 / 100 · 1.0 s"


def test_a_static_card_is_replaced_at_most_twice_a_second(shell, run):
    view = StaticCard(run, Style(), Cell(shell))
    for tenth in range(1, 11):
        run.move(tenth / 10, total=100, done=tenth, running=1)
        view.repaint()

    assert [shell.next().kind for _ in range(shell.sent.qsize())] == ["display_data"] + 2 * ["update_display_data"]


def test_progress_text_shows_no_html_and_no_widget(shell, run, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    showing.show(run, progress="text")
    run.end(1.0, total=100, done=100)

    assert {"text/plain"} == set(shell.next().data)
    assert shell.next().data == {"text/plain": "squares: done, 100 / 100 · 1.0 s"}


def test_non_interactive_shows_only_the_start_and_the_end(shell, run, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setenv("NBQUEUE_NONINTERACTIVE", "1")

    view = showing.show(run)
    run.move(50.0, total=100, done=50)
    view.repaint()
    run.end(100.0, total=100, done=100)

    assert WIDGET not in shell.next().data
    assert "100 / 100" in shell.next().data["text/plain"]


def test_a_broken_kernel_or_handle_never_reaches_the_user(run, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert showing.show(run) is None

    monkeypatch.setattr("IPython.get_ipython", lambda: 1 / 0)
    assert showing.show(run) is None


def test_importing_the_display_loads_nothing_of_a_notebook():
    script = (
        "import sys, nbqueue.notebook.showing; print({'IPython', 'ipywidgets', 'ipykernel', 'tqdm'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)

    assert done.stdout == "set()\n"


A_RUN_IN_A_CELL = textwrap.dedent("""
    import threading
    from nbqueue.notebook import showing
    from nbqueue.core.progress import Counts, RunSnapshot

    class Run:
        def __init__(self):
            self.items = 0
            self.go, self.ended = threading.Event(), threading.Event()
            threading.Thread(target=self._work, daemon=True).start()

        def _work(self):
            self.go.wait()
            while self.items < 100:
                self.items += 1
            self.ended.set()

        def snapshot(self):
            counts = Counts(total=100, done=self.items)
            return RunSnapshot(label="squares", counts=counts, elapsed_s=self.items / 100, slots=2)

        def done(self):
            return self.ended.is_set()

    run = Run()
""")


def executed(*cells):
    """The outputs of each cell, as nbclient stores them."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=30, kernel_name="python3").execute()
    return [cell.outputs for cell in book.cells]


@pytest.mark.timeout(60)
def test_a_notebook_keeps_html_and_text_of_a_run_that_was_waited_for():
    [_, outputs] = executed(A_RUN_IN_A_CELL, "view = showing.show(run); run.go.set(); run.ended.wait(); view.finish()")

    [output] = outputs
    assert {"text/html", "text/plain"} == set(output.data)
    assert output.data["text/plain"] == "squares: done, 100 / 100 · 1.0 s on 2 slots"
    assert "100 / 100" in output.data["text/html"]


@pytest.mark.timeout(60)
def test_a_notebook_keeps_the_end_of_a_run_that_ended_during_a_later_cell():
    # Given a cell that only starts a run, and a later one during which it ends and nobody asks for it
    painter_ends = "thread = showing.PAINTER._thread; run.go.set(); thread.join(10)"
    [_, outputs, _] = executed(A_RUN_IN_A_CELL, "view = showing.show(run)", painter_ends)

    # Then its own cell shows the end
    [output] = outputs
    assert {"text/html", "text/plain"} == set(output.data)
    assert "100 / 100" in output.data["text/plain"]


@pytest.mark.timeout(60)
def test_a_notebook_keeps_a_readable_card_of_a_run_that_was_still_going():
    [_, outputs] = executed(A_RUN_IN_A_CELL, "view = showing.show(run)")

    [output] = outputs
    assert "0 / 100 · waiting when saved" in output.data["text/plain"]
    assert "waiting when saved" in output.data["text/html"]
