"""What tasks print, on real processes: all of it, in order, on the handle, live, bounded."""

import logging
import os
import subprocess
import sys
import time
import warnings

import pytest

from nbqueue.core.output import ITEM_TEXT_BYTES


def words(stream_text):
    return stream_text.split("\n")


def test_everything_that_a_task_writes_is_on_its_handle_in_order(app):
    def task():
        print("print")
        logging.warning("logging")
        os.write(1, b"os.write\n")
        warnings.warn("warned", stacklevel=1)
        subprocess.run(["echo", "echo"], check=True)
        print("after echo")
        subprocess.run("echo to stderr >&2", shell=True, check=True)
        sys.stderr.write("end of stderr\n")
        print("no newline", end="")

    handle = app.submit(task)
    handle.get()

    lines = list(handle.logs())
    interesting = [line for line in lines if "warnings.warn" not in line]
    assert [
        "print",
        "WARNING:root:logging",
        "os.write",
        next(line for line in lines if "UserWarning: warned" in line),
        "echo",
        "after echo",
        "to stderr",
        "end of stderr",
        "no newline",
    ] == interesting
    assert "print\nos.write\necho\nafter echo\nno newline" == handle.stdout
    assert handle.stderr.endswith("to stderr\nend of stderr\n")


def test_c_code_is_heard_as_well(app):
    def task():
        import ctypes

        libc = ctypes.CDLL(None)
        print("before")
        libc.puts(b"puts")
        libc.printf(b"printf without newline")

    handle = app.submit(task)
    handle.get()

    assert "before\nputs\nprintf without newline" == handle.stdout


def test_the_children_of_a_task_are_heard(app):
    def say(number):
        print("pool", number)

    def task():
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(len, [[], []])
            pool.apply(print, ("from a child",))
        print("done")

    handle = app.submit(task)
    handle.get()

    assert ["from a child", "done", ""] == words(handle.stdout)


def test_each_item_of_a_map_has_its_own_output(app):
    def task(number):
        print("quick", number)
        if number % 10 == 0:
            os.write(2, b"slow %d\n" % number)
            time.sleep(0.002)

    results = app.map(task, range(100))
    results.get()

    for number in range(100):
        slow = f"slow {number}\n" if number % 10 == 0 else ""
        assert (f"quick {number}\n", slow) == results.output(number)
    assert ["quick 7"] == list(results.logs(7))
    assert {f"quick {number}" for number in range(100)} == set(words(results.stdout)) - {""}


def test_a_line_without_its_end_belongs_to_the_item_that_wrote_it(app):
    results = app.map(lambda number: print(number, end=""), range(50), chunksize=25)
    results.get()

    assert [str(number) for number in range(50)] == [results.output(number).stdout for number in range(50)]


def test_output_comes_while_the_task_runs(app):
    def task():
        for number in range(3):
            print(number)
            time.sleep(0.5)

    handle = app.submit(task)
    arrivals = [(line, handle.ready()) for line in handle.logs(follow=True)]

    assert [("0", False), ("1", False), ("2", False)] == arrivals


def test_following_ends_with_the_task(app):
    def task():
        print("one")
        raise ValueError

    handle = app.submit(task)

    assert ["one"] == list(handle.logs(follow=True))
    assert handle.failed()


@pytest.mark.timeout(120)
def test_100_megabytes_of_prints_are_bounded_and_both_ends_are_kept(app):
    def task():
        for number in range(100_000):
            print(f"{number:>1000}")
        return "done"

    handle = app.submit(task)

    assert "done" == handle.get(timeout=100)
    text = handle.stdout
    lines = text.splitlines()
    assert len(text) <= 2 * ITEM_TEXT_BYTES + 100
    head = [int(line) for line in lines[:100]]
    tail = [int(line) for line in lines[-100:]]
    assert list(range(100)) == head
    assert list(range(99_900, 100_000)) == tail
    gaps = [line for line in lines if "left out" in line]
    left_out = sum(int(gap.split()[1].replace(",", "")) for gap in gaps)
    assert 100_000 * 1001 == left_out + sum(len(line) + 1 for line in lines if line not in gaps)


def test_the_last_words_of_a_task_that_kills_its_process_are_kept(app):
    def task():
        print("about to die")
        os.write(2, b"last words\n")
        os._exit(3)

    handle = app.options(max_lost=0).submit(task)
    assert handle.exception() is not None

    assert "about to die\n" == handle.stdout
    assert "last words\n" == handle.stderr


def test_a_task_may_break_its_streams_and_the_next_one_has_them_again(app):
    def rude():
        print("before")
        sys.stdout = None
        os.close(0)
        os.close(1)
        os.close(2)
        return os.getpid()

    def polite():
        os.write(1, b"descriptor\n")
        print("stream")
        os.write(2, b"errors\n")
        return os.getpid()

    for _ in range(4):  # on both slots
        rude_handle = app.submit(rude)
        rude_handle.get()
        assert "before\n" == rude_handle.stdout
    handles = [app.submit(polite) for _ in range(4)]
    for handle in handles:
        handle.get()
        assert ("descriptor\nstream\n", "errors\n") == (handle.stdout, handle.stderr)


def test_a_task_may_redirect_its_own_output(app):
    def task():
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()) as taken:
            print("inside")
        print("outside")
        return taken.getvalue()

    handle = app.submit(task)

    assert "inside\n" == handle.get()
    assert "outside\n" == handle.stdout


def test_what_is_no_text_is_readable(app):
    def task():
        sys.stdout.buffer.write(b"\xff\xfe\n")
        print("\udcff ok")

    handle = app.submit(task)
    handle.get()

    assert ["��", "\\udcff ok", ""] == words(handle.stdout)


def test_a_task_logger_speaks_from_info_on(app):
    import nbqueue

    def task():
        logger = nbqueue.get_task_logger("mine")
        logger.debug("not this")
        logger.info("but this")

    handle = app.submit(task)
    handle.get()

    [line] = list(handle.logs())
    assert line.endswith("INFO/nbqueue.task.mine] but this")
    assert "" == handle.stdout


def test_a_silent_task_has_no_output(app):
    handle = app.submit(abs, -1)

    assert 1 == handle.get()
    assert ("", "", []) == (handle.stdout, handle.stderr, list(handle.logs()))


def test_a_script_prints_what_its_task_prints_before_it_goes_on(hub):
    output = hub.run_script(
        """
        import nbqueue, sys

        def task():
            print("from the task")
            return "result"

        print("before")
        print(nbqueue.submit(task).get())
        """
    )

    assert "before\nfrom the task\nresult\n" == output


def test_a_terminal_that_does_not_read_holds_up_no_result(hub):
    # Given a script whose output nobody reads, and a task that prints more than a pipe holds
    script = hub.write_script(
        """
        import nbqueue, sys

        def task():
            print("x" * 200_000)
            return "the result"

        print(nbqueue.submit(task).get(15), file=sys.stderr, flush=True)
        """
    )
    process = hub.start(sys.executable, str(script))

    # Then the result comes all the same
    assert "the result\n" == process.stderr.readline()

    # And nothing of the output is lost once it is read
    assert "x" * 200_000 + "\n" == process.stdout.read()
    assert 0 == process.wait(10)
