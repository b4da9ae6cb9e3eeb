"""A hub with real processes, in a private folder of its own, and a check that none of them outlives its test."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import nbqueue
from nbqueue.brokers.zmq.connection import HubFiles
from nbqueue.settings import default_hub_name

POLL_S = 0.02


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float = 10.0) -> Any:
    """The first true value of *condition*; fails after *timeout_s* seconds, saying *what* did not come."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)
    return value


def _without_forks(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are no children of others: a child has the command of its parent until it runs its own."""
    pids = {process.pid for process in processes}
    parents = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            parents[process] = process.ppid()
    return [process for process, parent in parents.items() if parent not in pids]


class PrivateHub:
    """A folder in which a hub of its own lives, the clients that use it, and its processes."""

    def __init__(self, folder: Path, *, idle_timeout_s: float = 600.0, worker_python: str = sys.executable) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.worker_python = worker_python
        self.settings = {"NBQUEUE_RUNTIME_DIR": str(self.runtime), "NBQUEUE_IDLE_TIMEOUT": str(idle_timeout_s)}
        self.settings |= {"NBQUEUE_WORKERS": "2", "NBQUEUE_WORKER_PYTHON": worker_python}
        self._apps: list[nbqueue.App] = []
        self._clients: list[subprocess.Popen[str]] = []

    @property
    def files(self) -> HubFiles:
        """Where the hub's files are."""
        return HubFiles(self.runtime, default_hub_name())

    # -- clients -------------------------------------------------------------------------------------------------------

    def app(self, *, workers: int = 2, **options: Any) -> nbqueue.App:
        """An app of this process; closed at the end."""
        app = nbqueue.App(workers=workers, runtime_dir=self.runtime, **options)
        self._apps.append(app)
        return app

    def start(self, *command: str, cwd: Path | None = None, **variables: str) -> "subprocess.Popen[str]":
        """Start a program that knows the folder from its environment; killed at the end."""
        process = subprocess.Popen(
            command,
            cwd=cwd or self.folder,
            env={**os.environ, **self.settings, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._clients.append(process)
        return process

    def run(self, *command: str, timeout_s: float = 20.0, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end."""
        process = self.start(*command, **options)
        output, errors = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def command(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run `nbqueue` with *arguments*."""
        return self.run(sys.executable, "-m", "nbqueue", *arguments, **options)

    def write_script(self, text: str, name: str = "script.py") -> Path:
        """A script file in the folder."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def run_script(self, text: str, **options: Any) -> str:
        """What a script prints; fails if it does."""
        path = self.write_script(text)
        result = self.run(sys.executable, str(path), **options)
        assert 0 == result.returncode, result.stderr
        return result.stdout

    # -- processes -----------------------------------------------------------------------------------------------------

    def processes(self, module: str = "") -> list[psutil.Process]:
        """All processes that know the folder from their command or environment, clients of ours excepted.

        Args:
            module: Only those that run this module.
        """
        clients = {os.getpid(), *(process.pid for process in self._clients)}
        return [
            process
            for process in psutil.process_iter()
            if process.pid not in clients and self._is_ours(process, module)
        ]

    def _is_ours(self, process: psutil.Process, module: str) -> bool:
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            command = process.cmdline()
            known = [*command, *process.environ().values()]
            return any(str(self.runtime) in text for text in known) and (not module or module in command)
        return False

    def hub(self) -> psutil.Process:
        """The hub."""
        [process] = _without_forks(self.processes("nbqueue.cli.hub"))
        return process

    def supervisors(self) -> list[psutil.Process]:
        """Processes that hold a supervisor and nothing else; that of the usual local workers lives in the hub."""
        return _without_forks(self.processes("nbqueue.cli.launched") + self.processes("nbqueue.cli.worker"))

    def zygotes(self) -> list[psutil.Process]:
        """The children of supervisors, and of the hub."""
        parents = {process.pid for process in [*self.supervisors(), *self.processes("nbqueue.cli.hub")]}
        return [process for process in self.processes("nbqueue.worker.zygote") if process.ppid() in parents]

    def slots(self) -> list[psutil.Process]:
        """The zygotes' children."""
        parents = {process.pid for process in self.zygotes()}
        return [process for process in self.processes("nbqueue.worker.zygote") if process.ppid() in parents]

    def wait_until_gone(self, *, timeout_s: float = 10.0) -> None:
        """Wait until no process of the hub is left."""
        wait_until(lambda: not self.processes(), f"end of {self.processes()}", timeout_s=timeout_s)

    def stop(self) -> None:
        """End clients, hub and workers, however they are."""
        for process in self._clients:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for process in self.processes("nbqueue.cli.hub"):
            process.resume()
        if self.processes("nbqueue.cli.hub"):
            self.command("stop")
        for app in self._apps:
            app.close()


@contextlib.contextmanager
def private_hub(**options: Any) -> Iterator[PrivateHub]:
    folder = Path(tempfile.mkdtemp(prefix="nbq", dir="/tmp"))
    with pytest.MonkeyPatch.context() as environment:
        hub = PrivateHub(folder, **options)
        for name, value in hub.settings.items():
            environment.setenv(name, value)
        try:
            yield hub
        finally:
            hub.stop()
            try:
                hub.wait_until_gone()
            finally:
                for process in hub.processes():
                    process.send_signal(signal.SIGKILL)
                for path in (folder, *hub.files.blob_roots):
                    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(name="wait_until")
def _wait_until():
    """Wait for a condition, with a deadline: ``wait_until(condition, "what", timeout_s=10)``."""
    return wait_until


@pytest.fixture
def own_hub() -> Iterator[PrivateHub]:
    """A hub for one test, which may do to it what it likes."""
    with private_hub() as hub:
        yield hub


@pytest.fixture
def apart_hub() -> Iterator[PrivateHub]:
    """A hub for one test whose local workers have processes of their own, as with another interpreter."""
    with private_hub(worker_python=str(Path(sys.executable).with_name("python3"))) as hub:
        assert hub.worker_python != sys.executable
        yield hub


@pytest.fixture
def short_lived_hub() -> Iterator[PrivateHub]:
    """A hub for one test, which ends when it was idle for two seconds."""
    with private_hub(idle_timeout_s=2.0) as hub:
        yield hub


@pytest.fixture(scope="module")
def hub() -> Iterator[PrivateHub]:
    """A hub that the tests of a module share."""
    with private_hub() as shared:
        yield shared


@pytest.fixture(scope="module")
def app(hub: PrivateHub) -> nbqueue.App:
    """An app of the shared hub, with two slots."""
    return hub.app()
