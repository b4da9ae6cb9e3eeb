"""Who reads the port: the I/O thread, or who waits."""

import os
import signal
import threading

import pytest

from nbqueue.client.reading import Bell, Reading


class Wire:
    """A port of which only the descriptor matters, and its reader."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.heard = []  # (what, in which thread)

    def fileno(self):
        return self.reader

    def say(self, byte):
        os.write(self.writer, byte)

    def take_in(self):
        try:
            data = os.read(self.reader, 1)
        except BlockingIOError:
            return
        self.heard.append((data, threading.current_thread().name))

    def has_heard(self, byte):
        return byte in [data for data, _ in self.heard]


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    os.close(wire.reader)
    os.close(wire.writer)


@pytest.fixture
def reading(wire):
    """Turns at the wire, with an I/O thread that goes on looking."""
    reading = Reading(wire, wire.take_in)
    is_over = threading.Event()

    def look():
        while not is_over.is_set():
            reading.bell.hush()
            reading.look(10.0)
        reading.end()

    thread = threading.Thread(target=look, name="io")
    thread.start()
    yield reading
    is_over.set()
    reading.bell.ring()
    thread.join()


def later(do):
    """Do it in a moment, in another thread."""
    timer = threading.Timer(0.05, do)
    timer.start()
    return timer


def test_who_waits_reads(wire, reading):
    later(lambda: wire.say(b"a"))

    assert reading.wait(lambda: wire.has_heard(b"a"), 10.0)
    assert [(b"a", "MainThread")] == wire.heard


def test_what_is_there_already_is_not_waited_for(reading):
    assert reading.wait(lambda: True, 0.0)


def test_a_wait_in_vain_ends_in_time_and_the_io_thread_reads_again(wire, reading):
    # Given a wait that nothing has ended
    assert not reading.wait(lambda: False, 0.01)

    # When something arrives
    wire.say(b"a")
    later(lambda: wire.say(b"b"))
    reading.wait(lambda: wire.has_heard(b"b"), 10.0)

    # Then it was not lost
    assert [b"a", b"b"] == [data for data, _ in wire.heard]


def test_while_nobody_waits_the_io_thread_reads(wire, reading):
    heard = threading.Event()
    take_in = wire.take_in

    def note():
        take_in()
        if wire.heard:
            heard.set()

    reading._take_in = note
    wire.say(b"a")

    assert heard.wait(10.0)
    assert [(b"a", "io")] == wire.heard


def test_two_may_wait_for_different_news(wire, reading):
    # Given two threads that wait
    reached = []
    threads = [
        threading.Thread(target=lambda: reached.append(reading.wait(lambda: wire.has_heard(byte), 10.0)))  # noqa: B023
        for byte in (b"a", b"b")
        for byte in [byte]
    ]
    for thread in threads:
        thread.start()

    # When news for both arrive, then both have them
    wire.say(b"b")
    wire.say(b"a")
    for thread in threads:
        thread.join(10.0)
    assert [True, True] == reached


def test_what_happens_elsewhere_is_told(reading):
    told = []
    later(lambda: (told.append(True), reading.tell()))

    assert reading.wait(lambda: bool(told), 10.0)


def test_the_end_sends_away_who_waits(wire):
    reading = Reading(wire, wire.take_in)
    later(reading.end)

    assert not reading.wait(lambda: False, None)


def test_an_interrupt_ends_a_wait_and_nothing_else(wire, reading):
    # Given a wait that is interrupted
    later(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        reading.wait(lambda: False, 10.0)

    # When somebody waits again, then that works
    later(lambda: wire.say(b"a"))
    assert reading.wait(lambda: wire.has_heard(b"a"), 10.0)


def test_a_bell_rings_once_for_all_who_ring_it():
    bell = Bell()

    bell.ring()
    bell.ring()

    assert bell.hush()
    assert not bell.hush()
    bell.close()
    bell.ring()  # nobody is there
