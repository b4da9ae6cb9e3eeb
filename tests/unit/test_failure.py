"""Exceptions across processes."""

import json
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import RemoteError
from nbqueue.wire.failure import (
    MAX_PICKLE_BYTES,
    MAX_TEXT,
    FailureRecord,
    first_line,
    pack_failure,
    rebuild,
    safe_repr,
    type_name,
    unpack_failure,
)


class TwoArguments(Exception):
    """Cannot be unpickled, since pickle calls it with its one message."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Unrepresentable:
    def __repr__(self):
        raise RuntimeError("no words")


class Huge(Exception):
    def __init__(self):
        super().__init__("huge")
        self.data = bytes(MAX_PICKLE_BYTES + 1)


class Changeling(Exception):
    """Comes out of its pickle as something else."""

    def __reduce__(self):
        return ValueError, ("not me",)


def caught(error, cause=None):
    """The error as an except clause would see it."""
    try:
        raise error from cause
    except type(error) as seen:
        return seen


def sent(error, **more):
    return unpack_failure(pack_failure(error, **more))


@pytest.mark.parametrize("error", [KeyError("k"), ValueError("a", 2), OSError(2, "none"), KeyboardInterrupt()])
def test_an_error_comes_back_as_what_it_was(error):
    again = rebuild(sent(caught(error)))

    assert (type(error), error.args) == (type(again), again.args)


def test_an_error_of_a_type_that_exists_only_in_a_notebook_comes_back_as_what_it_was():
    # Given a class that no module has
    Local = type("Local", (ValueError,), {"__module__": "__main__"})  # noqa: N806 -- a class

    # Then the record says its plain name, and its pickle brings it along
    record = sent(caught(Local("x")))
    assert "Local: x" == first_line(record)
    assert isinstance(rebuild(record), ValueError)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TwoArguments(7, "why"), "7: why"),
        (Unpicklable(), "holds a lock"),
        (Huge(), "huge"),
    ],
)
def test_an_error_that_cannot_travel_arrives_as_a_remote_error(error, message):
    again = rebuild(sent(caught(error)))

    assert (RemoteError, type_name(error), message) == (type(again), again.type_name, again.message)
    assert "in caught" in again.remote_traceback


def test_an_error_that_pickles_to_another_type_is_not_mistaken_for_it():
    assert RemoteError is type(rebuild(sent(Changeling("me"))))


def test_an_error_without_words_is_sent_all_the_same():
    record = sent(caught(Speechless()))

    assert "<its __str__ raised RuntimeError>" == record.message
    assert "in caught" in record.traceback
    assert Speechless is type(rebuild(record))


@pytest.mark.parametrize("pickled", [b"", b"rubbish", pickle.dumps("no exception"), b"cno_such_module\nError\n."])
def test_a_pickle_that_is_of_no_use_is_no_trouble(pickled):
    again = rebuild(FailureRecord("lib.Bad", "no", "the traceback\n", pickled))

    assert (RemoteError, "lib.Bad: no") == (type(again), str(again))


def test_the_notes_hold_the_traceback_from_the_worker():
    again = rebuild(sent(caught(KeyError("k"))), note="item 3")
    remote, ours = again.__notes__

    assert remote.startswith("\nOn the worker:\n    Traceback (most recent call last):\n")
    assert remote.endswith("    KeyError: 'k'")
    assert "nbqueue: item 3" == ours


def test_a_cause_is_told_with_its_effect():
    text = sent(caught(ValueError("effect"), cause=KeyError("cause"))).traceback

    assert text.index("KeyError: 'cause'") < text.index("direct cause") < text.index("ValueError: effect")


def test_frames_of_ours_are_left_out():
    assert "in caught" in sent(caught(_from_user_code())).traceback
    assert "in caught" not in sent(caught(_from_user_code()), skip_frames=1).traceback
    assert "in _from_user_code" in sent(caught(_from_user_code()), skip_frames=1).traceback


def _from_user_code():
    try:
        raise ValueError("theirs")
    except ValueError as error:
        return error


def test_the_record_knows_the_item_and_the_place():
    record = sent(KeyError("k"), item_repr="{'a': 1}", where="worker x, attempt 2")

    assert ("{'a': 1}", "worker x, attempt 2") == (record.item_repr, record.where)


def test_a_long_message_keeps_its_head_and_its_tail():
    message = sent(ValueError("a" * MAX_TEXT + "b" * 100)).message

    assert len(message) < MAX_TEXT + 100
    assert ("a", "b", True) == (message[0], message[-1], "… 100 characters left out …" in message)


@given(st.text(), st.text())
def test_any_words_arrive(message, item_repr):
    record = sent(ValueError(message), item_repr=item_repr)

    assert (message, item_repr) == (record.message, record.item_repr)


@pytest.mark.parametrize(
    ("message", "expected"), [("one\ntwo", "ValueError: one"), ("", "ValueError"), ("\n x\n", "ValueError: x")]
)
def test_the_first_line_is_one_line(message, expected):
    assert expected == first_line(sent(ValueError(message)))


def test_a_type_is_named_with_its_module_unless_it_is_built_in():
    assert "ValueError" == type_name(ValueError())
    assert "json.decoder.JSONDecodeError" == type_name(json.JSONDecodeError("", "", 0))


def test_a_short_form_is_short_and_never_raises():
    assert "[1, 2]" == safe_repr([1, 2])
    assert (20, "…") == (len(text := safe_repr("x" * 99, limit=20)), text[-1])
    assert "<Unrepresentable, whose repr raised RuntimeError>" == safe_repr(Unrepresentable())


class Falsy(Exception):
    def __len__(self):
        return 0


def test_a_message_that_is_no_unicode_is_spelt_out():
    assert "\\udc80" in sent(ValueError("\udc80")).message


def test_an_exception_that_counts_as_false_keeps_its_type():
    assert isinstance(rebuild(sent(Falsy("empty"))), Falsy)
