"""How much output is kept, and how the holes are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.output import (
    ITEM_TEXT_BYTES,
    RUN_TEXT_BYTES,
    Clear,
    Display,
    Gap,
    GapFinder,
    OutputBatch,
    OutputEvent,
    OutputLog,
    Text,
    Window,
)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(0, 100), st.integers(0, 100))
def test_a_window_keeps_the_beginning_and_the_end(sizes, head, tail):
    window = Window(head, tail)
    kept = {}
    for number, size in enumerate(sizes):
        kept[number] = size
        for dropped in window.add(number, size):
            del kept[dropped]

    assert sum(kept.values()) <= head + max(tail, max(sizes, default=0))
    if sum(sizes) <= min(head, tail):
        assert len(sizes) == len(kept)
    if sizes:
        assert len(sizes) - 1 in kept
    missing = [number for number in range(len(sizes)) if number not in kept]
    assert missing == list(range(missing[0], missing[-1] + 1)) if missing else True


def printed(log_or_batch_events):
    return "".join(event.what.text for event in log_or_batch_events if isinstance(event.what, Text))


def test_lines_of_one_stream_travel_together():
    batch = OutputBatch()
    for number in range(100):
        batch.print(3, 1, "stdout", f"{number}\n")
    batch.print(3, 1, "stderr", "oops\n")

    assert [
        OutputEvent(3, 1, 0, Text("stdout", "".join(f"{number}\n" for number in range(100)))),
        OutputEvent(3, 1, 290, Text("stderr", "oops\n")),
    ] == batch.take()
    assert not batch


def test_positions_go_on_from_batch_to_batch_and_start_again_with_each_attempt():
    batch = OutputBatch()
    positions = []
    for item, attempt in ((0, 1), (0, 1), (0, 2), (1, 1)):
        batch.print(item, attempt, "stdout", "é\n")
        positions += [event.position for event in batch.take()]

    assert [0, 3, 0, 0] == positions


def test_a_batch_is_bounded_and_its_ends_are_exact():
    batch = OutputBatch()
    lines = [f"{number:99}\n" for number in range(100_000)]
    for line in lines:
        batch.print(0, 1, "stdout", line)

    events = batch.take()

    text = printed(events)
    assert ITEM_TEXT_BYTES < len(text) <= 2 * ITEM_TEXT_BYTES
    whole = "".join(lines)
    gap = next(
        index
        for index, event in enumerate(events)
        if event.position != sum(other.text_bytes for other in events[:index])
    )
    assert whole.startswith(printed(events[:gap]))
    assert whole.endswith(printed(events[gap:]))


def test_a_reader_sees_where_something_is_missing_and_how_much():
    events = [
        OutputEvent(0, 1, 0, Text("stdout", "ab")),
        OutputEvent(1, 1, 5, Text("stdout", "x")),
        OutputEvent(0, 1, 12, Text("stdout", "cd")),
        OutputEvent(0, 2, 0, Text("stdout", "again")),
    ]
    finder = GapFinder()

    found = [event.what for part in (events[:1], events[1:]) for event in finder.with_gaps(part)]

    assert [
        Text("stdout", "ab"),
        Gap(5),
        Text("stdout", "x"),
        Gap(10),
        Text("stdout", "cd"),
        Text("stdout", "again"),
    ] == found


def add(log, item, what, position=0):
    log.add(OutputEvent(item, 1, position, what, number=log.end))


def test_a_noisy_item_does_not_push_out_the_others():
    log = OutputLog()
    add(log, 0, Text("stdout", "quiet"))
    for _ in range(1000):
        add(log, 1, Text("stdout", "x" * 8000))
    add(log, 2, Text("stdout", "late"))

    assert "quiet" == printed(log.events(0))
    assert "late" == printed(log.events(2))
    assert len(printed(log.events(1))) <= 2 * ITEM_TEXT_BYTES


def test_a_run_is_bounded_however_many_items_print():
    log = OutputLog()
    for item in range(20_000):
        add(log, item, Text("stdout", "x" * 1000))

    assert log.size_bytes <= 2 * RUN_TEXT_BYTES + 2000
    assert "" == printed(log.events(10_000))
    assert printed(log.events(0))
    assert printed(log.events(19_999))
    assert len(log._item_windows) == len(log.events())


def test_pictures_do_not_push_out_text():
    log = OutputLog()
    add(log, 0, Text("stdout", "text"))
    for _ in range(50):
        add(log, 0, Display({"image/png": "x" * 2**20}))

    assert "text" == printed(log.events())
    assert log.size_bytes < 33 * 2**20


@pytest.mark.parametrize("number", [0, 1, 7, 100])
def test_reading_goes_on_from_a_number(number):
    log = OutputLog()
    for index in range(10):
        add(log, 0, Clear() if index % 2 else Text("stdout", str(index)))

    assert list(range(number, 10)) == [event.number for event in log.since(number, max_bytes=10**6)]


def test_at_least_one_event_is_read_however_large():
    log = OutputLog()
    add(log, 0, Display({"text/html": "x" * 10**6}))
    add(log, 0, Text("stdout", "after"))

    assert [0] == [event.number for event in log.since(0, max_bytes=10)]
