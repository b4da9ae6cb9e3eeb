"""Notebooks that nobody looks at: nbclient, papermill, and kernels without ipywidgets."""

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.timeout(90)

CELLS = (
    "import nbqueue",
    "run = nbqueue.map(abs, range(100), label='hundred')",
    "run.get()[-1]",
)
WIDGET = "application/vnd.jupyter.widget-view+json"


def notebook_of(*cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def executed(*cells, environment):
    notebook = notebook_of(*cells)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute(env=environment)
    return notebook.cells


def assert_final_card(cell):
    [card] = [output.data for output in cell.outputs if "data" in output]
    assert "hundred: done, 100 / 100" in card["text/plain"]
    assert "100 / 100" in card["text/html"]
    assert WIDGET not in card


def test_nbclient_stores_the_final_card_in_the_cell_that_made_the_map(hub_environment):
    cells = executed(*CELLS, environment=hub_environment)

    assert_final_card(cells[1])
    assert "99" == cells[2].outputs[0].data["text/plain"]


def test_papermill_stores_it_too(hub_environment, tmp_path):
    nbformat.write(notebook_of(*CELLS), tmp_path / "in.ipynb")

    subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", tmp_path / "in.ipynb", tmp_path / "out.ipynb"],
        env=hub_environment,
        check=True,
        capture_output=True,
        timeout=80,
    )

    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert_final_card(next(cell for cell in cells if "nbqueue.map" in cell.source))


def test_without_ipywidgets_everything_works(hub_environment):
    cells = executed(
        "import sys; sys.modules['ipywidgets'] = None\n%load_ext nbqueue",
        *CELLS,
        "%%remote\nprint('hello')\nx = 6 * 7\nx",
        "x",
        environment=hub_environment,
    )

    assert_final_card(cells[2])
    assert "42" == cells[5].outputs[0].data["text/plain"]
    assert ["hello\n", "42"] == [
        output.get("text") or output.data["text/plain"]
        for output in cells[4].outputs
        if "%%remote" not in str(output.get("data", ""))
    ]


def test_the_unit_is_the_item_whatever_the_chunks(hub_environment):
    cells = executed(
        "import nbqueue\nnbqueue.map(abs, range(2000), chunksize=50, label='two thousand').get();",
        environment=hub_environment,
    )

    assert "two thousand: done, 2,000 / 2,000" in cells[0].outputs[0].data["text/plain"]
    assert 'aria-valuemax="2000" aria-valuenow="2000"' in cells[0].outputs[0].data["text/html"]


def test_remote_cells_work_in_an_ipython_terminal(hub_environment):
    run = "get_ipython().run_cell('%load_ext nbqueue'); get_ipython().run_cell({!r})"
    code = run.format("%%remote\nprint('hi')\ny = 6 * 7\ny")
    ended = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", "-c", f"{code}; print('y is', y)"],
        env=hub_environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == ended.returncode, ended.stderr
    assert "hi\n" in ended.stdout
    assert "42" in ended.stdout
    assert "y is 42" in ended.stdout
