"""Chunk sizes, learnt."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.chunking import FLOOR_S, TARGET_S, ChunkSizer

lessons = st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 100)), max_size=20)


def taught(*lessons):
    sizer = ChunkSizer()
    for items, seconds in lessons:
        sizer.learn(items, seconds)
    return sizer


def sizes_of_a_run(seconds_per_item, *, waiting, slots):
    sizer = ChunkSizer()
    while waiting:
        size = sizer.size(waiting=waiting, slots=slots)
        yield size
        sizer.learn(size, size * seconds_per_item)
        waiting -= size


def test_an_unknown_function_is_tried_with_one_item():
    assert 1 == ChunkSizer().size(waiting=1_000_000, slots=1)
    assert not ChunkSizer().is_short(1)


@given(lessons, st.integers(1, 10**7), st.integers(1, 1000))
def test_a_chunk_has_at_least_one_item_and_never_more_than_wait(lessons, waiting, slots):
    assert 1 <= taught(*lessons).size(waiting=waiting, slots=slots) <= waiting


@given(st.floats(1e-7, 10), st.integers(1, 100_000), st.integers(1, 64))
def test_chunks_at_most_double(seconds_per_item, waiting, slots):
    sizes = list(itertools.islice(sizes_of_a_run(seconds_per_item, waiting=waiting, slots=slots), 200))

    for index, size in enumerate(sizes):
        assert size <= 2 * max([*sizes[:index], 0.5])


@given(st.floats(1e-7, 10), st.integers(1, 10**6), st.integers(1, 64))
def test_a_chunk_takes_no_longer_than_its_target_unless_it_is_a_single_item(seconds_per_item, waiting, slots):
    for size in itertools.islice(sizes_of_a_run(seconds_per_item, waiting=waiting, slots=slots), 200):
        assert size == 1 or size * seconds_per_item <= TARGET_S * 1.001


@given(st.floats(1e-7, 10), st.integers(1, 10**6), st.integers(1, 64))
def test_no_slot_takes_much_more_than_its_share(seconds_per_item, waiting, slots):
    sizer = taught(*[(2**power, 2**power * seconds_per_item) for power in range(20)])
    size = sizer.size(waiting=waiting, slots=slots)

    assert size <= -(-waiting // slots) or size * seconds_per_item <= FLOOR_S * 1.001


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=50))
def test_what_is_learnt_lies_within_what_was_seen(times):
    sizer = taught(*[(1, seconds) for seconds in times])

    assert min(times) * 0.999 <= sizer.seconds_per_item <= max(times) * 1.001


def test_newer_times_count_more():
    # Given a function that becomes ten times slower
    sizer = taught(*[(1, 0.001)] * 50, *[(1, 0.01)] * 10)

    # Then its new time is known soon
    assert sizer.seconds_per_item > 0.009


def test_a_small_chunk_at_the_end_does_not_outweigh_large_ones():
    # Given a function known from large chunks
    sizer = taught(*[(2**power, 2**power * 1e-4) for power in range(10)])

    # When a last chunk of one item is slow, once
    sizer.learn(1, 0.1)

    # Then its time is remembered as about a tenth of that: one of ten lessons, not half of the truth
    assert sizer.seconds_per_item < 0.011


def test_items_that_took_no_time_at_all_are_no_trouble():
    assert 2 == taught((1, 0.0)).size(waiting=10**6, slots=2)


@pytest.mark.parametrize(("items", "expected"), [(19, True), (20, True), (21, False)])
def test_short_is_what_ends_within_the_target(items, expected):
    assert expected is taught((1, 0.01)).is_short(items)
