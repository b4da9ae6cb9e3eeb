"""What a slot and its children write into two pipes comes out in the order in which it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.wire.frames import MESSAGE, ROOM_BYTES, TEXT, Piece, Sorter, frames, new_mark, tick

MARK = new_mark()


class Slot:
    """Writes into two buffers as a slot and its children write into two pipes."""

    def __init__(self):
        self.pipes = [bytearray(), bytearray()]
        self.number = 0

    def print(self, stream, data, *, item=0, kind=TEXT):
        self.number += 1
        self.pipes[1 - stream] += tick(MARK, self.number, item)
        for frame in frames(MARK, self.number, item, kind, data):
            self.pipes[stream] += frame

    def write(self, stream, data):
        self.pipes[stream] += data


def read_in(sorter, pipes, sizes):
    """Feed both pipes in turns, in reads of these sizes; everything that comes out."""
    found = []
    positions = [0, 0]
    for size in [*sizes, 2**20]:
        for stream in (0, 1):
            sorter.feed(stream, bytes(pipes[stream][positions[stream] : positions[stream] + size]))
            positions[stream] += size
        found += sorter.take()
    return [*found, *sorter.take(all_of_it=True)]


def joined(pieces):
    """Text by stream, neighbours of one stream joined."""
    found = []
    for piece in pieces:
        if found and found[-1][0] == piece.stream:
            found[-1] = (piece.stream, found[-1][1] + piece.data)
        else:
            found.append((piece.stream, piece.data))
    return found


def sorter():
    made = Sorter()
    made.mark = MARK
    return made


def test_what_python_prints_and_what_others_write_is_in_order():
    slot = Slot()
    slot.print(0, b"print\n")
    slot.print(1, b"logging\n")
    slot.write(0, b"os.write\n")
    slot.print(1, b"warning\n")
    slot.write(0, b"echo\n")
    slot.print(0, b"end\n")

    pieces = read_in(sorter(), slot.pipes, [])

    assert [
        (0, b"print\n"),
        (1, b"logging\n"),
        (0, b"os.write\n"),
        (1, b"warning\n"),
        (0, b"echo\nend\n"),
    ] == joined(pieces)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.binary(min_size=1, max_size=9)), max_size=30),
    st.lists(st.integers(1, 60), max_size=40),
)
def test_the_order_does_not_depend_on_how_it_is_read(writes, sizes):
    # Given writes of Python code and of others; two of others in a row go into the same pipe, since nothing tells
    # the order of those
    slot, expected, last_raw = Slot(), [], None
    for stream, is_python, data in writes:
        if is_python:
            last_raw = None
            slot.print(stream, data)
            expected.append(Piece(stream, TEXT, data, None))
        else:
            last_raw = stream if last_raw is None else last_raw
            slot.write(last_raw, data)
            expected.append(Piece(last_raw, TEXT, data, None))

    assert joined(expected) == joined(read_in(sorter(), slot.pipes, sizes))


@pytest.mark.parametrize("size", [0, 1, ROOM_BYTES, ROOM_BYTES + 1, 5 * ROOM_BYTES])
def test_large_messages_come_in_one_piece(size):
    slot = Slot()
    slot.print(0, b"m" * size + b".", kind=MESSAGE)
    slot.write(0, b"after")

    [message, after] = read_in(sorter(), slot.pipes, [100, 4096, 77])

    assert Piece(0, MESSAGE, b"m" * size + b".", 0) == message
    assert b"after" == after.data


def test_a_long_text_is_not_torn_by_what_comes_after_it_in_the_other_pipe():
    slot = Slot()
    slot.print(1, b"e" * 10_000)
    slot.write(0, b"after")

    assert [(1, b"e" * 10_000), (0, b"after")] == joined(read_in(sorter(), slot.pipes, [4096]))


def test_what_others_write_is_of_the_item_that_printed_next():
    slot = Slot()
    slot.write(0, b"of item 7")
    slot.print(0, b"of item 7, too", item=7)
    slot.write(0, b"of who knows")

    assert [7, 7, None] == [piece.item for piece in read_in(sorter(), slot.pipes, [])]


def test_nothing_is_lost_when_a_signal_falls_between_two_writes():
    # Given a tick without its frame, and frames that are missing at the end of a text
    slot = Slot()
    slot.pipes[1] += tick(MARK, 1, 0)
    slot.number = 1
    slot.write(1, b"one")
    slot.pipes[1] += tick(MARK, 2, 0)
    slot.pipes[0] += next(frames(MARK, 2, 0, TEXT, b"x" * (ROOM_BYTES + 1)))
    slot.number = 2
    slot.print(0, b"two")

    found = b"".join(piece.data for piece in read_in(sorter(), slot.pipes, []))

    assert b"one" + b"x" * ROOM_BYTES + b"two" == found


def test_the_beginning_of_a_mark_at_the_very_end_is_text():
    slot = Slot()
    slot.write(0, b"text" + MARK[:5])

    assert [(0, b"text" + MARK[:5])] == joined(read_in(sorter(), slot.pipes, [3, 3]))


def test_before_the_mark_is_known_all_is_text():
    silent = Sorter()
    silent.feed(0, b"import of a module")

    assert [Piece(0, TEXT, b"import of a module", None)] == list(silent.take())
