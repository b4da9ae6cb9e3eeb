"""Values as JSON: what comes back is what was sent, and all else is refused with the place where it is."""

import enum
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import NotSerializable
from nbqueue.wire.as_json import AsJson, check_json, from_json, to_json
from nbqueue.wire.blobs import INLINE_BYTES, BlobStore
from nbqueue.wire.payload import PackedValues, pack, pack_values, unpack

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**40), 10**40), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)),
)


class Colour(enum.IntEnum):
    RED = 1


@given(values)
def test_a_value_comes_back_equal(value):
    packed = pack(AsJson(value), None, "run")

    assert b"T" == packed[:1]
    assert value == unpack(packed, None)


def test_what_is_almost_what_json_has_becomes_that():
    value = from_json(to_json((1, np.float64(0.5), Colour.RED, math.inf, math.nan)))

    assert [1, 0.5, 1, math.inf] == value[:4]
    assert [list, float, int] == [type(value), type(value[1]), type(value[2])]
    assert math.isnan(value[4])


def nested_in_itself():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ({1, 2}, "", "it is of type set"),
        ([1, {"when": [b"x"]}], "[1]['when'][0]: ", "it is of type bytes"),
        ((np.int64(1),), "[0]: ", "it is of type int64"),
        ({"a": {1: 2}}, "['a']: ", "it is a dict with the key 1, which JSON would turn into a text"),
        ({None: 1}, "", "it is a dict with the key None"),
        (nested_in_itself(), "", "it contains itself, or is nested too deeply"),
        ([10**5000], "", "JSON cannot hold it"),
        (["\ud800"], "", "JSON cannot hold it"),
    ],
)
def test_what_json_does_not_have_is_named_with_its_place(value, place, reason):
    with pytest.raises(NotSerializable) as caught:
        to_json(value)

    assert str(caught.value).startswith(place + reason)
    assert place.rstrip(": ") == caught.value.path


def test_the_place_begins_with_what_the_user_calls_it():
    with pytest.raises(NotSerializable, match=r"^argument 'when'\[0\]: it is of type bytes"):
        check_json([b"x"], "argument 'when'")


def test_large_values_lie_in_files_and_blocks_hold_several(tmp_path):
    # Given values of which one is too large to travel inside of messages
    blobs = BlobStore([tmp_path / "blobs"])
    blobs.create()
    sent = ["small", "x" * INLINE_BYTES, {"n": 1}]

    # Then they come back in order, through a file
    [(count, payload)] = pack_values([AsJson(value) for value in sent], start=0, blobs=blobs, folder="run")
    assert 3 == count
    assert len(payload) < 1000
    assert sent == PackedValues(payload, blobs).slice(0, 3)


def test_text_that_is_no_json_is_an_error():
    with pytest.raises(ValueError, match="Expecting value"):
        unpack(b"Tnonsense", None)
