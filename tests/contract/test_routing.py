"""Who may run what: queues, tags, and priorities among them."""

import pytest

from nbqueue.core.routing import address


def runs(worker):
    """The runs of which the worker was given something since the last look."""
    return [delivery.run_id for delivery in worker.claims()]


def test_work_goes_only_to_those_who_serve_its_queue(broker):
    # Given a supervisor for each of two queues, with room for everything
    client = broker.client()
    usual, special = broker.worker(slots=9), broker.worker(slots=9, queues=("special",))

    # When there is work for both
    by_default, for_special = client.submit(), client.submit(queue="special")

    # Then each gets its own, and nothing else
    assert [by_default] == runs(usual)
    assert [for_special] == runs(special)


def test_a_supervisor_may_serve_several_queues(broker):
    client, worker = broker.client(), broker.worker(slots=9, queues=("default", "special"))

    both = [client.submit(), client.submit(queue="special")]

    assert both == runs(worker)


def test_work_goes_only_where_all_its_tags_are(broker):
    # Given supervisors with some of the tags
    client = broker.client()
    one, other = broker.worker(slots=9, tags=("gpu",)), broker.worker(slots=9, tags=("big", "fast"))

    # When work asks for both, then nobody gets it
    run_id = client.submit(tags=("big", "gpu"))
    assert ([], []) == (runs(one), runs(other))

    # Until somebody comes who has both, and more
    assert [run_id] == runs(broker.worker(tags=("big", "gpu", "ssd")))


def test_work_can_be_addressed_to_one_supervisor(broker):
    # Given two supervisors that serve the same, one of them busy
    client = broker.client()
    busy, idle = broker.worker(), broker.worker()
    client.submit(tags=(address(busy.id),))
    first = busy.claim()

    # When work is addressed to the busy one, then it waits for it
    run_id = client.submit(tags=(address(busy.id),))
    assert ([], []) == (runs(busy), runs(idle))
    busy.succeed(first)
    assert [run_id] == runs(busy)


def test_work_for_a_supervisor_that_has_left_says_so_and_goes_to_nobody_else(broker):
    # Given work that was addressed to a supervisor that leaves
    client = broker.client()
    gone, other = broker.worker(slots=2), broker.worker(slots=2)
    run_id = client.submit(tags=(address(gone.id),))
    gone.claim()
    gone.leave()
    broker.elapse(1.0, heard=(other,))

    # Then it says so, and the others go on with other work
    assert ("The worker that this was sent to has left.", 0) == (
        client.note(run_id).unserved,
        client.note(run_id).slots,
    )
    assert [client.submit()] == runs(other)


def test_tags_do_not_replace_the_queue(broker):
    client, worker = broker.client(), broker.worker(tags=("gpu",))

    client.submit(queue="special", tags=("gpu",))

    assert [] == runs(worker)


def test_who_has_tags_takes_work_without_any_too(broker):
    client, worker = broker.client(), broker.worker(tags=("gpu",))

    assert [client.submit()] == runs(worker)


def test_who_was_told_to_take_tagged_work_only_does(broker):
    # Given a supervisor that leaves untagged work to others
    client, worker = broker.client(), broker.worker(slots=9, tags=("gpu",), only_tagged=True)

    # When there is work of both kinds
    client.submit()
    tagged = client.submit(tags=("gpu",))

    # Then it takes the tagged
    assert [tagged] == runs(worker)


def test_work_that_nobody_can_run_keeps_nobody_waiting(broker):
    # Given work of the highest priority that nobody can run
    client, worker = broker.client(), broker.worker()
    client.submit(5, tags=("gpu",), priority=9)

    # When there is other work, then that runs
    run_id = client.submit()
    assert [run_id] == runs(worker)


def test_work_of_a_busy_queue_keeps_no_other_queue_waiting(broker):
    # Given a queue whose only slot is busy, with more work of high priority
    client = broker.client()
    busy, idle = broker.worker(queues=("special",)), broker.worker()
    client.submit(5, queue="special", priority=9)
    busy.claim()

    # Then the other queue goes on
    assert [client.submit()] == runs(idle)


def test_priority_decides_across_queues(broker):
    # Given work of three priorities on two queues
    client = broker.client()
    low, high, middle = (
        client.submit(queue=queue, priority=priority)
        for queue, priority in [("default", -1), ("other", 5), ("other", 0)]
    )

    # When one slot serves both
    worker = broker.worker(queues=("default", "other"))
    order = []
    for _ in range(3):
        delivery = worker.claim()
        order.append(delivery.run_id)
        worker.succeed(delivery)

    # Then the highest comes first, whatever its queue
    assert [high, middle, low] == order


def test_clients_take_turns_across_queues(broker):
    # Given a client with work on one queue, and another with work on two
    first, second = broker.client(), broker.client()
    long = first.submit(3, chunksize=1)
    here, there = second.submit(), second.submit(queue="other")

    # When one slot serves both queues
    worker = broker.worker(queues=("default", "other"))
    order = []
    for _ in range(5):
        delivery = worker.claim()
        order.append(delivery.run_id)
        worker.succeed(delivery)

    # Then the second client has every other turn, as with one queue
    assert [long, here, long, there, long] == order


def test_work_whose_supervisor_was_lost_goes_back_to_its_own_kind(broker):
    # Given tagged work that runs
    client, tagged, plain = broker.client(), broker.worker(tags=("gpu",)), broker.worker()
    run_id = client.submit(tags=("gpu",))
    tagged.claim()

    # When its supervisor leaves
    tagged.leave()

    # Then only another one with the tag takes it
    assert [] == runs(plain)
    assert [run_id] == runs(broker.worker(tags=("gpu",)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": "gpu"}, ["No worker serves queue 'gpu'", "1 connected", "'default'", "-Q gpu"]),
        ({"tags": ("big", "gpu")}, ["has all the tags 'big', 'gpu'", "they have 'cpu'", "-t big,gpu"]),
    ],
)
def test_work_that_nobody_who_is_connected_could_run_is_said(broker, options, words):
    # Given somebody who cannot run it
    client = broker.client()
    broker.worker(tags=("cpu",))

    # When it is submitted
    run_id = client.submit(**options)

    # Then its client is told at once, in one sentence, and so is who looks at the broker
    note = client.note(run_id)
    assert [] == [word for word in words if word not in note.unserved]
    assert 0 == note.slots
    [view] = client.inspect().runs
    assert note.unserved == view.unserved


def test_that_nobody_takes_untagged_work_is_said(broker):
    client = broker.client()
    broker.worker(tags=("gpu",), only_tagged=True)

    assert "tagged work only" in client.note(client.submit()).unserved


def test_when_somebody_comes_who_can_run_it_that_is_told_too(broker):
    # Given work that nobody can run
    client = broker.client()
    broker.worker()
    run_id = client.submit(queue="gpu")
    before = client.note(run_id).unserved

    # When somebody comes who can
    worker = broker.worker(slots=3, queues=("gpu",))

    # Then the sentence is taken back, and those slots count
    worker.started(worker.claim())
    note = client.note(run_id)
    assert ("", 3) == (note.unserved, note.slots)
    assert before


def test_without_any_supervisor_nothing_is_said_of_queues(broker):
    client = broker.client()

    client.attach(run_id := client.submit(queue="gpu"))

    assert ("", 0) == (client.note(run_id).unserved, client.note(run_id).slots)


def test_only_slots_that_may_run_it_are_counted(broker):
    # Given five slots, of which two may run the work
    client = broker.client()
    broker.worker(slots=3)
    broker.worker(slots=2, tags=("gpu",))

    # Then the receipt counts two
    assert 2 == client.offer(client.new_run_id(), 1, tags=("gpu",)).slots
    assert 5 == client.offer(client.new_run_id(), 1).slots


def test_what_supervisors_offer_and_runs_ask_for_can_be_seen(broker):
    client = broker.client()
    worker = broker.worker(queues=("default", "night"), tags=("gpu",))
    client.submit(queue="night", tags=("gpu",), priority=3)

    seen = client.inspect()

    assert [worker.info.offer] == [view.offer for view in seen.workers]
    assert [("night", ("gpu",), 3)] == [(view.queue, view.tags, view.priority) for view in seen.runs]
