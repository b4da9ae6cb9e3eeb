"""Errors of remote tasks as people see them: through a real ipykernel, and in IPython's terminal shell."""

import re
import sys
import textwrap

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.timeout(90)

DEFINE = """\
import nbqueue

class Mine(ValueError):
    pass

def parse(text):
    if not text:
        raise Mine("nothing to parse")
    return {"a": 1}[text]

def outer(text):
    # a comment
    return parse(text)
"""


@pytest.fixture(scope="module")
def run_cells(private_runtime):
    """Runs cells in one kernel; their outputs."""

    def run(*cells):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True).execute()
        return [cell.outputs for cell in notebook.cells]

    return run


@pytest.fixture(scope="module")
def private_runtime(tmp_path_factory):
    import subprocess

    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("r")
        environment.setenv("NBQUEUE_RUNTIME_DIR", str(folder))
        environment.setenv("NBQUEUE_WORKERS", "1")
        environment.setenv("NBQUEUE_NONINTERACTIVE", "1")
        yield folder
        subprocess.run([sys.executable, "-m", "nbqueue", "stop"], check=False, capture_output=True)


def plain(outputs):
    """The traceback of a cell, without colours."""
    [error] = [output for output in outputs if output.output_type == "error"]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))


def test_a_failing_function_of_a_cell_is_shown_with_its_cell_line_and_arrow(run_cells):
    _, outputs = run_cells(DEFINE, "nbqueue.submit(outer, '').get()")

    text = plain(outputs)
    assert "Cell In[2], line 1" in text
    assert "----> 1 nbqueue.submit(outer, '').get()" in text
    assert "Cell In[1], line 13, in outer(text)" in text
    assert "---> 13     return parse(text)" in text
    assert "Cell In[1], line 8, in parse(text)" in text
    assert '----> 8         raise Mine("nothing to parse")' in text
    assert "Mine: nothing to parse" in text
    assert "nbqueue: task 'outer' failed on worker" in text
    for ours in ("result.py", "slot.py", "failure.py", "zygote"):
        assert ours not in text


@pytest.mark.parametrize("ask", ["results.get()", "list(results)", "results[1]"])
def test_a_map_shows_the_same(run_cells, ask):
    _, outputs = run_cells(DEFINE, f"results = nbqueue.map(outer, ['a', ''], progress=False)\n{ask}")

    text = plain(outputs)
    assert f"----> 2 {ask}" in text
    assert '----> 8         raise Mine("nothing to parse")' in text
    assert "nbqueue: item 1 of 'outer' failed on worker" in text
    assert "map_result.py" not in text


def test_causes_are_shown_with_their_own_lines(run_cells):
    define = textwrap.dedent("""\
        import nbqueue

        def chained():
            try:
                return {}["key"]
            except KeyError as error:
                raise RuntimeError("no key") from error
        """)
    _, outputs = run_cells(define, "nbqueue.submit(chained).get()")

    text = plain(outputs)
    assert '----> 5         return {}["key"]' in text
    assert "The above exception was the direct cause of the following exception" in text
    assert '----> 7         raise RuntimeError("no key") from error' in text
    assert text.index("KeyError: 'key'") < text.index("RuntimeError: no key")


def test_the_true_type_is_caught_and_python_itself_prints_the_line(run_cells):
    ask = textwrap.dedent("""\
        import traceback
        try:
            nbqueue.submit(outer, '').get()
        except ValueError as error:
            print(type(error) is Mine)
            traceback.print_exc()
        """)
    _, outputs = run_cells(DEFINE, ask)

    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert printed.startswith("True\n")
    assert 'raise Mine("nothing to parse")' in printed
    assert "in parse" in printed


def test_an_error_that_cannot_travel_is_shown_just_so(run_cells):
    define = textwrap.dedent("""\
        import nbqueue, threading

        def locked():
            error = OSError("with a lock")
            error.lock = threading.Lock()
            raise error
        """)
    _, outputs = run_cells(define, "nbqueue.submit(locked).get()")

    text = plain(outputs)
    assert "----> 6     raise error" in text
    assert "RemoteError: OSError: with a lock" in text


def test_the_terminal_shell_shows_it_as_well(private_runtime, tmp_path):
    import subprocess

    script = tmp_path / "cells.ipy"
    program = textwrap.dedent(f"""\
        from IPython.terminal.interactiveshell import TerminalInteractiveShell
        shell = TerminalInteractiveShell.instance(colors="NoColor", simple_prompt=True)
        shell.run_cell({DEFINE!r}, store_history=True)
        shell.run_cell("nbqueue.submit(outer, '').get()", store_history=True)
        """)
    script.write_text(program)
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)

    text = re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout)
    assert "Cell In[1], line 8, in parse(text)" in text
    assert '----> 8         raise Mine("nothing to parse")' in text
    assert "Mine: nothing to parse" in text
    assert "slot.py" not in text
