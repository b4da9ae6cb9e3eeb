"""Handles for what was submitted before."""

import gc
import time

import pytest

import nbqueue

pytestmark = pytest.mark.timeout(60)

SUBMIT = """
    import nbqueue, time
    one = nbqueue.submit(lambda: print("hello") or 42)
    many = nbqueue.map(lambda x: 1 / (x - 1), range(3), progress=False, label="many")
    slow = nbqueue.submit(lambda: time.sleep(1) or "late")
    nbqueue.wait([one, many])
    print(one.id, many.id, slow.id)
    nbqueue.inspect()  # all of it has arrived
    import os
    os._exit(0)  # as a kernel that is killed
"""


def test_what_a_process_has_left_behind_can_be_had_from_another_one(own_hub):
    # Given a process that has submitted a task, a map and a task that still runs, and is gone
    one_id, many_id, slow_id = own_hub.run_script(SUBMIT).splitlines()[-1].split()
    app = own_hub.app()

    # When somebody asks for them by id, or by the beginning of it
    one, many, slow = app.attach(one_id), app.attach(many_id[:8].upper()), app.AsyncResult(slow_id)

    # Then the handles are as good as those that were there
    assert 42 == one.get(20)
    assert "hello\n" == one.stdout
    assert (nbqueue.AsyncResult, nbqueue.MapResult) == (type(one), type(many))
    assert (3, "many") == (len(many), many.label)
    assert [-1.0, 1.0] == [many[0], many[2]]
    with pytest.raises(ZeroDivisionError):
        many.get(20)
    assert [1] == [error.index for error in many.errors()]
    with pytest.raises(ValueError, match="only the handle that submitted it has its arguments"):
        many.retry()
    assert "late" == slow.get(20)
    assert "SUCCESS" == slow.state

    # And again, since the results stay with the broker
    del one, many, slow
    gc.collect()
    assert 1 == app.submit(abs, -1).get(20)
    assert 42 == app.attach(one_id).get(20)


def test_a_handle_that_lives_is_handed_out_again(own_hub, tmp_path):
    # Given a handle of a task that runs
    app = own_hub.app()
    go = tmp_path / "go"

    def wait_for_go():
        while not go.exists():
            time.sleep(0.01)

    handle = app.submit(wait_for_go)
    app.inspect()

    # Then it is found under its id
    assert handle is app.attach(handle.id)
    go.touch()
    assert handle.get(20) is None

    # And when the task is over, a new handle says the same
    again = app.attach(handle.id)
    assert again.get(20) is None
    assert handle is not again


def test_what_runs_can_be_revoked_through_such_a_handle(own_hub, wait_until):
    app, other = own_hub.app(), own_hub.app()
    handle = app.submit(time.sleep, 100)
    wait_until(lambda: app.inspect().active(), "its start")

    other.attach(handle.id).revoke()

    with pytest.raises(nbqueue.TaskRevoked):
        handle.get(20)


@pytest.mark.parametrize("task_id", ["0" * 32, "0123", "xyz", "", "ab"])
def test_an_id_that_nobody_knows_is_an_error_at_once(own_hub, task_id):
    with pytest.raises(nbqueue.UnknownTask):
        own_hub.app().attach(task_id)
