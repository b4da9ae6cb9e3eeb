"""What tasks print reaches those who follow their run: in order, once, bounded, and never in the way of results."""

from nbqueue.core.audience import OUTPUT_WINDOW_BYTES
from nbqueue.core.output import ITEM_TEXT_BYTES, RUN_TEXT_BYTES, Clear, Display, OutputEvent, Text


def texts(events):
    return [event.what.text for event in events]


def test_output_arrives_while_its_task_runs(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()

    worker.print(delivery, "one\n")
    worker.print(delivery, "two\n", position=4)

    [one, two] = client.printed(run_id)
    assert (Text("stdout", "one\n"), Text("stdout", "two\n")) == (one.what, two.what)
    assert (0, 1) == (one.number, two.number)
    assert {(0, 1, "w0")} == {(event.item, event.attempt, event.worker) for event in (one, two)}
    assert {} == client.ends(run_id)


def test_whoever_hears_of_an_end_has_heard_the_output_before_it(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    worker.print(delivery, "done\n")
    worker.succeed(delivery)
    client.settle()

    [position] = [index for index, note in enumerate(client.told) if note in client.outputs]
    assert not any(note.finished for note in client.told[:position])
    assert (True, 1) == (client.note(run_id).finished, client.note(run_id).output_end)


def test_a_run_that_prints_nothing_is_told_nothing_of_output(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    worker.succeed(worker.claim())

    assert [] == client.printed(run_id)
    assert 0 == client.note(run_id).output_end


def test_a_client_that_attaches_later_hears_what_was_printed_before(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    worker.print(delivery, "early\n")
    worker.succeed(delivery)

    other = broker.client()
    other.attach(run_id)

    assert ["early\n"] == texts(other.printed(run_id))


def test_a_client_goes_on_where_it_was(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    worker.print(delivery, "one\n")
    worker.print(delivery, "two\n", position=4)

    other = broker.client()
    other.attach(run_id, output_cursor=1)
    worker.print(delivery, "three\n", position=8)

    assert ["two\n", "three\n"] == texts(other.printed(run_id))
    assert [(1, 2), (2, 3)] == [(note.cursor, note.until) for note in other.outputs]


def test_a_client_in_a_new_session_hears_it_again(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    worker.print(worker.claim(), "one\n")
    client.settle()

    again = broker.reopen(client)
    again.attach(run_id)

    assert ["one\n"] == texts(again.printed(run_id))


def test_pictures_stand_where_they_were_shown(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    shown = Display({"text/html": "<b>1</b>"}, {"text/html": {"isolated": True}}, {"display_id": "x"})
    whats = [Text("stderr", "a"), shown, Clear(wait=True), Display({"image/png": "iVBO"}, {}, {}, update=True)]

    worker.report_output(delivery, *(OutputEvent(0, 1, position, what) for position, what in enumerate(whats)))

    assert whats == [event.what for event in client.printed(run_id)]


def test_the_beginning_and_the_end_of_a_flood_are_kept(broker):
    # Given a task that prints far more than is kept
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    size = ITEM_TEXT_BYTES // 8
    for number in range(100):
        worker.print(delivery, f"{number:02}".ljust(size, "."), position=number * size)
    worker.succeed(delivery)

    # When somebody attaches later
    other = broker.client()
    other.attach(run_id)

    # Then he gets both ends, and can tell from the positions what is missing between
    events = other.printed(run_id)
    numbers = [int(event.what.text[:2]) for event in events]
    head = [number for number in numbers if number < 50]
    tail = [number for number in numbers if number >= 50]
    assert list(range(len(head))) == head
    assert list(range(100 - len(tail), 100)) == tail
    assert 6 <= len(head) <= 8
    assert 6 <= len(tail) <= 8
    assert [number * size for number in numbers] == [event.position for event in events]
    # And there is no end to what the first client, who was there, was told
    assert 100 == len(client.printed(run_id))


def test_of_a_whole_run_the_beginning_and_the_end_are_kept(broker):
    # Given many items, none of which prints too much, but all of them together
    client, worker = broker.client(), broker.worker()
    size = ITEM_TEXT_BYTES // 4
    run_id = client.submit(4 * 2 * RUN_TEXT_BYTES // ITEM_TEXT_BYTES, chunksize=2**20)
    delivery = worker.claim()
    items = range(delivery.start, delivery.stop)
    for item in items:
        for piece in range(2):
            worker.print(delivery, "x" * size, item=item, position=piece * size)

    # When somebody attaches later
    other = broker.client()
    other.attach(run_id)

    # Then he gets what the first ones and the last ones printed, and it takes no more room than that
    kept = {event.item for event in other.printed(run_id)}
    middle = len(items) // 2
    assert set(items[:middle]) - kept == set(range(min(set(items) - kept), middle))
    assert set(items[middle:]) - kept == set(range(middle, max(set(items) - kept) + 1))
    assert {items[0], items[-1]} <= kept
    assert len(items) // 4 < len(kept) < len(items) * 3 // 4
    assert client.inspect().payload_bytes < 2 * RUN_TEXT_BYTES + 4 * size


def test_a_client_that_does_not_read_gets_no_more_output_but_all_results(broker):
    # Given a client that acknowledges nothing
    client, worker = broker.client(acknowledges=False), broker.worker()
    run_id = client.submit(2)
    delivery = worker.claim()
    size = ITEM_TEXT_BYTES // 4
    for number in range(2 * OUTPUT_WINDOW_BYTES // size):
        worker.print(delivery, "x" * size, position=number * size)

    # Then it is sent no more than its window
    client.settle()
    sent = sum(note.size_bytes for note in client.outputs)
    assert OUTPUT_WINDOW_BYTES <= sent < OUTPUT_WINDOW_BYTES + 2 * size

    # But results come, and say how much output there is
    worker.succeed(delivery)
    worker.succeed(worker.claim())
    assert 2 == len(client.ends(run_id))
    assert client.note(run_id).output_end > client.outputs[-1].until

    # And once it has read, the rest of the output follows
    client.acknowledge(0, 0, output_bytes=sent)
    assert client.note(run_id).output_end == client.outputs[-1].until


def test_what_is_not_the_claims_is_dropped(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(2, chunksize=1)
    first = worker.claim()

    worker.print(first, "another's item", item=1)
    worker.succeed(first)
    worker.print(first, "too late")

    assert [] == client.printed(run_id)


def test_output_of_a_forgotten_run_is_forgotten(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit()
    delivery = worker.claim()
    worker.print(delivery, "x" * 10_000)
    worker.succeed(delivery)
    stored = client.inspect().payload_bytes

    client.forget(run_id)

    assert stored >= 10_000
    assert 0 == client.inspect().payload_bytes


def test_output_of_every_attempt_is_kept(broker):
    client, worker = broker.client(), broker.worker()
    run_id = client.submit(max_lost=1)
    first = worker.claim()
    worker.print(first, "first\n")
    worker.kill(first)
    broker.elapse(10.0, heard=(worker,))
    second = worker.claim()
    worker.print(second, "second\n")
    worker.succeed(second)

    assert [(1, "first\n"), (2, "second\n")] == [(event.attempt, event.what.text) for event in client.printed(run_id)]
