"""The notebooks beside the quickstart: every cell runs, fails only where it says so, and shows what is stored in it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = ["02_remote_cells", "03_maps_and_errors"]

pytestmark = pytest.mark.timeout(180)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def values(cell):
    """The cell's value, its error, and the pictures; not cards and prints, in which times stand."""
    found = []
    for output in cell.outputs:
        if output.output_type == "execute_result":
            found.append(output.data["text/plain"])
        elif output.output_type == "error":
            found.append(output.ename)
        elif "image/png" in output.get("data", {}):
            found.append("a picture")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_what_is_stored_in_it(name, hub_environment):
    # Given a notebook with its outputs
    stored = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook = nbformat.from_dict(stored)
    before = [values(cell) for cell in code_cells(stored)]

    # When it runs from top to bottom
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=hub_environment)

    # Then every cell shows what it showed before, and fails only where it did
    assert before == [values(cell) for cell in code_cells(notebook)]
    assert [] == [cell.source for cell in code_cells(stored) if "False" in values(cell)]


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_notebook_needs_no_kernel_and_tells_nothing_of_its_machine(name):
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")

    assert "widget-view" not in text
    assert "/home/" not in text
    assert "/root/" not in text
    assert "/tmp/" not in text
