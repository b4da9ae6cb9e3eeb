"""Running again: by the broker, by the task itself, and by the user."""

import gc
import os
import time
import weakref

import pytest

import nbqueue


def counted(folder, name="run"):
    """Note one more run; how many there were before."""
    number = len(list(folder.glob(f"{name}-*")))
    (folder / f"{name}-{number}").touch()
    return number


# -- asked for by the task ---------------------------------------------------------------------------------------------


def test_a_task_can_ask_to_be_run_again(app, tmp_path):
    # Given a task that succeeds the third time
    def work():
        if counted(tmp_path) < 2:
            nbqueue.current_task().retry(countdown=0.05, max_retries=5)
        return nbqueue.current_task().retries

    task = app.submit(work)

    assert 2 == task.get(10)
    assert 3 == task.info["attempts"]


def test_a_task_that_asks_too_often_fails_with_its_own_error(app, tmp_path):
    def work():
        counted(tmp_path)
        nbqueue.current_task().retry(exc=ConnectionError("still down"), countdown=0)

    task = app.options(max_retries=2).submit(work)

    with pytest.raises(ConnectionError, match="still down"):
        task.get(10)
    assert 3 == len(list(tmp_path.iterdir()))


def test_a_task_that_asks_although_it_has_no_retries_is_told_so(app):
    task = app.submit(lambda: nbqueue.current_task().retry())

    with pytest.raises(nbqueue.NBQueueError, match="no retry is left: max_retries says how often"):
        task.get(10)


def test_the_countdown_of_a_task_is_kept(app, tmp_path):
    def work():
        if counted(tmp_path) == 0:
            nbqueue.current_task().retry(countdown=0.8, max_retries=1)

    began = time.monotonic()
    app.submit(work).get(10)

    assert time.monotonic() - began >= 0.8


@pytest.mark.parametrize("nonsense", [{"countdown": -1}, {"countdown": float("nan")}, {"max_retries": -1}])
def test_a_retry_that_makes_no_sense_is_refused(app, nonsense):
    task = app.submit(lambda: nbqueue.current_task().retry(**nonsense))

    with pytest.raises(ValueError, match="must be"):
        task.get(10)


# -- in maps -----------------------------------------------------------------------------------------------------------


def test_items_of_a_map_are_retried_each_for_itself(app, tmp_path):
    # Given a map in which each third item fails once
    def work(item):
        if item % 3 == 0 and counted(tmp_path, item) == 0:
            raise OSError("once")
        return item

    results = app.map(work, range(30), max_retries=1, autoretry_for=(OSError,), chunksize=10)

    assert list(range(30)) == results.get(10)
    assert 20 == len(list(tmp_path.iterdir()))  # ten items, twice


# -- asked for by the user ---------------------------------------------------------------------------------------------


def test_a_task_that_failed_can_be_run_again(app, tmp_path):
    # Given a task that fails the first time
    def work(first, *, second):
        if counted(tmp_path) == 0:
            raise ValueError("bad")
        return first, second

    task = app.submit(work, 1, second=2)
    with pytest.raises(ValueError, match="bad"):
        task.get(10)

    # When it is run again, then that is a new task with the same arguments, and the old one stays as it is
    again = task.retry()
    assert (1, 2) == again.get(10)
    assert again.id != task.id
    assert "FAILURE" == task.state


def test_options_can_be_changed_for_the_second_time(app):
    task = app.options(time_limit=0.2).submit(time.sleep, 0.6)
    with pytest.raises(nbqueue.TimeLimitExceeded):
        task.get(10)

    assert task.retry(time_limit=30).get(10) is None


def test_only_the_items_that_failed_are_run_again(app, tmp_path):
    # Given a map in which some items fail the first two times
    def work(item):
        if item in (3, 4, 5, 40, 99) and counted(tmp_path, item) < 2:
            raise ValueError(f"bad {item}")
        counted(tmp_path, f"good {item}")
        return item * 10

    first = app.map(work, range(100))
    assert 5 == len(first.errors() if nbqueue.wait([first], 10) else [])

    # When it is run again, then those fail again, under their numbers, and the rest is kept
    assert first.retried is None
    second = first.retry()
    assert first.retried is second
    nbqueue.wait([second], 10)
    assert [3, 4, 5, 40, 99] == [error.index for error in second.errors()]
    assert (100, 95, 5) == (second.counts.total, second.counts.done, second.counts.failed)
    with pytest.raises(ValueError, match="bad 3"):
        second.get(10)

    # And once more, then all results are there, and no item that had succeeded has run again
    third = second.retry(failed=True)
    assert [item * 10 for item in range(100)] == third.get(10)
    assert (100, 970, [30, 40]) == (len(third), third[97], third[3:5])
    assert sorted(item * 10 for item in range(100)) == sorted(third)
    assert {1} == {len(list(tmp_path.glob(f"good {item}-*"))) for item in range(100)}
    assert "SUCCESS" == third.state
    assert "FAILURE" == first.state


def test_a_map_that_was_revoked_can_be_resumed(app, tmp_path, wait_until):
    # Given a map that was revoked when it had done some of its items
    first = app.map(lambda item: time.sleep(0.02) or item, range(60), chunksize=1)
    wait_until(lambda: first.counts.done > 5, "some items")
    first.revoke(wait=True)
    done = first.counts.done

    # When it is resumed, then it runs the rest
    second = first.retry()
    assert done <= second.counts.done
    assert list(range(60)) == second.get(15)


def test_an_item_of_a_resumed_map_is_revoked_by_its_own_number(app, tmp_path, wait_until):
    # Given a map whose items 2 and 5 fail the first time and do not end the second time
    def work(item):
        if item in (2, 5):
            if counted(tmp_path, item) == 0:
                raise ValueError(item)
            (tmp_path / f"second {item}").touch()
            time.sleep(1e6)
        return item

    first = app.map(work, range(8), chunksize=1)
    nbqueue.wait([first], 10)
    second = first.retry()
    wait_until(lambda: (tmp_path / "second 2").exists() and (tmp_path / "second 5").exists(), "both")

    # When item 5 is revoked, then it is that one
    assert 1 == second.revoke(items=5, wait=True).revoked
    values = second.revoke(wait=True) and second.get(5, propagate=False)
    assert [0, 1, 3, 4, 6, 7] == [value for value in values if isinstance(value, int)]


@pytest.mark.timeout(40)
def test_what_a_dead_hub_has_taken_along_can_be_run_again(own_hub):
    # Given a map whose hub was killed
    app = own_hub.app()
    results = app.map(lambda item: time.sleep(0.3) or item, range(6), chunksize=1)
    results[0]
    own_hub.hub().kill()
    with pytest.raises(nbqueue.BrokerUnavailable):
        results.get(10)

    # Then what it had not told runs on the next one
    assert list(range(6)) == results.retry().get(20)


def test_what_has_not_ended_or_has_succeeded_cannot_be_run_again(app):
    task = app.submit(time.sleep, 0.3)
    with pytest.raises(ValueError, match="has not ended"):
        task.retry()

    task.get(10)
    with pytest.raises(ValueError, match="nothing to run again"):
        task.retry()


def test_a_map_whose_input_was_read_lazily_cannot_be_run_again(app):
    results = app.map(lambda item: 1 / item, range(3), buffersize=2, on_error="return")
    assert 3 == len(results.get(10))

    with pytest.raises(ValueError, match="reads its input lazily keeps none"):
        results.retry()


def test_arguments_are_let_go_when_they_have_succeeded_and_handles_when_nobody_holds_them(app):
    # Given a map that has succeeded
    results = app.map(len, [os.urandom(1000) for _ in range(1000)])
    results.get(10)

    # Then its arguments are not kept, and the handle dies with its last reference
    kept = results.run.on_success.__self__
    assert {} == kept._blocks
    gone = weakref.ref(results)
    gc.disable()
    try:
        del results
        deadline = time.monotonic() + 5
        while gone() is not None and time.monotonic() < deadline:  # the card lets go of it soon
            time.sleep(0.01)
        assert gone() is None
    finally:
        gc.enable()
