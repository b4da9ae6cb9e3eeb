"""What becomes of the items of a delivery whose slot has died."""

import pytest

from nbqueue.core.exchange import Delivery
from nbqueue.core.run import StopHolder
from nbqueue.core.task import Failed, Killed, Released, Stopped, Succeeded
from nbqueue.worker.cell import ITEM, MAX_STOPS, Cell
from nbqueue.worker.work import Work


@pytest.fixture
def work():
    """A chunk of four items."""
    delivery = Delivery(
        token=1,
        run_id=b"run",
        label="fit",
        start=0,
        stop=4,
        attempt=1,
        digest=b"digest",
        function=None,
        blocks=[],
        environment=b"",
    )
    return Work(delivery, 0.0)


def test_the_item_that_killed_its_process_is_told_what_that_held_and_the_others_go_back(work):
    # Given a chunk of which one item is done
    work.take_report([Succeeded(0, 1, b"value", 1.0)])

    # Then its peak goes with the one that ran
    assert [Killed(1, "SIGSEGV", 700), Released(1, 4)] == work.leftovers(blamed=1, reason="SIGSEGV", peak_bytes=700)


@pytest.mark.parametrize("sentence", [Failed(1, b"record", False, 1.0), Killed(1, "memory is full")])
def test_an_item_that_was_ended_by_a_limit_is_told_the_most_that_its_family_held(work, sentence):
    work.note_held(900)
    work.note_held(800)
    work.sentence = sentence

    [verdict, _] = work.leftovers(blamed=1, reason="SIGKILL", peak_bytes=700)

    assert (type(sentence), 1, 900) == (type(verdict), verdict.item, verdict.peak_bytes)


def test_of_items_that_were_to_be_stopped_only_the_one_that_ran_has_held_anything(work):
    work.stop(StopHolder(1, 1, 3))

    leftovers = work.leftovers(blamed=1, reason="SIGKILL", peak_bytes=700)

    assert [Stopped(1, 2, "", 700), Stopped(2, 3, "", 0), Released(0, 4)] == leftovers


@pytest.fixture
def cell():
    """The cell of a slot that runs the chunk."""
    with Cell.make_file() as file:
        cell = Cell(file.fileno())
    cell.begin(1, 0)
    yield cell
    cell.close()


def test_an_item_is_seen_to_run_from_the_first_look_on(work):
    assert [0.0, 2.0, 0.0, 1.5] == [work.runs_for(*look) for look in [(0, 1.0), (0, 3.0), (1, 4.0), (1, 5.5)]]


def test_those_behind_a_long_item_are_taken_back(work, cell):
    # When the first item takes long
    assert [Released(1, 4)] == work.take_back(cell, 0)

    # Then the slot will not run the others, and they are taken back only once
    assert [False, True, True, True] == [cell.must_stop(1, item) for item in range(4)]
    assert [] == work.take_back(cell, 0)


def test_what_the_slot_has_begun_meanwhile_stays_its_own(work, cell):
    cell.numbers[ITEM] = 2  # it has gone on before it could see anything

    assert [Released(3, 4)] == work.take_back(cell, 0)


def test_what_was_taken_back_is_not_the_slots_any_more(work, cell):
    cell.numbers[ITEM] = 1
    work.take_back(cell, 1)
    done = [Succeeded(0, 1, b"value", 1.0)]

    assert done == work.take_report([*done, Stopped(2, 3), Stopped(3, 4)])
    assert [Killed(1, "SIGSEGV"), Released(1, 2)] == work.leftovers(blamed=1, reason="SIGSEGV")


def test_room_for_stops_is_made_without_letting_go_of_what_was_taken_back(work, cell):
    work.take_back(cell, 0)
    for _ in range(MAX_STOPS):
        work.stop(StopHolder(1, 0, 1))
    work.show_stops(cell)

    work.reported_to = 1
    work.make_room_for_stops(cell)

    assert [False, True, True, True] == [cell.must_stop(1, item) for item in range(4)]
