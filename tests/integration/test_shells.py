"""The first call of a user, in each of the places where Python is typed."""

import os
import sys

import nbformat
import pytest
from nbclient import NotebookClient

SQUARES = "nbqueue.map(lambda x: x * x, range(100_000)).get() == [x * x for x in range(100_000)]"


#: A script that prints two variables as a task finds them.
REPORT = """
import os, nbqueue
print(nbqueue.submit(lambda: " ".join(str(os.environ.get(name)) for name in ("MINE", "PATH"))).get())
"""


def test_a_plain_script_maps_a_lambda(hub):
    # Given a script that starts nothing and configures nothing, when it runs
    output = hub.run_script(f"import nbqueue\nprint({SQUARES})")

    # Then the result is right
    assert "True\n" == output


def test_an_async_def_awaits_a_map(hub):
    output = hub.run_script("""
        import asyncio, nbqueue

        async def main():
            squares = await nbqueue.map(lambda x: x * x, range(100_000))
            print(squares == [x * x for x in range(100_000)])

        asyncio.run(main())
    """)

    assert "True\n" == output


def test_an_ipython_terminal_maps_a_lambda(hub, tmp_path):
    result = hub.run(
        *(
            sys.executable,
            "-m",
            "IPython",
            "--no-banner",
            "--colors=nocolor",
            "-c",
            f"import nbqueue; print({SQUARES})",
        ),
        IPYTHONDIR=str(tmp_path),
    )

    assert (0, "True") == (result.returncode, result.stdout.strip().splitlines()[-1]), result.stderr


@pytest.mark.timeout(60)
def test_a_notebook_maps_what_its_cells_define(hub):
    # Given functions, a class and a closure, each defined in a cell
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(text)
            for text in (
                "import nbqueue",
                f"print({SQUARES})",
                "def double(x):\n    return 2 * x",
                "class Adder:\n    def __init__(self, n): self.n = n\n    def add(self, x): return double(x) + self.n",
                "def adds(n):\n    return lambda x: double(x) + n",
                "print(nbqueue.map(double, range(3)).get())",
                "print(nbqueue.map(Adder(1).add, range(3)).get(), nbqueue.map(adds(2), range(3)).get())",
                "print([(adder.n, type(adder) is Adder) for adder in nbqueue.map(Adder, range(2)).get()])",
                "async def later():\n    return await nbqueue.submit(double, 21)\nprint(await later())",
            )
        ]
    )

    # When the notebook is executed
    NotebookClient(notebook, timeout=30, kernel_name="python3").execute()

    # Then every cell printed what it should
    printed = [
        "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
        for cell in notebook.cells
    ]
    assert ["True\n", "[0, 2, 4]\n", "[1, 3, 5] [2, 4, 6]\n", "[(0, True), (1, True)]\n", "42\n"] == [
        text for text in printed if text
    ]


def test_whatever_main_defines_runs_on_a_worker(hub):
    # Given all kinds of callables, defined in a script
    output = hub.run_script("""
        import functools, nbqueue

        OFFSET = 10

        def factorial(n):
            return 1 if n < 2 else n * factorial(n - 1)

        def is_even(n):
            return n == 0 or is_odd(n - 1)

        def is_odd(n):
            return n != 0 and is_even(n - 1)

        def power(base, exponent, *, offset=0):
            return base ** exponent + offset

        def counter():
            count = 0
            def count_up(step):
                nonlocal count
                count += step
                return count + OFFSET
            return count_up

        class Scaler:
            factor = 2
            def __init__(self, offset): self.offset = offset
            def scale(self, x): return self.factor * x + self.offset
            def __call__(self, x): return -self.scale(x)
            @classmethod
            def double(cls, x): return cls.factor * x
            @staticmethod
            def halve(x): return x / 2

        class Tripler(Scaler):
            factor = 3
            def scale(self, x): return super().scale(x) + 100

        print(nbqueue.map(factorial, [1, 5, 20]).get())
        print(nbqueue.map(is_even, [10, 11]).get())
        print(nbqueue.map(functools.partial(power, 2, offset=1), [3, 4]).get())
        print(nbqueue.submit(power, 2, exponent=3, offset=4).get())
        print(nbqueue.submit(counter(), 5).get())
        print(nbqueue.map(Scaler(1).scale, [1, 2]).get(), nbqueue.map(Scaler(1), [1, 2]).get())
        print(nbqueue.map(Scaler.double, [4]).get(), nbqueue.map(Scaler.halve, [4]).get())
        print(nbqueue.map(Tripler(1).scale, [1]).get(), nbqueue.map(str.upper, ["a"]).get())
        print(nbqueue.starmap(power, [(2, 5), (3, 2)]).get())
    """)

    # When it runs, then each call gave what it gives without nbqueue
    assert [
        "[1, 120, 2432902008176640000]",
        "[True, False]",
        "[9, 17]",
        "12",
        "15",
        "[3, 5] [-3, -5]",
        "[8] [2.0]",
        "[104] ['A']",
        "[32, 9]",
    ] == output.splitlines()


def test_a_module_beside_the_script_is_imported_on_the_worker(hub):
    # Given a module that only the script's folder has, and a script started from elsewhere
    hub.write_script("def double(x):\n    return 2 * x\n", "project/double_it.py")
    script = hub.write_script(
        "import nbqueue, double_it\nprint(nbqueue.map(double_it.double, [1, 2]).get())", "project/main.py"
    )

    # When it maps a function of that module
    result = hub.run(sys.executable, str(script))

    # Then the worker finds the module, too
    assert ("[2, 4]\n", 0) == (result.stdout, result.returncode), result.stderr


def test_a_task_finds_the_variables_that_its_script_has_changed(hub):
    # Given a hub that runs already
    assert f"None {os.environ['PATH']}\n" == hub.run_script(REPORT)

    # When a script that has set a variable and removed another one submits, and one that has not
    changed = hub.run_script("import os; os.environ['MINE'] = 'set'; del os.environ['PATH']" + REPORT)
    unchanged = hub.run_script(REPORT)

    # Then each task finds what its script has
    assert ("set None\n", f"None {os.environ['PATH']}\n") == (changed, unchanged)


def test_a_folder_that_was_removed_does_not_keep_tasks_from_running(hub):
    output = hub.run_script("""
        import os, tempfile, nbqueue

        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
        print(nbqueue.submit(abs, -1).get())
    """)

    assert "1\n" == output


def test_two_projects_with_modules_of_the_same_name_each_get_their_own(hub):
    # Given two folders that both have a module called settings_of_project
    for project, value in (("one", 1), ("two", 2)):
        hub.write_script(f"def value(x):\n    return {value}\n", f"{project}/settings_of_project.py")
        hub.write_script(
            "import nbqueue, settings_of_project\nprint(set(nbqueue.map(settings_of_project.value, range(100)).get()))",
            f"{project}/main.py",
        )

    # When a script of each runs on the same hub
    outputs = [hub.run(sys.executable, "main.py", cwd=hub.folder / project).stdout for project in ("one", "two")]

    # Then each got results of its own module
    assert ["{1}\n", "{2}\n"] == outputs


def test_a_module_that_was_edited_is_run_as_edited_by_the_next_script(hub):
    # Given a script that has run with a module as it was
    module = hub.write_script("def value(x):\n    return 'old'\n", "edited/rules.py")
    script = "import nbqueue, rules\nprint(set(nbqueue.map(rules.value, range(100)).get()))"
    hub.write_script(script, "edited/main.py")
    first = hub.run(sys.executable, "-B", "main.py", cwd=module.parent)

    # When the module is edited and the script runs again
    module.write_text("def value(x):\n    return 'new one'\n")
    second = hub.run(sys.executable, "-B", "main.py", cwd=module.parent)

    # Then it runs what the file says now
    assert ["{'old'}\n", "{'new one'}\n"] == [first.stdout, second.stdout]


def test_a_script_that_closes_nothing_ends_by_itself(hub):
    # Given a script that leaves an app and a handle open, when it runs
    output = hub.run_script(
        """
        import nbqueue, time
        app = nbqueue.App()
        print(app.submit(abs, -1).get())
        unfinished = app.submit(time.sleep, 5)
    """,
        timeout_s=5.0,
    )

    # Then it ends without waiting for them
    assert "1\n" == output


def test_a_script_says_nothing_on_stderr_when_all_is_well(hub):
    script = hub.write_script(f"import nbqueue\nassert {SQUARES}")

    result = hub.run(sys.executable, "-W", "error", str(script))

    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
