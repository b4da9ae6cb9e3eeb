"""Which packages a function imports, and what is said when they differ where it runs."""

import functools
import sys
import types

import msgspec
import pytest

import nbqueue
from nbqueue.core.compatibility import differing, is_notable, why_unreadable
from nbqueue.core.exchange import Versions
from nbqueue.errors import EnvironmentMismatch
from nbqueue.wire import function as function_module
from nbqueue.wire.environment import current_environment
from nbqueue.wire.function import FunctionBody, load_function, pack_function
from nbqueue.wire.requirements import function_requirements, remarks_on
from nbqueue.wire.versions import installed_versions, module_version, own_versions


@pytest.fixture
def package(monkeypatch):
    """A package that is imported here, in version 1.4.2."""
    module = types.ModuleType("some_package")
    module.__version__ = "1.4.2"
    module.helper = eval("lambda: 0", {"__name__": "some_package.inner"})
    monkeypatch.setitem(sys.modules, "some_package", module)
    return module


@pytest.mark.parametrize(
    ("theirs", "mine", "expected"),
    [
        (Versions(), Versions(), ""),
        (Versions(python="3.11"), Versions(python="3.11"), ""),
        (Versions(python="3.11"), Versions(), ""),
        (Versions(python="3.11"), Versions(python="3.12"), "Python 3.11 on it, 3.12 at home"),
        (Versions(cloudpickle="3.0.0"), Versions(cloudpickle="3.1.2"), ""),
        (Versions(cloudpickle="2.2.1"), Versions(cloudpickle="3.1.2"), "cloudpickle 2.2.1 on it, 3.1.2 at home"),
        (Versions(nbqueue="0.1"), Versions(nbqueue="0.2"), ""),
    ],
)
def test_what_decides_whether_pickles_can_be_read(theirs, mine, expected):
    assert expected == why_unreadable(theirs, mine, there="on it", here="at home")


@pytest.mark.parametrize(
    ("theirs", "mine", "expected"),
    [
        ("1.4.2", "1.4.9", False),
        ("1.4", "1.4.9", False),
        ("1.4.2+cu118", "1.4.2", False),
        ("1.4.2", "1.5.0", True),
        ("1.4.2", "2.4.2", True),
        (None, "1.0", True),
        (None, None, False),
    ],
)
def test_a_difference_is_notable_in_the_first_two_parts(theirs, mine, expected):
    assert expected is is_notable(theirs, mine)


def test_what_is_the_same_is_no_difference():
    there, here = {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}

    assert {"b": ("1", "2"), "c": ("1", None), "d": (None, "1")} == differing(there, here)


def test_a_function_needs_the_packages_behind_its_names(package):
    # Given functions that use a package in various ways
    names = {"alias": package, "helper": package.helper, "math": __import__("math"), "nbqueue": nbqueue}
    ways = {
        "a global": "def f(): return alias.x",
        "a name out of it": "def f(): return helper()",
        "an import inside": "def f():\n import some_package",
        "an import from inside": "def f():\n from some_package import x",
        "a nested function": "def f():\n def g(): return alias\n return g",
    }

    def enclosing():
        return lambda: package

    # Then each of them needs it
    assert {"some_package": "1.4.2"} == function_requirements(enclosing())
    for way, source in ways.items():
        space = {**names}
        exec(source, space)
        assert {"some_package": "1.4.2"} == function_requirements(space["f"]), way
        assert {"some_package": "1.4.2"} == function_requirements(functools.partial(space["f"])), way


def test_other_names_are_no_packages(package):
    space = {"math": __import__("math"), "nbqueue": nbqueue, "data": [1, 2], "package": package}
    exec("def f(): return math.pi, nbqueue, data, some_thing, len", space)

    assert {} == function_requirements(space["f"])
    assert {} == function_requirements(len)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("1.4.0", None),
        ("1.5.0", "w1 has some_package 1.4.2, here is some_package 1.5.0; nbqueue.env_diff() shows all differences"),
    ],
)
def test_what_differs_notably_is_said(package, wanted, sentence):
    assert ([sentence] if sentence else []) == remarks_on({"some_package": wanted}, "w1")


def test_a_package_that_is_missing_is_said():
    [sentence] = remarks_on({"never_heard_of": "1.0"}, "w1")

    assert sentence.startswith("w1 has no never_heard_of, here is never_heard_of 1.0;")


def packed(**changes):
    """The body of a function, as somebody else might have packed it."""
    _, body = pack_function(lambda: 42, call="call", retry_on=(), environment=current_environment(), blobs=None)
    decoded = msgspec.msgpack.decode(body, type=FunctionBody)
    return msgspec.msgpack.encode(msgspec.structs.replace(decoded, **changes))


def test_a_function_from_another_python_is_refused_unread(monkeypatch):
    # Given a function of another Python
    body = packed(versions=Versions(python="3.99"))
    monkeypatch.setattr(function_module, "unpack", lambda *_: pytest.fail("it was unpickled"))

    # Then it is refused in one sentence, and not unpickled
    with pytest.raises(EnvironmentMismatch, match=r"^worker w1 cannot read .*Python 3.99 there, .* on the worker"):
        load_function(body, None, where="worker w1")


@pytest.mark.parametrize(("home", "expected"), [("elsewhere", 1), (None, 0)])
def test_packages_are_compared_with_other_installations_only(package, home, expected):
    remarks = []
    body = packed(requires={"some_package": "9.9"}, **({"home": home} if home else {}))

    assert 42 == load_function(body, None, where="w1", remark=remarks.append).function()
    assert expected == len(remarks)


def test_versions_of_this_process_are_those_that_are_installed():
    installed = installed_versions()

    assert installed["cloudpickle"] == own_versions().cloudpickle == module_version("cloudpickle")
    assert installed["python"].startswith(own_versions().python)
    assert "" == module_version("never_heard_of")
