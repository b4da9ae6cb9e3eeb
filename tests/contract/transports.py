"""The brokers that the suite runs on, each behind the same few methods, on a clock of ours."""

import atexit
import math
import os
import random
import secrets
import select
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from nbqueue.brokers.base import ClientPort, WorkerPort
from nbqueue.brokers.memory import MemoryBroker
from nbqueue.brokers.redis import operations
from nbqueue.brokers.redis.address import parse
from nbqueue.brokers.redis.broker import RedisBroker
from nbqueue.brokers.redis.scripts import Script, functions, plain_scripts, read_part
from nbqueue.brokers.redis.server import ask
from nbqueue.brokers.sealed import SealedBroker
from nbqueue.brokers.zmq.broker import ZmqBroker
from nbqueue.brokers.zmq.connection import Connection
from nbqueue.brokers.zmq.curve import HubKeys, new_pair
from nbqueue.brokers.zmq.hub import Hub, HubOptions
from nbqueue.brokers.zmq.remote import RemoteBroker
from nbqueue.brokers.zmq.remote_door import RemoteDoor
from nbqueue.core.dispatcher import Dispatcher, Limits
from nbqueue.core.exchange import WorkerInfo
from nbqueue.wire.messages import (
    PROTOCOL_VERSION,
    Hello,
    Pong,
    ToClientPeer,
    ToWorkerPeer,
    Welcome,
)
from nbqueue.wire.seal import Sealer, SealingKey
from nbqueue.wire.versions import PYTHON, own_versions
from tests.redis_servers import RedisServer

#: A hub that has not answered by then never will.
PATIENCE_S = 10.0


class FakeClock:
    """Time passes when a test says so."""

    def __init__(self):
        self.now = 1000.0
        self.listeners = []

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds
        for tell in self.listeners:
            tell()


class MemoryTransport:
    """The memory broker: every call is carried out when it returns."""

    def __init__(self, clock, limits):
        self._broker = MemoryBroker(clock=clock, rng=random.Random(0), limits=limits)
        self.open_client = self._broker.open_client
        self.open_worker = self._broker.open_worker
        self.tick = self._broker.tick

    def receive_from_client_port(self, port: ClientPort) -> list[ToClientPeer]:
        return port.receive()

    def receive_from_worker_port(self, port: WorkerPort) -> list[ToWorkerPeer]:
        return port.receive()

    def await_farewell(self, worker_id: bytes) -> None:
        pass

    def cut(self, port: ClientPort) -> None:
        port._mailbox.close()

    def close(self) -> None:
        pass


class ZmqTransport:
    """A hub behind a real socket, stepped by the test."""

    def __init__(self, clock, limits, open_remote_door=None):
        self._folder = Path(tempfile.mkdtemp(prefix="nbq-"))
        self._dispatcher = Dispatcher(rng=random.Random(0), limits=limits)
        self._token = b"t" * 32
        options = HubOptions(
            socket=self._folder / "hub.sock", token=self._token, epoch=b"epoch", versions=own_versions()
        )
        self._hub = Hub(options, dispatcher=self._dispatcher, clock=clock, open_remote_door=open_remote_door)
        connection = Connection(
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            endpoint=str(options.socket),
            token=options.token,
            epoch=options.epoch,
            python=PYTHON,
            blob_roots=[],
            log="",
        )
        self._broker = ZmqBroker(connection)
        self._opener = ThreadPoolExecutor(1)  # opening a port waits for the hub, which only this thread can run

    def open_client(self, client_id: bytes) -> ClientPort:
        return self._open(lambda: self._broker.open_client(client_id))

    def open_worker(self, info: WorkerInfo) -> WorkerPort:
        return self._open(lambda: self._broker.open_worker(info))

    def _open(self, open_port):
        opening = self._opener.submit(open_port)
        while not opening.done():
            self._hub.run_once(timeout_s=0.001)
        return opening.result()

    def tick(self) -> None:
        self._hub.run_once(timeout_s=0.0)

    def receive_from_client_port(self, port: ClientPort) -> list[ToClientPeer]:
        return self._receive_until(port, Pong)  # the harness has sent a ping

    def receive_from_worker_port(self, port: WorkerPort) -> list[ToWorkerPeer]:
        # A second greeting is answered and changes nothing; unlike a heartbeat, it does not even renew the lease.
        port._link.send(Hello(PROTOCOL_VERSION, self._token, "worker", PYTHON, port._link._identity))
        return self._receive_until(port, Welcome)

    def _receive_until(self, port, kind):
        """All messages up to the answer to what was sent last, so that all that was sent before has been handled."""
        messages = []
        deadline = time.monotonic() + PATIENCE_S
        while not any(isinstance(message, kind) for message in messages):
            assert time.monotonic() < deadline, "the hub does not answer"
            port.flush()
            self._hub.run_once(timeout_s=0.001)
            if select.select([port.fileno()], [], [], 0.001)[0]:
                messages += port.receive()
        return messages

    def await_farewell(self, worker_id: bytes) -> None:
        """Go on until the hub has heard a worker take leave, which is not answered."""
        deadline = time.monotonic() + PATIENCE_S
        while self._dispatcher.knows_worker(worker_id):
            assert time.monotonic() < deadline, "the hub has not heard the farewell"
            self._hub.run_once(timeout_s=0.001)

    def cut(self, port: ClientPort) -> None:
        """Break the connection without a farewell."""
        port._link.close()

    def close(self) -> None:
        self._opener.shutdown()
        self._hub.close()
        shutil.rmtree(self._folder)


class TcpTransport(ZmqTransport):
    """The same hub, reached as from another machine."""

    def __init__(self, clock, limits):
        keys = HubKeys(server=new_pair(), client=new_pair(), worker=new_pair())
        super().__init__(
            clock, limits, lambda host, selector: RemoteDoor("tcp://127.0.0.1:*", keys, host, selector, blobs=None)
        )
        endpoint = self._hub.remote_endpoint
        self.open_client = self._opening(RemoteBroker(endpoint, keys.credentials("client")).open_client)
        self.open_worker = self._opening(RemoteBroker(endpoint, keys.credentials("worker")).open_worker)

    def _opening(self, open_port):
        return lambda who: self._open(lambda: open_port(who))


class SealedTransport(MemoryTransport):
    """The memory broker, which sees sealed bytes only: sealing changes nothing that a broker promises."""

    def __init__(self, clock, limits):
        super().__init__(clock, limits)
        sealed = SealedBroker(self._broker, Sealer([SealingKey(b"k" * 32)], clock=clock))
        self.open_client = sealed.open_client
        self.open_worker = sealed.open_worker

    def cut(self, port: ClientPort) -> None:
        super().cut(port._port)


class RedisTransport:
    """A real server; its scripts read the test's clock."""

    version = "own"
    _servers: ClassVar[dict[str, RedisServer]] = {}  # one for all tests, of each version

    def __init__(self, clock, limits):
        server = self._server()
        self._client = server.client()
        self._is_tick_loaded = False
        address = parse(f"{server.url}?namespace={secrets.token_hex(4)}")
        self._clock, self._prefix, self._limits = clock, address.prefix, limits or Limits()
        clock.listeners.append(self._set_clock)
        self._set_clock()
        self._broker = RedisBroker(address, limits=self._limits, tick_s=math.inf, ahead=1, load=load_with_clock)
        self.open_client = self._broker.open_client
        self.open_worker = self._broker.open_worker

    @classmethod
    def _server(cls) -> RedisServer:
        if cls.version not in cls._servers:
            cls._servers[cls.version] = server = RedisServer(cls.version)
            atexit.register(server.close)
        return cls._servers[cls.version]

    def _set_clock(self) -> None:
        self._client.set(self._prefix + "clock", repr(self._clock.now))

    def _tick_script(self) -> Script:
        is_new = int(self._client.info("server")["redis_version"].split(".")[0]) >= 7
        script = scripts_with_clock(as_functions=is_new)["tick"]
        if not self._is_tick_loaded:
            self._client.execute_command(*script.load)
            self._is_tick_loaded = True
        return script

    def tick(self) -> None:
        arguments = operations.circumstances(self._limits, bytes(8), b""), operations.encode(["t"])
        self._client.execute_command(*self._tick_script().call, 1, self._prefix, *arguments)

    def receive_from_client_port(self, port: ClientPort) -> list[ToClientPeer]:
        return self._receive(port)

    def receive_from_worker_port(self, port: WorkerPort) -> list[ToWorkerPeer]:
        return self._receive(port)

    def _receive(self, port):
        """All messages until everything asked is answered, and everything in the port's list was read."""
        session, messages = port._session, []
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, "the server does not answer"
            arrived = port.receive()
            messages += arrived
            if not arrived and session.is_quiet and self._client.llen(session.news_key) == 0:
                # What was taken from the list before the server said so has been written to the port's socket.
                arrived = port.receive()
                messages += arrived
                if not arrived and session.is_quiet:
                    return messages
            if not arrived:
                select.select([port.fileno()], [], [], 0.001)

    def await_farewell(self, worker_id: bytes) -> None:
        pass  # closing a port waits for it

    def cut(self, port: ClientPort) -> None:
        """Break the connection without a farewell."""
        port._is_open = False
        port._session.close()

    def close(self) -> None:
        self._client.flushall()
        self._client.close()


class OldRedisTransport(RedisTransport):
    """The oldest version that we support."""

    version = "6.2"


REAL_CLOCK = "local function clock() local t = call('TIME'); return t[1] + t[2] / 1e6 end"
TESTS_CLOCK = "local function clock() return tonumber(call('GET', P .. 'clock')) end"


def scripts_with_clock(*, as_functions: bool) -> dict[str, Script]:
    """The scripts with the test's clock in place of the server's."""
    assert read_part("base").count(REAL_CLOCK) == 1
    return functions(_read_part_with_clock) if as_functions else plain_scripts(_read_part_with_clock, knows_flags=False)


def _read_part_with_clock(name: str) -> str:
    return read_part(name).replace(REAL_CLOCK, TESTS_CLOCK)


def load_with_clock(connection, info) -> dict[str, Script]:
    """What `session.load_scripts` does, with that clock."""
    found = scripts_with_clock(as_functions=info.knows_functions)
    for load in {script.load for script in found.values()}:
        ask(connection, *load)
    return found


TRANSPORTS = {
    "memory": MemoryTransport,
    "sealed": SealedTransport,
    "zmq": ZmqTransport,
    "tcp": TcpTransport,
    "redis": RedisTransport,
    "old-redis": OldRedisTransport,
}
