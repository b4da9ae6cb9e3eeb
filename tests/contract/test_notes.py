"""What a client hears of its runs: everything, once, in order, and never more than it can take."""

import pytest

from nbqueue.core.followers import NOTE_WINDOW_BYTES, NOTE_WINDOW_ENTRIES
from nbqueue.core.states import State
from nbqueue.core.task import Failed, Succeeded


def test_every_note_goes_on_where_the_last_one_ended(broker):
    # Given a run of which item after item ends
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(5)
    for _ in range(5):
        worker.succeed(worker.claim())
        client.settle()

    # Then the notes have no gaps and no repetitions
    position = 0
    for note in client.notes:
        assert position == note.cursor
        position += len(note.entries)
    assert 5 == position
    assert 5 == len(client.ends(run_id))


def test_what_a_note_counts_it_also_brings(broker):
    # Given a run whose items end in all ways
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(4)
    worker.succeed(worker.claim())
    worker.fail(worker.claim())
    client.revoke(run_id, 3, 4)
    worker.succeed(worker.claim())
    client.settle()

    # Then whenever a note said that items had ended, their ends had been told: the result first, then the news of it
    for note in client.notes:
        assert note.counts.ended == note.cursor + len(note.entries)
        assert note.finished == (note.counts.ended == 4)


def test_the_last_note_says_that_the_run_is_finished(broker):
    client, worker = broker.client(), broker.worker()
    client.submit(2)
    worker.succeed(worker.claim())
    client.settle()
    unfinished = [note.finished for note in client.notes]

    worker.succeed(worker.claim())
    client.settle()

    assert not any(unfinished)
    assert [True] == [note.finished for note in client.notes[len(unfinished) :]]


def test_a_client_that_attaches_later_hears_everything(broker):
    # Given a finished run
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)
    worker.succeed(worker.claim(), payload=b"first")
    worker.succeed(worker.claim(), payload=b"second")

    # When somebody else attaches
    other = broker.client()
    other.attach(run_id)

    # Then he has the same
    assert client.log(run_id) == other.log(run_id)
    assert other.note(run_id).finished


def test_a_client_that_attaches_in_the_middle_hears_the_rest_as_well(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)
    worker.succeed(worker.claim())
    other = broker.client()
    other.attach(run_id)

    worker.succeed(worker.claim())

    assert [0, 1] == [entry.start for entry in other.log(run_id)]


def test_attaching_with_a_cursor_brings_only_what_follows(broker):
    # Given a client that has read two of three entries, and asks for the rest in a new session
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(3)
    for _ in range(3):
        worker.succeed(worker.claim())
    again = broker.reopen(client)
    again.attach(run_id, cursor=2)

    # Then only the third is sent
    [note] = again.notes
    assert (2, [2]) == (note.cursor, [entry.start for entry in note.entries])
    assert note.finished


def test_attaching_again_changes_nothing_for_one_who_has_everything(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2)
    worker.succeed(worker.claim())
    worker.succeed(worker.claim())
    before = list(client.log(run_id))

    client.attach(run_id, cursor=2)
    client.attach(run_id, cursor=0)

    assert before == client.log(run_id)
    assert 2 == len(client.ends(run_id))


def test_the_broker_says_that_it_does_not_know_a_run(broker):
    client = broker.client()

    client.attach(b"?" * 16)

    assert not client.note(b"?" * 16).known
    assert not client.note(b"?" * 16).finished


def test_two_clients_do_not_hear_of_each_others_runs(broker):
    # Given two clients with a run each, at the same broker and workers
    first, second = broker.client(), broker.client()
    runs = first.submit(2), second.submit(2)
    worker = broker.worker()
    for _ in range(4):
        worker.succeed(worker.claim())
    first.settle()
    second.settle()

    # Then each has heard of its own only
    assert {runs[0]} == {note.run_id for note in first.notes}
    assert {runs[1]} == {note.run_id for note in second.notes}
    assert 2 == len(first.ends(runs[0])) == len(second.ends(runs[1]))


@pytest.mark.parametrize("by", ["entries", "bytes"])
def test_a_client_that_does_not_read_is_sent_no_more_than_a_window(broker, by):
    # Given a client that does not acknowledge
    client, worker = broker.client(acknowledges=False), broker.worker()
    if by == "entries":
        items, payload, window = NOTE_WINDOW_ENTRIES + 100, b"r", NOTE_WINDOW_ENTRIES
    else:
        items, payload, window = 12, bytes(NOTE_WINDOW_BYTES // 8), 8
    run_id = client.submit(items, chunksize=items)

    # When more ends than fits into its window
    delivery = worker.claim()
    if by == "entries":
        worker.commit(delivery, *(Failed(item, payload, False, 1.0) for item in range(items)))
    else:
        for item in range(items):
            worker.commit(delivery, Succeeded(item, item + 1, payload, 1.0), final=item == items - 1)
    held_back = len(client.log(run_id)), client.note(run_id).finished

    # Then the rest comes when it has acknowledged, and nothing is lost or told twice
    client.acknowledge(window, window * len(payload))
    assert (window, False) == held_back
    assert items == len(client.ends(run_id)) == sum(len(note.entries) for note in client.notes)
    assert client.note(run_id).finished


def test_a_client_that_does_not_read_does_not_hold_up_others(broker):
    # Given a client whose window is used up
    slow, fast = broker.client(acknowledges=False), broker.client()
    worker = broker.worker()
    items = NOTE_WINDOW_ENTRIES + 10
    slow.submit(items, chunksize=items)
    worker.commit(worker.claim(), *(Failed(item, b"r", False, 1.0) for item in range(items)))

    # When another client has work
    run_id = fast.submit()
    worker.succeed(worker.claim())

    # Then it is served
    assert {0: State.SUCCESS} == fast.ends(run_id)


def test_a_new_session_starts_with_an_empty_window(broker):
    # Given a client that used up its window and lost its connection
    client, worker = broker.client(acknowledges=False), broker.worker()
    items = NOTE_WINDOW_ENTRIES + 10
    run_id = client.submit(items, chunksize=items)
    worker.commit(worker.claim(), *(Failed(item, b"r", False, 1.0) for item in range(items)))
    client.settle()

    # When it comes back and asks for everything
    again = broker.reopen(client)
    again.attach(run_id)

    # Then it gets everything
    assert items == len(again.ends(run_id))
    assert again.note(run_id).finished


def test_a_client_that_was_silent_for_long_is_told_that_it_was_forgotten_and_can_catch_up(broker):
    # Given a client that falls silent, and a run of it that ends meanwhile
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    broker.elapse(broker.limits.client_lease_s + 2.0, heard=(worker,), silent=(client,))
    worker.succeed(delivery)

    # When it wakes up
    client.pongs.clear()
    client.settle()
    missed = client.ends(run_id)
    client.attach(run_id)

    # Then it knows that it must attach, and has lost nothing
    assert not client.pongs[0].known
    assert {} == missed
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_a_client_that_pings_is_not_forgotten(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()

    broker.elapse(3 * broker.limits.client_lease_s, heard=(worker,))
    worker.succeed(delivery)

    assert all(pong.known for pong in client.pongs)
    assert {0: State.SUCCESS} == client.ends(run_id)


def test_the_work_of_all_items_adds_up(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(3)
    for wall_s in (0.5, 1.5, 4.0):
        worker.succeed(worker.claim(), wall_s=wall_s)

    assert 6.0 == client.note(run_id).work_s
