"""What a hub does with peers that break the rules: it counts, refuses, and goes on serving the others.

The hub takes its turns in the test's own thread, so whatever a peer can make it raise is raised here.
"""

import os
import random
import select
import shutil
import socket
import struct
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nbqueue.brokers.zmq.hub import MAX_BAD_PACKETS, Hub, HubOptions
from nbqueue.core.dispatcher import Dispatcher
from nbqueue.core.exchange import WorkerInfo
from nbqueue.core.retry import RetryPolicy
from nbqueue.core.states import State
from nbqueue.core.task import Block, Failed, Killed, Released, RunSpec, Stopped, Succeeded, TaskOptions
from nbqueue.wire.codec import MAGIC, MAX_MESSAGES, MAX_PACKET_BYTES, PacketReader, encode
from nbqueue.wire.messages import (
    PROTOCOL_VERSION,
    Ack,
    Attach,
    Commit,
    Deliver,
    Feed,
    Forget,
    Goodbye,
    Heartbeat,
    Held,
    Hello,
    Inspect,
    Inspected,
    Leave,
    NoteMessage,
    Ping,
    Pong,
    ReceiptMessage,
    Refused,
    Register,
    Revoke,
    Started,
    StartWorkers,
    StopWorkers,
    Submit,
    ToClientPeer,
    ToWorkerPeer,
    Welcome,
)
from nbqueue.wire.versions import PYTHON, own_versions

TOKEN = b"t" * 32
PATIENCE_S = 10.0
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Peer:
    """A socket that says what a test wants it to."""

    def __init__(self, town, identity=None, role="client"):
        self.identity = identity or os.urandom(16)
        self._hub = town.hub
        self._role = role
        self._reader = PacketReader(ToWorkerPeer if role == "worker" else ToClientPeer)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(town.path))
        self._socket.settimeout(PATIENCE_S)
        self.is_hung_up_on = False
        self.heard = []

    def send_bytes(self, data):
        rest = memoryview(bytes(data))
        while rest:
            if select.select([], [self._socket], [], 0.0)[1]:
                rest = rest[self._socket.send(rest[:100_000]) :]
            else:
                self._hub.run_once(timeout_s=0.001)  # which is the one to make room

    def send_body(self, body):
        """A packet of ours with any body."""
        self.send_bytes(MAGIC + struct.pack("<I", len(body)) + body)

    def send(self, *messages):
        self.send_bytes(encode(messages))

    def hear(self, kind):
        """The next message of this kind; what comes before it is kept in `heard`."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for position, message in enumerate(self.heard):
                if isinstance(message, kind):
                    return self.heard.pop(position)
            assert time.monotonic() < deadline, f"no {kind.__name__} came"
            self._listen()

    def hear_hanging_up(self):
        """Return when the hub has closed the connection."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_hung_up_on:
            assert time.monotonic() < deadline, "the hub did not hang up"
            self._listen()

    def _listen(self):
        self._hub.run_once(timeout_s=0.001)
        if select.select([self._socket], [], [], 0.001)[0]:
            try:
                data = self._socket.recv(2**20)
            except ConnectionResetError:
                data = b""
            self.is_hung_up_on = not data
            self._reader.feed(data)
            while (messages := self._reader.next()) is not None:
                self.heard += messages

    def greet(self, **changes):
        facts = {
            "protocol": PROTOCOL_VERSION,
            "token": TOKEN,
            "role": self._role,
            "python": PYTHON,
            "identity": self.identity,
        }
        self.send(Hello(**{**facts, **changes}))

    def join(self):
        """Become a peer in good standing."""
        self.greet()
        self.hear(Welcome)
        return self

    def settle(self):
        """Return when the hub has handled all that was sent; a greeting is answered to everybody, good or bad."""
        self.greet()
        self.hear((Welcome, Refused))

    def close(self, *farewell):
        """Go, with what is left to say."""
        if self._socket.fileno() >= 0:
            if farewell:
                self.send(*farewell)
            self._socket.close()


class Town:
    """A hub, the peers around it, and a client and a worker of good standing to judge it by."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="nbq-"))
        self.path = self.folder / "hub.sock"
        options = HubOptions(socket=self.path, token=TOKEN, epoch=b"epoch", versions=own_versions())
        self.peers = []
        self.hub = Hub(options, dispatcher=Dispatcher(rng=random.Random(0)))

    def peer(self, role="client", identity=None):
        self.peers.append(Peer(self, identity, role))
        return self.peers[-1]

    def client(self):
        return self.peer().join()

    def worker(self, slots=1):
        worker = self.peer("worker").join()
        worker.send(Register(worker_info(worker.identity, slots=slots)))
        return worker

    def serves(self):
        """Whether a new client still gets a result from a new worker."""
        client, worker = self.client(), self.worker(slots=1000)  # the most free slots: it will be chosen
        spec = RunSpec(
            run_id=os.urandom(16), function=os.urandom(8), label="proof", options=TaskOptions(priority=2**40)
        )
        client.send(Submit(spec, b"function", [Block(0, 1, b"payload")], True))
        delivery = worker.hear(Deliver).delivery
        while delivery.run_id != spec.run_id:
            delivery = worker.hear(Deliver).delivery
        worker.send(Commit(delivery.token, spec.run_id, [Succeeded(0, 1, b"value", 1.0)], True))
        note = client.hear(NoteMessage).note
        while not note.finished:
            note = client.hear(NoteMessage).note
        worker.close(Leave())
        client.close(Forget([spec.run_id]), Goodbye())
        return (State.SUCCESS, b"value") == (note.entries[0].state, note.entries[0].payload)

    def close(self):
        for peer in self.peers:
            peer.close()
        self.hub.close()
        shutil.rmtree(self.folder)


@pytest.fixture
def town():
    made = Town()
    yield made
    made.close()


def worker_info(worker_id, **more):
    facts = {"worker_id": worker_id, "name": "w", "host": "here", "pid": 1, "slots": 1, "prefetch": 0}
    return WorkerInfo(**{**facts, **more})


def spec(**options):
    return RunSpec(run_id=os.urandom(16), function=b"digest", label="work", options=TaskOptions(**options))


# -- who may speak -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason", "kind"),
    [
        ({"protocol": 99}, f"the hub speaks protocol {PROTOCOL_VERSION}, this side 99", "environment"),
        ({"token": b"x" * 32}, "the token is not this hub's", "token"),
        ({"token": b""}, "the token is not this hub's", "token"),
        ({"role": "admin"}, "there is no role 'admin'", ""),
        ({"role": ""}, "there is no role ''", ""),
        ({"python": "2.7"}, f"Python {PYTHON} there, 2.7 here", "environment"),
        ({"cloudpickle": "0.9"}, "there, 0.9 here", "environment"),
    ],
)
def test_a_wrong_greeting_is_refused_in_one_sentence(town, change, reason, kind):
    # Given somebody who does not belong here
    stranger = town.peer()

    # When it greets, and speaks on as if it had been welcomed
    stranger.greet(**change)
    refusal = stranger.hear(Refused)
    stranger.send(Submit(spec(), b"function", [Block(0, 1, b"")], True))
    stranger.settle()

    # Then it is told why not, and not obeyed
    client = town.client()
    client.send(Inspect())
    assert reason in refusal.reason
    assert kind == refusal.kind
    assert [] == client.hear(Inspected).inspection.runs
    assert town.serves()


@pytest.mark.parametrize(
    "message",
    [
        Submit(spec(), b"function", [Block(0, 1, b"")], True),
        Register(worker_info(b"w" * 16)),
        Inspect(),
        Ping(),
        Heartbeat([]),
        StartWorkers(1, 1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_who_has_not_greeted_is_not_listened_to(town, message):
    stranger = town.peer()
    stranger.send(message)

    assert "say hello first" == stranger.hear(Refused).reason
    assert 1 == town.hub.bad_packets


def test_a_refused_peer_may_try_again(town):
    peer = town.peer()
    peer.greet(token=b"wrong")
    peer.hear(Refused)

    peer.greet()

    assert b"epoch" == peer.hear(Welcome).epoch


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"NBQ9" + bytes(20), "the other side speaks protocol 9"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak the nbqueue protocol"),
        (b"\0", "does not speak the nbqueue protocol"),
        (MAGIC + b"\xff\xff\xff\xff", "a packet of 4294967295 bytes is over the limit"),
    ],
)
def test_another_protocol_is_told_so_and_hung_up_on(town, data, reason):
    stranger = town.peer()
    stranger.send_bytes(data)

    refusal = stranger.hear(Refused)

    assert reason in refusal.reason
    assert "environment" == refusal.kind
    stranger.hear_hanging_up()
    assert town.serves()


@pytest.mark.parametrize("identity", [b"", b"x", b"x" * 15, b"x" * 17, b"x" * 255])
def test_a_name_of_the_wrong_length_is_refused(town, identity):
    stranger = town.peer()
    stranger.greet(identity=identity)

    assert f"a peer is named by 16 bytes, not {len(identity)}" == stranger.hear(Refused).reason
    assert town.serves()


# -- what is said ------------------------------------------------------------------------------------------------------


@many
@given(body=st.binary(max_size=300), knows_us=st.booleans())
def test_rubbish_is_counted_and_dropped(town, body, knows_us):
    # Given a peer, in good standing or not
    assume(not body.startswith((b"\x90", b"\xdc\0\0", b"\xdd\0\0\0\0")))  # an empty list is not rubbish
    peer = town.client() if knows_us else town.peer()
    before = town.hub.bad_packets

    # When it sends whatever bytes in a packet of ours
    peer.send_body(body)
    peer.settle()

    # Then that is one more bad packet, and the peer may go on in better manners
    assert before + 1 == town.hub.bad_packets
    peer.join()
    peer.close()


@many
@given(data=st.binary(min_size=8, max_size=300))
def test_bytes_that_are_no_packet_end_the_connection(town, data):
    peer = town.client()
    assume(not data.startswith(MAGIC))

    peer.send_bytes(data)

    peer.hear_hanging_up()
    peer.close()


@many
@given(data=st.data())
def test_a_damaged_message_is_dropped_as_a_whole(town, data):
    # Given a good message of which one byte has changed, or the end is missing
    good = bytes(encode([Submit(spec(), b"function", [Block(0, 1, b"payload")], True)])[8:])
    position = data.draw(st.integers(0, len(good) - 1))
    flipped = bytes([good[position] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(st.sampled_from([good[:position], good[:position] + flipped + good[position + 1 :]]))

    # When a client sends it
    peer = town.client()
    peer.send_body(damaged)
    peer.settle()

    # Then the hub goes on, whatever the message has become
    peer.send(Ping())
    assert peer.hear(Pong)
    peer.close(Goodbye())


@pytest.mark.parametrize("count", [MAX_MESSAGES + 1, 50_000])
def test_too_many_messages_in_one_packet_are_dropped(town, count):
    peer = town.client()
    peer.send(*[Ping()] * count)
    peer.settle()

    assert 1 == town.hub.bad_packets
    assert not any(isinstance(message, Pong) for message in peer.heard)
    assert town.serves()


def test_as_many_messages_as_are_allowed_are_read(town):
    peer = town.client()
    peer.send(*[Ping()] * MAX_MESSAGES)
    peer.settle()

    assert 0 == town.hub.bad_packets
    assert MAX_MESSAGES == sum(isinstance(message, Pong) for message in peer.heard)


def test_a_packet_beyond_all_measure_cuts_the_connection_and_nothing_else(town):
    giant = town.client()

    giant.send_bytes(MAGIC + struct.pack("<I", MAX_PACKET_BYTES + 1))

    giant.hear_hanging_up()
    assert town.serves()


def test_a_packet_without_messages_is_nothing(town):
    peer = town.client()
    peer.send()
    peer.settle()

    assert 0 == town.hub.bad_packets


@pytest.mark.parametrize("cut", [1, 4, 7, 8, 9, 40])
def test_a_packet_may_come_in_pieces(town, cut):
    peer = town.client()
    data = encode([Ping(), Ping()]) + encode([Ping()])
    peer.send_bytes(data[:cut])
    town.hub.run_once(timeout_s=0.1)

    peer.send_bytes(data[cut:])
    peer.settle()

    assert 3 == sum(isinstance(message, Pong) for message in peer.heard)


def test_a_peer_that_does_not_read_stops_nobody(town):
    # Given a client that asks and asks, and never listens, so that its socket is full
    deaf = town.client()
    for _ in range(200):
        deaf.send(*[Inspect()] * 100)
        town.hub.run_once(timeout_s=0.0)

    # Then others are served, and what it asked for is there when it listens at last
    assert town.serves()
    deaf.settle()
    answers = 0
    while answers < 20_000:
        deaf.hear(Inspected)
        answers += 1
        kept = [message for message in deaf.heard if not isinstance(message, Inspected)]
        answers += len(deaf.heard) - len(kept)
        deaf.heard = kept
    assert 20_000 == answers


@pytest.mark.parametrize(
    "message",
    [
        Register(worker_info(b"w" * 16)),
        Heartbeat([(1, 0)]),
        Started(1, 0),
        Commit(1, b"r" * 16, [Succeeded(0, 1, b"forged", 1.0)], True),
        Leave(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_client_cannot_play_the_worker(town, message):
    # Given a client with a run that a worker holds
    client, worker = town.client(), town.worker()
    run = spec()
    client.send(Submit(run, b"function", [Block(0, 1, b"")], True))
    worker.hear(Deliver)

    # When another client speaks as a worker
    other = town.client()
    other.send(message)
    other.settle()

    # Then that is counted, and all is as it was
    client.send(Inspect())
    inspection = client.hear(Inspected).inspection
    assert 1 == town.hub.bad_packets
    assert [(0, 1)] == [(view.counts.ended, view.counts.running) for view in inspection.runs]
    assert [worker.identity] == [view.worker_id for view in inspection.workers]


@pytest.mark.parametrize(
    "message",
    [
        Submit(spec(), b"function", [Block(0, 1, b"")], True),
        Feed(b"r" * 16, [], True),
        Revoke(b"r" * 16, 0, 1),
        Forget([b"r" * 16]),
        Attach(b"r" * 16, 0),
        Inspect(),
        StartWorkers(1, 1),
        StopWorkers(1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_worker_cannot_play_the_client(town, message):
    worker = town.worker()
    worker.send(message)
    worker.settle()

    client = town.client()
    client.send(Inspect())
    assert 1 == town.hub.bad_packets
    assert [] == client.hear(Inspected).inspection.runs


def test_a_worker_cannot_register_under_the_name_of_another(town):
    first = town.worker()
    first.settle()
    second = town.peer("worker").join()

    second.send(Register(worker_info(first.identity, slots=50)))
    second.settle()

    client = town.client()
    client.send(Inspect())
    assert 1 == town.hub.bad_packets
    assert [1] == [view.slots for view in client.hear(Inspected).inspection.workers]


def test_who_sends_nothing_but_rubbish_is_hung_up_on(town):
    # Given a peer that has sent as much of it as is borne
    peer = town.client()
    for _ in range(MAX_BAD_PACKETS):
        peer.send_body(b"rubbish")
    peer.settle()

    # When it goes on
    peer.send_body(b"rubbish")

    # Then nobody listens, and others are served
    peer.hear_hanging_up()
    assert town.serves()


# -- what makes no sense -----------------------------------------------------------------------------------------------

whole = st.one_of(st.integers(-3, 6), st.sampled_from([-(2**62), 2**31, 2**62, 2**63 - 1]))
real = st.one_of(st.floats(-10, 10), st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e308]))
name = st.sampled_from([b"", b"r" * 16, b"s" * 16, b"x" * 300])
nonsense_specs = st.builds(
    RunSpec,
    run_id=name,
    function=name,
    label=st.text(max_size=5),
    options=st.builds(
        TaskOptions,
        retry=st.builds(RetryPolicy, max_retries=whole, backoff_s=real, backoff_max_s=real, jitter=st.booleans()),
        max_lost=whole,
        priority=whole,
        countdown_s=real,
        expires_s=st.none() | real,
        chunksize=st.none() | whole,
        result_expires_s=real,
    ),
)
blocks = st.lists(st.builds(Block, whole, whole, st.binary(max_size=3)), max_size=3)
outcomes = st.lists(
    st.one_of(
        st.builds(Succeeded, whole, whole, st.binary(max_size=3), real, real),
        st.builds(Failed, whole, st.binary(max_size=3), st.booleans(), real, real),
        st.builds(Killed, whole, st.text(max_size=3)),
        st.builds(Stopped, whole, whole),
        st.builds(Released, whole, whole),
    ),
    max_size=3,
)
client_messages = st.one_of(
    st.builds(Submit, nonsense_specs, st.none() | st.binary(max_size=3), blocks, st.booleans()),
    st.builds(Feed, name, blocks, st.booleans()),
    st.builds(Attach, name, whole),
    st.builds(Ack, whole, whole),
    st.builds(Revoke, name, whole, whole),
    st.builds(Forget, st.lists(name, max_size=3)),
    st.builds(StartWorkers, whole, whole),
    st.builds(StopWorkers, whole),
    st.just(Inspect()),
    st.just(Goodbye()),
)
worker_messages = st.one_of(
    st.builds(Heartbeat, st.lists(st.tuples(whole, whole), max_size=3)),
    st.builds(Started, whole, whole),
    st.builds(Commit, whole, name, outcomes, st.booleans()),
    st.just(Leave()),
)


@many
@given(
    slots=whole,
    prefetch=whole,
    sent=st.lists(
        st.one_of(st.tuples(st.just("client"), client_messages), st.tuples(st.just("worker"), worker_messages)),
        min_size=1,
        max_size=12,
    ),
)
@pytest.mark.timeout(120)
def test_messages_that_make_no_sense_do_no_harm(slots, prefetch, sent):
    # Given a client with a run, two workers of which one holds a part of it, all of them out of their minds
    town = Town()
    try:
        client, worker, other = town.client(), town.worker(), town.peer("worker").join()
        run = RunSpec(run_id=b"r" * 16, function=b"s" * 16, label="work", options=TaskOptions(chunksize=3))
        client.send(Submit(run, b"function", [Block(0, 5, b"")], False))
        worker.hear(Deliver)
        other.send(Register(worker_info(other.identity, slots=slots, prefetch=prefetch)))
        other.settle()

        # When they say anything that is a message at all
        for role, message in sent:
            peer = client if role == "client" else worker
            peer.send(message)
            peer.join()

        # Then the hub goes on when they have left
        for peer in (worker, other):
            peer.send(Leave())
            peer.settle()
        assert town.serves()
    finally:
        town.close()


# -- who goes ----------------------------------------------------------------------------------------------------------


def test_a_peer_that_has_vanished_does_not_stop_what_is_for_others(town):
    # Given a client that is cut off while its run goes on, and another one that follows the same run
    client, worker = town.client(), town.worker()
    run = spec()
    client.send(Submit(run, b"function", [Block(0, 1, b"")], True))
    delivery = worker.hear(Deliver).delivery
    other = town.client()
    other.send(Attach(run.run_id, 0))
    other.settle()
    client.close()

    # When there is news
    worker.send(Commit(delivery.token, run.run_id, [Succeeded(0, 1, b"value", 1.0)], True))

    # Then the other one hears of it
    note = other.hear(NoteMessage).note
    while not note.finished:
        note = other.hear(NoteMessage).note
    assert b"value" == note.entries[0].payload
    assert town.serves()


def test_a_client_that_comes_back_under_its_name_hears_the_rest(town):
    # Given a client whose connection broke
    client, worker = town.client(), town.worker()
    run = spec()
    client.send(Submit(run, b"function", [Block(0, 1, b"")], True))
    delivery = worker.hear(Deliver).delivery
    client.close()
    worker.send(Commit(delivery.token, run.run_id, [Succeeded(0, 1, b"value", 1.0)], True))
    worker.settle()

    # When it comes back
    again = town.peer(identity=client.identity).join()
    again.send(Attach(run.run_id, 0))

    # Then it hears what it missed
    assert b"value" == again.hear(NoteMessage).note.entries[0].payload


def test_a_client_of_many_runs_can_be_told_of_all_of_them_at_once(town):
    # Given a client with more runs than fit into one piece
    client = town.client()
    count = MAX_MESSAGES + 100
    for _ in range(count):
        client.send(Submit(spec(), b"function", [Block(0, 1, b"")], True))
    client.settle()
    client.heard = [message for message in client.heard if isinstance(message, ReceiptMessage)]
    assert count == len(client.heard)
    client.heard.clear()

    # When a worker comes, which is news for each of them
    worker = town.worker()
    worker.send(Heartbeat([]))
    worker.hear(Held)
    client.settle()

    # Then the client can read it
    assert count == len({message.note.run_id for message in client.heard if isinstance(message, NoteMessage)})
