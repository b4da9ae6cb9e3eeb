"""Calls by name: what cannot be meant is refused before anybody is asked."""

from datetime import UTC, datetime, timedelta

import pytest

import nbqueue
from nbqueue.client.app import App
from nbqueue.client.options import timing
from nbqueue.errors import NotSerializable


@pytest.fixture
def app(tmp_path, monkeypatch):
    """An app that connects with nobody."""
    found = App(runtime_dir=tmp_path, workers=0)

    def connection():
        raise AssertionError("somebody would be asked")

    monkeypatch.setattr(found, "connection", connection)
    return found


@pytest.mark.parametrize(
    ("arguments", "kind", "complaint"),
    [
        (("",), ValueError, "name must be the name of a task, e.g. \"package.module.function\", not ''"),
        ((abs,), ValueError, "name must be the name of a task"),
        (("add", "12"), TypeError, "args must be a list or a tuple, not '12'"),
        (("add", 1), TypeError, "args must be a list or a tuple, not 1"),
        (("add", [], {1: 2}), TypeError, "kwargs must be a dict with names of arguments, not {1: 2}"),
        (("add", [], [1]), TypeError, r"kwargs must be a dict with names of arguments, not \[1\]"),
        (("add", [1, {2}]), NotSerializable, "argument 1: it is of type set, which JSON does not have"),
        (("add", [], {"x": [b""]}), NotSerializable, r"argument 'x'\[0\]: it is of type bytes"),
    ],
)
def test_calls_that_cannot_be_meant_are_refused_in_a_sentence(app, arguments, kind, complaint):
    with pytest.raises(kind, match=complaint):
        app.send_task(*arguments)


@pytest.mark.parametrize(
    ("options", "kind", "complaint"),
    [
        ({"autoretry_for": (OSError,)}, ValueError, "autoretry_for names exceptions of this process"),
        ({"queues": "q"}, TypeError, "there is no task option 'queues'; did you mean 'queue'"),
        ({"countdown": 1, "eta": datetime.now(UTC)}, ValueError, "give countdown or eta, not both"),
        ({"time_limit": 0}, ValueError, "time_limit must be a number of seconds above 0, not 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_in_a_sentence(app, options, kind, complaint):
    with pytest.raises(kind, match=complaint):
        app.send_task("add", **options)


def test_moments_become_seconds_from_now():
    assert {} == timing(countdown=None, eta=None, expires=None)
    assert {"countdown": 3, "expires": 4.5} == timing(countdown=3, eta=None, expires=4.5)
    in_a_minute = datetime.now(UTC) + timedelta(minutes=1)
    found = timing(countdown=None, eta=in_a_minute, expires=in_a_minute.astimezone().replace(tzinfo=None))
    assert 59 < found["countdown"] <= 60
    assert 59 < found["expires"] <= 60
    assert {"countdown": 0.0} == timing(countdown=None, eta=datetime(2000, 1, 1, tzinfo=UTC), expires=None)


def test_a_task_has_a_name_by_which_it_is_called():
    @nbqueue.task(name="add")
    def add(x, y):
        return x + y

    @nbqueue.task
    def unnamed(): ...

    assert ("add", "add") == (add.name, add.options(priority=3).name)
    assert f"{__name__}.test_a_task_has_a_name_by_which_it_is_called.<locals>.unnamed" == unnamed.name
    assert 3 == add.function(1, 2)


@pytest.mark.parametrize("accept", ["yaml", "", "json,", [], ["json", "yaml"], 1, [["json"]], {"json": 1, 2: 3}])
def test_what_cannot_be_accepted_is_refused_in_a_sentence(tmp_path, accept):
    with pytest.raises(ValueError, match='accept must be "cloudpickle", "json" or both, not '):
        App(runtime_dir=tmp_path, accept=accept)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("json", ("json",)),
        (["json"], ("json",)),
        ({"json", "cloudpickle"}, ("cloudpickle", "json")),
        ("cloudpickle, json", ("cloudpickle", "json")),
        (None, ("cloudpickle", "json")),
    ],
)
def test_what_is_accepted_can_be_said_in_several_ways(tmp_path, accept, expected):
    assert expected == App(runtime_dir=tmp_path, accept=accept).settings.accept
