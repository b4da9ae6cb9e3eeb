"""What is accepted is judged by first bytes: nothing is read for it."""

import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nbqueue.errors import BrokerUnavailable, ContentDisallowed, ProtocolError
from nbqueue.wire.accept import check_accepted
from nbqueue.wire.as_json import AsJson
from nbqueue.wire.blobs import INLINE_BYTES, BlobStore
from nbqueue.wire.payload import OUT_OF_BAND_BYTES, pack_values

BOTH, JSON, PICKLES = ("cloudpickle", "json"), ("json",), ("cloudpickle",)


class Canary:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path):
    found = Canary(tmp_path / "mark")
    yield found
    assert not found.path.exists(), "it was unpickled"


@pytest.fixture
def blobs(tmp_path):
    store = BlobStore([tmp_path / "blobs"])
    store.create()
    return store


def packed(*values, blobs=None):
    [(_, payload)] = pack_values(list(values), start=0, blobs=blobs, folder="run")
    return payload


def refusal(payload, accept, blobs=None):
    with pytest.raises(ContentDisallowed) as caught:
        check_accepted(payload, accept, blobs)
    return str(caught.value)


def test_json_is_accepted_where_it_is_and_nowhere_else(blobs):
    for value in ({"a": 1}, "x" * INLINE_BYTES):
        payload = packed(AsJson(value), AsJson([1]), blobs=blobs)

        check_accepted(payload, JSON, blobs)
        check_accepted(payload, BOTH, blobs)
        assert "it is packed with json, and only cloudpickle is accepted here" == refusal(payload, PICKLES, blobs)


@pytest.mark.parametrize(
    "value",
    [1, ["x"], np.zeros(OUT_OF_BAND_BYTES, dtype="u1"), np.zeros(INLINE_BYTES, dtype="u1"), bytes(INLINE_BYTES)],
    ids=["plain", "pickle", "with buffers", "buffers in a file", "pickle in a file"],
)
def test_a_pickle_is_one_in_whatever_form_it_comes(blobs, value):
    payload = packed(value, blobs=blobs)

    check_accepted(payload, PICKLES, blobs)
    check_accepted(payload, BOTH, blobs)
    assert "it is packed with cloudpickle, and only json is accepted here" == refusal(payload, JSON, blobs)


def test_one_pickle_among_json_is_enough(canary):
    for values in ([AsJson(1), canary], [canary, AsJson(1)]):
        assert "cloudpickle" in refusal(packed(*values), JSON)


def test_nothing_is_read_to_find_out(canary, blobs):
    large = [canary, bytes(INLINE_BYTES)]

    for payload in (packed(canary), packed(large, blobs=blobs), b"L" + pickle.dumps([canary])):
        refusal(payload, JSON, blobs)


def block_of(*packed_values):
    return b"E" + msgspec.msgpack.encode(list(packed_values))


def test_a_file_that_names_another_file_is_not_followed(canary, blobs):
    # Given a pickle in a file, and a file that names it
    pickled = b"F" + blobs.write("run", [b"P", pickle.dumps(canary)]).encode()
    detour = b"F" + blobs.write("run", [pickled]).encode()

    # Then neither passes for JSON
    for packed_value in (pickled, detour):
        assert "cloudpickle" in refusal(block_of(packed_value), JSON, blobs)


@pytest.mark.parametrize(
    "payload", [b"", b"X", b"E", b"Enonsense", block_of(b""), block_of(b"X1"), block_of(b"F0/run/x")]
)
def test_what_is_no_block_of_values_is_refused(payload):
    with pytest.raises(ProtocolError):
        check_accepted(payload, BOTH, None)


def test_a_file_that_is_gone_is_told(blobs):
    with pytest.raises(BrokerUnavailable, match="a large payload is gone"):
        check_accepted(block_of(b"F0/run/gone"), BOTH, blobs)
