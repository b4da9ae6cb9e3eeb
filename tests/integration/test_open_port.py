"""A hub with an open TCP port: who gets in, and as what. Nothing here is pretended: sockets, keys and ZAP are real."""

import os
import random
import selectors
import socket
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

import nbqueue
from nbqueue.brokers.zmq import remote
from nbqueue.brokers.zmq.courier import SESSION_BYTES, Courier
from nbqueue.brokers.zmq.curve import (
    Credentials,
    Gatekeeper,
    HubKeys,
    find_credentials,
    make_hub_keys,
    new_pair,
    read_credentials,
    read_hub_keys,
    use_curve,
)
from nbqueue.brokers.zmq.hub import Hub, HubOptions
from nbqueue.brokers.zmq.invitation import Invitation
from nbqueue.brokers.zmq.remote import RemoteBroker
from nbqueue.brokers.zmq.remote_door import RemoteDoor
from nbqueue.core.dispatcher import Dispatcher
from nbqueue.core.exchange import WorkerInfo
from nbqueue.core.task import Block, RunSpec
from nbqueue.errors import BrokerUnavailable, KeyFileError
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.codec import encode
from nbqueue.wire.messages import PROTOCOL_VERSION, Hello, Submit
from nbqueue.wire.versions import own_versions

SPEC = RunSpec(run_id=b"r" * 16, function=b"f" * 32, label="intruder")


class OpenHub:
    """A hub that listens on TCP, in a thread of its own."""

    def __init__(self, folder: Path):
        self.keys = HubKeys(server=new_pair(), client=new_pair(), worker=new_pair())
        self.dispatcher = Dispatcher(rng=random.Random(0))
        self.clock = time.monotonic
        self.blobs = BlobStore([folder / "blobs"])
        self.blobs.create()
        options = HubOptions(socket=folder / "hub.sock", token=b"t" * 32, epoch=b"epoch", versions=own_versions())
        self._hub = Hub(options, dispatcher=self.dispatcher, open_remote_door=self._open_door)
        self._thread = threading.Thread(target=self._hub.serve)
        self._thread.start()

    def _open_door(self, host, selector):
        self.door = RemoteDoor("tcp://127.0.0.1:*", self.keys, host, selector, blobs=self.blobs)
        return self.door

    @property
    def endpoint(self):
        return self._hub.remote_endpoint

    @property
    def gatekeeper(self):
        return self.door._gatekeeper

    def broker(self, role="worker", **changes):
        credentials = self.keys.credentials(role)
        return RemoteBroker(self.endpoint, Credentials(**{**_fields(credentials), **changes}))

    def close(self):
        self._hub.stop()
        self._thread.join()
        self._hub.close()


def _fields(credentials):
    return {name: getattr(credentials, name) for name in credentials.__struct_fields__}


@pytest.fixture
def hub(tmp_path):
    opened = OpenHub(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(remote, "HELLO_TIMEOUT_S", 2.0)


def worker_info(name="w"):
    return WorkerInfo(worker_id=os.urandom(16), name=name, host="h", pid=os.getpid(), slots=1, prefetch=0)


class Raw:
    """A CURVE client that says what it likes."""

    def __init__(self, endpoint, credentials=None):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if credentials is not None:
            use_curve(self._socket, credentials)
        self._socket.connect(endpoint)
        self._courier = Courier()
        self._socket.send(self._courier.greeting(os.urandom(SESSION_BYTES)))

    def say(self, *messages):
        self._courier.send(encode(messages))
        for frame in self._courier.frames():
            self._socket.send(frame)

    def answers(self, patience_s=1.0):
        """How many frames come back."""
        count = 0
        while self._socket.poll(int(patience_s * 1000)):
            self._socket.recv()
            count += 1
        return count

    def close(self):
        self._socket.close()
        self._context.term()


@pytest.fixture
def raw(hub):
    opened = []

    def connect(credentials=None):
        opened.append(Raw(hub.endpoint, credentials))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def hello(role):
    return Hello(PROTOCOL_VERSION, b"t" * 32, role, own_versions().python, os.urandom(16), own_versions().cloudpickle)


# -- who gets in -------------------------------------------------------------------------------------------------------


def test_a_worker_and_a_client_with_keys_get_in(hub, wait_until):
    worker = hub.broker("worker").open_worker(worker_info())
    client = hub.broker("client").open_client(os.urandom(16))
    worker.flush()

    wait_until(lambda: 1 == hub.dispatcher.slots, "the worker")
    worker.close()
    client.close()
    wait_until(lambda: 0 == hub.dispatcher.slots, "its farewell")


@pytest.mark.parametrize("role", ["worker", "client"])
def test_a_wrong_key_is_refused_in_one_sentence(hub, role):
    broker = hub.broker(role, own=new_pair())
    begun = time.monotonic()

    with pytest.raises(KeyFileError, match="does not know this key"):
        broker.open_worker(worker_info()) if role == "worker" else broker.open_client(os.urandom(16))

    assert time.monotonic() - begun < 2.0
    assert 2 == hub.gatekeeper.refused  # this one, and the stranger of the self-test


def test_the_key_of_another_hub_is_refused(hub):
    with pytest.raises(BrokerUnavailable, match="is the key from this hub"):
        hub.broker(server=new_pair().public).open_worker(worker_info())


def test_no_key_at_all_is_refused(hub, raw):
    stranger = raw(None)
    stranger.say(hello("client"), Submit(SPEC, b"function", [Block(0, 1, b"")], True))

    assert 0 == stranger.answers()
    assert not hub.dispatcher.knows_run(SPEC.run_id)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(52, b"\0")],
    ids=["http", "noise", "zmtp"],
)
def test_plain_bytes_on_the_port_are_refused_and_do_no_harm(hub, wait_until, data):
    host, port = hub.endpoint.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(data)

        worker = hub.broker("worker").open_worker(worker_info())
        worker.flush()
        wait_until(lambda: 1 == hub.dispatcher.slots, "a worker with a key")
    worker.close()


# -- and as what -------------------------------------------------------------------------------------------------------


def test_a_worker_key_cannot_pass_for_a_client(hub, raw):
    impostor = raw(hub.keys.credentials("worker"))
    impostor.say(hello("client"))
    impostor.say(Submit(SPEC, b"function", [Block(0, 1, b"")], True))
    impostor.answers()

    assert not hub.dispatcher.knows_run(SPEC.run_id)
    with pytest.raises(KeyFileError, match="this key is that of a worker"):
        hub.broker("worker").open_client(os.urandom(16))


def test_a_worker_that_submits_is_refused(hub, raw, wait_until):
    worker = raw(hub.keys.credentials("worker"))
    worker.say(hello("worker"))
    worker.say(Submit(SPEC, b"function", [Block(0, 1, b"")], True))

    wait_until(lambda: hub._hub.bad_packets, "the refusal")
    assert not hub.dispatcher.knows_run(SPEC.run_id)


def test_a_client_key_cannot_pass_for_a_worker(hub, raw):
    impostor = raw(hub.keys.credentials("client"))
    impostor.say(hello("worker"))
    impostor.answers()

    assert 0 == hub.dispatcher.slots
    with pytest.raises(KeyFileError, match="this key is that of a client"):
        hub.broker("client").open_worker(worker_info())


# -- invitations -------------------------------------------------------------------------------------------------------


def test_an_invited_key_gets_in_as_a_worker_in_time(hub):
    own = new_pair()
    hub.door.invite(own.public, role="worker", ttl_s=60.0)

    hub.broker("worker", own=own).open_worker(worker_info()).close()


def test_an_invitation_expires(hub, wait_until):
    late, early = new_pair(), new_pair()
    hub.door.invite(late.public, role="worker", ttl_s=1.0)
    hub.door.invite(early.public, role="worker", ttl_s=1.0)
    hub.broker("worker", own=early).open_worker(worker_info()).close()
    expired_at = time.monotonic() + 1.0
    wait_until(lambda: time.monotonic() > expired_at, "its end")

    # Whoever has not come by then is a stranger; whoever has may come again
    with pytest.raises(KeyFileError, match="an invitation that has expired"):
        hub.broker("worker", own=late).open_worker(worker_info())
    hub.broker("worker", own=early).open_worker(worker_info()).close()


def test_a_key_that_is_in_already_cannot_be_invited_as_something_else(hub):
    for key in (hub.keys.client.public, hub.keys.server.public[:-5], "nonsense"):
        with pytest.raises(ValueError, match=r"new key|multiple|letters"):
            hub.door.invite(key, role="worker", ttl_s=60.0)


def test_an_invitation_is_one_line_that_shows_no_secret_to_other_users():
    own = new_pair()
    invitation = Invitation(
        url="tcp://10.0.0.1:7913",
        credentials=Credentials(role="worker", server=new_pair().public, own=own),
        tags=("gpu",),
    )

    # A shell's own echo feeds it to standard input: no command of the line has the secret among its arguments
    before, _, after = invitation.line.partition(" | ")
    assert before.startswith("echo nbqueue+invite:")
    assert "nbqueue-worker --invite -" == after
    assert invitation == Invitation.parse(before.removeprefix("echo "))
    assert own.secret not in f"{invitation!r}"


@pytest.mark.parametrize(
    "text", ["", "nbqueue+invite:", "nbqueue+invite:e30=", "something else", "nbqueue+invite:\xff"]
)
def test_what_is_no_invitation_is_refused(text):
    with pytest.raises(KeyFileError, match="paste the whole line"):
        Invitation.parse(text)


# -- the gate itself ---------------------------------------------------------------------------------------------------


def test_a_hub_that_would_let_strangers_in_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(Gatekeeper, "_verdict", lambda self, frames: [*frames[:2], b"200", b"OK", b"client", b""])

    with pytest.raises(BrokerUnavailable, match="would let strangers in"):
        OpenHub(tmp_path)


def test_a_hub_that_cannot_decide_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(Gatekeeper, "answer", lambda self: False)
    begun = time.monotonic()

    with pytest.raises(BrokerUnavailable, match="does not answer them"):
        OpenHub(tmp_path)
    assert time.monotonic() - begun < 4.0


def test_without_its_gatekeeper_nobody_gets_in(hub, monkeypatch):
    # Given a hub whose gatekeeper has gone: libzmq by itself would let everybody in who speaks CURVE
    monkeypatch.setattr(Gatekeeper, "answer", lambda self: False)
    hub.gatekeeper._socket.close()

    with pytest.raises((BrokerUnavailable, KeyFileError)):
        hub.broker("worker").open_worker(worker_info())


def test_a_port_that_is_taken_is_named(hub, tmp_path):
    with pytest.raises(BrokerUnavailable, match=f"cannot listen at {hub.endpoint}"):
        RemoteDoor(hub.endpoint, hub.keys, None, selectors.DefaultSelector(), blobs=None)


# -- key files ---------------------------------------------------------------------------------------------------------


def test_the_keys_of_a_hub_are_three_private_files(tmp_path):
    files = make_hub_keys(tmp_path / "hub")

    keys = read_hub_keys(tmp_path / "hub" / "hub.key")
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert keys.credentials("worker") == read_credentials(tmp_path / "hub" / "worker.key")
    assert keys.credentials("client") == find_credentials("client", "", tmp_path / "hub" / "client.key")
    assert keys.client.secret not in (tmp_path / "hub" / "worker.key").read_text()
    assert keys.server.secret not in (tmp_path / "hub" / "worker.key").read_text()
    with pytest.raises(KeyFileError, match=r"there are keys in .* already"):
        make_hub_keys(tmp_path / "hub")


def test_key_files_that_others_can_read_are_refused(tmp_path):
    make_hub_keys(tmp_path / "hub")
    path = tmp_path / "hub" / "worker.key"
    path.chmod(0o644)

    with pytest.raises(KeyFileError, match=r"open to other users \(mode 0644\)"):
        read_credentials(path)


def test_a_file_with_other_keys_is_refused(tmp_path):
    make_hub_keys(tmp_path / "hub")

    with pytest.raises(KeyFileError, match="does not hold what it should"):
        read_credentials(tmp_path / "hub" / "hub.key")
    with pytest.raises(KeyFileError, match="copy it from the hub's machine"):
        read_credentials(tmp_path / "none.key")
    with pytest.raises(KeyFileError, match="does not hold the keys"):
        find_credentials("worker", "nonsense", None)


@pytest.mark.parametrize("address", ["0.0.0.0", "tcp://0.0.0.0:7913", "[::]:7913", "10.0.0.1"])
def test_the_command_refuses_an_open_port_without_keys(own_hub, address):
    refused = own_hub.command("hub", "--bind", address, XDG_CONFIG_HOME=str(own_hub.folder / "none"))

    assert 1 == refused.returncode
    assert "a hub that others can reach needs keys" in refused.stderr
    assert "nbqueue hub --make-keys" in refused.stderr


@pytest.mark.timeout(60)
def test_a_notebook_elsewhere_works_through_the_port(own_hub, wait_until):
    # Given a hub in the foreground that listens on TCP, with a slot of its own
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = own_hub.folder / "config"
    served = own_hub.start(
        *(sys.executable, "-m", "nbqueue", "hub", "--bind", f"127.0.0.1:{port}", "-c", "1"), XDG_CONFIG_HOME=str(config)
    )
    assert served.stdout.readline().startswith("nbqueue ")

    # Then whoever has the client's key works as on the hub's own machine: large values and output, too
    with nbqueue.App(f"tcp://127.0.0.1:{port}", token=config / "nbqueue" / "hub" / "client.key", workers=0) as app:
        assert [x * x for x in range(500)] == app.map(lambda x: x * x, range(500), progress=False).get(20)
        large = app.submit(lambda data: (sys.stdout.write(f"{len(data)}\n"), data[::-1])[1], bytes(3_000_000) + b"end")
        assert b"dne" == large.get(20)[:3]
        assert "3000003\n" == large.stdout
        weight = bytes(3_000_000)
        assert 3_000_000 == app.submit(lambda: len(weight)).get(20)
    own_hub.command("stop")
    assert 0 == served.wait(10)


def test_a_greeting_is_answered_with_a_welcome(hub, raw):
    # Given that the tests above would notice an answer
    friend = raw(hub.keys.credentials("client"))
    friend.say(hello("client"))

    assert 2 == friend.answers()  # a greeting of the conversation, and the welcome
