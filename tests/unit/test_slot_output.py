"""What a supervisor reads of what a slot prints."""

import os

import pytest

from nbqueue.core.exchange import Delivery
from nbqueue.core.task import Block
from nbqueue.worker.cell import Cell
from nbqueue.worker.output import LAST_LINES, SlotOutput, output_pipe


class Slot:
    """Writes as the process of a slot does."""

    def __init__(self):
        (reader, self.stdout), (other_reader, self.stderr) = output_pipe(), output_pipe()
        with Cell.make_file() as file:
            self.cell = Cell(file.fileno())
        self.output = SlotOutput((reader, other_reader), self.cell)
        self.output.use_mark(b"mark of the slot")

    def close(self):
        self.output.close()
        self.cell.close()
        os.close(self.stdout)
        os.close(self.stderr)


@pytest.fixture
def slot():
    slot = Slot()
    delivery = Delivery(
        token=1,
        run_id=b"r" * 16,
        label="work",
        start=0,
        stop=1,
        attempt=1,
        digest=b"digest",
        function=None,
        blocks=[Block(0, 1, b"")],
        environment=b"",
    )
    slot.output.begin(delivery)
    yield slot
    slot.close()


def test_a_line_that_comes_in_parts_is_one_line(slot):
    os.write(slot.stderr, b"it cra")
    slot.output.drain()
    os.write(slot.stderr, b"shed\nin native code\n")
    slot.output.drain()

    assert ["it crashed", "in native code"] == slot.output.last_lines


def test_of_many_lines_the_last_are_kept(slot):
    for number in range(3000):
        os.write(slot.stderr, b"line %d\n" % number)
        slot.output.drain()

    assert [f"line {number}" for number in range(3000 - LAST_LINES, 3000)] == slot.output.last_lines


def test_what_goes_to_stdout_is_not_among_the_last_words(slot):
    os.write(slot.stdout, b"a result\n")
    slot.output.drain()

    assert [] == slot.output.last_lines
