"""What cloudpickle leaves out."""

import pickle
import subprocess
import sys

import pytest

from nbqueue.wire.pickler import dumps

#: A process that knows none of our classes: makes an instance of one that comes, with the arguments that come along.
ELSEWHERE = """
import sys, pickle
from nbqueue.wire.pickler import dumps
made, arguments = pickle.loads(sys.stdin.buffer.read())
sys.stdout.buffer.write(dumps(made(*arguments)))
"""
#: As in a notebook: of no module that could be imported elsewhere.
CLASSES = """
import dataclasses, enum

class Plain:
    __slots__ = ("x",)
    def __init__(self, x):
        self.x = x

class Single:
    __slots__ = "x"
    def __init__(self, x):
        self.x = x

class Heir(Plain):
    __slots__ = ("y",)
    def __init__(self, x, y):
        super().__init__(x)
        self.y = y

@dataclasses.dataclass(slots=True)
class Data:
    x: int = 1

@dataclasses.dataclass(slots=True, frozen=True, weakref_slot=True)
class Frozen:
    x: int = 1

class Color(enum.Enum):
    RED = 1
"""


@pytest.fixture(scope="module")
def classes():
    namespace = {"__name__": "__main__"}
    exec(CLASSES, namespace)
    return namespace


def made_elsewhere(kind, *arguments):
    """An instance of *kind* that another process has made."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=dumps((kind, arguments)), check=True, capture_output=True
    )
    return pickle.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "arguments"), [("Plain", [7]), ("Single", [7]), ("Heir", [7, 8]), ("Data", [7]), ("Frozen", [7])]
)
def test_an_instance_of_a_class_with_slots_comes_back(classes, name, arguments):
    again = made_elsewhere(classes[name], *arguments)

    assert (classes[name], 7) == (type(again), again.x)
    assert not hasattr(again, "__dict__")


def test_a_member_of_an_enum_comes_back_as_itself(classes):
    assert classes["Color"].RED is made_elsewhere(classes["Color"], 1)


def test_a_value_goes_there_and_back():
    assert {"a": [1, 2.0, None]} == pickle.loads(dumps({"a": [1, 2.0, None]}))


def test_functions_keep_the_names_of_their_files():
    namespace = {"__name__": "__main__"}
    exec(compile("def outer():\n    return lambda: 1", "<cell 7>", "exec"), namespace)

    outer = pickle.loads(dumps(namespace["outer"]))

    assert "<cell 7>" == outer.__code__.co_filename
    assert "<cell 7>" == outer().__code__.co_filename
