"""Who is alive, by the broker's clock."""

from nbqueue.core.states import State


def test_an_item_of_a_silent_supervisor_runs_again(broker):
    # Given an item that a supervisor holds, and then it falls silent
    run_id = broker.client().submit()
    first = broker.worker()
    first.claim()
    second = broker.worker()

    # When its lease has run out
    broker.elapse(broker.limits.lease_s + 1.0, heard=(second,))

    # Then another supervisor gets the same item, as attempt 2
    again = second.claim()
    assert (run_id, 0, 2) == (again.run_id, again.start, again.attempt)


def test_within_its_lease_a_supervisor_may_be_silent(broker):
    client, first = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = first.claim()
    second = broker.worker()

    broker.elapse(broker.limits.lease_s - 1.0, heard=(second,))

    assert [] == second.claims()
    first.succeed(delivery)
    assert 1 == client.entry(run_id).attempt


def test_a_heartbeat_renews_the_lease_however_long_the_item_runs(broker):
    # Given an item that runs for ten leases
    client, first = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = first.claim()
    second = broker.worker()
    for _ in range(int(10 * broker.limits.lease_s)):
        first.heartbeat((delivery.token, 0))
        broker.elapse(1.0, heard=(second,))

    # Then it stays where it is
    first.succeed(delivery)
    assert [] == second.claims()
    assert {0: State.SUCCESS} == client.ends(run_id)
    assert 1 == client.entry(run_id).attempt


def test_a_report_is_as_good_as_a_heartbeat(broker):
    # Given a supervisor that reports, and sends no heartbeat
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(5, chunksize=5)
    delivery = worker.claim()
    for item in range(5):
        broker.elapse(broker.limits.lease_s - 1.0)
        worker.succeed(delivery, item, item + 1, final=item == 4)

    # Then it is not taken for dead
    assert {1} == {entry.attempt for entry in client.log(run_id)}
    assert 5 == len(client.ends(run_id))


def test_when_nobody_looked_for_long_every_supervisor_has_a_fresh_lease(broker):
    # Given a supervisor with an item
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()

    # When the broker's own clock jumps an hour: the machine slept, say
    broker.clock.advance(3600.0)
    broker.tick()

    # Then nobody is taken for dead
    held = worker.heartbeat()
    worker.succeed(delivery)
    assert (True, [delivery.token]) == (held.known, held.tokens)
    assert 1 == client.entry(run_id).attempt


def test_after_the_grace_a_lease_is_as_long_as_before(broker):
    # Given a supervisor that does not come back after the machine slept
    broker.client().submit()
    broker.worker().claim()
    heir = broker.worker()
    broker.clock.advance(3600.0)
    broker.tick()

    # When one lease has passed since
    broker.elapse(broker.limits.lease_s - 1.0, heard=(heir,))
    early = heir.claims()
    broker.elapse(2.0, heard=(heir,))

    # Then its item runs elsewhere
    assert [] == early
    assert 2 == heir.claim().attempt


def test_a_clock_that_goes_backwards_costs_nobody_his_lease(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()

    broker.clock.advance(-500.0)
    broker.tick()
    broker.elapse(5.0)

    worker.succeed(delivery)
    assert 1 == client.entry(run_id).attempt


def test_a_supervisor_that_was_taken_for_dead_is_told_so(broker):
    worker = broker.worker()

    broker.elapse(broker.limits.lease_s + 2.0)

    assert (False, []) == (worker.heartbeat().known, worker.heartbeat().tokens)


def test_a_supervisor_that_was_taken_for_dead_gets_no_more_work(broker):
    client, worker = broker.client(), broker.worker()
    broker.elapse(broker.limits.lease_s + 2.0)

    client.submit()

    assert [] == worker.claims()
    assert [] == client.inspect().workers


def test_the_answer_to_a_heartbeat_names_what_the_supervisor_holds(broker):
    # Given a supervisor with two chunks
    client, worker = broker.client(), broker.worker(slots=3)
    client.submit(2)
    first, second = worker.claims()
    both = worker.heartbeat()

    # When one of them has ended
    worker.succeed(first)

    # Then it holds the other one
    assert {first.token, second.token} == set(both.tokens)
    assert [second.token] == worker.heartbeat().tokens


def test_a_delivery_that_was_lost_on_its_way_comes_again(broker):
    # Given a supervisor that learns from a heartbeat of a claim that it never saw
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    [token] = worker.heartbeat().tokens

    # When it ends that claim without an outcome, as it knows nothing else of it
    worker._port.commit(token, b"", [], final=True)
    again = worker.claims()[-1]

    # Then the item is delivered anew
    worker.succeed(again)
    assert (run_id, 1) == (again.run_id, again.attempt)
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_workers_that_come_and_go_are_news_for_those_who_wait(broker):
    # Given a client with a run that nobody can run
    client = broker.client()
    run_id = client.submit()
    nobody = client.note(run_id).slots if client.notes else 0

    # When a supervisor comes, and falls silent
    broker.worker(slots=3)
    three = client.note(run_id).slots
    broker.elapse(broker.limits.lease_s + 2.0)

    # Then the client knows each time how many slots there are
    assert [0, 3, 0] == [nobody, three, client.note(run_id).slots]
