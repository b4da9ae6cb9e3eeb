import io

import pytest
from tqdm import tqdm

from nbqueue.core.output import OutputEvent, Text
from nbqueue.notebook.tail import BARS, LOG_LINES, Tail, TailLine, parse_bar


def said(tail, item, text, stream="stdout"):
    tail.take([OutputEvent(item, 1, 0, Text(stream, text))])


def drawn_by_tqdm(n, **options):
    file = io.StringIO()
    with tqdm(total=50, file=file, mininterval=0, miniters=1, ascii=options.pop("ascii", None), **options) as bar:
        bar.update(n)
        return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"ascii": True}, {"unit": "B", "unit_scale": True}, {"ncols": 60}])
def test_a_bar_of_tqdm_becomes_a_line_with_its_share(options):
    tail = Tail()

    said(tail, 6, drawn_by_tqdm(31, desc="epoch", **options), "stderr")

    [line] = tail.lines()
    assert "[6] epoch" == line.label
    assert line.share == pytest.approx(0.62)
    assert line.text.startswith("31")


def test_each_task_keeps_its_line_however_often_it_is_drawn():
    tail = Tail()
    for n in (1, 5, 20):
        for item in (6, 7):
            said(tail, item, drawn_by_tqdm(n, desc="epoch"), "stderr")

    assert ["[6] epoch", "[7] epoch"] == [line.label for line in tail.lines()]
    assert [0.4, 0.4] == [pytest.approx(line.share) for line in tail.lines()]


def test_a_bar_that_is_full_goes():
    tail = Tail()
    said(tail, 6, drawn_by_tqdm(49), "stderr")
    said(tail, 6, drawn_by_tqdm(50), "stderr")

    assert () == tail.lines()


def test_only_the_latest_bars_are_shown():
    tail = Tail()
    for item in range(20):
        said(tail, item, drawn_by_tqdm(10), "stderr")

    assert BARS == len(tail.lines())
    assert "[19]" == tail.lines()[-1].label


def test_without_bars_the_last_line_is_shown_and_lines_come_in_pieces():
    tail = Tail()
    said(tail, 811, "first\n")
    said(tail, 812, "xml/etree")
    said(tail, 812, "/ElementTree.py\nmore")

    assert (TailLine("[812]", None, "xml/etree/ElementTree.py"),) == tail.lines()
    assert ("[811] first", "[812] xml/etree/ElementTree.py") == tail.log()


def test_the_log_is_bounded_and_has_no_control_characters():
    tail = Tail()
    said(tail, 0, "".join(f"\x1b[31mline {n}\x07\n" for n in range(1000)))

    assert LOG_LINES == len(tail.log())
    assert "\x1b" not in "".join(tail.log())


@pytest.mark.parametrize("line", ["", "50%", "a | b | 1/2 [x]", "100% done", "|" * 3000])
def test_what_is_no_bar_is_text(line):
    assert parse_bar(line) is None
