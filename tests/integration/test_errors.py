"""Errors of tasks, on real processes: of the true type where possible, with the user's frames."""

import sys
import threading
import traceback

import pytest

import nbqueue


class HTTPError(Exception):
    """Made with arguments of its own, which pickle does not know."""

    def __init__(self, status, *, response):
        super().__init__(f"{status} from {response}")
        self.response = response


def raised_by(handle):
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- which one is what the tests look at
        handle.get(20)
    return caught.value


def shown(error):
    return "".join(traceback.format_exception(error))


def test_a_builtin_error_is_caught_as_such(app):
    def task():
        return int("seven")

    with pytest.raises(ValueError, match="invalid literal") as caught:
        app.submit(task).get()

    assert type(caught.value) is ValueError
    assert 'return int("seven")' in shown(caught.value)


def test_an_error_that_pickle_cannot_remake_is_caught_by_its_class(app):
    def task():
        raise HTTPError(404, response="the server")

    error = raised_by(app.submit(task))

    assert (HTTPError, "404 from the server", "the server") == (type(error), str(error), error.response)
    assert "raise HTTPError(404" in shown(error)


def test_an_error_that_holds_a_lock_says_the_same(app):
    def task():
        error = ValueError("with a lock")
        error.lock = threading.Lock()
        raise error

    error = raised_by(app.submit(task))

    assert isinstance(error, nbqueue.RemoteError)
    assert isinstance(error, ValueError)
    assert "ValueError: with a lock" == str(error)
    assert "raise error" in shown(error)


def test_an_error_whose_str_raises_arrives(app):
    class Speechless(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    def task():
        raise Speechless

    error = raised_by(app.submit(task))

    assert type(error) is Speechless
    assert "raise Speechless" in shown(error)


def test_an_error_whose_class_is_defined_beside_the_task_is_caught_by_it(app):
    class Mine(LookupError):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    def task():
        raise Mine(7)

    with pytest.raises(Mine) as caught:
        app.submit(task).get()

    assert 7 == caught.value.code


def test_what_would_end_a_program_does_not_end_the_one_that_asks(app):
    error = raised_by(app.submit(sys.exit, 3))

    assert isinstance(error, nbqueue.RemoteError)
    assert "SystemExit: 3" == str(error)
    assert 7 == app.submit(abs, -7).get()


def test_causes_contexts_and_notes_are_shown(app):
    def task():
        try:
            {}["missing"]
        except KeyError as error:
            failure = ValueError("bad configuration")
            failure.add_note("see the manual")
            raise failure from error

    error = raised_by(app.submit(task))

    text = shown(error)
    assert isinstance(error.__cause__, KeyError)
    assert '{}["missing"]' in text
    assert "direct cause" in text
    assert "see the manual" in text
    assert text.index("KeyError: 'missing'") < text.index("ValueError: bad configuration")


def test_a_group_comes_back_as_a_group(app):
    def task():
        raise ExceptionGroup("both", [ValueError("one"), TypeError("two")])

    caught = []
    try:
        app.submit(task).get()
    except* ValueError as found:
        caught += found.exceptions
    except* TypeError as found:
        caught += found.exceptions
    assert ["one", "two"] == [str(error) for error in caught]


def test_only_the_call_and_the_users_frames_are_shown(app):
    def inner(number):
        return 1 / number

    def task():
        return inner(0)

    error = raised_by(app.submit(task))

    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert ["raised_by", "get", "task", "inner"] == names
    assert "zygote" not in shown(error)
    assert "slot.py" not in shown(error)


def test_every_way_of_asking_a_map_shows_the_same(app):
    def task(number):
        return 1 / (number - 2)

    results = app.map(task, range(4))
    ways = [results.get, lambda: list(results), lambda: results[2], lambda: [*results]]

    for ask in ways:
        with pytest.raises(ZeroDivisionError) as caught:
            ask()
        assert "return 1 / (number - 2)" in shown(caught.value)
        assert "item 2 of 'task'" in caught.value.__notes__[-1]


def test_an_error_may_be_asked_for_again_and_looks_the_same(app):
    def task():
        raise ValueError("once")

    handle = app.submit(task)
    texts = {shown(raised_by(handle)) for _ in range(3)}

    assert 1 == len(texts)


def test_the_worker_is_named_in_a_note_and_the_text_is_on_the_handle(app):
    def task():
        raise ValueError("x")

    handle = app.submit(task)
    error = raised_by(handle)

    assert error.__notes__[-1].startswith("nbqueue: task 'task' failed on worker ")
    assert handle.traceback.startswith("Traceback (most recent call last):\n")
    assert handle.traceback.endswith("ValueError: x\n")


def test_an_endless_recursion_ends_as_such(app):
    def dive():
        return dive()

    assert isinstance(raised_by(app.submit(dive)), RecursionError)


def test_a_result_that_cannot_be_sent_says_so(app):
    error = raised_by(app.submit(threading.Lock))

    assert isinstance(error, nbqueue.NotSerializable)
    assert "the result of" in str(error)
    assert 7 == app.submit(abs, -7).get()


def test_an_awaited_task_raises_the_same(app):
    import asyncio

    async def wait():
        return await app.submit(int, "seven")

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(wait())


def test_a_script_shows_the_line_of_the_task(hub):
    script = hub.write_script(
        """
        import nbqueue

        def fail(x):
            y = x + 1
            return y / 0

        nbqueue.submit(fail, 3).get()
        """
    )
    ended = hub.run(sys.executable, str(script))

    assert 1 == ended.returncode
    assert f'File "{script}", line 6, in fail\n    return y / 0\n           ~~^~~\nZeroDivisionError' in ended.stderr
    assert "slot.py" not in ended.stderr
