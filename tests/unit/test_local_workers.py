"""Which of a hub's local workers live in its own process, and what the hub hears of their ends."""

import math
import os

import pytest

from nbqueue.brokers.workers import WorkerExit
from nbqueue.cli.local_workers import HubWorkers
from nbqueue.core.routing import DEFAULT_OFFER, Offer

OTHER_OFFER = Offer(queues=("night",))


class Launcher:
    """Starts nothing, and notes what it should have."""

    def __init__(self):
        self.started = []
        self.stopped = []
        self.ended = []

    @property
    def slots(self):
        return sum(slots for _, slots, *_ in self.started)

    def slots_offering(self, offer):
        return sum(slots for _, slots, _, mine in self.started if mine == offer)

    def owns(self, pid):
        return False

    def start(self, key, slots, python, offer):
        self.started.append((key, slots, python, offer))

    def exits(self):
        ended, self.ended = self.ended, []
        return ended

    def stop(self, key=None):
        self.stopped.append(key)


class Resident:
    """One that does nothing."""

    def __init__(self, slots):
        self.slots = slots
        self.look_at = 7.0
        self.reason = ""
        self.looks = 0

    def look(self):
        self.looks += 1

    def close(self, reason):
        self.reason = reason


@pytest.fixture
def launcher():
    return Launcher()


@pytest.fixture
def taken_in():
    return []


@pytest.fixture
def workers(launcher, taken_in):
    def take_in(slots):
        taken_in.append(Resident(slots))
        return taken_in[-1]

    return HubWorkers(launcher, take_in)


def test_the_first_of_the_usual_kind_lives_in_the_hub(workers, launcher, taken_in):
    assert math.inf == workers.look_at

    workers.start("hub", 2, None, DEFAULT_OFFER)
    workers.look()

    assert [2] == [resident.slots for resident in taken_in]
    assert [] == launcher.started
    assert (2, 2, 0) == (workers.slots, workers.slots_offering(DEFAULT_OFFER), workers.slots_offering(OTHER_OFFER))
    assert workers.owns(os.getpid())
    assert (7.0, 1) == (workers.look_at, taken_in[0].looks)


@pytest.mark.parametrize(("python", "offer"), [("/usr/bin/python3", DEFAULT_OFFER), (None, OTHER_OFFER)])
def test_others_have_processes_of_their_own(workers, launcher, taken_in, python, offer):
    workers.start("a", 1, python, offer)

    assert [("a", 1, python, offer)] == launcher.started
    assert [] == taken_in


def test_what_comes_on_top_has_a_process_of_its_own(workers, launcher, taken_in):
    workers.start("hub", 2, None, DEFAULT_OFFER)
    workers.start("more", 1, None, DEFAULT_OFFER)

    assert ["more"] == [key for key, *_ in launcher.started]
    assert 3 == workers.slots


def test_a_hub_of_another_interpreter_than_its_workers_takes_nobody_in(launcher):
    HubWorkers(launcher, None).start("hub", 2, None, DEFAULT_OFFER)

    assert ["hub"] == [key for key, *_ in launcher.started]


def test_the_end_of_the_resident_comes_out_once_and_another_may_follow(workers, taken_in):
    # Given a resident that has grown, and has ended by itself
    workers.start("hub", 2, None, DEFAULT_OFFER)
    workers.resized(os.getpid(), 3)
    taken_in[0].reason = "it failed"

    # Then the hub hears of it as of any worker, and may start it anew
    assert [WorkerExit("hub", os.getpid(), 3, "it failed", None, DEFAULT_OFFER)] == workers.exits()
    assert [] == workers.exits()
    assert 0 == workers.slots
    workers.start("hub", 3, None, DEFAULT_OFFER)
    assert [2, 3] == [resident.slots for resident in taken_in]


def test_a_resident_that_cannot_be_made_is_an_end_with_a_reason(launcher):
    def take_in(slots):
        raise OSError(24, "Too many open files")

    workers = HubWorkers(launcher, take_in)
    workers.start("hub", 2, None, DEFAULT_OFFER)

    [end] = workers.exits()
    assert ("hub", 0, 2) == (end.key, end.pid, end.slots)
    assert "Too many open files" in end.reason
    assert [] == workers.exits()


def test_it_is_stopped_with_its_request_or_with_all(workers, launcher, taken_in):
    workers.start("hub", 2, None, DEFAULT_OFFER)

    workers.stop("another")
    assert "" == taken_in[0].reason
    workers.stop("hub")
    assert taken_in[0].reason
    assert [] == workers.exits()  # it was asked to

    workers.start("hub", 2, None, DEFAULT_OFFER)
    workers.stop()
    assert taken_in[1].reason
    assert ["another", "hub", None] == launcher.stopped
