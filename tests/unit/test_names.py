import builtins
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbqueue.notebook.names import analyse


def read(source):
    return set(analyse(textwrap.dedent(source)).read) - set(dir(builtins))


def assigned(source):
    return set(analyse(textwrap.dedent(source)).assigned)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("x", {"x"}),
        ("x = y", {"y"}),
        ("x += 1", {"x"}),
        ("del x", {"x"}),
        ("x = 1\nx", set()),
        ("x = 1\ndel x\nx", {"x"}),
        ("x.y = z", {"x", "z"}),
        ("x[i] = 1", {"x", "i"}),
        ("import numpy as np\nnp.zeros(n)", {"n"}),
        ("from os import path\npath", set()),
        ("def f(a, b=c):\n    return a + d + len(b)", {"c", "d"}),
        ("def f():\n    global n\n    n += 1", {"n"}),
        (
            "class A(Base):\n    size = width\n    def area(self):\n        return self.size * height",
            {*("Base", "width")} | {"height"},
        ),
        ("[a * k for a in rows if a > low]", {"k", "rows", "low"}),
        ("lambda a: a + b", {"b"}),
        ("await fetch(url)", {"fetch", "url"}),
        ("async for a in rows:\n    print(a)", {"rows"}),
        ("for i in range(n):\n    t = i\n    print(t)", {"n"}),
        ("for i in rows:\n    pass\nprint(i)", {"rows", "i"}),
        ("if a:\n    x = 1\nelse:\n    x = 2\nx", {"a"}),
        ("if a:\n    x = 1\nx", {"a", "x"}),
        ("with open(p) as f:\n    text = f.read()\ntext", {"p", "text"}),
        ("try:\n    x = g()\nexcept E as e:\n    print(e)\nx", {"g", "E", "x"}),
        ("while t < m:\n    t += 1\n    if t: break", {"t", "m"}),
        ("match v:\n    case {'a': a}:\n        print(a)", {"v", "a"}),
        ("(y := f(x)) and y", {"f", "x", "y"}),
        ("y = 3\ndef f():\n    return y", set()),
        ("print(f'{a} {b:{w}}')", {"a", "b", "w"}),
        ("x: int = y", {"y"}),
        ("type_ = A @ B", {"A", "B"}),
        ("get_ipython().system('echo {name} $home ${x}')", {"get_ipython", "name", "home", "x", "echo"} - {"echo"}),
        ("files = get_ipython().getoutput('ls {folder}')", {"get_ipython", "folder"}),
        ("get_ipython().run_line_magic('timeit', 'f(x)')", {"get_ipython", "f", "x"}),
        ("get_ipython().run_cell_magic('time', '', 'y = g(x)\\ny\\n')", {"get_ipython", "g", "x"}),
        ("get_ipython().system('echo {')", {"get_ipython"}),
    ],
)
def test_the_names_that_a_cell_needs_from_outside(source, names):
    assert names == read(source) - {"timeit", "time"}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("x = y", {"x"}),
        ("x, *y = z", {"x", "y"}),
        ("for i in a:\n    b = i", {"i", "b"}),
        ("import os.path as p, sys", {"p", "sys"}),
        ("def f():\n    z = 1", {"f"}),
        ("def f():\n    global z\n    z = 1", {"f", "z"}),
        ("class A:\n    b = 1", {"A"}),
        ("with a as b: c = 1", {"b", "c"}),
        ("(x := 1)", {"x"}),
        ("[y for y in z]", set()),
        ("try:\n    a = 1\nexcept E as e:\n    b = 1\nfinally:\n    c = 1", {"a", "b", "c", "e"}),
        ("match v:\n    case [a, *b]: c = 1", {"a", "b", "c"}),
    ],
)
def test_the_names_that_a_cell_assigns(source, names):
    assert names == assigned(source)


def test_a_cell_that_does_not_compile_raises_what_it_would_raise_in_the_notebook():
    with pytest.raises(SyntaxError):
        analyse("for in x:")


# -- a cell that is run has read and set nothing that the analysis did not say ----------------------------------------

NAME = st.sampled_from(["a", "b", "c", "d"])
VALUE = st.one_of(
    NAME,
    st.integers(0, 3).map(str),
    st.builds("({} + {})".format, NAME, NAME),
    st.builds("[{0} for {0} in range(2) if {1}][0:1] and {1}".format, NAME, NAME),
    st.builds("(lambda {0}: {0} + {1})({2})".format, NAME, NAME, NAME),
    st.builds("({0} := {1})".format, NAME, NAME),
)
SIMPLE = st.one_of(
    st.builds("{} = {}".format, NAME, VALUE),
    st.builds("{} += {}".format, NAME, VALUE),
    st.builds("del {}".format, NAME),
    st.builds("{}".format, VALUE),
    st.builds("def {0}({1}=0): return {2}\n{0} = {0}()".format, NAME, NAME, NAME),
    st.builds("class K:\n    {0} = {1}\n    {2} = {0}".format, NAME, NAME, NAME),
)


def indented(statements):
    return textwrap.indent("\n".join(statements), "    ")


BLOCK = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(
            lambda v, t, e: f"if {v}:\n{indented(t)}\nelse:\n{indented(e)}",
            VALUE,
            *[st.lists(inner, min_size=1, max_size=3)] * 2,
        ),
        st.builds(
            lambda n, v, b: f"for {n} in range(({v}) % 3):\n{indented(b)}",
            NAME,
            VALUE,
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(
            lambda b, e, n: f"try:\n{indented(b)}\nexcept Exception as {n}:\n{indented(e)}",
            *[st.lists(inner, min_size=1, max_size=3)] * 2,
            NAME,
        ),
    ),
    max_leaves=8,
)


class Watched(dict):
    """A namespace that notes which of its first names were used, and which were set."""

    def __init__(self, names):
        super().__init__(names)
        self.untouched = set(names)
        self.read, self.written = set(), set()

    def __getitem__(self, name):
        if name in self.untouched:
            self.read.add(name)
        return super().__getitem__(name)

    def __setitem__(self, name, value):
        self.untouched.discard(name)
        self.written.add(name)
        super().__setitem__(name, value)

    def __delitem__(self, name):
        if name in self.untouched:
            self.read.add(name)
        self.untouched.discard(name)
        super().__delitem__(name)


@settings(max_examples=60)
@given(st.lists(BLOCK, min_size=1, max_size=6).map("\n".join))
def test_whatever_a_cell_does_with_names_was_said_before(source):
    # Given any program, and what the analysis says of it
    names = analyse(source)
    namespace = Watched(dict.fromkeys("abcd", 1))
    dict.__setitem__(namespace, "__builtins__", builtins)

    # When it runs, to its end or to its first error
    try:
        exec(compile(source, "<cell>", "exec"), namespace)
    except Exception:
        pass

    # Then it has used nothing that was not sent, and set nothing that would not come back
    assert namespace.read <= names.read
    assert namespace.written <= names.assigned
