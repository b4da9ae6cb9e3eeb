"""A real Redis, real workers, and what can go wrong between them."""

import contextlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import nbqueue
from nbqueue.brokers.redis import operations
from nbqueue.brokers.redis.address import parse
from nbqueue.brokers.redis.broker import RedisBroker
from nbqueue.brokers.redis.session import Operation
from nbqueue.core.dispatcher import Limits
from nbqueue.core.exchange import Delivery, Note, WorkerInfo
from nbqueue.core.output import OutputEvent, Text
from nbqueue.core.progress import Counts
from nbqueue.core.task import Block, Failed, RunSpec, Succeeded, TaskOptions
from nbqueue.wire.codec import MAX_PACKET_BYTES
from nbqueue.wire.messages import Deliver, NoteMessage
from nbqueue.wire.payload import MAX_MESSAGE_BYTES
from tests.redis_servers import Cluster, RedisServer, SentinelGroup

PERSISTENT = ("--appendonly", "yes", "--appendfsync", "everysec")


class Site:
    """A Redis of its own, workers as processes, and apps."""

    def __init__(self, *options: str, server=None):
        self.server = server or RedisServer(options=options)
        self.folder = Path(tempfile.mkdtemp(prefix="nbqw", dir="/tmp"))
        self.workers: list[subprocess.Popen] = []
        self.apps: list[nbqueue.App] = []
        self.url = self.server.url

    def worker(self, slots: int = 2) -> subprocess.Popen:
        log = (self.folder / f"worker-{len(self.workers)}.log").open("w")
        environment = {**os.environ, "NBQUEUE_URL": self.url}
        command = [sys.executable, "-m", "nbqueue.cli.worker", "-c", str(slots), "-n", f"w{len(self.workers)}"]
        process = subprocess.Popen(command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stderr=log)
        log.close()
        self.workers.append(process)
        return process

    def app(self) -> nbqueue.App:
        self.apps.append(nbqueue.App(self.url))
        return self.apps[-1]

    def log(self, number: int = 0) -> str:
        return (self.folder / f"worker-{number}.log").read_text()

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGCONT)
                worker.terminate()
        for app in self.apps:
            app.close()
        for worker in self.workers:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.server.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A Redis that persists, with one worker of two slots."""
    found = Site(*PERSISTENT)
    found.worker()
    yield found
    found.close()


@pytest.fixture
def open_site() -> Iterator:
    """Opens sites with options of the test's choice."""
    opened = []

    def open_one(*options: str, **more) -> Site:
        opened.append(Site(*options, **more))
        return opened[-1]

    yield open_one
    for found in opened:
        found.close()


def double(number):
    return 2 * number


def double_slowly(number):
    time.sleep(1.5)
    return 2 * number


def await_running(app: nbqueue.App, count: int = 1) -> None:
    """Until so many items run."""
    deadline = time.monotonic() + 10
    while (
        sum(chunk.item is not None for chunk in app.connection()[0].questions.inspect().result(5).inspection.chunks)
        < count
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write_and_sleep(folder, seconds):
    """Leaves a file for every execution."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="run-", delete=False) as file:
        file.write(str(os.getpid()).encode())
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.timeout(60)
def test_single_tasks_and_maps_run_on_workers_elsewhere(site):
    app = site.app()

    assert 42 == app.submit(double, 21).get(timeout=30)
    assert [2 * number for number in range(20_000)] == app.map(double, range(20_000), progress=False).get(timeout=30)


@pytest.mark.timeout(60)
def test_threads_may_submit_at_the_same_time(site):
    app = site.app()

    def submit_and_wait(number):
        return [app.submit(double, number + index).get(timeout=30) for index in range(50)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(submit_and_wait, range(0, 800, 100)))

    assert [[2 * (number + index) for index in range(50)] for number in range(0, 800, 100)] == found


@pytest.mark.timeout(60)
def test_what_a_task_raises_is_raised_here(site):
    with pytest.raises(ZeroDivisionError):
        site.app().submit(lambda: 1 / 0).get(timeout=30)


def hold_memory_and_die():
    memory = bytearray(200 * 2**20)
    memory[::4096] = b"x" * len(range(0, len(memory), 4096))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(60)
def test_how_much_memory_a_task_held_that_was_lost_is_told(site):
    task = site.app().options(max_lost=0).submit(hold_memory_and_die)

    with pytest.raises(nbqueue.WorkerLost, match="killed by SIGKILL"):
        task.get(timeout=30)
    assert 200 * 2**20 < task.info["peak_bytes"] < 400 * 2**20


@pytest.mark.timeout(60)
def test_a_running_task_can_be_revoked(site):
    app = site.app()
    handle = app.submit(time.sleep, 60)
    app.submit(double, 1).get(timeout=30)

    handle.revoke()

    with pytest.raises(nbqueue.TaskRevoked):
        handle.get(timeout=20)
    assert 4 == app.submit(double, 2).get(timeout=20)


@pytest.mark.timeout(60)
def test_results_larger_than_a_note_arrive(site):
    value = os.urandom(3 * 2**20)

    assert value == site.app().submit(bytes, value).get(timeout=40)


@pytest.mark.timeout(90)
def test_large_values_pass_and_larger_ones_are_refused_in_a_sentence(open_site):
    # Given a value larger than any packet between processes of one machine
    site = open_site()
    site.worker()
    app = site.app()
    size = MAX_PACKET_BYTES + 1

    # Then it goes there and back
    assert size == len(app.submit(bytes, bytes(size)).get(60))

    # And one that is larger than a server should be given is refused, on either side, and the worker lives
    with pytest.raises(nbqueue.NotSerializable, match="129 MiB is too large for this broker"):
        app.submit(len, bytes(MAX_MESSAGE_BYTES + 2**20))
    with pytest.raises(nbqueue.NotSerializable, match=r"the result of item 0.* 129 MiB is too large for this broker"):
        app.submit(bytes, MAX_MESSAGE_BYTES + 2**20).get(60)
    assert 42 == app.submit(double, 21).get(timeout=30)


def print_slowly(count):
    for number in range(count):
        print(number, flush=True)
        time.sleep(0.2)


def print_much(number):
    for line in range(1000):
        print(f"{number} {line:>1000}")


@pytest.mark.timeout(60)
def test_what_a_task_prints_is_heard_while_it_runs(site):
    handle = site.app().submit(print_slowly, 3)

    assert [("0", False), ("1", False), ("2", False)] == [(line, handle.ready()) for line in handle.logs(follow=True)]


@pytest.mark.timeout(60)
def test_each_item_of_a_map_has_its_own_output_and_the_results_are_there_as_well(site):
    results = site.app().map(lambda number: print("item", number) or number, range(500), progress=False)

    assert list(range(500)) == results.get(timeout=30)
    assert [f"item {number}\n" for number in range(500)] == [results.output(number).stdout for number in range(500)]


@pytest.mark.timeout(60)
def test_floods_of_output_are_bounded_and_leave_nothing_behind(site):
    # Given tasks that print 20 MB together
    app, client = site.app(), site.server.client()
    before = set(client.keys())
    results = app.map(print_much, range(20), chunksize=1, progress=False)
    results.get(timeout=50)

    # Then both ends of what each printed are here, and the server keeps no more than that
    for number in range(20):
        lines = results.output(number).stdout.splitlines()
        assert f"{number} {0:>1000}" == lines[0]
        assert f"{number} {999:>1000}" == lines[-1]
    assert client.info("memory")["used_memory_dataset"] < 20 * 2**20

    # And nothing when the results are let go
    del results
    deadline = time.monotonic() + 20
    while b"nbq:{default}:e:" in b" ".join(set(client.keys()) - before):
        assert time.monotonic() < deadline
        app.submit(double, 1).get(timeout=20)


@pytest.mark.timeout(60)
def test_output_goes_on_when_the_server_was_gone(open_site):
    # Given a task that prints, and a server that loses nothing
    site = open_site("--appendonly", "yes", "--appendfsync", "always")
    site.worker()
    handle = site.app().submit(print_slowly, 15)
    lines = handle.logs(follow=True)
    heard = [next(lines)]

    # When the server is killed meanwhile and started again
    site.server.kill()
    site.server.start()

    # Then no line is missing, and none comes twice
    assert [str(number) for number in range(15)] == heard + list(lines)


def test_a_report_of_output_that_is_repeated_is_taken_once():
    # Given a claim of which output was reported, and a connection that broke before the answer came
    with contextlib.closing(Site()) as site, contextlib.ExitStack() as ports:
        broker = RedisBroker(parse(site.url))
        client = ports.enter_context(contextlib.closing(broker.open_client(b"client".ljust(16))))
        info = WorkerInfo(worker_id=b"worker".ljust(16), name="w", host="here", pid=1, slots=1, prefetch=0)
        worker = ports.enter_context(contextlib.closing(broker.open_worker(info)))
        spec = RunSpec(run_id=b"run".ljust(16), function=b"digest", label="work")
        client.submit(spec, function=b"function", blocks=[Block(0, 1, b"payload")], closed=True)
        delivery = hear(worker, lambda message: isinstance(message, Deliver), client).delivery
        event = OutputEvent(0, 1, 0, Text("stdout", "once"))
        report = Operation("worker", operations.output(info.worker_id, delivery.token, 1, [event]))

        # When it is said again
        worker._session.ask(report)
        worker._session.ask(report)
        worker.output(delivery.token, [event])  # is the first by this port's count
        worker.commit(delivery.token, spec.run_id, [Succeeded(0, 1, b"value", 1.0)], final=True)

        # Then the client hears it once
        end = hear(client, lambda message: isinstance(message, NoteMessage) and message.note.finished, worker)
        assert 1 == end.note.output_end


class Ports(contextlib.ExitStack):
    """A client's port and a worker's on a server of their own, without a worker behind it."""

    def __init__(self, url: str = "", server: RedisServer | None = None):
        super().__init__()
        self.server = server or self.enter_context(contextlib.closing(RedisServer()))
        broker = RedisBroker(parse(url or self.server.url), limits=Limits())
        self.client = self.enter_context(contextlib.closing(broker.open_client(b"client".ljust(16))))
        info = WorkerInfo(worker_id=b"worker".ljust(16), name="w", host="here", pid=1, slots=1, prefetch=0)
        self.worker = self.enter_context(contextlib.closing(broker.open_worker(info)))

    def submit(self, name: bytes = b"run", items: int = 1) -> bytes:
        """A run of items, which go in one chunk."""
        spec = RunSpec(run_id=name.ljust(16), function=b"digest", label="work", options=TaskOptions(chunksize=items))
        self.client.submit(spec, function=b"function", blocks=[Block(0, items, b"payload")], closed=True)
        self.client.flush()
        return spec.run_id

    def claim(self) -> Delivery:
        return hear(self.worker, lambda message: isinstance(message, Deliver), self.client).delivery

    def await_new_connections(self) -> None:
        """Until both ports have noticed that theirs broke, and have new ones on which all is said."""
        sessions = [self.client._session, self.worker._session]
        former = [session.news_key for session in sessions]
        deadline = time.monotonic() + 10
        while any(
            session.news_key == key or not session.is_quiet for session, key in zip(sessions, former, strict=True)
        ):
            assert time.monotonic() < deadline
            self.client.receive()
            self.worker.receive()

    def carry_out(self) -> None:
        """Until the server has done what the worker has said."""
        deadline = time.monotonic() + 10
        while not self.worker._session.is_quiet:
            assert time.monotonic() < deadline
            self.worker.receive()

    def end_of(self, run_id: bytes) -> Note:
        """The last note of the run, all of which are acknowledged as they come."""
        entries = size = 0
        while True:
            note = hear(self.client, lambda message: isinstance(message, NoteMessage), self.worker).note
            assert note.run_id == run_id
            entries += len(note.entries)
            size += sum(len(entry.payload) for entry in note.entries)
            self.client.ack(entries=entries, size_bytes=size)
            if note.finished:
                return note


def test_news_for_a_client_that_does_not_take_them_are_bounded_and_none_is_missed():
    # Given a client that does not read while 2,200 items end one by one
    with Ports() as ports:
        items = 2200
        run_id = ports.submit(items=items)
        delivery = ports.claim()
        for item in range(items):
            outcome = Succeeded(item, item + 1, b"value", 0.001)
            ports.worker.commit(delivery.token, run_id, [outcome], final=item == items - 1)
            ports.worker.flush()
            ports.carry_out()

        # Then the server has kept no more than 2,000 pieces of news for it, beside those that it has sent
        assert 2000 == ports.server.client().llen(ports.client._session.news_key)

        # And when it reads again, it notices that some are missing, and hears of every item once
        assert Counts(total=items, done=items, closed=True) == ports.end_of(run_id).counts


def test_a_report_of_success_wakes_nobody_to_hear_that_it_was_taken():
    with Ports() as ports:
        run_id = ports.submit(items=3)
        delivery = ports.claim()

        # When success is reported, and the server has said that it has taken it
        ports.worker.commit(delivery.token, run_id, [Succeeded(0, 1, b"value", 0.001)], final=False)
        ports.worker.flush()
        assert select.select([ports.worker._session._pair.commands], [], [], 10)[0]

        # Then the supervisor has nothing to do
        assert not select.select([ports.worker], [], [], 0)[0]

        # But after what may have consequences, it is told
        ports.worker.commit(delivery.token, run_id, [Failed(1, b"record", False, 0.001)], final=False)
        ports.worker.flush()
        assert select.select([ports.worker], [], [], 10)[0]
        ports.worker.receive()

        # And everything was taken
        ports.worker.commit(delivery.token, run_id, [Succeeded(2, 3, b"value", 0.001)], final=True)
        ports.worker.flush()
        assert Counts(total=3, done=2, failed=1, closed=True) == ports.end_of(run_id).counts


def await_blocked(server: RedisServer, count: int) -> None:
    """Until so many connections wait for something to be put into a list."""
    deadline = time.monotonic() + 10
    while server.client().info("clients")["blocked_clients"] != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Line:
    """Stands between ports and a server, and can break so that the server does not notice."""

    def __init__(self, server: str):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._near: list[socket.socket] = []
        self._far: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._server)
                self._near.append(near)
                self._far.append(far)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def cut(self) -> int:
        """Break all connections; the server's ends stay as they are. How many."""
        cut, self._near = self._near, []
        for near in cut:
            near.shutdown(socket.SHUT_RDWR)
            near.close()
        return len(cut)

    def close(self) -> None:
        self._listener.close()
        for end in (*self._near, *self._far):
            end.close()


@pytest.mark.timeout(60)
def test_a_connection_that_broke_unnoticed_takes_no_news_from_its_successor():
    # Given ports whose connections break, while the server goes on waiting for news to send through them
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(RedisServer()))
        line = stack.enter_context(contextlib.closing(Line(str(server.socket))))
        ports = stack.enter_context(Ports(f"redis://127.0.0.1:{line.port}", server))
        for number in range(3):
            assert 4 == line.cut()
            ports.await_new_connections()
            await_blocked(server, 2 * (number + 2))

            # When there is work, and it is done
            run_id = ports.submit(b"run %d" % number)
            delivery = ports.claim()
            ports.worker.commit(delivery.token, run_id, [Succeeded(0, 1, b"value", 0.001)], final=True)

            # Then both hear of it through their new connections, though the old ones had asked first
            assert run_id == delivery.run_id
            assert 1 == ports.end_of(run_id).counts.done


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_is_lost_when_connections_are_killed_again_and_again(site):
    # Given 3,000 tasks on their way
    app, raw = site.app(), site.server.client()
    app.submit(double, 1).get(timeout=30)
    chance = random.Random(11)
    handles = []

    def submit_all():
        handles.extend(app.submit(double, number) for number in range(3000))

    submitter = threading.Thread(target=submit_all)
    submitter.start()

    # When the server drops every connection thirty times meanwhile, with whatever was on its way through them
    for _ in range(30):
        time.sleep(chance.uniform(0.02, 0.2))
        raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    submitter.join(60)

    # Then every task has its result, and the worker is the same
    assert [2 * number for number in range(3000)] == [handle.get(timeout=60) for handle in handles]
    assert site.workers[0].poll() is None


def hear(port, is_wanted, *others):
    """The first message that *port* hears of those that are wanted."""
    deadline = time.monotonic() + 10
    while True:
        assert time.monotonic() < deadline
        for other in (port, *others):
            other.flush()
        for other in others:
            other.receive()
        for message in port.receive():
            if is_wanted(message):
                return message
        time.sleep(0.01)


def count_down(depth):
    return 0 if depth == 0 else 1 + nbqueue.submit(count_down, depth - 1).get()


def descend(depth):
    return nbqueue.submit(descend, depth + 1).get()


@pytest.mark.timeout(60)
def test_tasks_that_wait_for_tasks_lend_their_slots(site):
    assert 12 == site.app().submit(count_down, 12).get(timeout=50)


@pytest.mark.timeout(90)
def test_a_recursion_without_end_is_refused(site):
    with pytest.raises(nbqueue.NestingLimitExceeded, match="at most 32"):
        site.app().submit(descend, 0).get(timeout=80)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nothing_is_lost_when_redis_is_killed_twenty_times(site):
    # Given 5,000 tasks on their way
    app, seed = site.app(), 7
    app.submit(double, 1).get(timeout=30)
    chance = random.Random(seed)
    handles = []
    started = threading.Event()

    def submit_all():
        for number in range(5000):
            handles.append(app.submit(double, number))
            started.set()

    submitter = threading.Thread(target=submit_all)
    submitter.start()
    started.wait(10)

    # When the server is killed and started again twenty times meanwhile
    for _ in range(20):
        time.sleep(chance.uniform(0.1, 0.6))
        site.server.kill()
        time.sleep(chance.uniform(0.0, 0.2))
        site.server.start()
    submitter.join(60)

    # Then every task has its result, and the worker is the same
    assert [2 * number for number in range(5000)] == [handle.get(timeout=60) for handle in handles]
    assert site.workers[0].poll() is None
    figures = struct.unpack(">7d", site.server.client().hget("nbq:{default}:g", "f"))
    delivered = figures[3]
    assert 0 < delivered < 3 * 5000


@pytest.mark.timeout(60)
def test_a_connection_comes_back_within_five_seconds(site):
    app = site.app()
    app.submit(double, 1).get(timeout=30)

    site.server.kill()
    site.server.start()
    began = time.monotonic()

    assert 4 == app.submit(double, 2).get(timeout=20)
    assert time.monotonic() - began < 5.0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", ["SCRIPT FLUSH", "FUNCTION FLUSH"])
def test_scripts_that_were_flushed_are_loaded_again(site, command):
    app = site.app()
    app.submit(double, 1).get(timeout=30)
    if site.server.client().info("server")["redis_version"] < "7" and command.startswith("FUNCTION"):
        pytest.skip("this server has no functions")

    site.server.client().execute_command(*command.split())

    assert [0, 2, 4] == [app.submit(double, number).get(timeout=20) for number in range(3)]


@pytest.mark.timeout(90)
@pytest.mark.filterwarnings("ignore::nbqueue.WaitingWarning")  # the workers were forgotten, too, for a moment
def test_when_everything_was_flushed_handles_raise_and_none_hangs(site):
    # Given tasks that run and wait
    app = site.app()
    handles = [app.submit(time.sleep, 3) for _ in range(20)]
    app.map(double, range(10), progress=False)

    # When somebody empties the server
    site.server.client().flushall()

    # Then whoever waits is told
    for handle in handles:
        with pytest.raises(nbqueue.UnknownTask):
            handle.get(timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_that_was_frozen_is_fenced(site, tmp_path):
    # Given two workers, one of which runs a task
    app = site.app()
    app.submit(double, 1).get(timeout=30)
    handle = app.submit(write_and_sleep, str(tmp_path), 3.0)
    await_running(app)
    deadline = time.monotonic() + 10
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    # When it is frozen, with its slots, for longer than its lease
    family = psutil.Process(site.workers[0].pid)
    frozen = [family, *family.children(recursive=True)]
    for process in frozen:
        process.suspend()
    site.worker()
    pid = handle.get(timeout=90)
    for process in reversed(frozen):
        process.resume()

    # Then the task ran elsewhere, once more, and that is its result
    assert pid not in {process.pid for process in frozen}
    assert 2 == len(list(tmp_path.iterdir()))
    # And the worker that was frozen ends what it ran and goes on as a new one
    assert 4 == app.submit(double, 2).get(timeout=20)
    assert pid == handle.get(timeout=1)
    deadline = time.monotonic() + 20
    while "taken for dead" not in site.log(0):
        assert time.monotonic() < deadline, site.log(0)
        time.sleep(0.1)
    while len(app.connection()[0].questions.inspect().result(5).inspection.workers) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(60)
def test_a_full_server_refuses_work_and_takes_results(open_site, monkeypatch):
    # Given a server that is about to run out of memory, and a task that runs
    monkeypatch.setenv("NBQUEUE_SUBMIT_TIMEOUT", "2")
    site = open_site("--maxmemory-policy", "noeviction")
    site.worker()
    app, client = site.app(), site.server.client()
    if client.info("server")["redis_version"] < "7":
        pytest.skip("results land on a full server from Redis 7 on")
    app.submit(double, 1).get(timeout=30)
    running = app.submit(double_slowly, 21)
    await_running(app)

    # When its memory is used up
    client.config_set("maxmemory", "1mb")
    client.config_set("maxmemory", str(client.info("memory")["used_memory"] // 2))

    # Then the result of what runs lands, and more work is refused in words
    assert 42 == running.get(timeout=20)
    with pytest.raises(nbqueue.QueueFull, match="no room"):
        app.submit(double, 2).get(timeout=20)

    # And work is taken again when there is room
    client.config_set("maxmemory", "0")
    assert 6 == app.submit(double, 3).get(timeout=20)


@pytest.mark.timeout(60)
def test_keys_return_to_their_number_when_results_have_expired(site):
    # Given a server that has seen some work, whose results were let go
    app = site.app()
    app.map(double, range(3000), progress=False).get(timeout=30)
    client = site.server.client()

    def settled() -> int:
        time.sleep(0.5)
        return client.dbsize()

    before = settled()

    # When there was more of the same, with and without handles
    for _ in range(3):
        app.map(double, range(3000), progress=False).get(timeout=30)
    [handle.get(timeout=30) for handle in [app.submit(double, number) for number in range(200)]]
    deadline = time.monotonic() + 20
    while (now := settled()) > before and time.monotonic() < deadline:
        pass  # what nobody wants any more is told with the next ping

    # Then no key of it is left
    assert now <= before + 2


def take_a_while(number):
    time.sleep(0.004)
    return 2 * number


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("group", [SentinelGroup, Cluster])
def test_a_map_survives_the_death_of_the_master(open_site, group):
    # Given a map of 2,000 items on a server that has a replica
    servers = group()
    master = servers.master if isinstance(servers, Cluster) else servers.servers[0]
    site = open_site(server=servers)
    site.worker()
    app = site.app()
    app.submit(double, 1).get(timeout=30)
    results = app.map(take_a_while, range(2000), chunksize=10, progress=False)
    assert 0 == results[0]

    # When the master is killed for good
    master.kill()

    # Then the replica takes over, and every item has its result
    assert [2 * number for number in range(2000)] == results.get(timeout=90)
    assert 4 == app.submit(double, 2).get(timeout=20)
