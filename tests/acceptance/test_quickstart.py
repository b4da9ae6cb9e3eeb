"""The quickstart notebook, run as `make demo` runs it: nbclient, a real hub and real workers of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "notebooks" / "run_demo.py"

pytestmark = pytest.mark.timeout(300)  # the first test waits for the notebook: some 20 s on two free cores


@dataclass(frozen=True)
class Demo:
    """What one run of the demo left behind."""

    status: int
    stdout: str
    stderr: str
    cells: list = field(repr=False)  # long: a chart is among them
    folder: str  #: where its kernel, hub and workers lived

    @property
    def shown(self):
        """The MIME bundles of all outputs, in order."""
        return [output.data for cell in self.cells for output in cell.outputs if "data" in output]

    @property
    def figures(self):
        return self.shown[-1]["application/json"]


def run_demo(*arguments, folder):
    return subprocess.run(
        [sys.executable, DEMO, *arguments],
        env=os.environ | {"TMPDIR": folder},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def short_folder():
    """A temporary folder with a short name: the path of a Unix socket has room for about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="nbq-") as folder:
        yield folder


@pytest.fixture(scope="module")
def demo(short_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("demo-output")
    ended = run_demo("--output", output, folder=short_folder)
    notebook = nbformat.read(output / "01_quickstart.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return Demo(ended.returncode, ended.stdout, ended.stderr, cells, short_folder)


def standard_library():
    """Every file that the notebook promises to measure, found in another way than it does."""
    root = sysconfig.get_path("stdlib")
    left_out = {"site-packages", "dist-packages", "data", "tokenizedata"}
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in left_out]
        yield from (Path(folder, name) for name in names if name.endswith(".py") and not name.startswith("badsyntax"))


def test_the_demo_runs_every_cell_and_ends_well(demo):
    assert (0, "") == (demo.status, demo.stderr)
    assert list(range(1, len(demo.cells) + 1)) == [cell.execution_count for cell in demo.cells]


def test_every_module_of_the_standard_library_is_measured(demo):
    # Given the library as it lies on the disk
    line_counts = [len(path.read_bytes().splitlines()) for path in standard_library()]

    # When the notebook has measured it
    measured = demo.figures

    # Then nothing is missing
    assert (len(line_counts), sum(line_counts)) == (measured["modules"], measured["lines"])
    assert max(line_counts) == measured["largest_module_lines"]


def test_nbqueue_gives_the_same_results_as_the_serial_loop(demo):
    assert demo.figures["same_results"] is True
    assert any(cell.source == "assert parallel == serial" for cell in demo.cells)


def test_the_work_was_done_by_other_processes(demo):
    assert 1 <= demo.figures["workers"]
    assert demo.figures["speed_up"] == pytest.approx(demo.figures["serial_s"] / demo.figures["nbqueue_s"])


def test_the_card_of_the_map_ends_at_its_full_count_and_is_static(demo):
    # Given the cell that maps over all modules
    [cell] = [cell for cell in demo.cells if "run = nbqueue.map(measure, modules" in cell.source]

    # When the notebook is saved
    [card] = [output.data for output in cell.outputs if "data" in output]

    # Then the card says that all is done, and needs no widget to say so
    full = f"{demo.figures['modules']:,} / {demo.figures['modules']:,}"
    assert {"text/html", "text/plain"} == set(card)
    assert full in card["text/plain"]
    assert full in card["text/html"]


def test_the_notebook_shows_a_chart(demo):
    assert 1 == len([data for data in demo.shown if "image/png" in data])


def test_get_raises_the_exception_of_the_notebook_with_the_traceback_of_the_worker(demo):
    [error] = [output for cell in demo.cells for output in cell.outputs if output.output_type == "error"]

    assert "NoDocstring" == error.ename
    assert "this.py does not say what it is for" == error.evalue
    assert re.search(r"\bin purpose\b", re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)))


def test_the_demo_prints_the_figures_of_its_notebook_under_the_labels_that_the_readme_shows(demo):
    example = (ROOT / "README.md").read_text(encoding="utf-8")
    example = example.partition("<!-- demo-output -->")[2].partition("<!-- /demo-output -->")[0].strip("`\n")

    def labels(text):
        return [line[:17].strip() for line in text.splitlines()[1:] if not line.startswith("web page")]

    assert labels(example) == labels(demo.stdout)
    assert f"{demo.figures['lines']:,}" in demo.stdout
    assert f"{demo.figures['speed_up']:.2f}" in demo.stdout


def test_the_demo_leaves_no_process_behind(demo):
    def belongs_to_the_demo(process):
        try:
            return process.environ().get("NBQUEUE_RUNTIME_DIR", "").startswith(demo.folder)
        except psutil.Error:
            return False

    left = [process for process in psutil.process_iter() if belongs_to_the_demo(process)]

    assert [] == psutil.wait_procs(left, timeout=5)[1]


def test_a_cell_that_fails_ends_the_demo_with_one_sentence(tmp_path, short_folder):
    # Given a notebook with a cell that raises
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, tmp_path / "broken.ipynb")

    # When the demo runs it
    ended = run_demo(tmp_path / "broken.ipynb", "--output", tmp_path / "output", folder=short_folder)

    # Then it says which cell it was, and why
    sentence = "The demo failed: cell 1 raised ZeroDivisionError: division by zero\n"
    assert (1, sentence) == (ended.returncode, ended.stderr)
