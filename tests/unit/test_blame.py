"""Ten things that people capture by accident, and the variable and the line that are named."""

import functools
import logging
import socket
import sqlite3
import sys
import threading
import types

import pytest

from nbqueue.errors import NotSerializable
from nbqueue.wire.blame import blame
from nbqueue.wire.environment import current_environment
from nbqueue.wire.function import pack_function
from nbqueue.wire.payload import pickle_parts


def refused(function):
    """The error of sending *function*, which stands in a notebook cell."""
    with pytest.raises(NotSerializable) as caught:
        pack_function(function, call="one", retry_on=(), environment=current_environment(), blobs=None)
    return caught.value


def defined(code, **names):
    """What *code* calls ``task``, in a namespace of its own, as a cell defines it."""
    namespace = {"__name__": "__main__", **names}
    exec(compile(code, "<cell>", "exec"), namespace)
    return namespace["task"]


class Holder:
    def __init__(self):
        self.lock = threading.Lock()

    def work(self, x):
        x += 1
        return self.lock, x


CULPRITS = {
    "a lock": (lambda folder: threading.Lock(), "lock"),
    "a generator": (lambda folder: (i for i in range(3)), "generator"),
    "an open file": (lambda folder: open(folder / "x", "wb"), "BufferedWriter"),
    "a handler of a logger": (lambda folder: logging.StreamHandler(), "lock"),
    "a socket": (lambda folder: socket.socket(), "socket"),
    "a thread": (lambda folder: threading.Thread(), "lock"),
    "a database connection": (lambda folder: sqlite3.connect(":memory:"), "Connection"),
}


@pytest.mark.parametrize("kind", CULPRITS)
def test_a_global_is_named_with_the_line_that_uses_it(kind, tmp_path):
    # Given a function of a cell that uses a global that cannot be pickled, in line 4
    make, word = CULPRITS[kind]
    culprit = make(tmp_path)
    task = defined("fine = 1\ndef task(x):\n    y = x + fine\n    return culprit, y", culprit=culprit)

    # When it is to be sent
    error = refused(task)

    # Then the variable, the line and the path are right, in the attributes and in words
    assert ("culprit", 4) == (error.variable, error.line)
    assert error.path.startswith("task() → global 'culprit' (")
    assert word.lower() in f"{error.path} {error}".lower()
    assert "'culprit'" in str(error)
    assert "Create it inside the function" in error.hint
    if hasattr(culprit, "close"):
        culprit.close()


def test_an_attribute_of_a_module_is_named():
    settings = types.ModuleType("settings")
    settings.pool = threading.Lock()

    error = refused(defined("def task(x):\n    return settings.pool", settings=settings))

    assert ("settings", 2) == (error.variable, error.line)
    assert "task() → global 'settings' (module) → .pool (lock)" == error.path


def test_self_is_named():
    error = refused(Holder().work)

    assert "self" == error.variable
    assert Holder.work.__code__.co_firstlineno + 2 == error.line
    assert "Holder.work() → self (Holder) → .lock (lock)" == error.path


def test_a_generator_in_a_closure_is_named():
    code = "def make():\n    rows = (i for i in [1])\n    def task(x):\n        return next(rows)\n    return task\n"
    task = defined(f"{code}task = make()")

    error = refused(task)

    assert ("rows", 4) == (error.variable, error.line)
    assert "task() → variable 'rows' (generator)" == error.path


def test_a_function_that_is_called_by_the_function_is_walked_through():
    task = defined("def helper():\n    return lock\ndef task(x):\n    return helper()", lock=threading.Lock())

    error = refused(task)

    assert "task() → global 'helper' (function) → global 'lock' (lock)" == error.path


def test_defaults_partials_and_containers_are_walked_through():
    lock = threading.Lock()

    assert "data" == blame(defined("def task(x, data={'a': [lock]}): pass", lock=lock)).variable
    assert "[1]" in blame(defined("def task(x, data={'a': [2, lock]}): pass", lock=lock)).path
    assert "key" == blame(functools.partial(print, key=lock)).variable


def test_an_item_is_named_by_its_path():
    with pytest.raises(NotSerializable, match=r"a dict → \['a'\] \(list\) → \[0\] \(lock\) cannot be sent"):
        pickle_parts({"a": [threading.Lock()]})


def test_what_can_be_sent_is_not_blamed():
    assert blame(defined("def task(x): return x")) is None


def test_an_object_that_refers_to_itself_ends_the_walk():
    loop = Holder()
    loop.lock = loop
    loop.frame = sys._getframe()

    assert "frame" in blame(loop).path
