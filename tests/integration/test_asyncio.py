"""Handles in an event loop."""

import asyncio
import time

import pytest

import nbqueue


def nap(value, seconds=0.05):
    import time

    time.sleep(seconds)
    return value


@pytest.fixture(autouse=True)
def nap_travels_by_value():
    """This module cannot be imported on a worker."""
    import sys

    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_await_gives_the_result_while_the_loop_goes_on(app):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticker = asyncio.create_task(tick())
        value = await app.submit(nap, "value", 0.3)
        ticker.cancel()
        return value, ticks

    value, ticks = asyncio.run(main())
    assert "value" == value
    assert ticks > 10


def test_await_of_a_map_gives_the_list(app):
    async def main():
        return await app.map(lambda x: x * x, range(1000))

    assert [x * x for x in range(1000)] == asyncio.run(main())


def test_await_of_a_lazy_map_gives_the_list_while_the_loop_goes_on(app):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticker = asyncio.create_task(tick())
        results = app.map(lambda x: nap(x, 0.01), iter(range(50)), buffersize=10)
        values = await asyncio.wait_for(results, 5)
        ticker.cancel()
        return values, ticks

    values, ticks = asyncio.run(main())
    assert list(range(50)) == values
    assert ticks > 5


def test_await_raises_what_the_task_raised(app):
    async def main():
        with pytest.raises(ZeroDivisionError):
            await app.submit(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await app.map(lambda x: 1 / x, [1, 0])

    asyncio.run(main())


def test_gather_collects_results_and_errors(app):
    async def main():
        return await asyncio.gather(
            app.submit(nap, 1), app.submit(nap, 2), app.submit(int, "x"), return_exceptions=True
        )

    first, second, error = asyncio.run(main())
    assert (1, 2, ValueError) == (first, second, type(error))


def test_a_timeout_cancels_the_waiting_and_not_the_task(app):
    async def main():
        task = app.submit(nap, "done", 0.5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.05)
        assert not task.done()
        return await task

    assert "done" == asyncio.run(main())


def test_asyncio_wait_tells_who_is_done(app):
    async def main():
        slow, quick = app.submit(nap, 1, 0.5), app.submit(abs, -1)
        done, pending = await asyncio.wait([slow, quick], timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert ({quick}, {slow}) == (done, pending)
        done, pending = await asyncio.wait([slow, quick], timeout=5)
        return {task.result() for task in done}, pending

    assert ({1}, set()) == asyncio.run(main())


def test_asyncio_as_completed_gives_results_as_they_come(app):
    async def main():
        slow, quick = app.submit(nap, "slow", 0.3), app.submit(nap, "quick", 0.0)
        return [await task for task in asyncio.as_completed([slow, quick], timeout=5)]

    assert ["quick", "slow"] == asyncio.run(main())


def test_a_revoked_task_raises_task_revoked_and_does_not_cancel_the_waiter(app):
    async def main():
        task = app.submit(nap, 1, 60)
        task.revoke()
        with pytest.raises(nbqueue.TaskRevoked):
            await task
        return "went on"

    assert "went on" == asyncio.run(main())


def test_a_done_callback_runs_in_the_loop_that_added_it(app):
    async def main():
        called = asyncio.Event()
        loops = []
        task = app.submit(nap, 1)

        def note(handle):
            loops.append(asyncio.get_running_loop())
            called.set()

        task.add_done_callback(note)
        await asyncio.wait_for(called.wait(), 5)
        return loops == [asyncio.get_running_loop()]

    assert asyncio.run(main())


def test_a_task_that_outlives_its_loop_harms_nobody(app):
    async def main():
        task = app.submit(nap, "late", 0.3)
        waiter = asyncio.ensure_future(task)
        await asyncio.sleep(0)
        waiter.cancel()
        return task

    task = asyncio.run(main())
    assert "late" == task.get(10)
    assert 1 == app.submit(abs, -1).get(10)


def test_a_hundred_tasks_are_awaited_at_once(app):
    async def main():
        return await asyncio.gather(*(app.submit(abs, -number) for number in range(100)))

    began = time.monotonic()
    assert list(range(100)) == asyncio.run(main())
    assert time.monotonic() - began < 5
