"""What README.md and the tutorial say is so: their code runs, prints what its comments say, and their links lead on."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/tutorial/quickstart.md"]


@pytest.fixture
def environment():
    """Leads nbqueue to a hub of this test's own, which ends with the test."""
    with tempfile.TemporaryDirectory(prefix="nbq-") as folder:  # short, for the sockets in it
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NBQUEUE_")}
        environment |= {"NBQUEUE_RUNTIME_DIR": folder, "NBQUEUE_WORKERS": "2"}
        yield environment
        subprocess.run([sys.executable, "-m", "nbqueue", "stop"], env=environment, check=True, timeout=30)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def promised_output(code):
    """What the comments behind `print(…)` say, in order; a print without a comment promises an empty line."""
    return re.findall(r"^ *print\(.*?\)(?:  # (.*))?$", code, flags=re.MULTILINE)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PAGES)
def test_the_code_of_a_page_runs_as_one_script_and_prints_what_its_comments_say(name, environment, tmp_path):
    # Given the Python blocks of a page, one after the other, in a fresh script
    code = "\n".join(blocks((ROOT / name).read_text(encoding="utf-8"), "python"))
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")

    # When it runs
    ended = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=100, check=False
    )

    # Then it prints what the comments promise
    assert 0 == ended.returncode, ended.stderr
    assert promised_output(code) == ended.stdout.splitlines()
    assert [] != promised_output(code)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_to_a_file_of_ours_leads_somewhere(name):
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [] == [target for target in targets if not (page.parent / target).exists()]


def test_the_readme_names_the_two_commands_that_the_makefile_has():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    promised = set(re.findall(r"\*\*`make (\w+)`\*\*", readme))

    assert {"demo", "test"} == promised
    assert promised <= set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
