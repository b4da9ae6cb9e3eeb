"""The tree of errors, and that each can be sent on."""

import asyncio
import concurrent.futures
import inspect
import pickle

import pytest

from nbqueue import errors
from nbqueue.errors import NBQueueError, RemoteError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_of_one_tree(kind):
    assert issubclass(kind, NBQueueError | UserWarning)


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_in_the_picture(kind):
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize(
    ("kind", "familiar"),
    [
        (errors.TaskRevoked, concurrent.futures.CancelledError),
        (errors.UnknownTask, LookupError),
        (errors.NotSerializable, TypeError),
        (errors.BrokerUnavailable, ConnectionError),
        (errors.UnsafeConnectionFile, errors.BrokerUnavailable),
    ],
)
def test_an_error_is_also_what_a_reader_would_catch(kind, familiar):
    assert issubclass(kind, familiar)


def test_a_revoked_task_does_not_cancel_the_coroutine_that_waits_for_it():
    assert not issubclass(errors.TaskRevoked, asyncio.CancelledError)


@pytest.mark.parametrize("kind", [kind for kind in TREE if kind is not RemoteError])
def test_every_error_survives_pickling(kind):
    again = pickle.loads(pickle.dumps(kind("a sentence")))

    assert (kind, "a sentence") == (type(again), str(again))


def test_a_remote_error_survives_pickling_with_all_it_knows():
    again = pickle.loads(pickle.dumps(RemoteError("lib.Bad", "no", "the traceback")))

    assert ("lib.Bad", "no", "the traceback") == (again.type_name, again.message, again.remote_traceback)
    assert "lib.Bad: no" == str(again)


def test_a_remote_error_without_a_message_says_its_type():
    assert "lib.Bad" == str(RemoteError("lib.Bad", ""))
