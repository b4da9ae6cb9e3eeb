"""A Redis to which others may write: workers started from a shell, and nothing forged is ever unpickled."""

import contextlib
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import nbformat
import pytest
from nbclient import NotebookClient

import nbqueue
from nbqueue.brokers.redis.address import parse
from nbqueue.brokers.redis.broker import RedisBroker
from nbqueue.brokers.sealed import SealedBroker
from nbqueue.core.orders import EndWork
from nbqueue.core.states import State
from nbqueue.core.task import Block, Entry, RunSpec, TaskOptions
from nbqueue.errors import KeyFileError, SealBroken
from nbqueue.settings import Settings
from nbqueue.wire.environment import current_environment
from nbqueue.wire.failure import rebuild, unpack_failure
from nbqueue.wire.function import pack_function
from nbqueue.wire.keyfile import load_keys, make_key_file
from nbqueue.wire.messages import NoteMessage
from nbqueue.wire.payload import pack_blocks
from nbqueue.wire.seal import LIFETIME_S, Sealer, SealingKey
from tests.redis_servers import RedisServer

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"
BIN = Path(sys.executable).parent
PATIENCE_S = 20.0


class Site:
    """A server, a key that its user has, and the workers that were started from a shell."""

    def __init__(self, folder: Path):
        self.server = RedisServer(options=("--appendonly", "yes", "--appendfsync", "always"))
        self.url = self.server.url
        self.folder = folder
        self.key_file = folder / "config" / "nbqueue" / "key"
        self.raw = self.server.client()
        self._workers: list[subprocess.Popen] = []

    def worker(self, *options: str, log: str = "worker.log", **variables: str) -> subprocess.Popen:
        """``nbqueue-worker URL`` from an empty folder."""
        empty = self.folder / f"empty-{len(self._workers)}"
        empty.mkdir()
        with open(self.folder / log, "a") as output:
            process = subprocess.Popen(
                [BIN / "nbqueue-worker", self.url, "-c", "1", *options],
                cwd=empty,
                env={**os.environ, "XDG_CONFIG_HOME": str(self.folder / "config"), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._workers.append(process)
        return process

    def said(self, log: str = "worker.log") -> str:
        return (self.folder / log).read_text()

    def end_workers(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()

    def close(self) -> None:
        self.end_workers()
        self.raw.close()
        self.server.close()


@pytest.fixture
def site(tmp_path, monkeypatch):
    opened = Site(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield opened
    opened.close()


class Canary:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)

    @property
    def sang(self) -> bool:
        return self.path.exists()

    @property
    def block(self) -> bytes:
        return b"L" + pickle.dumps([self])


@pytest.fixture
def canary(tmp_path):
    return Canary(tmp_path / "mark")


class Caller:
    """A client at the level of ports, so that a test can stand between it and the server."""

    def __init__(self, broker):
        self._port = broker.open_client(os.urandom(16))

    def submit(self, function=abs, argument=-3, *, body=None, block=None, **options) -> bytes:
        """One task; *body* and *block* instead of what would be sealed."""
        digest, packed = self._pack(function)
        [packed_block] = pack_blocks([argument], start=0, blobs=None, folder="")
        run_id = os.urandom(16)
        spec = RunSpec(run_id=run_id, function=digest, label="task", options=TaskOptions(**options))
        blocks = [packed_block if block is None else Block(0, 1, block)]
        self._port.submit(spec, function=packed if body is None else body, blocks=blocks, closed=True)
        self._drain(0.2)
        return run_id

    def digest_of(self, function) -> bytes:
        """By which name the function lies on the server."""
        return self._pack(function)[0]

    def _pack(self, function) -> tuple[bytes, bytes]:
        return pack_function(function, call="one", retry_on=(), blobs=None, environment=current_environment())

    def end_of(self, run_id: bytes) -> Entry:
        """How the task ended."""
        self._port.attach(run_id, cursor=0)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for message in self._drain(0.05):
                if isinstance(message, NoteMessage) and message.note.run_id == run_id and message.note.entries:
                    return message.note.entries[0]
        raise AssertionError("it did not end")

    def why(self, run_id: bytes) -> str:
        """The error that its handle would raise."""
        entry = self.end_of(run_id)
        assert State.FAILURE is entry.state, entry
        error = rebuild(unpack_failure(entry.payload))
        assert isinstance(error, SealBroken)
        return str(error)

    def order(self, order) -> None:
        self._port.command(1, order)
        self._drain(0.5)

    def _drain(self, seconds: float) -> list:
        messages = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._port.flush()
            messages += self._port.receive()
            time.sleep(0.01)
        return messages

    def close(self) -> None:
        self._port.close()


@pytest.fixture
def callers(site):
    """Opens clients: with the right key, with another, or with none."""
    opened = []

    def open_one(keys=None, **options):
        plain = RedisBroker(parse(site.url))
        broker = SealedBroker(plain, Sealer(keys, namespace="default", **options)) if keys else plain
        opened.append(Caller(broker))
        return opened[-1]

    yield open_one
    for caller in opened:
        caller.close()


@pytest.fixture
def friend(site, callers):
    make_key_file(site.key_file)
    return callers(load_keys(site.key_file))


PREFIX = b"nbq:{default}:"
FUNCTIONS = PREFIX + b"functions"


# -- workers from a shell ----------------------------------------------------------------------------------------------


def test_two_workers_from_a_shell_serve_a_notebook(site, wait_until):
    # Given two workers, started in empty folders before the notebook, and no key yet
    site.worker("-n", "one", log="one.log")
    site.worker("-n", "two", "-t", "gpu", log="two.log")
    wait_until(lambda: all("ready" in site.said(log) for log in ("one.log", "two.log")), "the workers")

    # Then they serve whoever has this user's key, which was made on first use
    with nbqueue.App(site.url) as app:
        assert [item * item for item in range(100)] == app.map(lambda x: x * x, range(100), progress=False).get(20)
        tagged = app.options(tags=["gpu"]).submit(abs, -7)
        assert (7, "two") == (tagged.get(20), tagged.info["worker"])
    assert 0o600 == site.key_file.stat().st_mode & 0o777
    banner = site.said("two.log")
    for fact in ("queues   default", "tags     gpu", "slots    1", f"joined   {site.url} as two"):
        assert fact in banner


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute on two free cores
def test_the_quickstart_notebook_runs_unchanged(site, monkeypatch, wait_until):
    # Given two workers, started from a shell in empty folders
    for name in ("one", "two"):
        site.worker("-n", name, log=f"{name}.log")
    wait_until(lambda: all("ready" in site.said(f"{name}.log") for name in ("one", "two")), "the workers")

    # When the notebook is run with the server's address in its environment, and nothing else
    monkeypatch.setenv("NBQUEUE_URL", site.url)
    monkeypatch.setenv("NBQUEUE_RUNTIME_DIR", str(site.folder / "run"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(QUICKSTART, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(site.folder)}}).execute()

    # Then every cell has run, and what it measured it measured there
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert list(range(1, len(cells) + 1)) == [cell.execution_count for cell in cells]
    expected = [cell for cell in cells if "raises-exception" in cell.metadata.get("tags", ())]
    assert expected == [cell for cell in cells if any(output.output_type == "error" for output in cell.outputs)]
    assert not (site.folder / "run").exists()  # no hub was started
    assert site.raw.dbsize() > 0


def test_a_password_is_in_no_banner(site, wait_until):
    site.raw.config_set("requirepass", "sesame")
    url = site.url.replace("unix://", "unix://:sesame@")
    site.url = url
    try:
        site.worker()
        wait_until(lambda: "ready" in site.said(), "the worker")
        assert "sesame" not in site.said()
        assert "***" in site.said()
    finally:
        with contextlib.closing(RedisBroker(parse(url)).open_client(os.urandom(16))):
            site.raw.auth("sesame")
            site.raw.config_set("requirepass", "")


def test_encrypted_work_can_be_read_by_nobody_on_the_server(site, wait_until):
    secret = "the secret of the house"
    site.worker()
    with nbqueue.App(site.url, encrypt=True) as app:
        task = app.submit(lambda text: print(text) or text.upper(), secret)
        assert (secret.upper(), secret + "\n") == (task.get(20), task.stdout)
        dump = b"".join(_dump(site.raw, key) for key in site.raw.scan_iter(match="*"))

    assert len(dump) > 100
    assert secret.encode() not in dump
    assert secret.upper().encode() not in dump


def test_without_encryption_it_could_be_read(site):
    # Given that the test above would notice
    with nbqueue.App(site.url) as app:
        app.submit(lambda text: text.upper(), "the secret of the house")
        deadline = time.monotonic() + PATIENCE_S
        while b"the secret of the house" not in b"".join(_dump(site.raw, k) for k in site.raw.scan_iter(match="*")):
            assert time.monotonic() < deadline


def _dump(raw, key) -> bytes:
    match raw.type(key):
        case b"hash":
            return b"".join(b"".join(pair) for pair in raw.hgetall(key).items())
        case b"list":
            return b"".join(raw.lrange(key, 0, -1))
        case b"stream":
            return repr(raw.xrange(key)).encode()
        case b"string":
            return raw.get(key)
        case _:
            return b""


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_worker_with_the_wrong_key_hands_its_first_task_back_and_ends(site, friend, wait_until):
    task = friend.submit()
    other = site.folder / "other" / "key"
    make_key_file(other)

    # When the wrong worker comes first, then it ends and says why, and the task is none the worse
    wrong = site.worker("--token-file", str(other), log="wrong.log")
    assert 1 == wrong.wait(PATIENCE_S)
    assert "Error: this worker was given the wrong key" in site.said("wrong.log")
    site.worker()
    assert State.SUCCESS is friend.end_of(task).state


def test_a_worker_without_a_key_says_where_to_get_it(site):
    site.url = "redis://far.example:6379"

    assert 1 == site.worker().wait(PATIENCE_S)
    assert "there is no key file" in site.said()
    assert "`nbqueue key` there tells how" in site.said()


def test_a_key_that_others_can_read_is_refused(site):
    make_key_file(site.key_file)
    site.key_file.chmod(0o644)

    with pytest.raises(KeyFileError, match="open to other users"):
        nbqueue.App(site.url).connect()
    assert 1 == site.worker().wait(PATIENCE_S)
    assert "open to other users" in site.said()


def test_the_key_command_tells_how_to_carry_it_and_never_shows_it(site):
    said = subprocess.run([BIN / "nbqueue", "key"], check=True, capture_output=True, text=True).stdout

    [key] = load_keys(site.key_file)
    assert f"The key {key.name} is in {site.key_file}" in said
    assert "ssh HOST" in said
    assert "nbqueue-key-1:" not in said


# -- forgeries ---------------------------------------------------------------------------------------------------------


def test_tasks_and_functions_that_were_forged_swapped_or_replayed_are_refused_unread(site, friend, callers, canary):
    keys = load_keys(site.key_file)
    stranger, impostor = callers(), callers([SealingKey(b"x" * 32)])
    late = callers(keys, clock=lambda: time.time() - LIFETIME_S - 60)
    raw = site.raw

    # Given genuine work, and what somebody has done who can write to the server but has no key
    genuine = [friend.submit(argument=-number) for number in range(3)]
    runs = {
        "a task without a seal": stranger.submit(len, block=canary.block, priority=-1),
        "a task with a seal of another key": impostor.submit(argument=canary, priority=-1),
        "a task that was brought back after its time": late.submit(priority=-1),
    }
    for kind in ("changed", "of another run", "a forged one", "a function"):
        runs[kind] = friend.submit(priority=-1)
    run_key = {kind: PREFIX + b"r:" + run_id for kind, run_id in runs.items()}
    payload = raw.hget(run_key["changed"], "b0")
    raw.hset(run_key["changed"], "b0", payload[:-1] + bytes([payload[-1] ^ 1]))
    raw.hset(run_key["of another run"], "b0", raw.hget(PREFIX + b"r:" + genuine[0], "b0"))
    raw.hset(run_key["a forged one"], "b0", canary.block)
    raw.hset(run_key["a function"], "b0", raw.hget(FUNCTIONS, friend.digest_of(abs)))

    # When a worker comes
    site.worker()

    # Then genuine work is done, nothing else is read, and whoever waits for it is told
    assert [State.SUCCESS] * 3 == [friend.end_of(run_id).state for run_id in genuine]
    reasons = {kind: friend.why(run_id) for kind, run_id in runs.items() if kind not in FOREIGN}
    assert {
        "a task that was brought back after its time": "too old",
        "changed": "its seal does not fit",
        "of another run": "genuine but for run_id",
        "a forged one": "it carries no seal",
        "a function": "genuine but for kind 'function'",
    } == {kind: _first_match(reason) for kind, reason in reasons.items()}
    for kind in FOREIGN:  # nobody with the key has submitted these: the worker's log tells of them
        assert State.FAILURE is stranger.end_of(runs[kind]).state
    assert site.said().count("task refused") >= len(runs)
    assert not canary.sang


#: Runs that were submitted by somebody without the key.
FOREIGN = ("a task without a seal", "a task with a seal of another key")
_REASONS = (
    "too old",
    "its seal does not fit",
    "genuine but for run_id",
    "genuine but for kind 'function'",
    "it carries no seal",
)


def _first_match(reason: str) -> str:
    return next(known for known in _REASONS if known in reason)


def test_functions_that_were_forged_or_swapped_are_refused_unread(site, friend, canary):
    # Given tasks whose functions were replaced: by a forged one, by another's, by one with a bit changed
    functions = (len, hex, abs)
    runs = [friend.submit(function, "abc") for function in functions]
    forged, swapped, changed = (friend.digest_of(function) for function in functions)
    body = site.raw.hget(FUNCTIONS, changed)
    site.raw.hset(FUNCTIONS, swapped, body)
    site.raw.hset(FUNCTIONS, changed, body[:-1] + bytes([body[-1] ^ 1]))
    site.raw.hset(FUNCTIONS, forged, msgspec.msgpack.encode([b"P" + pickle.dumps(canary), "one", {}, "", []]))

    # When a worker comes, then they are refused, and other work is done
    genuine = friend.submit(bool, "abc")
    site.worker()
    assert State.SUCCESS is friend.end_of(genuine).state
    reasons = [friend.why(run_id) for run_id in runs]
    wanted = ("it carries no seal", "genuine but for function", "its seal does not fit")
    assert [True] * 3 == [known in reason for known, reason in zip(wanted, reasons, strict=True)]
    assert not canary.sang


def test_results_that_were_forged_or_swapped_are_refused_unread(site, friend, canary):
    # Given finished tasks, whose results somebody has changed on the server
    runs = [friend.submit(argument=-number) for number in range(4)]
    site.worker()
    for run_id in runs:
        friend.end_of(run_id)
    keys = [PREFIX + b"r:" + run_id for run_id in runs]
    entries = [msgspec.msgpack.decode(site.raw.hget(key, "e")) for key in keys]
    forged, swapped, sent_back = (list(entry) for entry in entries[:3])
    forged[3] = canary.block
    swapped[3] = entries[3][3]
    sent_back[3] = b"NBS1" + bytes(200)
    for key, entry in zip(keys, (forged, swapped, sent_back), strict=False):
        site.raw.hset(key, "e", msgspec.msgpack.encode(entry))

    # When their client reads them
    reasons = [friend.why(run_id) for run_id in runs[:3]]

    # Then it refuses them, and takes the one that is genuine
    assert all("a result of worker" in reason and "was refused unread" in reason for reason in reasons)
    assert State.SUCCESS is friend.end_of(runs[3]).state
    assert not canary.sang


def test_orders_without_the_key_are_not_obeyed(site, friend, callers, wait_until):
    # Given a worker that has worked
    worker = site.worker()
    assert State.SUCCESS is friend.end_of(friend.submit()).state

    # When somebody without the key, and somebody with another one, orders it to end
    callers().order(EndWork())
    callers([SealingKey(b"x" * 32)]).order(EndWork())

    # Then it refuses and goes on; whoever has the key is obeyed
    wait_until(lambda: 2 == site.said().count("order refused"), "both refusals")
    assert State.SUCCESS is friend.end_of(friend.submit()).state
    assert worker.poll() is None
    friend.order(EndWork())
    assert 0 == worker.wait(PATIENCE_S)


def test_the_canary_sings_when_it_is_unpickled(canary):
    # Given that the tests above would notice
    pickle.loads(canary.block[1:])

    assert canary.sang


@pytest.mark.timeout(90)
def test_a_worker_goes_on_when_the_server_was_killed_and_started_again(site, wait_until):
    # Given a worker, and a server that keeps what it has accepted
    site.worker()
    with nbqueue.App(site.url) as app:
        assert 1 == app.submit(abs, -1).get(20)

        # When it is killed in the middle of a map, and comes back
        squares = app.map(lambda x: (time.sleep(0.05), x * x)[1], range(60), progress=False)
        wait_until(lambda: squares.counts.done > 5, "the first items")
        site.server.kill()
        site.server.start()

        # Then the map ends as if nothing had happened, on the same worker
        assert [x * x for x in range(60)] == squares.get(60)
    assert 1 == site.said().count("ready")


def test_settings_hold_no_secret_that_could_be_printed(site):
    app = nbqueue.App(site.url, token="nbqueue-key-1:" + "A" * 43)

    assert "AAAA" not in repr(app.settings)
    assert isinstance(app.settings, Settings)
