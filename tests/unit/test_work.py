"""What becomes of the items of a delivery whose slot has died."""

import pytest

from nbqueue.core.exchange import Delivery
from nbqueue.core.run import StopHolder
from nbqueue.core.task import Failed, Killed, Released, Stopped, Succeeded
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
