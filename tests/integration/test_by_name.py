"""Tasks called by name with JSON, and workers and clients that never unpickle anything."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import nbqueue
from nbqueue.client.result import AsyncResult
from nbqueue.client.run import ClientRun
from nbqueue.core.task import Block, RunSpec
from nbqueue.errors import RemoteError
from nbqueue.wire.blobs import INLINE_BYTES
from nbqueue.wire.environment import current_environment
from nbqueue.wire.function import pack_function, pack_name
from nbqueue.wire.payload import pack_blocks
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.timeout(90)

TASKS = """
    import os, time
    import nbqueue

    @nbqueue.task(name="add")
    def add(x, y):
        return x + y

    @nbqueue.task
    def describe(what, *, times=1):
        print("describing", flush=True)
        return {"type": type(what).__name__, "what": [what] * times, "times": times}

    @nbqueue.task(name="fail")
    def fail(message):
        raise LookupError(message)

    @nbqueue.task(name="pass_at_last")
    def pass_at_last(path):
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise OSError("not yet")
        return "at last"

    @nbqueue.task(name="sleep")
    def sleep(seconds):
        time.sleep(seconds)

    @nbqueue.task(name="give_back_a_set")
    def give_back_a_set():
        return [1, {2}]

    @nbqueue.task(name="where")
    def where():
        return {"pid": os.getpid(), "folder": os.getcwd()}

    @nbqueue.task(name="ask_others")
    def ask_others(queue):
        by_name = nbqueue.send_task("math.sqrt", [9], queue=queue).get(20)
        return [by_name, repr(nbqueue.options(queue=queue).submit(abs, -1).exception(20))]
"""


class Canary:
    """Leaves a mark when it is unpickled; can be called, so that it may also be sent as a function."""

    def __init__(self, path):
        self.path = path

    def __call__(self, *args):
        return self

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path):
    found = Canary(tmp_path / "mark")
    yield found
    assert not found.path.exists(), "it was unpickled"


@pytest.fixture
def folder(tmp_path):
    """A folder with a module of tasks."""
    (tmp_path / "billing.py").write_text(textwrap.dedent(TASKS))
    return tmp_path


def strict_worker(hub, folder, *options):
    """A worker that accepts JSON only, and runs the tasks of the module."""
    command = (sys.executable, "-m", "nbqueue.cli.worker", "-c", "1", "--accept", "json", "--import", "billing")
    return hub.start(*command, *options, cwd=folder)


@pytest.fixture
def app(own_hub, folder, wait_until):
    """An app whose only worker accepts JSON only."""
    found = own_hub.app(workers=0).connect()
    strict_worker(own_hub, folder, "-n", "strict")
    wait_until(lambda: found.inspect().workers(), "the worker")
    return found


def send_raw(app, body, payload):
    """A task of this body with these arguments, however they are packed."""
    link, broker = app.connection()
    digest, packed = body
    spec = RunSpec(run_id=os.urandom(16), function=digest, label="raw")
    run = ClientRun(spec.run_id, spec.label, total=1, closed=True)
    handle = AsyncResult(run, link, broker.blobs)
    link.submit(spec, packed, [Block(0, 1, payload)], closed=True, run=run, handle=handle)
    return handle


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_task_is_called_by_its_name_and_what_it_says_comes_back(app):
    task = app.send_task("billing.describe", [("a", None)], {"times": 2}, label="seen")

    assert {"type": "list", "what": [["a", None]] * 2, "times": 2} == task.get(20)
    assert ("seen", "SUCCESS", "strict") == (task.label, task.state, task.info["worker"])
    assert "describing\n" == task.stdout
    assert 3 == app.send_task("add", (1, 2)).get(20)
    assert "add" == app.send_task("add", (1, 2)).label


def test_large_arguments_and_results_pass(app):
    text = "x" * (4 * INLINE_BYTES)

    assert text + "y" == app.send_task("add", [text, "y"]).get(20)


def test_what_a_task_raises_is_caught_as_what_it_is(app):
    task = app.send_task("fail", ["no such customer"])

    with pytest.raises(LookupError, match="no such customer") as caught:
        task.get(20)
    assert isinstance(caught.value, nbqueue.RemoteError)
    assert "raise LookupError(message)" in task.traceback
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        app.send_task("add", [1]).get(20)


def test_a_result_that_is_no_json_is_refused_with_its_place(app):
    with pytest.raises(nbqueue.NotSerializable, match=r"the result of item 0: \[1\]: it is of type set"):
        app.send_task("give_back_a_set").get(20)


def test_options_of_the_call_hold(app, tmp_path):
    # Given a task that fails twice, one that is too slow, one for later
    tried, tried_less = tmp_path / "tried", tmp_path / "tried_less"

    assert "at last" == app.send_task("pass_at_last", [str(tried)], max_retries=2).get(20)
    failed = app.send_task("pass_at_last", [str(tried_less)], max_retries=1)
    with pytest.raises(OSError, match="not yet"):
        failed.get(20)
    with pytest.raises(nbqueue.TimeLimitExceeded):
        app.send_task("sleep", [30], time_limit=0.3).get(20)
    began = time.monotonic()
    assert 3 == app.send_task("add", [1, 2], countdown=0.5).get(20)
    assert time.monotonic() - began > 0.5

    # And one that has failed can be run again, with the same arguments
    assert "at last" == failed.retry().get(20)


def test_a_task_by_name_finds_the_world_of_its_worker_and_not_that_of_the_client(app, folder, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert str(folder) == app.send_task("where").get(20)["folder"]


def test_another_process_comes_back_to_the_result(app, own_hub):
    handle = app.send_task("add", [[1], [2]])
    handle.get(20)

    script = f"import nbqueue\nprint(nbqueue.connect(workers=0, accept='json').attach({handle.id!r}).get(20))\n"
    assert "[1, 2]\n" == own_hub.run_script(script)


def test_any_worker_that_accepts_pickles_runs_whatever_it_can_import(own_hub):
    app = own_hub.app(workers=1)

    assert "a/b" == app.send_task("os.path.join", ["a", "b"]).get(20)
    failed = app.send_task("builtins.int", ["x"])
    assert (True, True) == (isinstance(failed.exception(20), ValueError), isinstance(failed.exception(), RemoteError))
    with pytest.raises(nbqueue.NotRegistered, match=r"knows no task 'os\.nothing': 'os' has no 'nothing'"):
        app.send_task("os.nothing").get(20)
    with pytest.raises(nbqueue.NotRegistered, match=r"knows no task 'billing\.add': ModuleNotFoundError"):
        app.send_task("billing.add").get(20)


# -- a worker that accepts JSON only -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["os.system", "billing.os.system", "billing.nbqueue.submit", "subprocess.run"])
def test_a_strict_worker_runs_its_tasks_and_nothing_else(app, tmp_path, name):
    mark = tmp_path / "mark"

    with pytest.raises(
        nbqueue.NotRegistered, match=f"worker strict knows no task {name!r}: it accepts json only"
    ) as caught:
        app.send_task(name, [f"touch {mark}"]).get(20)
    assert "its own tasks: add, ask_others, billing.describe, fail, " in str(caught.value)
    assert not mark.exists()
    assert 3 == app.send_task("add", [1, 2]).get(20)


def packed_function(function):
    return pack_function(function, call="one", retry_on=(), environment=current_environment(), blobs=None)


def test_a_strict_worker_never_unpickles_anything(app, canary):
    # Given a pickle wherever one could be: as the function, as arguments of a task, plain, packed, or in a file
    _, broker = app.connection()
    large = [canary, bytes(INLINE_BYTES)]
    [block] = pack_blocks([canary], start=0, blobs=None, folder="")
    [in_a_file] = pack_blocks([large], start=0, blobs=broker.blobs, folder="canary")
    hostile = {
        "a function": (packed_function(canary), b"L" + pickle.dumps([1])),
        "plain arguments": (pack_name("add"), b"L" + pickle.dumps([canary])),
        "an argument": (pack_name("add"), block.payload),
        "an argument in a file": (pack_name("add"), in_a_file.payload),
    }

    # Then each ends in a sentence that says so
    for what, (body, payload) in hostile.items():
        error = send_raw(app, body, payload).exception(20)
        assert isinstance(error, nbqueue.ContentDisallowed), what
        assert "only json" in str(error) or "accepts json only" in str(error), what
    with pytest.raises(nbqueue.ContentDisallowed, match="worker strict accepts json only, and this task is packed"):
        app.submit(abs, -1).get(20)
    with pytest.raises(nbqueue.ContentDisallowed):
        app.map(canary, range(3)).get(20)

    # And the worker goes on
    assert 3 == app.send_task("add", [1, 2]).get(20)


def test_what_comes_from_a_strict_worker_holds_no_pickle(app):
    # Given a result, a failure, a refusal and a limit that was passed
    handles = [
        app.send_task("add", [1, 2]),
        app.send_task("fail", ["x"]),
        app.send_task("nothing"),
        app.submit(abs, -1),
        app.send_task("sleep", [30], time_limit=0.3),
        app.send_task("give_back_a_set"),
    ]

    # Then what came is JSON or plain
    for handle in handles:
        handle.exception(20)
        [entry] = handle.run.entries()
        assert b"\x80\x05" not in entry.payload  # how a pickle of protocol 5 begins


def test_a_task_of_a_strict_worker_unpickles_no_result_of_others(app, own_hub):
    # Given a worker of the usual kind on another queue
    own_hub.start(sys.executable, "-m", "nbqueue.cli.worker", "-c", "1", "-Q", "usual")

    # Then a task of the strict worker can have others called by their names, and its client there refuses pickles
    by_name, refused = app.send_task("ask_others", ["usual"]).get(30)
    assert 3.0 == by_name
    assert "ContentDisallowed" in refused
    assert "only json is accepted here" in refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("import sys; sys.exit()", "modules that were named for their tasks end the process that imports them"),
    ],
)
def test_a_worker_whose_tasks_cannot_be_imported_does_not_start(own_hub, folder, text, reason):
    own_hub.app(workers=0).connect()
    (folder / "billing.py").write_text(text)

    process = strict_worker(own_hub, folder)
    _, errors = process.communicate(timeout=20)

    assert 1 == process.returncode
    assert errors.splitlines()[-1].startswith("Error: ")
    assert reason in errors.splitlines()[-1]


def test_what_cannot_be_accepted_is_refused_at_the_start(own_hub):
    ran = own_hub.run(sys.executable, "-m", "nbqueue.cli.worker", "--accept", "yaml")

    sentence = 'Error: NBQUEUE_ACCEPT must be "cloudpickle", "json" or both, not \'yaml\'\n'
    assert (1, sentence) == (ran.returncode, ran.stderr)


def test_local_workers_have_their_kind_from_variables(own_hub, folder, monkeypatch):
    monkeypatch.setenv("NBQUEUE_ACCEPT", "json")
    monkeypatch.setenv("NBQUEUE_IMPORT", "billing")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    app = own_hub.app(workers=1, accept="cloudpickle,json")

    assert 3 == app.send_task("add", [1, 2]).get(20)
    with pytest.raises(nbqueue.ContentDisallowed, match="accepts json only"):
        app.submit(abs, -1).get(20)


# -- a client that accepts JSON only -----------------------------------------------------------------------------------


class Result:
    """Leaves a mark when it is unpickled in the process of that number."""

    def __init__(self, pid, mark, padding):
        self.state = pid, mark, padding

    def __reduce__(self):
        return sing, (Result, *self.state)


class ResultError(Exception):
    """Likewise; it survives being pickled on the worker."""

    def __init__(self, pid, mark, padding):
        super().__init__("got you")
        self.state = pid, mark, padding

    def __reduce__(self):
        return sing, (ResultError, *self.state)


def sing(kind, pid, mark, padding):
    if os.getpid() == pid:
        mark.touch()
    return kind(pid, mark, padding)


def fail_with(*state):
    raise ResultError(*state)


def test_a_strict_client_unpickles_no_result_and_says_so(own_hub, tmp_path):
    # Given a client that accepts JSON only, one that accepts everything, and workers of the usual kind
    app, mark = own_hub.app(workers=1, accept=("json",)), tmp_path / "mark"
    state = os.getpid(), mark, b""
    trusting = own_hub.app(workers=1)

    # Then results of calls by name come, and pickles of results and of exceptions are refused unread
    assert 3.0 == app.send_task("math.sqrt", [9]).get(20)
    for padding in (b"", bytes(INLINE_BYTES)):
        with pytest.raises(nbqueue.ContentDisallowed, match="was refused unread: it is packed with cloudpickle"):
            app.submit(Result, os.getpid(), mark, padding).get(20)
    with pytest.raises(nbqueue.RemoteError, match="ResultError: got you"):
        app.submit(fail_with, *state).get(20)
    assert not mark.exists()

    # While who accepts them unpickles both
    assert isinstance(trusting.submit(Result, *state).get(20), Result)
    mark.unlink()
    assert isinstance(trusting.submit(fail_with, *state).exception(20), ResultError)
    mark.unlink()


def test_of_a_map_each_result_is_judged_for_itself(own_hub):
    app = own_hub.app(workers=1, accept=("json",))

    results = app.map(abs, range(3), chunksize=1)

    assert [nbqueue.ContentDisallowed] * 3 == [type(error) for error in results.get(20, propagate=False)]
    assert "FAILURE" == results.state


# -- through Redis -----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(folder, monkeypatch):
    """A Redis, and a strict worker."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    server = RedisServer()
    nbqueue.App(server.url).connect().close()  # makes the key
    command = [sys.executable, "-m", "nbqueue.cli.worker", server.url, "-c", "1", "-n", "strict"]
    with open(folder / "worker.log", "w") as log:
        worker = subprocess.Popen(
            [*command, "--accept", "json", "--import", "billing"], cwd=folder, stdin=subprocess.DEVNULL, stderr=log
        )
    yield server
    worker.send_signal(signal.SIGTERM)
    worker.wait(20)
    server.close()


def test_through_redis_it_is_the_same(site, folder, canary):
    with nbqueue.App(site.url, accept="json") as app:
        # Given calls of all kinds
        assert 3 == app.send_task("add", [1, 2]).get(30)
        assert "xy" * 300_000 == app.send_task("add", ["xy" * 200_000, "xy" * 100_000]).get(30)
        with pytest.raises(LookupError, match="no such customer"):
            app.send_task("fail", ["no such customer"]).get(30)

        # Then pickles are refused, as functions and as arguments, and so are other names
        with pytest.raises(nbqueue.ContentDisallowed, match="worker strict accepts json only"):
            app.submit(canary).get(30)
        error = send_raw(app, pack_name("add"), b"L" + pickle.dumps([canary])).exception(30)
        assert "it is packed with cloudpickle, and only json is accepted here" in str(error)
        with pytest.raises(nbqueue.NotRegistered, match=r"knows no task 'os\.system'"):
            app.send_task("os.system", ["true"]).get(30)
        with pytest.raises(nbqueue.TimeLimitExceeded):
            app.send_task("sleep", [30], time_limit=0.3).get(30)

        # And the worker has said what it is
        log = (folder / "worker.log").read_text()
        assert "  accepts  json\n  tasks    add, ask_others, billing.describe, fail, " in log
