"""What a handle can be asked, and how several of them are waited for."""

import concurrent.futures
import os
import threading
import time

import pytest

import nbqueue


@pytest.fixture
def gate(tmp_path):
    """A task that waits until it is let go: ``task, open``."""
    marker = tmp_path / "open"

    def wait_at_gate(value=None):
        while not marker.exists():
            time.sleep(0.005)
        return value

    yield wait_at_gate, marker.touch
    marker.touch()


# -- results as a sequence ---------------------------------------------------------------------------------------------


def test_a_map_is_a_sequence(app):
    squares = app.map(lambda x: x * x, range(1000))

    assert 1000 == len(squares)
    assert (0, 81, 998_001, 998_001) == (squares[0], squares[9], squares[999], squares[-1])
    assert [x * x for x in range(1000)][10:500:7] == squares[10:500:7]
    assert [998_001, 996_004] == squares[:-3:-1]
    assert [] == squares[5:5]
    assert list(squares) == list(squares) == squares.get(10)
    for index in (1000, -1001):
        with pytest.raises(IndexError):
            squares[index]


def test_a_result_can_be_had_before_the_others_are_there(app, gate):
    wait_at_gate, open_gate = gate
    results = app.map(lambda x: wait_at_gate() if x == 1 else x, [0, 1], chunksize=1)

    assert 0 == results[0]
    assert not results.ready()
    open_gate()
    assert [0, None] == results.get(10)


def test_each_get_gives_objects_of_its_own(app):
    handle = app.submit(list, "abc")
    handle.get(10).append("d")

    assert ["a", "b", "c"] == handle.get(10)


def test_counts_and_info_tell_what_it_took(app):
    results = app.map(lambda x: time.sleep(0.02) or os.getpid(), range(10), label="naps")
    pids = set(results.get(10))

    info = results.info
    assert ("naps", "SUCCESS", 1) == (info["label"], info["state"], info["attempts"])
    assert 0.2 <= info["wall_s"] < 2.0
    assert info["cpu_s"] < info["wall_s"]
    assert info["worker"]
    assert (10, 10, 0, 0, 0) == (
        results.counts.total,
        results.counts.done,
        results.counts.failed,
        results.counts.running,
        results.counts.waiting,
    )
    assert os.getpid() not in pids


def test_the_memory_of_a_task_is_its_own_and_not_that_of_the_one_before_it(own_hub):
    # Given a slot in which a task has held a lot, and freed it
    app = own_hub.app(workers=1)
    large = app.submit(lambda: len(bytearray(200 * 2**20)))
    assert 200 * 2**20 == large.get(20)

    # When a small one follows, and one that fails while it holds a lot
    small = app.submit(lambda: "small")
    assert "small" == small.get(20)
    failed = app.submit(lambda: bytearray(200 * 2**20).index(b"x"))
    assert isinstance(failed.exception(20), ValueError)

    # Then each has a peak of its own
    assert large.info["peak_bytes"] > 200 * 2**20
    assert 0 < small.info["peak_bytes"] < 150 * 2**20
    assert failed.info["peak_bytes"] > 200 * 2**20


def test_keywords_of_the_function_are_free(app):
    def function(timeout, *, label, chunksize=0):
        return timeout, label, chunksize

    assert (1, 2, 3) == app.submit(function, timeout=1, label=2, chunksize=3).get(10)


# -- timeouts ----------------------------------------------------------------------------------------------------------


def test_a_timeout_is_the_builtin_one_and_the_task_goes_on(app, gate):
    wait_at_gate, open_gate = gate
    task = app.submit(wait_at_gate, "done")
    results = app.map(wait_at_gate, ["done"], timeout=0.05)

    for wait in (
        lambda: task.get(0.05),
        lambda: task.get(0),
        lambda: results.get(0.05),
        lambda: list(results),
        lambda: results[0],
    ):
        with pytest.raises(TimeoutError, match="goes on"):
            wait()
    assert not task.ready()

    open_gate()
    assert ("done", ["done"]) == (task.get(10), results.get(10))


def test_state_tells_where_a_task_is(app, gate, wait_until):
    wait_at_gate, open_gate = gate
    tasks = [app.submit(wait_at_gate) for _ in range(3)]

    wait_until(
        lambda: ["PENDING", "STARTED", "STARTED"] == sorted(task.state for task in tasks), "two running, one waiting"
    )
    open_gate()
    nbqueue.wait(tasks, 10)

    assert {"SUCCESS"} == {task.state for task in tasks}
    assert all(task.ready() and task.successful() and not task.failed() for task in tasks)


# -- several handles ---------------------------------------------------------------------------------------------------


def test_wait_tells_who_is_done(app, gate):
    wait_at_gate, open_gate = gate
    slow, quick = app.submit(wait_at_gate), app.submit(abs, -1)

    assert ({quick}, {slow}) == nbqueue.wait([slow, quick], 10, return_when="FIRST_COMPLETED")
    assert ({quick}, {slow}) == nbqueue.wait([slow, quick], 0.05)
    open_gate()
    assert ({quick, slow}, set()) == nbqueue.wait([slow, quick], 10)


def test_a_handle_alone_can_be_waited_for_also_if_it_is_a_map(app):
    squares, task = app.map(lambda x: x * x, range(3)), app.submit(abs, -1)

    assert ({squares}, set()) == nbqueue.wait(squares, timeout=20)
    assert [task] == list(nbqueue.as_completed(task, timeout=20))


def test_only_handles_can_be_waited_for_that_go_on_while_nobody_reads(app):
    lazy = app.map(abs, range(10), buffersize=3)

    with pytest.raises(TypeError, match="must be handles of nbqueue, not int"):
        nbqueue.wait([1, 2])
    with pytest.raises(ValueError, match=r"reads its input as its results are consumed: iterate it, or get\(\) it"):
        nbqueue.wait(lazy)
    assert list(range(10)) == lazy.get(20)
    assert ({lazy}, set()) == nbqueue.wait(lazy)


def test_a_fork_is_told_that_a_handle_is_not_its_own(app, gate):
    wait_at_gate, open_gate = gate
    task = app.submit(wait_at_gate)
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            task.get()
        except BaseException as error:  # whatever it is, this process must not go on as pytest
            os.write(sender, str(error).encode())
        finally:
            os._exit(0)

    os.waitpid(child, 0)

    assert f"nbqueue.attach('{task.id[:8]}') makes a handle here" in os.read(receiver, 1000).decode()
    open_gate()
    task.get(20)


def test_an_item_that_is_not_there_is_an_index_error_that_says_how_many_there_are(app):
    squares = app.map(lambda x: x * x, range(3))

    with pytest.raises(IndexError, match="there is no item 5: there are 3"):
        squares[5]
    assert 4 == squares[-1]


def test_wait_for_the_first_exception_returns_when_a_task_fails(app, gate):
    # Given a task that goes on, and one that will fail while it is waited for
    wait_at_gate, _ = gate

    def fail_later():
        time.sleep(0.3)
        raise ValueError("bad")

    slow, bad = app.submit(wait_at_gate), app.submit(fail_later)

    # When the first exception is waited for, then it does not wait for the other
    began = time.monotonic()
    assert ({bad}, {slow}) == nbqueue.wait([slow, bad], 5, return_when="FIRST_EXCEPTION")
    assert time.monotonic() - began < 4


def test_as_completed_gives_handles_in_the_order_of_their_ends(app, gate):
    wait_at_gate, open_gate = gate
    slow, quick = app.submit(wait_at_gate), app.submit(abs, -1)

    completed = nbqueue.as_completed([slow, quick], 10)
    assert quick is next(completed)
    open_gate()
    assert [slow] == list(completed)


def test_as_completed_raises_when_time_is_up(app, gate):
    slow = app.submit(gate[0])

    with pytest.raises(TimeoutError):
        list(nbqueue.as_completed([slow], 0.05))


def test_handles_are_futures_of_the_standard_library(app):
    tasks = [app.submit(abs, -x) for x in range(10)]

    done, not_done = concurrent.futures.wait(tasks, 10)
    assert (set(tasks), set()) == (done, not_done)
    assert set(range(10)) == {task.result() for task in concurrent.futures.as_completed(tasks)}


# -- done-callbacks ----------------------------------------------------------------------------------------------------


def test_a_done_callback_may_submit(app):
    # Given a callback that submits the next task, three times
    finished = threading.Event()
    values = []

    def again(handle):
        values.append(handle.get())
        if len(values) == 3:
            finished.set()
        else:
            app.submit(lambda x: x + 1, values[-1]).add_done_callback(again)

    # When the first ends, then all have run
    app.submit(abs, 0).add_done_callback(again)
    assert finished.wait(10)
    assert [0, 1, 2] == values


def test_a_done_callback_may_map(app):
    handles = []
    finished = threading.Event()

    def then(handle):
        handles.append(app.map(abs, range(300_000)))
        finished.set()

    app.submit(abs, 0).add_done_callback(then)

    assert finished.wait(10)
    assert list(range(300_000)) == handles[0].get(10)


def test_get_inside_a_done_callback_is_refused(app):
    # Given a callback that waits for another task, in the thread that would tell its end
    outcome = []
    finished = threading.Event()

    def wait_for_another(handle):
        try:
            app.submit(abs, -1).get(5)
        except RuntimeError as error:
            outcome.append(str(error))
        finally:
            finished.set()

    # When it runs, then it is refused instead of hanging
    app.submit(time.sleep, 0.1).add_done_callback(wait_for_another)
    assert finished.wait(10)
    assert "cannot wait" in outcome[0]


def test_a_done_callback_that_raises_harms_nobody(app):
    def fail(handle):
        raise RuntimeError("oops")

    task = app.submit(time.sleep, 0.1)
    task.add_done_callback(fail)

    assert task.get(10) is None
    assert 1 == app.submit(abs, -1).get(10)


# -- task options ------------------------------------------------------------------------------------------------------


def test_a_task_that_fails_twice_succeeds_at_its_third_attempt(app):
    def stubborn():
        task = nbqueue.current_task()
        if task.attempt < 3:
            raise ValueError(task.attempt)
        return task.id, task.attempt, task.retries

    options = app.options(max_retries=3, autoretry_for=ValueError, retry_backoff=0)
    handle = options.submit(stubborn)

    assert (f"{handle.id}.0", 3, 2) == handle.get(10)
    assert 3 == handle.info["attempts"]


def test_retries_are_used_up_after_the_last(app, tmp_path):
    runs = tmp_path / "runs"

    def fail():
        with open(runs, "a") as file:
            file.write(".")
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        app.options(max_retries=2, retry_backoff=0).submit(fail).get(10)

    assert "..." == runs.read_text()


def test_other_errors_are_not_retried(app):
    handle = app.options(max_retries=3, autoretry_for=ValueError).submit(int, [])

    assert TypeError is type(handle.exception(10))
    assert 1 == handle.info["attempts"]


def test_only_the_failed_items_of_a_map_are_retried(app):
    def stubborn(x):
        attempt = nbqueue.current_task().attempt
        if x % 10 == 0 and attempt == 1:
            raise ValueError(x)
        return attempt

    attempts = app.options(max_retries=1, retry_backoff=0).map(stubborn, range(100)).get(10)

    assert [2 if x % 10 == 0 else 1 for x in range(100)] == attempts


def test_each_item_of_a_map_has_an_id_of_its_own(app):
    results = app.map(lambda x: nbqueue.current_task().id, range(100))

    assert [f"{results.id}.{x}" for x in range(100)] == results.get(10)
    assert nbqueue.current_task() is None


def test_a_countdown_delays_the_first_attempt(app):
    began = time.time()

    assert app.options(countdown=0.5).submit(time.time).get(10) - began >= 0.5


def test_a_task_that_is_not_started_in_time_expires(app, gate):
    # Given two slots that are busy
    wait_at_gate, open_gate = gate
    busy = [app.submit(wait_at_gate) for _ in range(2)]

    # When a task that expires soon waits behind them
    late = app.options(expires=0.3).submit(abs, -1)

    # Then it is given up
    with pytest.raises(nbqueue.TaskExpired):
        late.get(5)
    assert "EXPIRED" == late.state
    open_gate()
    nbqueue.wait(busy, 10)


def test_higher_priority_goes_first(app, gate, tmp_path):
    # Given busy slots and, behind them, tasks of three priorities
    wait_at_gate, open_gate = gate
    order = tmp_path / "order"
    busy = [app.submit(wait_at_gate) for _ in range(2)]
    hold = app.options(priority=100).submit(time.sleep, 1.5)

    def note(name):
        with open(order, "a") as file:
            file.write(name)

    tasks = [app.options(priority=priority).submit(note, name) for priority, name in ((0, "c"), (5, "b"), (9, "a"))]

    # When one slot is let go, then the highest comes first
    open_gate()
    nbqueue.wait([*busy, *tasks], 10)
    assert "abc" == order.read_text()
    hold.revoke()
    nbqueue.wait([hold], 10)


def test_a_large_function_can_be_submitted_again_and_again(app):
    # Given a function that carries a megabyte
    table = bytes(1_000_000)

    # When it is submitted often, each time after the last handle is gone, then it is there each time
    for number in range(300):
        assert 1_000_000 + number == app.submit(lambda n: len(table) + n, number).get(10)
        assert 1 == app.submit(abs, -1).get(10)
