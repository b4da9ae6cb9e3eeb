"""What tasks print and display, in the cell that started them."""

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def _magics(kernel):
    assert "ok" == kernel.run("%load_ext nbqueue\nimport nbqueue, time")["status"]


@pytest.fixture(autouse=True)
def _no_news(kernel):
    kernel.heard.clear()


@pytest.fixture
def cell(kernel):
    """Execute a cell that must end well; what it shows, less cards, and what it prints."""

    def run(code):
        started = kernel.start(code)
        reply = kernel.reply_to(started)
        assert "ok" == reply["status"], reply
        shown = [data for data in kernel.shown_under(started) if "%%remote ·" not in data.get("text/plain", "")]
        return shown, kernel.printed_under(started)

    return run


def test_output_of_an_earlier_cell_never_lands_under_a_later_one(kernel):
    # Given a task that prints for a while, submitted by a cell that has ended
    first = kernel.start(
        "def chat(name):\n    for i in range(20):\n        print(name, i)\n        time.sleep(0.05)\n"
        "task = nbqueue.submit(chat, 'one')"
    )
    kernel.reply_to(first)

    # When another cell prints at the same time, itself and by a task
    second = kernel.start("other = nbqueue.submit(chat, 'two')\nprint('me')\nother.get(); task.get();")
    kernel.reply_to(second)
    kernel.wait_for(lambda m: "one 19\n" in m["content"].get("text", ""), "the last line", parent=first)

    # Then each line stands where it belongs, in order
    assert [f"one {i}" for i in range(20)] == kernel.printed_under(first).splitlines()
    assert ["me", *(f"two {i}" for i in range(20))] == sorted(
        kernel.printed_under(second).splitlines(), key=lambda line: line.startswith("two")
    )


def test_a_remote_cell_prints_on_both_streams_and_so_do_its_commands(cell):
    cell("name = 'Ada'")

    _, printed = cell(
        "%%remote\nimport os, sys\nprint('out')\nprint('err', file=sys.stderr)\n"
        "!echo {name} and $name\nos.system('echo C')"
    )

    assert {"out", "err", "Ada and Ada", "C"} == set(printed.splitlines())


def test_a_figure_of_a_remote_cell_is_shown(cell):
    shown, _ = cell("%%remote\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);")

    [figure] = shown
    assert figure["image/png"].startswith("iVBOR")


def test_a_figure_that_a_task_leaves_open_is_shown_and_one_that_it_shows_is_shown_once(cell):
    code = "def draw():\n    import matplotlib.pyplot as plt\n    plt.plot([1, 2]); {}\nnbqueue.submit(draw).get()"

    for end in ("", "plt.show()"):
        shown, _ = cell(code.format(end))
        assert 1 == len(shown)
        assert "image/png" in shown[0]


def test_a_task_displays_without_importing_display(cell):
    shown, _ = cell("nbqueue.submit(lambda: display({'a': 1})).get()")

    assert [{"text/plain": "{'a': 1}"}] == shown


def test_display_ids_and_clear_output_work_across_processes(cell, kernel):
    shown, printed = cell(
        "%%remote\nfrom IPython.display import HTML, clear_output, display, update_display\n"
        "display(HTML('<b>1</b>'), display_id='x')\nupdate_display(HTML('<b>2</b>'), display_id='x')\n"
        "clear_output(wait=True)\nprint('after')"
    )

    assert ["<b>2</b>"] == [bundle["text/html"] for bundle in shown]
    assert "after\n" == printed
    assert kernel.wait_for(lambda m: m["msg_type"] == "clear_output", "clear_output")["content"] == {"wait": True}


def test_a_tqdm_bar_moves_on_one_line(cell):
    _, printed = cell("%%remote\nfrom tqdm import tqdm\nimport time\nfor _ in tqdm(range(20)): time.sleep(0.02)")

    assert 1 == len(printed.rstrip().split("\n"))
    assert "20/20" in printed


def test_an_error_after_prints_keeps_the_prints(kernel):
    started = kernel.start("%%remote\nprint('before')\n1 / 0")

    assert "ZeroDivisionError" == kernel.reply_to(started)["ename"]
    assert "before\n" == kernel.printed_under(started)


def test_a_flood_is_cut_and_said_to_be(kernel, cell):
    _, printed = cell("flood = nbqueue.submit(lambda: [print('y' * 99) for _ in range(60_000)])\nflood.get();")

    assert len(printed) < 2_000_000
    assert "left out" in printed or "too fast" in printed
