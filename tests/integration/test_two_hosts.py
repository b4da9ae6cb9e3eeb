"""Two hosts, as network namespaces with a cable between them: a hub on one, a worker that was invited on the other.

Needs root and the command ip (iproute2).
"""

import collections
import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PORT = 7913

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Host:
    """A namespace with an address of its own, and a home of its own on the disk."""

    def __init__(self, name: str, address: str, folder: Path):
        self.name = name
        self.address = address
        self.folder = folder
        self._processes = []
        folder.mkdir()

    def start(self, *command: str, log: str, **variables: str) -> subprocess.Popen:
        """Start a program on this host; killed at the end."""
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "NBQUEUE_RUNTIME_DIR": str(self.folder / "run"),
            **variables,
        }
        environment.pop("NBQUEUE_URL", None)
        with open(self.folder / log, "w") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def run(self, *command: str, log: str = "command.log", timeout_s: float = 60.0) -> str:
        """Run a program on this host to its end; what it said."""
        process = self.start(*command, log=log)
        assert 0 == process.wait(timeout_s), self.said(log)
        return self.said(log)

    def python(self, script: str, **options) -> str:
        """Run a script on this host to its end; what it said."""
        return self.run(sys.executable, "-c", textwrap.dedent(script), **options)

    def said(self, log: str) -> str:
        return (self.folder / log).read_text()

    def close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


class Cable:
    """The link between the hosts."""

    def __init__(self, host: Host):
        self._host = host

    def cut(self) -> None:
        _ip("-n", self._host.name, "link", "set", "eth", "down")

    def mend(self) -> None:
        _ip("-n", self._host.name, "link", "set", "eth", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _why_not() -> str:
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is missing"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"nbq-try-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode != 0:
        return "this machine lets nobody make network namespaces"
    _ip("netns", "delete", name)
    return ""


@pytest.fixture
def hosts(tmp_path):
    """Two hosts and their cable."""
    reason = _why_not()
    if reason and os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    left = Host(f"nbq-l-{os.getpid()}", "10.213.0.1", tmp_path / "left")
    right = Host(f"nbq-r-{os.getpid()}", "10.213.0.2", tmp_path / "right")
    try:
        for host in (left, right):
            _ip("netns", "add", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
        _ip("link", "add", "eth", "netns", left.name, "type", "veth", "peer", "name", "eth", "netns", right.name)
        for host in (left, right):
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth")
            _ip("-n", host.name, "link", "set", "eth", "up")
        yield left, right, Cable(right)
    finally:
        for host in (right, left):
            host.close()
            subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


@pytest.fixture
def joined(hosts, wait_until):
    """A hub on the left host, a worker with two slots, invited, on the right one."""
    left, right, cable = hosts
    left.run("nbqueue", "hub", "--make-keys")
    left.start("nbqueue", "hub", "--bind", f"tcp://{left.address}:{PORT}", "-c", "0", log="hub.log")
    wait_until(lambda: "listens at" in left.said("hub.log"), "the hub")
    line = left.python("import nbqueue; print(nbqueue.invite('5m', tags=['far'], slots=2))").strip()
    right.start("sh", "-c", line, log="worker.log")
    wait_until(lambda: "joined   tcp://" in right.said("worker.log"), "the worker")
    return left, right, cable


def test_work_runs_on_the_other_host_through_one_port(joined):
    left, right, _ = joined

    said = left.python("""
        import nbqueue, socket, os
        nbqueue.connect(workers=0)
        def where(item):
            return os.environ["HOME"]
        print(set(nbqueue.options(tags=["far"]).map(where, range(20), progress=False).get()))
        big = nbqueue.submit(lambda data: data[::-1], bytes(40_000_000) + b"end").get()
        print(len(big), big[:3])
    """)

    assert f"{{{str(right.folder)!r}}}\n40000003 b'dne'\n" == said
    assert "tags     far" in right.said("worker.log")
    sockets = subprocess.run(
        ["ip", "netns", "exec", right.name, "ss", "-Htan"], check=True, capture_output=True, text=True
    ).stdout
    peers = [entry.split()[4] for entry in sockets.splitlines() if entry.split()[4] != "0.0.0.0:*"]
    assert {f"{left.address}:{PORT}"} == set(peers)


def test_the_secret_of_an_invitation_is_on_no_command_line(joined):
    _, right, _ = joined

    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_readable(path)]
    inviting = [command for command in commands if b"nbqueue-worker" in command and b"sh\0-c" not in command]

    assert inviting
    assert not any(b"nbqueue+invite:" in command for command in inviting)
    assert "nbqueue+invite:" not in right.said("worker.log")


def _is_readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


SLOW_MAP = """
    import nbqueue, os, sys, time
    nbqueue.connect(workers=0)
    def slow(item):
        with open(os.path.join(os.environ["HOME"], "runs"), "a") as runs:
            runs.write(f"{item}\\n")
        time.sleep(0.25)
        return item * item
    run = nbqueue.map(slow, range(ITEMS), chunksize=4, progress=False)
    print("submitted", flush=True)
    assert run.get() == [item * item for item in range(ITEMS)], run.errors()
    print("all there", flush=True)
"""


@pytest.mark.parametrize(("cut_s", "items"), [(8, 120), (60, 160)], ids=["8s", "60s"])
def test_work_goes_on_when_the_link_was_cut(joined, wait_until, cut_s, items):
    # Given a map of which some items have run
    left, right, cable = joined
    script = textwrap.dedent(SLOW_MAP).replace("ITEMS", str(items))
    client = left.start(sys.executable, "-c", script, log="map.log")
    wait_until(lambda: _runs(right) and len(_runs(right)) > 10, "the first items")

    # When the link is cut for a while
    cable.cut()
    mended_at = time.monotonic() + cut_s
    wait_until(lambda: time.monotonic() > mended_at, "the cut's end", timeout_s=cut_s + 5)
    cable.mend()

    # Then the rest follows, and nothing is missing
    assert 0 == client.wait(120), left.said("map.log")
    assert left.said("map.log").endswith("all there\n")
    again = {item: count for item, count in _runs(right).items() if count > 1}
    assert items == len(_runs(right))
    if cut_s < 15:  # the lease: nobody was taken for dead, so nothing ran twice
        assert {} == again
    assert len(again) <= 16  # what the worker held: two chunks that ran, and as many fetched ahead


def _runs(host: Host) -> collections.Counter:
    path = host.folder / "runs"
    return collections.Counter(path.read_text().split()) if path.exists() else collections.Counter()


def test_a_worker_joins_again_when_the_hub_was_replaced(joined, wait_until):
    # Given a worker whose key stays good, and a hub that is stopped
    left, right, _ = joined
    key = left.folder / "config" / "nbqueue" / "hub" / "worker.key"
    shutil.copy(key, right.folder / "worker.key")
    right.start(
        "nbqueue-worker", f"tcp://{left.address}:{PORT}", "-c", "1", "--token-file", "worker.key", log="second.log"
    )
    wait_until(lambda: "joined   tcp://" in right.said("second.log"), "the second worker")
    left.run("nbqueue", "stop")

    # When another one takes its place
    left.start("nbqueue", "hub", "--bind", f"tcp://{left.address}:{PORT}", "-c", "0", log="hub2.log")

    # Then the worker joins that
    wait_until(lambda: 2 == right.said("second.log").count("joined   tcp://"), "the return", timeout_s=60)
    said = left.python("import nbqueue; nbqueue.connect(workers=0); print(nbqueue.submit(abs, -3).get(20))")
    assert "3\n" == said
