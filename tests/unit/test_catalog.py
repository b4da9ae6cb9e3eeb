"""What a worker runs by name: whatever it can import, or, if it accepts JSON only, nothing but its own tasks."""

import itertools
import math
import os
import sys
import textwrap

import pytest

import nbqueue
from nbqueue.cli.catalog import tasks_of
from nbqueue.errors import ContentDisallowed, NotRegistered
from nbqueue.worker.catalog import Catalog

BOTH, JSON, PICKLES = ("cloudpickle", "json"), ("json",), ("cloudpickle",)
numbers = itertools.count()

TASKS = """
    import subprocess
    import nbqueue

    @nbqueue.task(name="add")
    def add(x, y):
        return x + y

    @nbqueue.task
    def total(numbers):
        return sum(numbers)

    urgent_add = add.options(priority=9)

    def helper():
        return "not for clients"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that nobody can import but who looks into its folder; returns its name."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text=TASKS, name=None):
        name = name or f"tasks_of_a_test_{next(numbers)}"
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    return write


@pytest.fixture
def catalog(tmp_path):
    return lambda accept, *modules: Catalog(accept, modules, folder=str(tmp_path), worker="w")


def refusal(catalog, name, kind=NotRegistered):
    with pytest.raises(kind) as caught:
        catalog.find(name)
    return str(caught.value)


# -- tasks of modules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [JSON, BOTH])
def test_tasks_are_found_by_their_names_and_run_as_functions(module, catalog, accept):
    name = module()
    found = catalog(accept, name)

    assert ["add", f"{name}.total"] == sorted(found.tasks())
    assert 5 == found.find("add")(2, 3)
    assert 6 == found.find(f"{name}.total")([1, 2, 3])
    assert not isinstance(found.find("add"), nbqueue.Task)


def test_tasks_that_a_module_takes_from_another_one_are_offered_with_it(module, catalog):
    inner = module()
    outer = module(f"from {inner} import add")

    assert ["add"] == list(catalog(JSON, outer).tasks())


@pytest.mark.parametrize(
    "name",
    ["os.system", "subprocess.run", "builtins.eval", "{}.helper", "{}.add", "{}.subprocess.run", "eval", "", "."],
)
def test_a_worker_that_accepts_json_only_runs_nothing_but_its_tasks(module, catalog, name):
    mine = module()

    assert (
        f"worker w knows no task {name.format(mine)!r}: it accepts json only, so it runs nothing but its own tasks: "
        f"add, {mine}.total"
    ) == refusal(catalog(JSON, mine), name.format(mine))


def test_of_many_tasks_the_first_are_named(module, catalog):
    text = "import nbqueue\n" + "".join(f'@nbqueue.task(name="t{n:02}")\ndef f{n}(): ...\n' for n in range(12))

    assert refusal(catalog(JSON, module(text)), "x").endswith(
        "tasks: t00, t01, t02, t03, t04, t05, t06, t07, t08, t09 and 2 more"
    )


def test_without_modules_it_runs_nothing_and_says_what_to_do(catalog):
    sentence = "worker w knows no task 'os.system': it accepts json only, and was started without tasks"
    assert f"{sentence} (nbqueue-worker --import MODULES)" == refusal(catalog(JSON), "os.system")


def test_two_tasks_of_one_name_are_refused(module, catalog):
    one, other = module(), module()

    assert "worker w knows two tasks 'add': give one another name" == refusal(catalog(JSON, one, other), "add")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(module, catalog, text, reason):
    name = module(text)

    sentence = f"worker w cannot import module {name!r}, which was named for its tasks: {reason}"
    assert refusal(catalog(JSON, name), "add").startswith(sentence)


def test_the_folder_comes_behind_all_others(module, catalog, tmp_path):
    catalog(JSON, module()).tasks()

    assert str(tmp_path) == sys.path[-1]


def test_without_modules_the_folder_is_no_place_for_modules(catalog, tmp_path, module):
    name = module()

    assert "No module named" in refusal(catalog(BOTH), f"{name}.add")
    assert str(tmp_path) not in sys.path


# -- whatever can be imported ------------------------------------------------------------------------------------------


def test_a_worker_that_accepts_pickles_runs_what_it_can_import(module, catalog):
    module("", "pack_of_a_test.__init__")
    module("def f(): return 'deep'", "pack_of_a_test.deep")
    mine = module()
    found = catalog(BOTH, mine)
    found.tasks()

    assert math.sqrt is found.find("math.sqrt")
    assert os.path.join is found.find("os.path.join")
    assert "deep" == found.find("pack_of_a_test.deep.f")()
    assert "not for clients" == found.find(f"{mine}.helper")()
    assert 3 == found.find(f"{mine}.add")(1, 2)
    assert not isinstance(found.find(f"{mine}.add"), nbqueue.Task)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing_here.f", "ModuleNotFoundError: No module named 'nothing_here'"),
        ("math.f", "'math' has no 'f'"),
        ("os.path.f", "'posixpath' has no 'f'"),
        ("os.sep.f", "'/' has no 'f'"),
        ("math.pi", "that is no function, but of type float"),
        ("f", "a function that can be imported is named package.module.function"),
        ("math.sqrt()", "a function that can be imported is named package.module.function"),
        ("math..sqrt", "a function that can be imported is named package.module.function"),
    ],
)
def test_a_name_that_stands_for_no_function_is_refused_with_the_reason(catalog, name, reason):
    assert f"worker w knows no task {name!r}: {reason}" == refusal(catalog(BOTH), name)


def test_a_module_that_lacks_something_itself_says_so(module, catalog):
    name = module("import nothing_of_this_name")
    anything = catalog(BOTH, module())
    anything.tasks()

    assert refusal(anything, f"{name}.f").endswith("No module named 'nothing_of_this_name'")


# -- what is accepted --------------------------------------------------------------------------------------------------


def test_pickled_functions_are_refused_where_json_alone_is_accepted(catalog):
    catalog(BOTH).check_pickled()
    catalog(PICKLES).check_pickled()

    with pytest.raises(ContentDisallowed, match="worker w accepts json only, and this task is packed with cloudpickle"):
        catalog(JSON).check_pickled()


def test_names_are_refused_where_json_is_not_accepted(module, catalog):
    sentence = "worker w accepts cloudpickle only, and 'add' is called with JSON"

    assert sentence == refusal(catalog(PICKLES, module()), "add", ContentDisallowed)


# -- asked at the start of a worker ------------------------------------------------------------------------------------


def test_a_worker_asks_for_its_tasks_in_a_process_of_their_own(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = module("print('imported')\n" + textwrap.dedent(TASKS))

    assert ["add", f"{name}.total"] == tasks_of([name], worker="w")
    assert name not in sys.modules


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "worker w cannot import module .*: ZeroDivisionError: division by zero"),
        ("import os; os._exit(0)", "end the process that imports them"),
        ("import sys; sys.exit(1)", "end the process that imports them"),
    ],
)
def test_a_worker_whose_tasks_cannot_be_had_is_told_why(module, tmp_path, monkeypatch, text, reason):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NotRegistered, match=reason):
        tasks_of([module(text)], worker="w")
