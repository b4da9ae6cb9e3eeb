"""Many short tasks that are submitted one by one: they travel together, and nobody notices."""

import asyncio
import concurrent.futures
import gc
import sys
import threading
import time
import uuid

import pytest

import nbqueue

pytestmark = pytest.mark.timeout(60)

BURST = 600


def double(x):
    return 2 * x


def invert(x):
    return 1 / x


def who(x):
    return x, nbqueue.current_task().id, nbqueue.current_task().run_id


@pytest.fixture
def burst(app, tmp_path):
    """Submits many tasks of a function that has been short so far, while the slots are busy."""

    def wait_for(path):
        while not path.exists():
            time.sleep(0.001)

    def submit(function, arguments=range(BURST), submit=None):
        submit = submit or app.submit
        for _ in range(10):  # the first may take long
            submit(function, 1).get(20)
        go = tmp_path / str(uuid.uuid4())
        for _ in range(2):
            app.submit(wait_for, go)
        tasks = [submit(function, argument) for argument in arguments]
        go.touch()
        return tasks

    return submit


def is_bundled(task):
    """Whether it is an item of a run with others."""
    return "." in task.id


def test_many_tasks_are_few_runs_and_each_has_its_result(app, burst):
    before = app.inspect().stats()["runs"]

    tasks = burst(double)

    assert [2 * x for x in range(BURST)] == [task.get(20) for task in tasks]
    assert {"SUCCESS"} == {task.state for task in tasks}
    assert app.inspect().stats()["runs"] - before < BURST / 4
    assert sum(map(is_bundled, tasks)) > BURST / 2


def test_each_has_an_id_of_its_own_which_is_that_of_the_task(burst):
    tasks = burst(who)

    results = [task.get(20) for task in tasks]

    assert list(range(BURST)) == [x for x, _, _ in results]
    assert BURST == len({task.id for task in tasks})
    for task, (_, task_id, run_id) in zip(tasks, results, strict=True):
        assert (task_id if is_bundled(task) else run_id) == task.id


def test_one_that_fails_fails_alone_with_its_own_error(burst):
    tasks = burst(invert, [*range(400, 0, -1), 0, *range(1, 200)])

    failed = [task for task in tasks if task.exception(20) is not None]

    assert [400] == [tasks.index(task) for task in failed]
    with pytest.raises(ZeroDivisionError):
        failed[0].get()
    assert is_bundled(failed[0])
    assert "FAILURE" == failed[0].state
    assert failed[0].failed()
    assert "in invert" in failed[0].traceback
    assert 1 == failed[0].info["attempts"]
    assert "ZeroDivisionError" in repr(failed[0].exception())


def test_what_each_took_is_its_share(burst):
    tasks = burst(double)
    concurrent.futures.wait(tasks, 20)

    infos = [task.info for task in tasks if is_bundled(task)]

    assert {1} == {info["attempts"] for info in infos}
    assert all(0 <= info["wall_s"] < 0.1 for info in infos)
    assert {"SUCCESS"} == {info["state"] for info in infos}
    assert infos[0]["worker"]


def test_one_is_revoked_alone(app, burst, tmp_path):
    # Given a burst of which the workers are kept from what was submitted last
    go = tmp_path / "go"

    def work(x):
        while x < 0 and not go.exists():
            time.sleep(0.01)
        return x

    app.submit(work, 1).get(20)
    blockers = [app.submit(work, -1) for _ in range(2)]
    tasks = [app.submit(work, x) for x in range(200)]

    # When one is revoked, then the others are not
    tasks[150].revoke()
    go.touch()
    assert [x for x in range(200) if x != 150] == [task.get(20) for task in tasks if task is not tasks[150]]
    with pytest.raises(nbqueue.TaskRevoked):
        tasks[150].get(20)
    assert is_bundled(tasks[150])
    assert [-1, -1] == [task.get(20) for task in blockers]


def test_one_is_run_again_alone(app, burst, tmp_path):
    flag = tmp_path / "flag"

    def fussy(x):
        if x == 300 and not flag.exists():
            raise LookupError(x)
        return x

    tasks = burst(fussy)
    with pytest.raises(LookupError):
        tasks[300].get(20)

    flag.touch()
    again = tasks[300].retry()

    assert 300 == again.get(20)
    assert "FAILURE" == tasks[300].state
    with pytest.raises(ValueError, match="has succeeded"):
        tasks[301].retry()


def test_options_hold_for_each(app, burst, tmp_path):
    def fails_once(x):
        path = tmp_path / str(x)
        if x % 50 == 7 and not path.exists():
            path.touch()
            raise LookupError(x)
        return x

    patient = app.options(max_retries=2, label="patient")
    tasks = burst(fails_once, range(300), patient.submit)

    assert list(range(300)) == [task.get(20) for task in tasks]
    assert {"patient"} == {task.label for task in tasks}
    assert {2} == {tasks[x].info["attempts"] for x in range(7, 300, 50)}


def test_what_one_prints_is_its_own(app, burst):
    def say(x):
        if x == 200:
            sys.stdout.write("here\n")
        return x

    tasks = burst(say, range(300))
    concurrent.futures.wait(tasks, 20)

    assert is_bundled(tasks[200])
    assert "here\n" == tasks[200].stdout
    assert ["here"] == list(tasks[200].logs())
    assert "" == tasks[201].stdout
    # And from then on they are looked at one by one
    assert not any(map(is_bundled, burst(say, range(100))))


def test_arguments_that_could_change_travel_as_they_are_now(burst):
    changed = []

    def length(x):
        return len(x)

    def arguments():
        for _ in range(200):
            changed.append(0)
            yield changed

    tasks = burst(lambda x: x if x == 1 else length(x), arguments())

    assert list(range(1, 201)) == [task.get(20) for task in tasks]
    assert not any(map(is_bundled, tasks))


def test_keywords_and_several_arguments(app):
    app.submit(pow, 2, 3).get(20)
    several = [app.submit(pow, 2, x) for x in range(200)]
    named = [app.submit(int, str(x), base=10) for x in range(200)]

    assert [2**x for x in range(200)] == [task.get(20) for task in several]
    assert list(range(200)) == [task.get(20) for task in named]


def test_all_ways_to_wait_and_to_be_told(app, burst):
    told = []
    tasks = burst(double)
    for task in tasks:
        task.add_done_callback(told.append)

    done, not_done = nbqueue.wait(tasks, timeout=20)
    assert (set(tasks), set()) == (done, not_done)
    assert set(tasks) == set(nbqueue.as_completed(burst(double) and tasks))
    assert (set(tasks), set()) == concurrent.futures.wait(tasks, 20)
    app.submit(double, 1).get(20)
    assert set(tasks) == set(told)


def test_they_can_be_awaited(burst):
    async def main():
        return await asyncio.gather(*burst(double))

    assert [2 * x for x in range(BURST)] == asyncio.run(main())


def test_several_threads_may_submit_at_once(app):
    app.submit(double, 1).get(20)
    results = {}

    def work(first):
        tasks = [app.submit(double, x) for x in range(first, first + 300)]
        results[first] = [task.get(20) for task in tasks]

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert {first: [2 * x for x in range(first, first + 300)] for first in (0, 1000, 2000)} == results


def test_results_stay_while_one_of_them_is_wanted_and_go_then(app, burst, wait_until):
    # Given bundles that have ended
    app.inspect()
    before = app.inspect().stats()["runs"]
    tasks = burst(double)
    assert 2 * 400 == tasks[400].get(20)
    kept = tasks[400]

    # When all handles are gone but one, then its result is still there
    nbqueue.wait(tasks)
    del tasks
    gc.collect()
    app.submit(double, 1).get(20)
    assert 800 == kept.get()
    assert 800 == app.attach(kept.id).get(20)

    # When that is gone, too, then nothing is left
    del kept
    gc.collect()
    wait_until(lambda: app.submit(double, 1).get(20) and app.inspect().stats()["runs"] <= before + 2, "their end")


def test_one_is_attached_by_its_id(hub, app, burst):
    # Given tasks of a bundle, one of which has failed
    tasks = burst(invert, [*range(400, 0, -1), 0])
    concurrent.futures.wait(tasks, 20)
    good, bad = tasks[300], tasks[400]
    assert is_bundled(good)
    assert is_bundled(bad)

    # When another process asks for them, then it has them
    script = """
        import nbqueue, sys
        good, bad = nbqueue.attach({good!r}), nbqueue.attach({bad!r})
        print(good.get(20), type(bad.exception(20)).__name__, good.id == {good!r}, good.state, bad.state)
    """
    assert "0.01 ZeroDivisionError True SUCCESS FAILURE\n" == hub.run_script(script.format(good=good.id, bad=bad.id))

    # And so has this one
    assert 0.01 == app.attach(good.id).get(20)
    with pytest.raises(nbqueue.errors.UnknownTask, match="no item 9999"):
        app.attach(good.id.partition(".")[0] + ".9999")


def test_one_is_revoked_by_its_id(app, tmp_path):
    # Given tasks that wait behind others
    go = tmp_path / "go"

    def work(x):
        while x < 0 and not go.exists():
            time.sleep(0.01)
        return x

    app.submit(work, 1).get(20)
    blockers = [app.submit(work, -1) for _ in range(2)]
    tasks = [app.submit(work, x) for x in range(100)]

    # When one is revoked by its id, then it alone is
    report = app.revoke(tasks[90].id, wait=True)
    assert 1 == report.revoked
    go.touch()
    assert "REVOKED" == tasks[90].state
    assert list(range(90)) == [task.get(20) for task in tasks[:90]]
    nbqueue.wait(blockers)


def test_a_hub_that_dies_fails_all_of_them(own_hub):
    # Given a burst under way
    app = own_hub.app()

    def work(x):
        if x < 0:
            time.sleep(60)
        return x

    app.submit(work, 1).get(20)
    tasks = [app.submit(work, -1), app.submit(work, -1)]
    tasks += [app.submit(work, x) for x in range(300)]

    # When the hub is killed
    own_hub.hub().kill()

    # Then none of them hangs
    outcomes = {type(task.exception(20)) for task in tasks}
    assert nbqueue.errors.BrokerUnavailable in outcomes
    assert outcomes <= {nbqueue.errors.BrokerUnavailable, type(None)}


def test_items_of_a_map_have_handles_too(app):
    results = app.map(invert, [4, 2, 0], progress=False)
    nbqueue.wait([results])

    second, third = app.attach(f"{results.id}.1"), app.attach(f"{results.id}.2")

    assert 0.5 == second.get(20)
    assert f"{results.id}.1" == second.id
    with pytest.raises(ZeroDivisionError):
        third.get(20)
    assert (1, 0) == (third.snapshot().counts.failed, third.snapshot().counts.done)


def test_an_item_of_a_map_that_goes_on_is_waited_for_alone(app, tmp_path):
    go = tmp_path / "go"

    def work(x):
        while x == 1 and not go.exists():
            time.sleep(0.01)
        return x

    results = app.map(work, [0, 1], chunksize=1, progress=False)

    assert 0 == app.attach(f"{results.id}.0").get(20)
    one = app.attach(f"{results.id}.1")
    assert not one.ready()
    go.touch()
    assert 1 == one.get(20)
    assert [0, 1] == results.get(20)


def test_what_was_submitted_last_is_not_lost_when_the_process_ends(own_hub, wait_until, tmp_path):
    script = """
        import nbqueue, pathlib, time
        def mark(path):
            open(path, "w").close()
        for _ in range(10):
            nbqueue.submit(mark, {folder!r} + "/first").get(20)
        blockers = [nbqueue.submit(time.sleep, 0.2) for _ in range(2)]
        tasks = [nbqueue.submit(mark, {folder!r} + "/" + str(number)) for number in range(100)]
    """

    own_hub.run_script(script.format(folder=str(tmp_path)))

    wait_until(lambda: 101 == len(list(tmp_path.iterdir())), "all of them")
