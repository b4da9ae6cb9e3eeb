"""Looking at a broker, emptying a queue, and giving orders to supervisors."""

from nbqueue.core.orders import EndWork, LimitTime, OrderFor, ResizePool, SayAlive
from nbqueue.core.states import State

# -- purge -------------------------------------------------------------------------------------------------------------


def test_a_purge_revokes_whatever_waits_in_the_queue_and_tells_how_much_that_was(broker):
    # Given a queue with work that waits, work for later and work that runs, of two clients
    first, second, worker = broker.client(), broker.client(), broker.worker()
    running = first.submit(3, chunksize=1)
    later = second.submit(2, countdown_s=60.0)
    delivery = worker.claim()

    # When it is purged
    purged = first.purge()

    # Then all that waited is revoked, whoever submitted it, and what runs goes on
    assert 4 == purged
    assert {1: State.REVOKED, 2: State.REVOKED} == first.ends(running)
    assert {0: State.REVOKED, 1: State.REVOKED} == second.ends(later)
    assert [] == worker.told_to_stop()
    worker.succeed(delivery)
    assert State.SUCCESS is first.entry(running, 0).state
    assert [] == worker.claims()


def test_a_purge_leaves_other_queues_alone(broker):
    client = broker.client()
    here, there = client.submit(2, queue="here"), client.submit(2, queue="there")

    assert [2, 0, 0] == [client.purge("here"), client.purge("here"), client.purge("nowhere")]
    assert client.note(here).finished
    assert {} == client.ends(there)


def test_what_is_submitted_after_a_purge_runs(broker):
    client = broker.client()
    client.submit()
    client.purge()

    run_id = client.submit()

    assert run_id == broker.worker().claim().run_id


def test_an_item_between_two_attempts_is_purged_too(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(max_lost=1)
    worker.kill(worker.claim())

    assert 1 == client.purge()
    assert State.REVOKED is client.entry(run_id).state


# -- looking -----------------------------------------------------------------------------------------------------------


def test_what_supervisors_hold_can_be_seen(broker):
    # Given two chunks, of which one runs, for 3 s
    client, worker = broker.client(), broker.worker(slots=2)
    run_id = client.submit(5, chunksize=2, label="score")
    first, second = worker.claims()
    worker.started(first, 1)
    broker.clock.advance(3.0)

    # Then both are shown, with the item that is known to run
    chunks = client.inspect().chunks
    assert [("w0", run_id, "score", 0, 2, 1, 1), ("w0", run_id, "score", 2, 4, 1, None)] == [
        (chunk.worker, chunk.run_id, chunk.label, chunk.start, chunk.stop, chunk.attempt, chunk.item)
        for chunk in sorted(chunks, key=lambda chunk: chunk.start)
    ]
    assert {3.0} == {chunk.held_s for chunk in chunks}

    # And when they have ended, none is
    worker.succeed(first)
    worker.succeed(second)
    assert 4 not in {chunk.stop for chunk in client.inspect().chunks}


def test_queues_can_be_seen(broker):
    # Given work that runs, waits and is for later, and a queue that nobody serves
    client, worker = broker.client(), broker.worker(slots=2, queues=("default", "idle"))
    client.submit(5, chunksize=1)
    client.submit(4, countdown_s=9.0)
    client.submit(1, queue="lost")
    assert 2 == len(worker.claims())

    # Then each queue is shown with what there is
    assert [
        ("default", 3, 4, 2, 1, 2),
        ("idle", 0, 0, 0, 1, 2),
        ("lost", 1, 0, 0, 0, 0),
    ] == [
        (queue.name, queue.waiting, queue.scheduled, queue.running, queue.workers, queue.slots)
        for queue in client.inspect().queues
    ]


# -- orders ------------------------------------------------------------------------------------------------------------


def test_an_order_reaches_all_supervisors_and_their_answers_come_back(broker):
    # Given two supervisors, and two clients
    client, other = broker.client(), broker.client()
    workers = [broker.worker(), broker.worker()]

    # When one client gives an order
    asked = client.command(SayAlive())
    for worker in workers:
        [order] = worker.told()
        worker.answer(order, f"{worker.info.name} lives")

    # Then the broker says who was asked, and that client alone hears the answers
    assert sorted((worker.info.worker_id, worker.info.name) for worker in workers) == sorted(asked.workers)
    assert ["w0 lives", "w1 lives"] == sorted(answer.text for answer in client.answers(asked))
    other.settle()
    assert [] == other.heard


def test_an_order_reaches_nobody_but_those_who_are_named(broker):
    client, meant, other = broker.client(), broker.worker(), broker.worker()

    asked = client.command(ResizePool(2), [meant.info.worker_id, b"nobody".ljust(16, b".")])

    assert [(meant.info.worker_id, "w0")] == asked.workers
    assert [OrderFor(client.id, asked.request, ResizePool(2))] == meant.told()
    assert [] == other.told()


def test_an_order_arrives_as_it_was_given(broker):
    client, worker = broker.client(), broker.worker()

    asked = [client.command(LimitTime("fit", 0.5, 2.0)), client.command(LimitTime("fit"))]

    orders = [LimitTime("fit", 0.5, 2.0), LimitTime("fit", None, None)]
    assert [OrderFor(client.id, one.request, order) for one, order in zip(asked, orders, strict=True)] == worker.told()


def test_without_supervisors_nobody_is_asked(broker):
    assert [] == broker.client().command(EndWork()).workers


def test_an_answer_for_a_client_that_has_gone_harms_nobody(broker):
    # Given an order of a client that leaves
    client, worker = broker.client(), broker.worker()
    client.command(SayAlive())
    [order] = worker.told()
    client.close()

    # When it is answered, then the broker goes on
    worker.answer(order, "too late")
    assert [] == broker.client().inspect().runs


# -- size --------------------------------------------------------------------------------------------------------------


def test_a_supervisor_that_grows_gets_more_work_at_once(broker):
    client, worker = broker.client(), broker.worker(slots=1)
    run_id = client.submit(5, chunksize=1)
    before = worker.claims()

    worker.resize(3)

    assert (1, 2) == (len(before), len(worker.claims()))
    assert 3 == client.note(run_id).slots == client.inspect().workers[0].slots


def test_a_supervisor_that_shrinks_keeps_what_it_holds_and_gets_no_more_than_it_has_slots(broker):
    # Given a supervisor with three slots, all busy
    client, worker = broker.client(), broker.worker(slots=3)
    client.submit(9, chunksize=1)
    held = worker.claims()

    # When it shrinks to one
    worker.resize(1)
    assert [] == worker.told_to_stop()

    # Then it gets more only when two of the three have ended and the third does
    for delivery in held[:2]:
        worker.succeed(delivery)
        assert [] == worker.claims()
    worker.succeed(held[2])
    assert 1 == len(worker.claims())


# -- remarks -----------------------------------------------------------------------------------------------------------


def test_a_remark_reaches_whoever_follows_the_run_and_who_comes_later(broker):
    # Given a run
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()

    # When its supervisor has something to say, twice the same
    for _ in range(2):
        worker.remark(run_id, "pandas is older here")

    # Then its client reads it once, and so does one that attaches later
    later = broker.client()
    later.attach(run_id)
    assert ["pandas is older here"] == client.note(run_id).remarks == later.note(run_id).remarks


def test_remarks_are_bounded(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()

    for number in range(100):
        worker.remark(run_id, f"{number} " + "x" * 5000)

    remarks = client.note(run_id).remarks
    assert 8 == len(remarks)
    assert max(map(len, remarks)) <= 1000


def test_a_remark_on_an_unknown_run_harms_nobody(broker):
    client, worker = broker.client(), broker.worker()

    worker.remark(b"?" * 16, "hello")

    assert [] == client.inspect().runs
