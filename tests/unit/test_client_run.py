"""A run as the client folds it from notes that may come twice, late or not at all."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.client.run import ClientRun
from nbqueue.core.exchange import Note
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Entry
from nbqueue.errors import BrokerUnavailable

TOTAL = 10
#: The log of a run of ten items, in the order in which they ended.
LOG = [
    Entry(4, 6, State.SUCCESS, b"a"),
    Entry(0, 1, State.FAILURE, b"b"),
    Entry(6, 10, State.SUCCESS, b"c"),
    Entry(1, 4, State.REVOKED),
]


def note(first, last):
    """What the broker says of this part of the log, when it is that far."""
    ended = sum(entry.stop - entry.start for entry in LOG[:last])
    finished = last == len(LOG)
    counts = Counts(total=TOTAL, done=ended)
    return Note(run_id=b"r", cursor=first, entries=LOG[first:last], counts=counts, finished=finished, slots=last)


def folded(*parts):
    run = ClientRun(b"r", "f")
    for first, last in parts:
        run.fold(note(first, last))
    return run


def items_of(run):
    return {item: run.entry_of(item) for item in range(-1, TOTAL + 1) if run.entry_of(item)}


def test_a_log_in_parts_is_the_whole_log():
    run = folded((0, 1), (1, 3), (3, 4))

    assert sorted(LOG, key=lambda entry: entry.start) == run.entries()
    assert [4, 0, 6, 1] == run.arrived
    assert [LOG[1], LOG[3]] == run.failures
    assert run.is_finished


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)).map(sorted).map(tuple), max_size=20))
def test_however_notes_come_each_entry_is_taken_once_and_in_order(parts):
    # Given notes in any order, some twice, some never
    run, known = ClientRun(b"r", "f"), 0
    for first, last in parts:
        run.fold(note(first, last))
        if first <= known:
            known = max(known, last)

        # Then what has no gap before it is known, and the end only when everything is
        assert known == run.cursor
        assert [entry.start for entry in LOG[:known]] == run.arrived
        assert {i: entry for entry in LOG[:known] for i in range(entry.start, entry.stop)} == items_of(run)
        assert not run.is_finished or known == len(LOG)

    # When the broker repeats it from where the client stands
    run.fold(note(run.cursor, len(LOG)))

    # Then nothing is missing
    assert run.is_finished
    assert [entry.start for entry in LOG] == run.arrived


def test_what_comes_too_early_is_left_for_a_repetition():
    run = folded((1, 4))

    assert (0, {}, False, 0) == (run.cursor, items_of(run), run.is_finished, run.counts.total)
    run.fold(note(0, 4))
    assert (4, True) == (run.cursor, run.is_finished)


def test_a_note_without_entries_tells_the_counts():
    run = folded((0, 1), (1, 1))

    assert (TOTAL, 2, 1) == (run.counts.total, run.counts.done, run.slots)


def test_an_item_that_has_not_ended_has_no_entry():
    run = folded((0, 2))

    assert [LOG[1], None, None, LOG[0], LOG[0], None] == [run.entry_of(item) for item in (0, 1, 3, 4, 5, 6)]


def test_an_entry_that_was_let_go_is_gone_and_all_others_stay():
    # Given a run that has ended
    run = folded((0, 4))

    # When one entry is let go, twice
    run.let_go(LOG[0])
    run.let_go(LOG[0])

    # Then its items have none, and the others have theirs
    assert [LOG[3], None, None, LOG[2]] == [run.entry_of(item) for item in (3, 4, 5, 6)]
    assert [LOG[1], LOG[3], LOG[2]] == run.entries()


def test_a_failure_is_remembered_when_its_entry_was_let_go():
    run = folded((0, 4))
    run.let_go(LOG[1])

    assert [LOG[1], LOG[3]] == run.failures


def test_time_stands_still_at_the_end():
    run = folded((0, 4))

    assert run.elapsed_s == run.elapsed_s == run.finished_at - run.started_at


def test_a_broker_that_is_gone_ends_the_run():
    error = BrokerUnavailable("gone")
    run = folded((0, 1))
    assert not run.is_over

    run.fail(error)
    run.fail(BrokerUnavailable("again"))

    assert (True, False, error) == (run.is_over, run.is_finished, run.error)
    assert run.elapsed_s == run.elapsed_s


def test_a_finished_run_does_not_mind():
    run = folded((0, 4))
    run.fail(BrokerUnavailable("gone"))

    assert (True, None) == (run.is_finished, run.error)


@pytest.mark.parametrize(
    ("known", "expected"),
    [((5, False), Counts(total=7, closed=True)), ((9, False), Counts(total=9, closed=True))],
)
def test_the_client_knows_of_items_before_the_broker_says_so(known, expected):
    run = ClientRun(b"r", "f")
    run.expect(7, closed=True)
    total, closed = known
    run.expect(total, closed=closed)

    assert expected == run.counts


def test_the_client_still_knows_it_when_the_broker_speaks_that_had_not_heard_it_yet():
    # Given a run of which the client has handed over the last items
    run = ClientRun(b"r", "f")
    run.expect(7, closed=True)

    # When news arrives that the broker sent before it had them
    early = Counts(total=2, closed=False, done=1)
    run.fold(Note(run_id=b"r", cursor=0, entries=[], counts=early, finished=False, slots=1))

    # Then no item is missing
    assert Counts(total=7, closed=True, done=1) == run.counts


def test_who_waits_is_woken_by_every_arrival():
    # Given a thread that waits for the end
    run = ClientRun(b"r", "f")
    waits, seen = threading.Event(), []

    def wait():
        with run.changed:
            waits.set()
            while not run.is_over:
                run.changed.wait()
                seen.append(run.cursor)

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()

    # When the end comes
    run.fold(note(0, 4))

    # Then it is awake
    thread.join(10)
    assert [4] == seen
