"""Values and blocks of values, there and back."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import NotSerializable, ProtocolError
from nbqueue.wire.blobs import INLINE_BYTES, BlobStore
from nbqueue.wire.payload import (
    BLOCK_BYTES,
    FIRST_BLOCK_ITEMS,
    LAST_BLOCK_ITEMS,
    OUT_OF_BAND_BYTES,
    PackedValues,
    is_plain,
    pack,
    pack_blocks,
    pack_values,
    unpack,
)

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(),
)
others = st.one_of(st.lists(plain), st.dictionaries(st.text(), plain), st.sets(st.integers()), st.tuples(plain))


@pytest.fixture
def blobs(tmp_path):
    store = BlobStore([tmp_path / "blobs"])
    store.create()
    return store


class Landmine:
    """Can be sent, and harms who unpacks it."""

    def __reduce__(self):
        return _explode, ()


def _explode():
    raise RuntimeError("unpacked")


def blocks_of(values, *, start=0, blobs=None):
    return list(pack_blocks(values, start=start, blobs=blobs, folder="run"))


def values_of(blocks, blobs=None):
    return [
        value for block in blocks for value in PackedValues(block.payload, blobs).slice(0, block.stop - block.start)
    ]


# -- one value ---------------------------------------------------------------------------------------------------------


@given(st.one_of(plain, others))
def test_a_value_comes_back_equal(value):
    again = unpack(pack(value, None, "run"), None)

    assert (type(value), value) == (type(again), again)


@pytest.mark.parametrize(
    ("size", "kind"), [(10, b"P"), (OUT_OF_BAND_BYTES - 1, b"P"), (OUT_OF_BAND_BYTES, b"B"), (INLINE_BYTES, b"F")]
)
def test_an_array_of_any_size_arrives_equal_and_writable(blobs, size, kind):
    # Given an array
    array = np.arange(size, dtype=np.uint8)

    # When it travels
    packed = pack(array, blobs, "run")
    again = unpack(packed, blobs)

    # Then it came the way that fits its size, and is the receiver's own
    assert kind == packed[:1]
    assert np.array_equal(array, again)
    again[0] = 77
    assert 0 == unpack(packed, blobs)[0]


@pytest.mark.parametrize("array", [np.asfortranarray(np.ones((300, 400))), np.ones((900, 400))[::2]])
def test_the_layout_of_an_array_does_not_matter(blobs, array):
    assert np.array_equal(array, unpack(pack(array, blobs, "run"), blobs))


def test_several_arrays_in_a_file_are_aligned_and_not_mixed_up(blobs):
    arrays = [np.full(INLINE_BYTES + odd, odd, dtype=np.uint8) for odd in (1, 2, 3)]
    again = unpack(pack(arrays, blobs, "run"), blobs)

    assert all(map(np.array_equal, arrays, again))
    assert [0, 0, 0] == [array.ctypes.data % 64 for array in again]


def test_without_files_a_large_value_stays_inline():
    array = np.arange(INLINE_BYTES, dtype=np.float64)
    again = unpack(pack(array, None, "run"), None)

    assert np.array_equal(array, again)
    again[0] = 1.0


def test_what_is_too_large_for_a_message_is_refused_unless_there_are_files(blobs, monkeypatch):
    monkeypatch.setattr("nbqueue.wire.payload.MAX_MESSAGE_BYTES", 2**20)
    value = bytes(2**21)

    with pytest.raises(NotSerializable, match=r"a bytes of 2 MiB is too large .* up to 1 MiB .* keep it in a file"):
        pack(value, None, "run")
    assert value == unpack(pack(value, blobs, "run"), blobs)


def test_what_cannot_be_sent_is_named_by_its_type():
    with pytest.raises(NotSerializable, match="a lock cannot be sent to a worker"):
        pack(threading.Lock(), None, "run")


@pytest.mark.parametrize("data", [b"", b"Zabc", b"F0/run/name"])
def test_an_unknown_kind_of_value_is_no_message_of_ours(data):
    with pytest.raises(ProtocolError):
        unpack(data, None)


# -- many values -------------------------------------------------------------------------------------------------------


@given(st.one_of(st.lists(plain), st.lists(st.tuples(plain, plain)), st.lists(st.one_of(plain, others))))
def test_a_block_holds_its_values_in_order(values):
    assert values == values_of(blocks_of(values))


@given(st.lists(st.one_of(plain, others), min_size=1, max_size=20), st.data())
def test_a_part_of_a_block_is_that_part_of_the_values(values, data):
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(values)), st.integers(0, len(values)))))
    [block] = blocks_of(values)
    packed = PackedValues(block.payload, None)

    assert values[start:stop] == packed.slice(start, stop)
    assert values[start:] == [packed.get(index) for index in range(start, len(values))]


@pytest.mark.parametrize("kind", [int, lambda number: [number]])
def test_blocks_follow_each_other_without_gaps(kind):
    blocks = blocks_of(map(kind, range(30_000)), start=5)

    assert (5, 30_005) == (blocks[0].start, blocks[-1].stop)
    assert [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
    assert [kind(number) for number in range(30_000)] == values_of(blocks)


def test_blocks_begin_small_and_at_most_double():
    sizes = [block.stop - block.start for block in blocks_of(range(60_000))]

    assert FIRST_BLOCK_ITEMS == sizes[0]
    assert all(size <= 2 * before for before, size in itertools.pairwise(sizes))
    assert max(sizes) <= LAST_BLOCK_ITEMS


@pytest.mark.parametrize("value", ["x" * 5000, ["x" * 5000]])
def test_large_values_make_small_blocks(value):
    assert max(len(block.payload) for block in blocks_of([value] * 500)) <= 2 * BLOCK_BYTES + 100


def test_a_slow_input_is_asked_for_no_more_than_the_block_needs():
    numbers = iter(range(10_000))
    next(pack_blocks(numbers, start=0, blobs=None, folder="run"))

    assert FIRST_BLOCK_ITEMS == next(numbers)


def test_a_bad_value_does_not_harm_its_neighbours():
    # Given values of which one cannot be unpacked
    [block] = blocks_of([[1], Landmine(), [3]])
    packed = PackedValues(block.payload, None)

    # Then it fails alone
    with pytest.raises(RuntimeError, match="unpacked"):
        packed.get(1)
    assert ([1], [3]) == (packed.get(0), packed.get(2))


def test_what_cannot_be_sent_is_named_by_its_index():
    with pytest.raises(NotSerializable, match="item 12: a lock"):
        blocks_of([0, 1, threading.Lock()], start=10)


@given(st.lists(st.one_of(plain, others), max_size=50), st.integers(0, 100))
def test_results_are_packed_whole(values, start):
    packed = list(pack_values(values, start=start, blobs=None, folder="run"))

    assert values == [value for count, payload in packed for value in PackedValues(payload, None).slice(0, count)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, "a", None], True), ([(1, 2), (3,)], True), ([1, (2,)], False), ([[1]], False), ([((1,),)], False)],
)
def test_only_what_any_python_knows_is_plain(values, expected):
    assert expected is is_plain(values)
    [block] = blocks_of(values)
    assert (values if expected else None) == PackedValues(block.payload, None).plain


def test_a_subclass_of_a_builtin_keeps_its_type():
    assert [np.float64] == list(map(type, values_of(blocks_of([np.float64(1.5)]))))


def test_an_unknown_kind_of_block_is_no_message_of_ours():
    with pytest.raises(ProtocolError):
        PackedValues(b"Zabc", None)
