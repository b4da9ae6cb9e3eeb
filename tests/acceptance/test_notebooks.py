"""The notebooks beside the quickstart: every cell runs, fails only where it says so, and shows what is stored in it."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.redis_servers import binary

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("0[2-9]_*.ipynb"))

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def environment(name, hub_environment, tmp_path):
    """Of a person who has a hub, and a Redis server and a key for it where the notebook needs them."""
    if "redis" not in name:
        return hub_environment
    path = f"{Path(binary('own')).parent}{os.pathsep}{hub_environment['PATH']}"
    return hub_environment | {"PATH": path, "XDG_CONFIG_HOME": str(tmp_path)}


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
def test_a_notebook_shows_what_is_stored_in_it(name, environment):
    # Given a notebook with its outputs
    stored = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook = nbformat.from_dict(stored)
    before = [values(cell) for cell in code_cells(stored)]

    # When it runs from top to bottom
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)

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
