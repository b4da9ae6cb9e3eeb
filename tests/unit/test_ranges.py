"""Ranges behave as the plain lists that they stand for."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.ranges import RangeMap, RangeQueue

values = st.integers(0, 2)
appends = st.lists(st.tuples(st.integers(1, 5), values), min_size=1, max_size=6)
writes = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30), values), max_size=12)


def build(appends, writes=()):
    """The same content as a range map and as a list."""
    ranges, plain = RangeMap(), []
    for count, value in appends:
        ranges.append(count, value)
        plain += [value] * count
    for position, length, value in writes:
        start = position % len(plain)
        stop = min(start + length, len(plain))
        ranges.set(start, stop, value)
        plain[start:stop] = [value] * (stop - start)
    return ranges, plain


@given(appends, writes)
def test_a_range_map_reads_like_a_list(appends, writes):
    ranges, plain = build(appends, writes)

    assert len(plain) == len(ranges)
    assert plain == [ranges[index] for index in range(len(ranges))]


@given(appends, writes)
def test_a_range_map_stores_no_more_than_it_must(appends, writes):
    ranges, plain = build(appends, writes)

    changes = sum(before != after for before, after in itertools.pairwise(plain))
    assert changes + 1 == ranges.segment_count


@given(appends, writes, st.integers(-5, 40), st.integers(-5, 40))
def test_segments_are_maximal_and_cover_what_was_asked_for(appends, writes, start, stop):
    ranges, plain = build(appends, writes)
    segments = ranges.segments(start, stop)

    wanted = range(max(start, 0), min(stop, len(plain)))
    assert [(index, plain[index]) for index in wanted] == [
        (index, value) for first, last, value in segments for index in range(first, last)
    ]
    for (_, last, value), (first, _, next_value) in itertools.pairwise(segments):
        assert last == first
        assert value != next_value


@given(appends, writes, appends)
def test_a_range_map_grows_after_it_was_written_to(appends, writes, more):
    ranges, plain = build(appends, writes)
    for count, value in more:
        ranges.append(count, value)
        plain += [value] * count

    assert plain == [ranges[index] for index in range(len(ranges))]


@pytest.mark.parametrize("index", [-1, 5, 100])
def test_reading_outside_of_a_range_map_is_an_error(index):
    ranges, _ = build([(5, "a")])

    with pytest.raises(IndexError):
        ranges[index]


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (4, 2), (2, 6)])
def test_writing_outside_of_a_range_map_is_an_error(start, stop):
    ranges, plain = build([(5, "a")])

    with pytest.raises(IndexError):
        ranges.set(start, stop, "b")
    assert plain == [ranges[index] for index in range(5)]


def test_a_million_equal_items_are_one_segment():
    ranges = RangeMap()
    for _ in range(1000):
        ranges.append(1000, "waits")

    assert (1_000_000, 1) == (len(ranges), ranges.segment_count)


queue_steps = st.lists(
    st.one_of(
        st.tuples(st.just("back"), st.integers(0, 20), st.integers(1, 4)),
        st.tuples(st.just("front"), st.integers(0, 20), st.integers(1, 4)),
        st.tuples(st.just("drop"), st.integers(1, 3), st.just(0)),
    ),
    max_size=30,
)


@given(queue_steps)
def test_a_range_queue_holds_what_a_list_would(steps):
    queue, plain = RangeQueue(), []
    for kind, number, length in steps:
        if kind == "back":
            queue.push_back(number, number + length)
            plain += range(number, number + length)
        elif kind == "front":
            queue.push_front(number, number + length)
            plain[:0] = range(number, number + length)
        elif queue:
            start, stop = queue.head()
            count = min(number, stop - start)
            assert plain[:count] == list(range(start, start + count))
            queue.drop(count)
            del plain[:count]

        assert plain == [index for start, stop in queue for index in range(start, stop)]
        assert bool(plain) == bool(queue)


def test_neighbours_in_a_queue_become_one_range():
    queue = RangeQueue()
    queue.push_back(3, 5)
    queue.push_back(5, 9)
    queue.push_front(1, 3)

    assert [(1, 9)] == list(queue)
