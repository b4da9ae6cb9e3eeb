"""The public names: what a person sees after `nbqueue.` and Tab, and with Shift-Tab."""

import inspect
import subprocess
import sysconfig
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

import nbqueue

LONGEST_SUMMARY = 79  # characters; more is cut off in the tooltip


def test_every_public_name_exists_and_tab_shows_it():
    assert set() == set(nbqueue.__all__) - set(dir(nbqueue))
    assert [] == [name for name in nbqueue.__all__ if not hasattr(nbqueue, name)]


def test_public_names_are_sorted_and_given_once():
    assert sorted(set(nbqueue.__all__)) == list(nbqueue.__all__)


@pytest.mark.parametrize("name", [name for name in nbqueue.__all__ if not name.startswith("__")])
def test_every_public_name_says_what_it_is_in_one_line(name):
    thing = getattr(nbqueue, name)
    summary = (vars(thing).get("__doc__") or "" if inspect.isclass(thing) else thing.__doc__ or "").partition("\n")[0]

    assert "" != summary.strip()
    assert len(summary.strip()) <= LONGEST_SUMMARY


@pytest.mark.parametrize("name", ["map", "starmap", "imap", "imap_unordered", "options", "task"])
def test_functions_that_take_task_options_show_them_with_tab(name):
    parameters = inspect.signature(getattr(nbqueue, name)).parameters

    assert {"max_retries", "time_limit", "memory", "queue", "tags"} <= parameters.keys()
    assert 0 == parameters["max_retries"].default
    assert not any(each.kind is each.VAR_KEYWORD for each in parameters.values())


@pytest.mark.parametrize(
    ("name", "buffersize", "ordered"), [("map", None, True), ("imap", 10_000, True), ("imap_unordered", 10_000, False)]
)
def test_maps_show_their_own_keywords_with_tab(name, buffersize, ordered):
    parameters = inspect.signature(getattr(nbqueue, name)).parameters

    assert ("auto", buffersize, ordered) == tuple(
        parameters[name].default for name in ("chunksize", "buffersize", "ordered")
    )


def test_the_package_says_that_it_is_typed():
    assert files("nbqueue").joinpath("py.typed").is_file()


def test_the_installed_version_is_the_one_in_the_source():
    assert nbqueue.__version__ == version("nbqueue")


@pytest.mark.parametrize("command", ["nbqueue", "nbqueue-worker"])
def test_each_command_is_installed_and_explains_itself(command):
    script = Path(sysconfig.get_path("scripts"), command)
    ran = subprocess.run([script, "--help"], check=False, capture_output=True, text=True)

    assert (0, "") == (ran.returncode, ran.stderr)
    assert f"Usage: {command}" in ran.stdout
