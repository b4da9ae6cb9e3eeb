"""Runs that were submitted inside items of other runs."""

from nbqueue.core.states import State
from nbqueue.core.task import Manner


def test_a_revoke_reaches_what_the_item_has_submitted_and_what_that_has_submitted(broker):
    # Given an item that has submitted a run, which has submitted another one; and a run of somebody else
    client, worker = broker.client(), broker.worker(slots=3)
    parent = client.submit(2, chunksize=1)
    delivery, other = worker.claims()
    child = client.submit(parent=parent, parent_item=delivery.start, depth=1)
    child_delivery = worker.claim()
    grandchild = client.submit(parent=child, depth=2)
    stranger = client.submit()

    # When the first item is revoked
    client.revoke(parent, delivery.start, delivery.stop, Manner("SIGTERM"))

    # Then so is all that came from it, and nothing else
    told = {(stop.token, stop.manner.first) for stop in worker.told_to_stop()}
    assert {(delivery.token, "SIGTERM"), (child_delivery.token, "SIGTERM")} == told
    assert {0: State.REVOKED} == client.ends(grandchild)
    assert {} == client.ends(stranger)
    assert other.token not in {token for token, _ in told}


def test_what_a_revoked_item_still_submits_never_runs(broker):
    # Given an item that was revoked but still runs
    client, worker = broker.client(), broker.worker(slots=2)
    parent = client.submit()
    worker.claim()
    client.revoke(parent)

    # When it submits something, then that never starts
    child = client.submit(3, parent=parent, depth=1)
    assert [] == worker.claims()
    assert dict.fromkeys(range(3), State.REVOKED) == client.ends(child)


def test_a_parent_that_is_forgotten_or_of_another_broker_does_no_harm(broker):
    client, worker = broker.client(), broker.worker()
    child = client.submit(parent=b"nobody".ljust(16), parent_item=7, depth=1)

    worker.succeed(worker.claim())

    assert {0: State.SUCCESS} == client.ends(child)


def test_a_delivery_says_how_deep_it_is_and_how_urgent(broker):
    client, worker = broker.client(), broker.worker()
    client.submit(depth=3, priority=5)

    delivery = worker.claim()

    assert (3, 5) == (delivery.depth, delivery.priority)
