"""What a slot may import decides which slot it is."""

import importlib
import os
import sys
import time
import types

import pytest

from nbqueue.wire import environment
from nbqueue.wire.environment import current_environment


@pytest.fixture
def import_file(tmp_path, monkeypatch):
    """Make a module of the user, and import it."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name="users_helper_of_a_test"):
        file = tmp_path / f"{name}.py"
        file.write_text("VALUE = 1\n")
        monkeypatch.setitem(sys.modules, name, None)  # so that it is removed in the end
        del sys.modules[name]
        importlib.import_module(name)
        return file

    return make


def await_other_than(digest):
    """Until the environment has another digest."""
    deadline = time.monotonic() + 10
    while digest == current_environment().digest:
        assert time.monotonic() < deadline


def test_nothing_changed_is_the_same_environment():
    assert current_environment().digest == current_environment().digest
    assert 16 == len(current_environment().digest)


def test_another_folder_is_another_environment(tmp_path, monkeypatch):
    before = current_environment().digest
    monkeypatch.chdir(tmp_path)

    assert before != current_environment().digest


def test_another_import_path_is_another_environment(monkeypatch):
    before = current_environment().digest
    monkeypatch.setattr(sys, "path", ["/of/a/test", *sys.path])

    assert before != current_environment().digest
    monkeypatch.undo()
    assert before == current_environment().digest


def test_an_imported_module_belongs_to_the_environment(import_file):
    before = current_environment().digest
    import_file("users_first_module_of_a_test")

    assert before != current_environment().digest


@pytest.mark.parametrize("text", ["VALUE = 1000\n", "VALUE = 2\n"])
def test_an_edited_module_is_another_environment(import_file, text):
    # Given a module that was imported and looked at
    file = import_file("users_edited_module_of_a_test_" + str(len(text)))
    before = current_environment().digest

    # When its file is saved, with another length or only at another time
    saved_at = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(saved_at + 1, saved_at + 1))

    # Then it is another environment
    await_other_than(before)


def test_an_edited_module_that_was_loaded_again_is_noticed_at_once(import_file, monkeypatch):
    # Given a process that looks at files only when something is loaded
    monkeypatch.setattr(environment, "_USER_MODULES", environment._UserModules())
    monkeypatch.setattr(environment, "_SHARE_OF_TIME", 1e-12)
    file = import_file("users_reloaded_module_of_a_test")
    before = current_environment().digest

    # When a module is edited, it still has what it has loaded
    file.write_text("VALUE = 1000\n")
    edited = current_environment().digest
    importlib.reload(sys.modules[file.stem])

    # Then it is another environment with what is loaded
    assert before == edited
    assert before != current_environment().digest


def test_a_deleted_module_is_no_trouble(import_file):
    file = import_file("users_deleted_module_of_a_test")
    before = current_environment().digest
    file.unlink()

    await_other_than(before)


@pytest.mark.parametrize("name", ["os", "msgspec", "nbqueue"])
def test_modules_of_python_and_of_packages_do_not_belong_to_it(name, monkeypatch):
    # Given a library's file, imported once more under a name that was never seen
    before = current_environment().digest
    module = types.ModuleType(f"alias_of_{name}_in_a_test")
    module.__file__ = sys.modules[name].__file__
    monkeypatch.setitem(sys.modules, module.__name__, module)

    assert before == current_environment().digest


def test_variables_that_were_set_or_removed_belong_to_it_where_they_are_asked_for(monkeypatch):
    before = current_environment(with_variables=True)
    monkeypatch.setenv("SET_BY_A_TEST", "yes")
    monkeypatch.delenv("PATH")

    now = current_environment(with_variables=True)

    assert before.digest != now.digest
    assert {**before.variables, "SET_BY_A_TEST": "yes", "PATH": None} == now.variables
    assert {} == current_environment().variables
    monkeypatch.undo()
    assert before == current_environment(with_variables=True)


def test_variables_of_nbqueue_itself_do_not_belong_to_it(monkeypatch):
    before = current_environment(with_variables=True)
    monkeypatch.setenv("NBQUEUE_URL", "redis://elsewhere")

    assert before == current_environment(with_variables=True)


def test_a_folder_that_was_removed_is_no_trouble(tmp_path, monkeypatch):
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()

    assert "" == current_environment().folder
