"""Items that raise, or kill their process: the others finish, and each error is told truthfully."""

import os
import signal
import threading
import traceback

import pytest

import nbqueue


def reciprocal_of(bad):
    """A function that fails on the items *bad*."""

    def reciprocal(x):
        if x in bad:
            raise ZeroDivisionError(f"no reciprocal of {x}")
        return 1 / (x + 1)

    return reciprocal


def test_the_other_items_finish_and_errors_names_those_that_failed(app):
    # Given a map in which two items raise
    results = app.map(reciprocal_of({3, 70}), range(100))

    # When all have ended
    results.exception(10)

    # Then the others are done, and each failure has its index, its item and its exception
    assert (98, 2, 0) == (results.counts.done, results.counts.failed, results.counts.revoked)
    assert [(3, "3", ZeroDivisionError), (70, "70", ZeroDivisionError)] == [
        (index, item_repr, type(error)) for index, item_repr, error in results.errors()
    ]
    assert "FAILURE" == results.state


def test_get_raises_the_error_of_the_first_failed_item_with_the_remote_traceback(app):
    # Given a map that has ended, with two failures
    results = app.map(reciprocal_of({3, 70}), range(100))
    results.exception(10)

    # When its results are wanted
    with pytest.raises(ZeroDivisionError, match="no reciprocal of 3") as caught:
        results.get(10)

    # Then the first failure is raised, and says where it happened and that there are more
    text = "".join(traceback.format_exception(caught.value))
    assert "in reciprocal" in text
    assert "test_failing_items.py" in text
    assert "item 3 of 'reciprocal' failed on worker" in text
    assert "1 more of 100 failed, see .errors()" in text


def test_get_of_one_task_raises_its_error_or_returns_it(app):
    handle = app.submit(reciprocal_of({0}), 0)

    with pytest.raises(ZeroDivisionError, match="no reciprocal of 0"):
        handle.get(10)

    assert ZeroDivisionError is type(handle.get(propagate=False))
    assert "in reciprocal" in handle.traceback
    assert (True, True, False, "FAILURE") == (handle.ready(), handle.failed(), handle.successful(), handle.state)


def test_raising_the_same_error_twice_does_not_pile_up_notes(app):
    handle = app.submit(reciprocal_of({0}), 0)

    notes = [len(handle.exception(10).__notes__) for _ in range(3)]

    assert [notes[0]] * 3 == notes


@pytest.mark.parametrize("chunksize", ["auto", 1, 7])
def test_on_error_return_puts_errors_in_their_places(app, chunksize):
    results = app.map(reciprocal_of({1}), range(20), on_error="return", chunksize=chunksize).get(10)

    assert (20, ZeroDivisionError) == (len(results), type(results[1]))
    assert [1 / (x + 1) for x in range(20) if x != 1] == [results[x] for x in range(20) if x != 1]


def test_on_error_skip_leaves_them_out(app):
    results = app.map(reciprocal_of({1}), range(4), on_error="skip")

    assert [1, 1 / 3, 1 / 4] == results.get(10) == list(results)


def test_propagate_false_puts_errors_into_the_list(app):
    results = app.map(reciprocal_of({1}), range(3)).get(10, propagate=False)

    assert [1, ZeroDivisionError, 1 / 3] == [results[0], type(results[1]), results[2]]


def test_iterating_and_indexing_raise_only_at_the_failed_item(app):
    results = app.map(reciprocal_of({1}), range(3), chunksize=1)

    iterator = iter(results)
    assert 1 == next(iterator)
    with pytest.raises(ZeroDivisionError):
        next(iterator)
    with pytest.raises(ZeroDivisionError):
        results[1]
    assert 1 / 3 == results[-1]


def test_an_exception_class_defined_in_main_arrives_as_itself(hub):
    output = hub.run_script("""
        import nbqueue, traceback

        class BadInput(ValueError):
            def __init__(self, value, limit):
                super().__init__(f"{value} > {limit}")
                self.value, self.limit = value, limit
            def __reduce__(self):
                return BadInput, (self.value, self.limit)

        def check(x):
            raise BadInput(x, 7)

        try:
            nbqueue.submit(check, 9).get(10)
        except BadInput as error:
            frames = traceback.extract_tb(error.__traceback__)
            print(error.value, error.limit, "check" in [frame.name for frame in frames])
    """)

    assert "9 7 True\n" == output


def test_an_error_that_cannot_be_rebuilt_arrives_as_a_remote_error(app):
    # Given an exception that holds something of its process
    def fail():
        class Stubborn(Exception):
            def __init__(self, first, second):
                super().__init__(f"{first} and {second}")
                self.lock = threading.Lock()

        raise Stubborn("this", "that")

    # When the task has failed with it
    with pytest.raises(nbqueue.RemoteError, match="this and that") as caught:
        app.submit(fail).get(10)

    # Then type, message and traceback are still told
    assert caught.value.type_name.endswith("Stubborn")
    assert "this and that" == caught.value.message
    assert "in fail" in caught.value.remote_traceback


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_that_are_no_errors_do_not_end_who_asks_for_them(app, kind):
    def leave(x):
        raise kind(x)

    outcomes = app.map(leave, [1, 2], on_error="return").get(10)

    assert [nbqueue.RemoteError, nbqueue.RemoteError] == [type(outcome) for outcome in outcomes]
    assert [f"{kind.__name__}: 1", f"{kind.__name__}: 2"] == [str(outcome) for outcome in outcomes]


def test_a_result_that_cannot_be_pickled_fails_its_item_only(app):
    def maybe_lock(x):
        import threading

        return threading.Lock() if x == 2 else x

    results = app.map(maybe_lock, range(5), on_error="return").get(10)

    assert [0, 1, 3, 4] == [value for value in results if isinstance(value, int)]
    assert nbqueue.NotSerializable is type(results[2])


def test_an_item_whose_repr_raises_is_still_reported(app):
    class Shy:
        def __repr__(self):
            raise RuntimeError("not telling")

    def fail(x):
        raise ValueError("bad")

    results = app.map(fail, [Shy()], on_error="return")
    results.get(10)

    [error] = results.errors()
    assert "Shy" in error.item_repr


@pytest.mark.parametrize(
    ("die", "words"),
    [
        (lambda: os._exit(3), "status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
    ],
    ids=["exit", "segfault", "kill"],
)
def test_an_item_that_kills_its_process_is_lost_and_the_others_are_fine(app, hub, wait_until, die, words):
    # Given a map one item of which always kills its process
    def work(x):
        if x == 5:
            die()
        return x

    results = app.options(max_lost=0).map(work, range(50), on_error="return")

    # When all have ended
    values = results.get(15)

    # Then that one is lost, for a reason that says how, the others are done
    assert [x for x in range(50) if x != 5] == [value for value in values if isinstance(value, int)]
    assert nbqueue.WorkerLost is type(values[5])
    assert words in str(values[5])
    assert "item 5" in str(values[5])

    # And all slots serve again
    wait_until(lambda: 2 == len(hub.slots()), "two slots")
    assert list(range(50)) == app.map(abs, range(50)).get(10)


def test_how_much_memory_an_item_held_that_killed_its_process_is_told(app):
    def hold_and_die():
        memory = bytearray(200 * 2**20)
        memory[::4096] = b"x" * len(range(0, len(memory), 4096))
        os.kill(os.getpid(), signal.SIGKILL)

    task = app.options(max_lost=0).submit(hold_and_die)

    assert isinstance(task.exception(15), nbqueue.WorkerLost)
    assert 200 * 2**20 < task.info["peak_bytes"] < 400 * 2**20


@pytest.mark.timeout(40)
def test_an_item_that_kills_its_process_once_is_run_again(app, tmp_path):
    # Given an item that kills its process the first time it runs
    marker = tmp_path / "ran"

    def die_once(x):
        import nbqueue

        if x == 1 and not marker.exists():
            marker.touch()
            os._exit(1)
        return x, nbqueue.current_task().attempt

    # When it is mapped, then it comes back after its backoff, as the second attempt
    results = app.map(die_once, range(3), chunksize=1)
    assert [(0, 1), (1, 2), (2, 1)] == results.get(20)
    assert 2 == results.info["attempts"]


def test_a_function_that_cannot_be_loaded_fails_its_items_only(app):
    # Given a function whose unpickling raises on the worker
    class Unloadable:
        def __call__(self, x):
            return x

        def __reduce__(self):
            return eval, ("1/0",)

    # When it is mapped
    outcomes = app.map(Unloadable(), range(3), on_error="return").get(10)

    # Then each item has failed with that error, and the slot goes on
    assert [ZeroDivisionError] * 3 == [type(outcome) for outcome in outcomes]
    assert 1 == app.submit(abs, -1).get(10)


def test_printing_in_a_task_harms_nobody(app):
    def chatty(x):
        print("x" * 10_000)  # noqa: T201 -- what is tested
        return x

    assert list(range(200)) == app.map(chatty, range(200)).get(10)
