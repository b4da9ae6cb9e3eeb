"""What only the broker's own process asks its dispatcher; all else is in the contract suite."""

import random

import pytest

from nbqueue.core.dispatcher import Dispatcher, Limits
from nbqueue.core.exchange import Delivery, Discard, ToWorker, WorkerInfo
from nbqueue.core.functions import SIZERS_KEPT
from nbqueue.core.task import Block, RunSpec, Succeeded, TaskOptions

CLIENT, WORKER = b"c" * 16, b"w" * 16


@pytest.fixture
def dispatcher():
    return Dispatcher(rng=random.Random(0), limits=Limits(max_bytes=1000))


def submit(dispatcher, run_id, *, items=1, closed=True, function=b"f", size=0, now=0.0):
    spec = RunSpec(run_id=run_id, function=function, label="work", options=TaskOptions(chunksize=1000))
    blocks = [Block(0, items, bytes(size))] if items else []
    return dispatcher.submit(CLIENT, spec, function=b"body", blocks=blocks, closed=closed, now=now)


def join(dispatcher, *, slots=1, now=0.0):
    info = WorkerInfo(worker_id=WORKER, name="w0", host="here", pid=1, slots=slots, prefetch=0)
    dispatcher.register(info, now)


def deliveries(dispatcher):
    messages = [effect.message for effect in dispatcher.take_effects() if isinstance(effect, ToWorker)]
    return [message for message in messages if isinstance(message, Delivery)]


def run_one(dispatcher, *, payload=b"", now=0.0):
    """Let the worker end what it was given."""
    [delivery] = deliveries(dispatcher)
    outcome = Succeeded(delivery.start, delivery.stop, payload, 0.001)
    dispatcher.commit(WORKER, delivery.token, delivery.run_id, [outcome], final=True, now=now)


def test_who_is_known_is_known(dispatcher):
    join(dispatcher, slots=3)
    submit(dispatcher, b"r", function=b"f")

    assert (True, False) == (dispatcher.knows_run(b"r"), dispatcher.knows_run(b"s"))
    assert (True, False) == (dispatcher.knows_function(b"f"), dispatcher.knows_function(b"g"))
    assert (True, False) == (dispatcher.knows_worker(WORKER), dispatcher.knows_worker(CLIENT))
    assert (3, 1, 1) == (dispatcher.slots, dispatcher.client_count, dispatcher.run(b"r").total)


def test_who_registers_twice_keeps_what_it_holds(dispatcher):
    # Given a worker that holds a chunk, and whose greeting arrives again
    submit(dispatcher, b"r")
    join(dispatcher)
    [delivery] = deliveries(dispatcher)
    join(dispatcher)

    # Then nothing has changed
    assert [delivery.token] == dispatcher.heartbeat(WORKER, [], 0.0).tokens
    assert [] == deliveries(dispatcher)


def test_work_keeps_a_broker_busy_until_it_has_ended(dispatcher):
    # Given a run, whose client has gone
    submit(dispatcher, b"r")
    dispatcher.goodbye(CLIENT)
    while_it_waits = dispatcher.has_open_runs
    join(dispatcher)
    while_it_runs = dispatcher.has_open_runs
    run_one(dispatcher)

    # Then it keeps the broker until it has ended
    assert [True, True, False] == [while_it_waits, while_it_runs, dispatcher.has_open_runs]


def test_a_run_that_is_still_fed_keeps_a_broker_busy_while_its_client_is_there(dispatcher):
    submit(dispatcher, b"r", items=0, closed=False)
    with_client = dispatcher.has_open_runs
    dispatcher.goodbye(CLIENT)

    assert [True, False] == [with_client, dispatcher.has_open_runs]


def test_a_silent_client_does_not_keep_a_broker_alive(dispatcher):
    dispatcher.hello(CLIENT, 100.0)

    assert dispatcher.hears_clients(109.0)
    assert not dispatcher.hears_clients(111.0)


def test_the_broker_wakes_up_when_something_is_due(dispatcher):
    assert dispatcher.next_wake() is None
    options = TaskOptions(countdown_s=5.0, expires_s=30.0)
    spec = RunSpec(run_id=b"r", function=b"f", label="work", options=options)
    dispatcher.submit(CLIENT, spec, function=b"", blocks=[Block(0, 1, b"")], closed=True, now=10.0)

    assert 15.0 == dispatcher.next_wake()
    dispatcher.tick(15.0)
    assert 40.0 == dispatcher.next_wake()


def test_room_is_made_by_the_oldest_runs_and_no_more_than_is_needed(dispatcher):
    # Given two finished runs with results of 400 bytes each, both read
    join(dispatcher)
    for run_id in (b"old", b"new"):
        submit(dispatcher, run_id)
        run_one(dispatcher, payload=bytes(400))
        dispatcher.take_effects()

    # When 500 more bytes come
    submit(dispatcher, b"next", size=500)

    # Then the older one has given way
    assert [False, True, True] == [dispatcher.knows_run(run_id) for run_id in (b"old", b"new", b"next")]


def test_results_that_somebody_has_not_read_do_not_give_way(dispatcher):
    # Given a finished run of which its client was not told yet
    join(dispatcher)
    submit(dispatcher, b"r")
    run_one(dispatcher, payload=bytes(900))

    # Then it is kept, and what comes is refused
    assert submit(dispatcher, b"next", size=500).is_full
    assert dispatcher.knows_run(b"r")


def test_what_lies_outside_of_a_forgotten_run_is_discarded_with_it(dispatcher):
    join(dispatcher)
    submit(dispatcher, b"r", function=b"f")
    run_one(dispatcher)
    dispatcher.take_effects()

    dispatcher.forget(b"r")

    discarded = {effect.folder for effect in dispatcher.take_effects() if isinstance(effect, Discard)}
    assert {b"r".hex(), b"f".hex()} == discarded


def test_chunk_sizes_are_remembered_for_so_many_functions_and_no_more(dispatcher):
    # Given a function that is known to be quick, and many others since
    join(dispatcher)
    for number in range(SIZERS_KEPT + 1):
        submit(dispatcher, b"%d" % number, function=b"f%d" % number)
        run_one(dispatcher)
        dispatcher.take_effects()
        dispatcher.forget(b"%d" % number)

    # Then the first one is learnt anew, the last is not
    assert [1, 2] == [_first_chunk(dispatcher, function) for function in (b"f0", b"f%d" % SIZERS_KEPT)]


def _first_chunk(dispatcher, function):
    dispatcher.take_effects()
    spec = RunSpec(run_id=function, function=function, label="work")
    dispatcher.submit(CLIENT, spec, function=b"body", blocks=[Block(0, 100, b"")], closed=True, now=0.0)
    [delivery] = deliveries(dispatcher)
    dispatcher.revoke(function, start=0, stop=100, now=0.0)
    dispatcher.commit(WORKER, delivery.token, function, [], final=True, now=0.0)
    return delivery.stop - delivery.start
