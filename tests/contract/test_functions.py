"""Functions travel once to each supervisor, and are forgotten with their last run."""


def finish(worker):
    for delivery in worker.claims():
        worker.succeed(delivery)


def test_a_supervisor_is_sent_a_function_once(broker):
    # Given a run of three items
    worker = broker.worker()
    broker.client().submit(3, body=b"text")

    # When one supervisor runs them all
    for _ in range(3):
        worker.succeed(worker.claim())

    # Then the function came with the first only
    assert [b"text", None, None] == [delivery.function for delivery in worker.deliveries]


def test_every_supervisor_is_sent_the_function(broker):
    broker.client().submit(2, body=b"text")

    deliveries = [broker.worker().claim(), broker.worker().claim()]

    assert [b"text", b"text"] == [delivery.function for delivery in deliveries]


def test_a_second_run_of_the_same_function_does_not_send_it_again(broker):
    client, worker = broker.client(), broker.worker(slots=2)
    client.submit(body=b"text")
    client.submit(body=b"text")

    assert [b"text", None] == [delivery.function for delivery in worker.claims()]


def test_a_function_is_forgotten_with_its_last_run(broker):
    # Given two finished runs of one function
    client, worker = broker.client(), broker.worker(slots=2)
    first, second = client.submit(function=b"digest"), client.submit(function=b"digest")
    finish(worker)

    # When they are forgotten one by one
    client.forget(first)
    worker.settle()
    after_the_first = list(worker.forgotten)
    client.forget(second)
    worker.settle()

    # Then the supervisor may let go of the function after the second
    assert [] == after_the_first
    assert [b"digest"] == worker.forgotten


def test_a_forgotten_function_is_sent_anew(broker):
    # Given a supervisor that was told to forget a function
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(body=b"text")
    finish(worker)
    client.forget(run_id)

    # When there is work for it again
    client.submit(body=b"text")

    # Then the function comes along
    assert b"text" == worker.claim().function


def test_supervisors_that_never_had_a_function_are_not_told_to_forget_it(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    finish(worker)
    idle = broker.worker()

    client.forget(run_id)
    idle.settle()

    assert [] == idle.forgotten


def test_a_function_outlives_a_forgotten_run_while_another_one_needs_it(broker):
    # Given a finished run, and one that waits, of one function
    client, worker = broker.client(), broker.worker()
    first = client.submit(body=b"text")
    delivery = worker.claim()
    client.submit(body=None)
    worker.succeed(delivery)
    client.forget(first)

    # Then a new supervisor still gets it for the second
    worker.leave()
    assert b"text" == broker.worker().claim().function


def test_a_large_function_that_was_forgotten_may_be_submitted_again(broker):
    # Given a broker that has forgotten a function, which its client need not know
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(body=b"f" * 10_000)
    finish(worker)
    client.forget(run_id)
    worker.settle()

    # When the client submits another run of it, then that runs
    client.submit(body=b"f" * 10_000)
    assert b"f" * 10_000 == worker.claim().function


def test_runs_of_many_kinds_keep_what_each_has_asked_for(broker):
    client, worker = broker.client(), broker.worker(slots=300)
    for number in range(300):
        client.submit(label=f"kind {number}", function=b"digest %d" % number, body=b"function %d" % number)

    assert {(f"kind {number}", b"digest %d" % number, b"function %d" % number) for number in range(300)} == {
        (delivery.label, delivery.digest, delivery.function) for delivery in worker.claims()
    }
