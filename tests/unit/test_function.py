"""Functions as notebooks have them: by value, with what they use."""

import cmath
import functools
import linecache
import math
import os
import sys
import threading
import traceback
import types

import cloudpickle
import pytest

from nbqueue.errors import NotSerializable
from nbqueue.wire.blobs import INLINE_BYTES, BlobStore
from nbqueue.wire.environment import current_environment
from nbqueue.wire.function import MAX_SOURCE, load_function, name_in, pack_function, pack_name


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch):
    """What loading a function changes in a slot is taken back."""
    monkeypatch.chdir(os.getcwd())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(linecache, "cache", dict(linecache.cache))


def cell(text, number=1, **names):
    """The namespace of a notebook in which a cell was run."""
    namespace = {"__name__": "__main__", **names}
    name = f"<cell {number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)
    return namespace


def packed(function, *, call="one", retry_on=(), blobs=None):
    return pack_function(function, call=call, retry_on=retry_on, environment=current_environment(), blobs=blobs)


def sent(function, **more):
    _, body = packed(function, **more)
    return load_function(body, more.get("blobs")).function


# -- there and back ----------------------------------------------------------------------------------------------------


def test_a_function_of_a_cell_arrives_with_the_globals_that_it_uses():
    notebook = cell("def scale(x): return helper(x) * factor\ndef helper(x): return x + 1", factor=10)

    assert 40 == sent(notebook["scale"])(3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f = lambda x: x + 1", 4),
        ("def make(n):\n    def inner(x): return x + n\n    return inner\nf = make(5)", 8),
        ("def f(x, y=2, *, z=3): return x + y + z", 8),
        ("class Adder:\n    n = 4\n    def __call__(self, x): return x + self.n\nf = Adder()", 7),
        ("class Adder:\n    n = 6\n    def add(self, x): return x + self.n\nf = Adder().add", 9),
        ("import math\nf = math.sqrt", math.sqrt(3)),
        ("def f(x): return x * f(x - 1) if x else 1", 6),
    ],
)
def test_anything_that_can_be_called_can_be_sent(text, expected):
    assert expected == sent(cell(text)["f"])(3)


def test_a_partial_function_can_be_sent():
    notebook = cell("def power(base, exponent): return base**exponent")

    assert 9 == sent(functools.partial(notebook["power"], exponent=2))(3)


def test_how_it_is_called_and_retried_travels_along():
    loaded = load_function(packed(len, call="star", retry_on=(KeyError, OSError))[1], None)

    assert ("star", (KeyError, OSError)) == (loaded.call, loaded.retry_on)


def test_a_large_function_goes_into_a_file_once(tmp_path):
    # Given a function with a table
    blobs = BlobStore([tmp_path])
    look_up = cell("def f(x): return table[x]", table=bytes(INLINE_BYTES + 1))["f"]

    # When it is packed twice
    (digest, body), again = packed(look_up, blobs=blobs), packed(look_up, blobs=blobs)

    # Then the table lies in one file, named by its content
    assert (digest, body) == again
    assert len(body) < INLINE_BYTES / 10
    assert [digest.hex()] == os.listdir(tmp_path)
    assert 0 == load_function(body, blobs).function(3)


def test_what_cannot_be_sent_is_said_in_one_sentence():
    notebook = cell("def save(x): lock.acquire()", lock=threading.Lock())

    with pytest.raises(NotSerializable) as caught:
        packed(notebook["save"])
    sentence = str(caught.value)
    assert sentence.startswith("save() cannot be sent to a worker: ")
    assert "lock" in sentence
    assert sentence.endswith("Create it inside the function, or pass what is needed to make it.")


# -- the digest and the cache ------------------------------------------------------------------------------------------


def test_the_digest_changes_with_what_is_sent():
    f = cell("def f(x): return x + n", n=1)["f"]
    g = cell("def f(x): return x + n", n=2)["f"]

    digests = {packed(f)[0], packed(g)[0], packed(f, call="star")[0], packed(f, retry_on=(OSError,))[0]}
    assert 4 == len(digests)
    assert packed(f)[0] in digests


@pytest.mark.parametrize(
    "text",
    [
        "def f(x): return math.sqrt(x)",
        "def f(x: float, *more: list[int], wanted: str | None = None) -> 'float': return math.sqrt(x)",
        "N = 2.5\ndef f(x, n=3, *, m='a'): return x * N",
        "def make(n):\n    def f(x): return x + n\n    return f\nf = make(5)",
        "from fractions import Fraction\nfrom math import sqrt\ndef f(x) -> Fraction: return Fraction(sqrt(x))",
        "from textwrap import dedent as f",  # which uses much, but travels by its name
    ],
)
def test_a_function_that_carries_nothing_that_could_change_is_packed_once(text):
    f = cell(text, math=math)["f"]

    assert packed(f) is packed(f)
    assert packed(f) is not packed(f, call="star")


@pytest.mark.parametrize(
    "text",
    [
        "N = []\ndef f(x): return N",
        "def f(x, n=[]): return n",
        "class Number: ...\ndef f(x: Number): return x",
        "def make():\n    n = []\n    def f(x): return n\n    return f\nf = make()",
        "def f(x): return x\nf.calls = 0",
    ],
)
def test_a_function_that_carries_what_could_change_is_packed_anew(text):
    f = cell(text)["f"]

    assert packed(f) is not packed(f)


@pytest.mark.parametrize("function", [abs, math.sqrt, len])
def test_a_builtin_function_is_packed_once(function):
    assert packed(function) is packed(function)


@pytest.mark.parametrize("function", [[3, 1].append, {1: 2}.get, dict.fromkeys])
def test_a_builtin_method_is_packed_anew(function):
    assert packed(function) is not packed(function)


def test_a_function_of_a_module_that_travels_by_value_is_packed_anew(monkeypatch):
    # Given a module that is not installed where workers are
    module = types.ModuleType("module_at_home")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("def f(x): return x + n\nn = 1", module.__dict__)
    cloudpickle.register_pickle_by_value(module)

    # When what its function uses changes between two submits
    try:
        before = sent(module.f)
        module.n = 2
        after = sent(module.f)
    finally:
        cloudpickle.unregister_pickle_by_value(module)

    # Then workers get the new one
    assert (1, 2) == (before(0), after(0))


@pytest.mark.parametrize(
    "text",
    [
        "def f(x): return x + n",
        "def f(x): return (lambda: x + n)()",
        "def f(x): return [x + n for _ in range(1)][0]",
        "def helper(x): return x + n\ndef f(x): return helper(x)",
        "n = 1.0\ndef f(x): return int(x + n)",
    ],
)
def test_a_changed_global_is_not_missed(text):
    notebook = cell(text, n=1)
    assert 4 == sent(notebook["f"])(3)

    notebook["n"] = 2

    assert 5 == sent(notebook["f"])(3)


def test_a_helper_defined_later_is_not_missed():
    # Given a function that was sent before its helper existed
    notebook = cell("def f(x): return helper(x)")
    with pytest.raises(NameError):
        sent(notebook["f"])(3)

    # When the cell of the helper is run
    exec("def helper(x): return x + 1", notebook)

    # Then it is sent along
    assert 4 == sent(notebook["f"])(3)


def test_a_changed_closure_is_not_missed():
    notebook = cell(
        "def make():\n    n = 1\n    def f(x): return x + n\n    def change():\n"
        "        nonlocal n\n        n = 2\n    return f, change\nf, change = make()"
    )
    assert 4 == sent(notebook["f"])(3)

    notebook["change"]()

    assert 5 == sent(notebook["f"])(3)


def _change_default(f):
    f.__defaults__ = (2,)


def _change_keyword_default(f):
    f.__kwdefaults__ = {"n": 2}


def _change_code(f):
    f.__code__ = (lambda x: x + 2).__code__


def _change_attribute(f):
    f.n = 2


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("def f(x, n=1): return x + n", _change_default),
        ("def f(x, *, n=1): return x + n", _change_keyword_default),
        ("def f(x): return x + 1", _change_code),
        ("def f(x): return x + f.n\nf.n = 1", _change_attribute),
    ],
)
def test_a_function_changed_in_place_is_not_missed(text, change):
    f = cell(text)["f"]
    assert 4 == sent(f)(3)

    change(f)

    assert 5 == sent(f)(3)


# -- the place ---------------------------------------------------------------------------------------------------------


def test_a_function_runs_in_the_folder_and_with_the_path_of_its_client(tmp_path, monkeypatch):
    # Given a function packed in a folder, with a path of its own
    f = cell("def f(x): return x")["f"]
    with monkeypatch.context() as client:
        client.chdir(tmp_path)
        client.setattr(sys, "path", [*sys.path, "/of/the/client"])
        _, body = packed(f)
    assert str(tmp_path) != os.getcwd()

    # When it is loaded elsewhere
    load_function(body, None)

    # Then this process is in that folder, and its path has grown by what it lacked
    assert (str(tmp_path), "/of/the/client") == (os.getcwd(), sys.path[-1])
    assert 1 == sys.path.count("/of/the/client")


def test_a_function_packed_elsewhere_is_another_function(tmp_path, monkeypatch):
    f = cell("def f(x): return x")["f"]
    here = packed(f)
    monkeypatch.chdir(tmp_path)

    assert here[0] != packed(f)[0]


def test_a_folder_that_is_gone_is_no_reason_to_fail(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    with monkeypatch.context() as client:
        client.chdir(gone)
        _, body = packed(len)
    gone.rmdir()

    assert 2 == load_function(body, None).function("ab")


# -- the text of cells -------------------------------------------------------------------------------------------------


def test_a_traceback_shows_the_cells_of_the_client():
    # Given a function that uses one of another cell
    helper = cell("def helper(x):\n    return 1 / x  # of the helper", number=1)["helper"]
    text = "def f(x):\n    return helper(x)  # of the function"
    _, body = packed(cell(text, number=2, helper=helper)["f"])

    # When it fails where these cells never were
    for name in ("<cell 1>", "<cell 2>"):
        del linecache.cache[name]
    with pytest.raises(ZeroDivisionError) as caught:
        load_function(body, None).function(0)

    # Then the traceback shows the lines of both
    shown = "".join(traceback.format_exception(caught.value))
    assert "# of the helper" in shown
    assert "# of the function" in shown


def test_a_cell_too_long_stays_at_home_and_takes_nothing_else_along():
    long = cell(f"def helper(x): return x\n# {'x' * MAX_SOURCE}", number=1)["helper"]
    _, body = packed(cell("def f(x): return helper(x)  # short", number=2, helper=long)["f"])
    for name in ("<cell 1>", "<cell 2>"):
        del linecache.cache[name]

    assert 3 == load_function(body, None).function(3)
    assert "<cell 1>" not in linecache.cache
    assert "# short" in linecache.getline("<cell 2>", 1)


def test_a_global_module_that_is_rebound_is_not_served_from_the_cache():
    space = cell("def f(x): return m.sqrt(x)", m=math)
    before = packed(space["f"])

    space["m"] = cmath

    assert before != packed(space["f"])


def test_a_module_made_in_the_notebook_travels_as_it_is_now():
    # Given a function that uses a module which no file holds
    config = types.ModuleType("config_of_the_notebook")
    config.value = 1
    space = cell("def f(x): return config.value", config=config)
    before = sent(space["f"])

    # When its content changes
    config.value = 2

    # Then workers get the new one
    assert (1, 2) == (before(0), sent(space["f"])(0))


# -- by name -----------------------------------------------------------------------------------------------------------


def test_a_name_travels_alone():
    digest, body = pack_name("package.module.f")

    assert "package.module.f" == name_in(body)
    assert len(body) < 60
    assert (digest, body) == pack_name("package.module.f")
    assert digest != pack_name("package.module.g")[0]


def test_a_pickled_function_has_no_name_and_is_not_read_to_find_out(tmp_path):
    mark = tmp_path / "mark"

    class Canary:
        def __call__(self): ...

        def __reduce__(self):
            return mark.touch, ()

    _, body = packed(Canary())

    assert name_in(body) is None
    assert not mark.exists()


def test_a_large_function_has_no_name_either(tmp_path):
    blobs = BlobStore([tmp_path / "blobs"])
    blobs.create()

    _, body = packed(functools.partial(len, bytes(INLINE_BYTES)), blobs=blobs)

    assert name_in(body) is None
