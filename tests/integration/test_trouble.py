"""What cannot work is said in one clear sentence, soon, and nothing hangs."""

import json
import re
import threading
import time
from pathlib import Path

import pytest

import nbqueue
from nbqueue.settings import default_hub_name

SOON_S = 10.0


@pytest.fixture
def says(request):
    """Check that a call raises within ten seconds, and that its message is short and matches."""

    def says(kind, pattern, call, *arguments, **keywords):
        began = time.monotonic()
        with pytest.raises(kind) as caught:
            call(*arguments, **keywords)
        message = str(caught.value)
        assert time.monotonic() - began < SOON_S, message
        assert re.search(pattern, message), message
        assert len(message.splitlines()) == 1, message
        assert len(message) < 500, message

    return says


def square(hub, **options):
    """A call on a new app: 9, or an error."""
    return hub.app(**options).submit(pow, 3, 2).get(SOON_S)


def kill_hub(hub):
    """Leave a connection file without a hub."""
    assert 9 == square(hub)
    hub.hub().kill()
    hub.wait_until_gone()
    assert hub.files.connection.exists()


def generator(x):
    yield x


async def coroutine(x):
    return x


class Client:
    """What holds something that belongs to its process."""

    def __init__(self, x):
        self.lock = threading.Lock()


# -- functions and items -----------------------------------------------------------------------------------------------


def test_a_function_that_cannot_be_pickled_is_refused_with_its_name(app, says):
    lock = threading.Lock()

    def locked(x):
        with lock:
            return x

    says(nbqueue.NotSerializable, r"locked\(\) cannot be sent to a worker: .*lock", app.map, locked, [1])
    says(nbqueue.NotSerializable, r"locked\(\) cannot be sent to a worker: .*lock", app.submit, locked, 1)


def test_an_item_that_cannot_be_pickled_is_refused_with_its_index(app, says):
    items = [*range(1000), threading.Lock(), *range(10)]

    says(nbqueue.NotSerializable, r"item 1000: .*lock", app.map, str, items)
    assert ["1"] == app.map(str, [1]).get(SOON_S)


def test_an_argument_that_cannot_be_pickled_is_refused_with_its_place(app, says):
    lock = threading.Lock()

    says(nbqueue.NotSerializable, r"argument 2 \(lock\) cannot be sent", app.submit, print, 1, lock)
    says(nbqueue.NotSerializable, r"file \(lock\) cannot be sent", app.submit, print, 1, file=lock)


def test_a_handle_is_refused_as_an_argument_with_what_to_pass_instead(app, says):
    handle = app.submit(abs, -1)

    says(nbqueue.NotSerializable, r"argument 1 .* handle\.get\(\)", app.submit, print, handle)
    says(nbqueue.NotSerializable, r"item 0: .* handle\.get\(\)", app.map, print, [handle])
    says(nbqueue.NotSerializable, r"uses 'handle' in line .* handle\.get\(\)", app.submit, lambda: handle.get() + 1)


@pytest.mark.parametrize(
    ("function", "words"), [(generator, "Return a list"), (coroutine, "asyncio.run"), (Client, "Client → .lock")]
)
def test_a_result_that_cannot_be_pickled_is_refused_with_what_to_return_instead(app, says, function, words):
    says(nbqueue.NotSerializable, f"the result of item 0 cannot be sent back: .*{words}", app.map(function, [1]).get)


def test_options_that_do_not_exist_are_refused_with_the_nearest(app, says):
    says(TypeError, "'max_retires'; did you mean 'max_retries'", app.options, max_retires=3)
    says(TypeError, "'chunk_size'", app.map, str, [1], chunk_size=3)
    says(ValueError, "on_error must be", app.map, str, [1], on_error="ignore")


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", ["/bin/false", "/nonexistent"])
def test_a_worker_that_cannot_start_fails_the_runs_that_wait_for_it(own_hub, says, monkeypatch, python):
    # Given an interpreter that is none
    monkeypatch.setenv("NBQUEUE_WORKER_PYTHON", python)
    app = own_hub.app()

    # When something is run, then the caller is told, however often it tries
    for _ in range(2):
        says(nbqueue.NoWorkers, "worker", lambda: app.submit(abs, -1).get(SOON_S))
        says(nbqueue.NoWorkers, "worker", lambda: app.map(abs, range(100_000)).get(SOON_S))


@pytest.mark.parametrize("python", ["/bin/false", "/nonexistent"])
def test_a_run_submitted_after_workers_failed_to_start_is_told_as_well(own_hub, says, monkeypatch, python):
    # Given an app that was connected in an earlier cell, and workers that have failed since
    monkeypatch.setenv("NBQUEUE_WORKER_PYTHON", python)
    app = own_hub.app().connect()
    says(nbqueue.NoWorkers, "worker", app.start_workers, 1)

    # When something is run, then the caller is told
    says(nbqueue.NoWorkers, "worker", lambda: app.map(abs, [1, 2]).get(SOON_S))


@pytest.mark.parametrize("python", ["/bin/false", "/nonexistent"])
def test_start_workers_with_a_bad_interpreter_harms_no_run(own_hub, says, python):
    # Given an app that works, and a run
    app = own_hub.app()
    running = app.submit(lambda: time.sleep(1) or "done")

    # When more workers are wanted with an interpreter that is none
    says(nbqueue.NoWorkers, re.escape(python) + "|status 1", app.start_workers, 1, python=python)

    # Then the run goes on, and so does the app
    assert "done" == running.get(SOON_S)
    assert 9 == app.submit(pow, 3, 2).get(SOON_S)


def test_an_app_without_workers_waits_for_some_and_says_so(own_hub, wait_until):
    # Given an app that wants no workers, and a task
    app = own_hub.app(workers=0)
    task = app.submit(abs, -1)

    # When nobody comes, then the card's hint says why nothing happens
    assert "No worker is connected" in wait_until(lambda: task.snapshot().hint, "a hint")

    # And when workers come, the task runs
    app.start_workers(1)
    assert 1 == task.get(SOON_S)


# -- connection files --------------------------------------------------------------------------------------------------


def test_a_connection_file_of_a_dead_hub_is_no_hindrance(own_hub):
    kill_hub(own_hub)

    assert 9 == square(own_hub)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\x00", b'{"protocol": 999, "pid": 1}', b'{"protocol": 1, "pid": "x"}'],
    ids=["empty", "cut", "binary", "future", "wrong type"],
)
def test_a_connection_file_of_a_dead_hub_is_no_hindrance_however_it_looks(own_hub, content):
    # Given a file that another version left, or a crash in the middle of a write, and no hub
    kill_hub(own_hub)
    own_hub.files.connection.write_bytes(content)

    # When the next call comes, then it starts a hub
    assert 9 == square(own_hub)


def test_a_connection_file_that_others_can_read_is_refused(own_hub, says):
    assert 9 == square(own_hub)
    own_hub.files.connection.chmod(0o644)

    says(nbqueue.UnsafeConnectionFile, r"hub-.*\.json is open to other users \(mode 0644\).*chmod 600", square, own_hub)
    assert 1 == own_hub.command("status").returncode
    assert 0 == own_hub.command("stop").returncode


def test_a_connection_file_that_is_a_link_is_refused(own_hub, says):
    assert 9 == square(own_hub)
    path = own_hub.files.connection
    path.rename(own_hub.folder / "elsewhere")
    path.symlink_to(own_hub.folder / "elsewhere")

    says(nbqueue.UnsafeConnectionFile, "cannot be opened safely", square, own_hub)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_enter_is_refused(own_hub, says, mode):
    own_hub.runtime.mkdir()
    own_hub.runtime.chmod(mode)

    says(nbqueue.UnsafeConnectionFile, rf"open to other users \(mode {mode:04o}\).*chmod 700", square, own_hub)
    assert [] == own_hub.processes()


def rewrite(hub, **fields):
    path = hub.files.connection
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_hub_of_another_protocol_version_is_refused_and_can_be_stopped(own_hub, says):
    # Given a hub whose connection file says that it is of another version
    assert 9 == square(own_hub)
    rewrite(own_hub, protocol=999)

    # When something is run, then the caller is told what to do
    says(nbqueue.EnvironmentMismatch, "speaks protocol 999, .*`nbqueue stop`", square, own_hub)

    # And it helps
    assert 0 == own_hub.command("stop").returncode
    assert 9 == square(own_hub)


def test_a_hub_of_another_python_version_is_refused(own_hub, says):
    # Given a client that says it is of another Python, on a hub that runs
    assert 9 == square(own_hub)
    script = """
        import nbqueue
        from nbqueue.brokers.zmq import broker
        from nbqueue.core.exchange import Versions
        broker.own_versions = lambda: Versions(python="3.99")
        try:
            nbqueue.submit(abs, -1).get(10)
        except nbqueue.EnvironmentMismatch as error:
            print(error)
    """

    # When it submits, then it is told
    assert "3.99 here" in own_hub.run_script(script)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("content", [b"", b"{"], ids=["empty", "cut"])
def test_a_damaged_connection_file_of_a_live_hub_is_told_and_the_advice_helps(own_hub, says, content):
    # Given a hub whose connection file was damaged
    assert 9 == square(own_hub)
    own_hub.files.connection.write_bytes(content)

    # When something is run, then the caller is told to stop the hub
    says(nbqueue.BrokerUnavailable, "is damaged .*`nbqueue stop`", square, own_hub)

    # And that helps
    assert 0 == own_hub.command("stop").returncode
    assert 9 == square(own_hub)


def test_a_wrong_token_is_refused(own_hub, says):
    assert 9 == square(own_hub)
    rewrite(own_hub, token="AAAA")

    says(nbqueue.BrokerUnavailable, "the token is not this hub's", square, own_hub)


def test_a_folder_with_a_path_too_long_for_a_socket_is_refused(own_hub, says):
    folder = own_hub.folder / ("d" * 100)

    says(
        nbqueue.BrokerUnavailable, "too long for a socket.*NBQUEUE_RUNTIME_DIR", nbqueue.App(runtime_dir=folder).connect
    )


def test_a_folder_that_cannot_be_made_is_told(own_hub, says):
    (own_hub.folder / "file").write_text("")

    says(nbqueue.BrokerUnavailable, "file", nbqueue.App(runtime_dir=own_hub.folder / "file" / "run").connect)


def test_a_folder_may_be_given_as_text(own_hub):
    assert 9 == nbqueue.App(workers=1, runtime_dir=str(own_hub.runtime)).submit(pow, 3, 2).get(SOON_S)


def test_an_unknown_broker_is_refused(says):
    says(ValueError, "unknown broker 'carrier-pigeon://'", nbqueue.App("carrier-pigeon://").connect)


def test_a_number_that_is_none_is_refused_with_its_variable(says, monkeypatch):
    monkeypatch.setenv("NBQUEUE_WORKERS", "many")

    says(ValueError, "NBQUEUE_WORKERS='many' is not a number", nbqueue.App)


def test_a_closed_app_refuses_work(own_hub, says):
    app = own_hub.app()
    app.close()

    says(nbqueue.BrokerUnavailable, "this app was closed", app.submit, abs, -1)


# -- a hub that does not answer ----------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_a_hub_that_is_suspended_is_told_and_can_be_stopped(own_hub, says):
    # Given a hub that does not run
    assert 9 == square(own_hub)
    hub = own_hub.hub()
    hub.suspend()

    # When something is run, then the caller is told
    says(nbqueue.BrokerUnavailable, r"the hub \(pid \d+\) does not answer: `nbqueue stop`", square, own_hub)
    status = own_hub.command("status")
    assert 1 == status.returncode
    assert "does not answer" in status.stderr

    # And the advice helps
    assert 0 == own_hub.command("stop", timeout_s=30).returncode
    own_hub.wait_until_gone()
    assert 9 == square(own_hub)


@pytest.mark.timeout(40)
def test_a_hub_that_was_suspended_for_a_while_goes_on_where_it_was(own_hub, wait_until):
    # Given a map that runs, and a hub that is suspended in the middle of it
    results = own_hub.app().map(lambda x: time.sleep(0.01) or x, range(200))
    wait_until(lambda: results.counts.done > 20, "some items")
    own_hub.hub().suspend()
    with pytest.raises(TimeoutError):
        results.get(3)

    # When it goes on, then the map ends as if nothing had been
    own_hub.hub().resume()
    assert list(range(200)) == results.get(15)


def test_a_hub_that_cannot_start_says_why(own_hub, says):
    # Given a place for the socket at which nothing can be put
    own_hub.runtime.mkdir(mode=0o700)
    (own_hub.runtime / f"{default_hub_name()}.sock").mkdir()

    # When a hub is wanted, then the last line of its log is told
    says(nbqueue.BrokerUnavailable, r"could not be started: .*\(its log is .*\.log\)", square, own_hub)
    own_hub.wait_until_gone()


def test_nothing_is_written_outside_the_runtime_folder_and_the_blob_folders(own_hub):
    assert 9 == square(own_hub)

    names = {path.name.split("default")[0] for path in own_hub.runtime.iterdir()}

    assert {"hub-", ""} >= names
    assert all(path.lstat().st_mode & 0o077 == 0 for path in own_hub.runtime.rglob("*.json"))
    assert [own_hub.runtime] == list(Path(own_hub.folder).iterdir())
