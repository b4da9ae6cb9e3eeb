"""A log that is read anew from a server that has lost its end tells nothing twice."""

from nbqueue.brokers.redis.follow import Follow
from nbqueue.core.states import State
from nbqueue.core.task import Entry


def success(start, stop):
    return Entry(start, stop, State.SUCCESS, payload=b"values", wall_s=float(stop - start))


def shown(parts):
    return [(part.start, part.stop, part.offset) for part in parts]


def test_entries_of_one_server_are_handed_out_as_they_are():
    follow = Follow(0, None)

    assert [(0, 3, 0), (5, 6, 0)] == shown(follow.next_of(success(0, 3)) + follow.next_of(success(5, 6)))
    assert (2, 2) == (follow.cursor, follow.shown)


def test_what_was_told_before_the_server_changed_is_passed_over():
    # Given a client that has heard of items 0 to 4 and 6
    follow = Follow(0, None)
    follow.next_of(success(0, 5))
    follow.next_of(success(6, 7))

    # When the next server has lost the second entry, and items 5 to 9 have run again in one go
    follow.begin_anew()
    again = follow.next_of(success(0, 5)) + follow.next_of(success(5, 10))

    # Then the client hears of the others only, each with its place in the payload, and goes on counting
    assert [(5, 6, 0), (7, 10, 2)] == shown(again)
    assert [1.0, 3.0] == [part.wall_s for part in again]
    assert (2, 4) == (follow.cursor, follow.shown)


def test_a_second_change_is_no_worse_than_the_first():
    follow = Follow(0, None)
    for first in (0, 2, 4):
        follow.next_of(success(first, first + 1))
    follow.begin_anew()
    follow.next_of(success(0, 2))
    follow.begin_anew()

    assert [(3, 4, 3), (5, 6, 5)] == shown(follow.next_of(success(0, 6)))
