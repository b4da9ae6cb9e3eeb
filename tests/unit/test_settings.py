"""An argument beats the environment, which beats the default."""

import os
import sys
from pathlib import Path

import pytest

from nbqueue import processes, settings
from nbqueue.processes import HubArguments, process_environment
from nbqueue.settings import (
    Settings,
    default_hub_name,
    default_runtime_dir,
    is_on_this_machine,
    shown_url,
    usable_cores,
)

VARIABLES = {
    "NBQUEUE_KEY_FILE": ("key_file", "/etc/nbqueue/key", Path("/etc/nbqueue/key")),
    "NBQUEUE_ENCRYPT": ("encrypt", "1", True),
    "NBQUEUE_URL": ("url", "zmq://there", "zmq://there"),
    "NBQUEUE_RUNTIME_DIR": ("runtime_dir", "/short", Path("/short")),
    "NBQUEUE_HUB_NAME": ("hub_name", "mine", "mine"),
    "NBQUEUE_WORKERS": ("workers", "3", 3),
    "NBQUEUE_IDLE_TIMEOUT": ("idle_timeout_s", "1.5", 1.5),
    "NBQUEUE_WORKER_PYTHON": ("worker_python", "/usr/bin/python3", "/usr/bin/python3"),
    "NBQUEUE_SUBMIT_TIMEOUT": ("submit_timeout_s", "7", 7.0),
    "NBQUEUE_MEMORY_LIMIT": ("memory_limit_bytes", "8G", 8 * 2**30),
    "NBQUEUE_MAX_TASKS_PER_CHILD": ("max_tasks_per_child", "100", 100),
    "NBQUEUE_ACCEPT": ("accept", "json, cloudpickle", ("cloudpickle", "json")),
    "NBQUEUE_IMPORT": ("imports", "tasks.billing, tasks.mail,", ("tasks.billing", "tasks.mail")),
}


def test_the_defaults_need_no_environment():
    loaded = Settings.load({})

    assert (
        Settings(
            url="embedded",
            runtime_dir=default_runtime_dir(),
            hub_name=default_hub_name(),
            workers=usable_cores(),
            idle_timeout_s=1800.0,
            worker_python=sys.executable,
            submit_timeout_s=60.0,
        )
        == loaded
    )


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_beats_the_default(variable):
    name, text, expected = VARIABLES[variable]
    value = getattr(Settings.load({variable: text}), name)

    assert (type(expected), expected) == (type(value), value)


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_variable_is_in_the_documentation(variable):
    assert f"`{variable}`" in settings.__doc__


def test_there_are_no_other_settings():
    # A token is a secret: it has no variable, which every process of the user could read
    assert set(Settings.__struct_fields__) == {name for name, _, _ in VARIABLES.values()} | {"token"}


def test_an_argument_beats_the_variable():
    assert 5 == Settings.load({"NBQUEUE_WORKERS": "3"}, workers=5).workers
    assert 0 == Settings.load({"NBQUEUE_WORKERS": "3"}, workers=0).workers


def test_an_argument_that_is_not_given_beats_nothing():
    assert 3 == Settings.load({"NBQUEUE_WORKERS": "3"}, workers=None).workers


def test_an_empty_variable_is_as_good_as_none():
    assert "embedded" == Settings.load({"NBQUEUE_URL": ""}).url


def test_a_folder_may_be_given_as_text():
    assert Path("/short") == Settings.load({}, runtime_dir="/short").runtime_dir


@pytest.mark.parametrize("variable", ["NBQUEUE_WORKERS", "NBQUEUE_IDLE_TIMEOUT", "NBQUEUE_SUBMIT_TIMEOUT"])
def test_what_is_no_number_is_named(variable):
    with pytest.raises(ValueError, match=f"{variable}='many' is not a number"):
        Settings.load({variable: "many"})


def test_fewer_than_no_workers_are_refused():
    with pytest.raises(ValueError, match=r"workers \(NBQUEUE_WORKERS\) must be 0 or more, not -1"):
        Settings.load({}, workers=-1)


def test_the_process_environment_is_read_when_nothing_else_is_given(monkeypatch):
    monkeypatch.setenv("NBQUEUE_HUB_NAME", "from-outside")

    assert "from-outside" == Settings.load().hub_name


def test_the_runtime_folder_is_that_of_the_session_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert tmp_path / "nbqueue" == default_runtime_dir()

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    assert f"nbqueue-{os.getuid()}" == default_runtime_dir().name


def test_each_python_environment_has_a_hub_of_its_own(monkeypatch):
    here = default_hub_name()
    assert here == default_hub_name()

    monkeypatch.setattr(sys, "prefix", "/another/environment")
    assert here != default_hub_name()


def test_our_processes_find_this_package_where_it_is_not_installed(monkeypatch):
    # Given a package that lies in a folder of no installation, and a path of the user
    monkeypatch.setattr(processes.site, "getsitepackages", list)
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")

    # Then both are on the path of our processes, the user's first
    home = str(Path(settings.__file__).resolve().parents[1])
    assert f"/of/the/user{os.pathsep}{home}" == process_environment()["PYTHONPATH"]


def test_our_processes_have_the_same_environment_where_it_is_installed(monkeypatch):
    home = str(Path(settings.__file__).resolve().parents[1])
    monkeypatch.setattr(processes.site, "getsitepackages", lambda: [home])

    assert dict(os.environ) == process_environment()


def test_a_token_is_never_shown():
    settings = Settings.load(token="nbqueue-key-1:secret")

    assert "nbqueue-key-1:secret" == settings.token
    assert "secret" not in f"{settings!r} {settings.token!r}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
        ("rediss://:se@cret@host", "rediss://:***@host"),
        ("redis://user@host", "redis://user@host"),
        ("redis://host/0", "redis://host/0"),
        ("tcp://host:7913", "tcp://host:7913"),
        ("embedded", "embedded"),
    ],
)
def test_an_address_is_shown_without_its_password(url, shown):
    assert shown == shown_url(url)


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("embedded", True),
        ("redis://localhost:6379", True),
        ("tcp://127.0.0.1:7913", True),
        ("tcp://[::1]:7913", True),
        ("unix:///run/redis.sock", True),
        ("redis+unix:///run/redis.sock", True),
        ("tcp://0.0.0.0:7913", False),
        ("tcp://[::]:7913", False),
        ("redis://10.0.0.5", False),
        ("redis://server", False),
    ],
)
def test_an_address_of_this_machine_alone_is_known(url, is_here):
    assert is_here is is_on_this_machine(url)


def test_what_a_hub_is_told_arrives_as_it_was():
    arguments = HubArguments("/a folder/=", "default", 2, 1800.0, "/usr/bin/python3", 3, 5, bind="tcp://0.0.0.0:7000")

    assert arguments == HubArguments.decode(arguments.encode())
