"""A supervisor in somebody else's loop: what goes wrong in it stays in it."""

import random
import selectors
import socket
import time

import pytest

from nbqueue.brokers.memory import MemoryBroker
from nbqueue.core.routing import DEFAULT_OFFER
from nbqueue.worker.limits import NO_WORKER_LIMITS
from nbqueue.worker.resident import Resident, worker_info
from nbqueue.worker.zygote_process import Birth


class Zygote:
    """One that forks nothing."""

    def __init__(self):
        self._ours, self._theirs = socket.socketpair()
        self.is_closed = False

    def fileno(self):
        return self._ours.fileno()

    def fork(self, ends):
        return Birth()

    def close(self):
        self.is_closed = True
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def broker():
    return MemoryBroker(clock=time.monotonic, rng=random.Random(0))


@pytest.fixture
def zygote():
    return Zygote()


@pytest.fixture
def resident(broker, zygote):
    info = worker_info("resident", 1, DEFAULT_OFFER)

    def open_port(on_message):
        resident_hears.append(on_message)
        return broker.open_worker(info)

    resident_hears = []
    with selectors.DefaultSelector() as selector:
        made = Resident(info, zygote, open_port=open_port, selector=selector, limits=NO_WORKER_LIMITS)
        made.hears = resident_hears[0]
        made.host = selector
        yield made
        made.close("the test is over")


def workers(broker):
    return [worker.name for worker in broker.tell(lambda dispatcher, now: dispatcher.inspect(now)).workers]


def test_it_joins_and_says_when_it_must_be_looked_at(broker, resident):
    resident.look()

    assert ["resident"] == workers(broker)
    assert "" == resident.reason
    assert time.monotonic() < resident.look_at <= time.monotonic() + 2.0  # its heartbeat


def test_a_mistake_in_it_ends_it_and_not_its_host(broker, resident, zygote, monkeypatch):
    # Given one whose next turn fails
    monkeypatch.setattr("nbqueue.worker.supervisor.Supervisor.run_once", lambda *_, **__: 1 / 0)

    # When its host gives it a turn, then the host hears nothing of it, and it has left with all it had
    resident.look()
    assert "ZeroDivisionError" in resident.reason
    assert zygote.is_closed
    assert [] == workers(broker)
    assert not resident.host.get_map()

    # And what its host says to it afterwards does no harm
    resident.hears()
    resident.look()


def test_closing_it_twice_is_once(broker, resident):
    resident.close("first")
    resident.close("second")

    assert "first" == resident.reason
    assert [] == workers(broker)
