"""Interrupts that are held back until nothing is half done."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from nbqueue.client.held_back import HeldBack, begins, handed_over


def press():
    """Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


class Work:
    """What was begun."""

    is_revoked = False

    def revoke(self):
        self.is_revoked = True


def test_an_interrupt_is_heard_at_the_end():
    done = []

    def work():
        with HeldBack():
            press()
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()

    assert ["all of it"] == done
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)


def test_an_interrupt_inside_of_another_block_is_heard_at_the_end_of_the_outer_one():
    done = []

    def work():
        with HeldBack():
            with HeldBack():
                press()
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()

    assert ["all of it"] == done


def test_a_wait_may_answer_earlier():
    done = []

    def work():
        with HeldBack() as held:
            held.answer()
            done.append("nothing had come")
            press()
            assert held.has_come
            held.answer()
            done.append("not this")

    with pytest.raises(KeyboardInterrupt):
        work()

    assert ["nothing had come"] == done


def test_a_wait_is_woken():
    woken = []

    def work():
        with HeldBack() as held:
            held.wake_by(lambda: woken.append(True))
            press()
            held.wake_by(None)

    with pytest.raises(KeyboardInterrupt):
        work()

    assert [True] == woken


def test_a_handler_of_the_user_is_called_instead_and_stays():
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    own = signal.getsignal(signal.SIGINT)
    try:
        with HeldBack():
            press()
            assert [] == heard

        assert [signal.SIGINT] == heard
        assert own is signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_is_set_up_meanwhile_stays():
    def handler(number, frame):
        pass

    before = signal.getsignal(signal.SIGINT)
    try:
        with HeldBack():
            signal.signal(signal.SIGINT, handler)

        assert handler is signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with HeldBack():
            press()

        assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_neither_hears_nor_holds_back_anything():
    seen = []

    def look():
        with HeldBack() as held:
            seen.append(held.has_come)
            held.answer()

    def work():
        with HeldBack():
            press()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

    with pytest.raises(KeyboardInterrupt):
        work()

    assert [False] == seen


def test_work_that_was_begun_when_an_interrupt_comes_is_revoked():
    begun = []

    @handed_over
    def begin():
        begun.append(Work())
        begins(begun[0])
        press()
        return begun[0]

    with pytest.raises(KeyboardInterrupt):
        begin()

    assert begun[0].is_revoked


def test_work_of_a_call_within_a_call_is_revoked_until_the_outer_one_has_returned():
    begun = []

    @handed_over
    def begin():
        begun.append(Work())
        begins(begun[0])
        return begun[0]

    @handed_over
    def call():
        work = begin()
        press()
        return work

    with pytest.raises(KeyboardInterrupt):
        call()

    assert begun[0].is_revoked


def test_work_that_was_handed_over_before_goes_on():
    @handed_over
    def begin(is_interrupted):
        work = Work()
        begins(work)
        if is_interrupted:
            press()
        return work

    first = begin(is_interrupted=False)
    with pytest.raises(KeyboardInterrupt):
        begin(is_interrupted=True)

    assert not first.is_revoked


def test_work_of_a_call_that_has_failed_is_not_that_of_the_next_one():
    begun = []

    @handed_over
    def begin(outcome):
        begun.append(Work())
        begins(begun[-1])
        outcome()

    with pytest.raises(ZeroDivisionError):
        begin(lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        begin(press)

    assert [False, True] == [work.is_revoked for work in begun]


def test_a_fork_by_another_thread_hears_interrupts():
    # Given a process whose main thread holds back, and of which another thread makes a fork
    script = """
        import os, signal, threading, warnings
        from nbqueue.client.held_back import HeldBack

        def fork():
            if os.fork() == 0:
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:
                    os._exit(7)
                os._exit(1)

        warnings.simplefilter("ignore")
        with HeldBack():
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        print(os.waitstatus_to_exitcode(os.wait()[1]))
    """

    # When somebody interrupts the fork, then it hears that
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "7\n" == ended.stdout
