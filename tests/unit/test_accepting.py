"""A client that accepts JSON only: what a hostile worker sends it is refused unread, item by item."""

import pickle
from pathlib import Path

import msgspec
import pytest

from nbqueue.brokers.accepting import AcceptingBroker
from nbqueue.brokers.base import ClientPort
from nbqueue.brokers.registry import open_broker
from nbqueue.core.exchange import Note
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Entry
from nbqueue.errors import ContentDisallowed
from nbqueue.settings import Settings
from nbqueue.wire.as_json import AsJson
from nbqueue.wire.blobs import INLINE_BYTES, BlobStore
from nbqueue.wire.failure import pack_failure, rebuild, unpack_failure
from nbqueue.wire.messages import NoteMessage, Pong
from nbqueue.wire.payload import PackedValues, pack_values

RUN = b"r" * 16


class Canary(Exception):
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        super().__init__(path)
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Recorder:
    """A port that notes what is called, and hands out what it is given."""

    def __init__(self):
        self.inbox = []
        self.sent = []

    def receive(self):
        messages, self.inbox = self.inbox, []
        return messages

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.sent.append((name, args, kwargs))


class Scene:
    """A client that accepts only some results, and a broker that belongs to the attacker."""

    def __init__(self, accept, blobs):
        self.blobs = blobs
        self.port = Recorder()
        self.client = AcceptingBroker(self, accept).open_client(b"c" * 16)

    def open_client(self, client_id):
        return self.port

    def hear(self, *entries):
        """What the client gets to see of entries of a log."""
        self.port.inbox.append(NoteMessage(Note(run_id=RUN, cursor=0, entries=list(entries), counts=Counts(total=9))))
        [message] = self.client.receive()
        return message.note.entries


@pytest.fixture
def canary(tmp_path):
    found = Canary(tmp_path / "mark")
    yield found
    assert not found.path.exists(), "it was unpickled"


@pytest.fixture
def blobs(tmp_path):
    store = BlobStore([tmp_path / "blobs"])
    store.create()
    return store


@pytest.fixture
def scene(blobs):
    return Scene(("json",), blobs)


def result(*values, blobs=None):
    [(count, payload)] = pack_values(list(values), start=0, blobs=blobs, folder="run")
    return Entry(0, count, State.SUCCESS, payload, worker="w")


def error_of(entry):
    assert (State.FAILURE, 0) == (entry.state, entry.offset)
    return rebuild(unpack_failure(entry.payload))


def test_json_passes_and_so_does_what_has_no_payload(scene):
    sent = [
        result(AsJson([1])),
        result(AsJson("x" * INLINE_BYTES), blobs=scene.blobs),
        Entry(2, 3, State.LOST, reason="x"),
    ]

    assert sent == scene.hear(*sent)


@pytest.mark.parametrize("form", ["plain", "each", "in a file", "among others"])
def test_a_pickle_is_refused_unread_whatever_form_it_has(scene, canary, form):
    payloads = {
        "plain": b"L" + pickle.dumps([canary]),
        "each": result(canary).payload,
        "in a file": result([canary, bytes(INLINE_BYTES)], blobs=scene.blobs).payload,
        "among others": result(AsJson(1), canary).payload,
    }

    [entry] = scene.hear(Entry(3, 4, State.SUCCESS, payloads[form], offset=1, worker="w"))

    error = error_of(entry)
    assert (ContentDisallowed, 3, 4) == (type(error), entry.start, entry.stop)
    assert "a result of worker 'w' was refused unread: it is packed with cloudpickle, and only json" in str(error)


@pytest.mark.parametrize("payload", [b"", b"nonsense", b"Enonsense", b"E" + msgspec.msgpack.encode([b"F0/run/gone"])])
def test_what_makes_no_sense_is_a_failure_of_its_item_too(scene, payload):
    first, second = scene.hear(Entry(0, 1, State.SUCCESS, payload, worker="w"), result(AsJson(2)))

    assert "a result of worker 'w' was refused unread" in str(error_of(first))
    assert [2] == PackedValues(second.payload, None).slice(0, 1)


def test_of_failures_only_the_pickles_are_taken_out(scene, canary):
    canary.__cause__ = KeyError("why")
    record = pack_failure(canary, where="worker w", with_pickles=False)
    raised = unpack_failure(record).raised
    hostile = msgspec.structs.replace(raised, pickled=pickle.dumps(canary))
    hostile = msgspec.structs.replace(
        hostile, cause=msgspec.structs.replace(raised.cause, pickled=pickle.dumps(canary))
    )
    sent = msgspec.msgpack.encode(msgspec.structs.replace(unpack_failure(record), raised=hostile))

    [entry] = scene.hear(Entry(0, 1, State.FAILURE, sent, worker="w"))

    assert record == entry.payload
    assert "Canary" in str(error_of(entry))


def test_a_failure_that_is_no_record_is_told_as_one(scene):
    [entry] = scene.hear(Entry(0, 1, State.FAILURE, b"nonsense", worker="w"))

    assert "not the record of a failure" in str(error_of(entry))


def test_a_client_that_accepts_pickles_only_refuses_json(blobs):
    scene = Scene(("cloudpickle",), blobs)
    failure = Entry(2, 3, State.FAILURE, pack_failure(ValueError("x")))

    refused, *passed = scene.hear(result(AsJson(1)), result(1), failure)

    assert "it is packed with json, and only cloudpickle is accepted here" in str(error_of(refused))
    assert [result(1), failure] == passed


def test_the_broker_is_told_of_the_bytes_that_it_has_counted(scene):
    # Given a result that was refused, of which the client sees something longer or shorter
    sent = [result(bytes(5000)), result(AsJson(1))]
    seen = scene.hear(*sent)
    assert len(sent[0].payload) != len(seen[0].payload)

    # When the client confirms what it has seen
    scene.client.ack(entries=2, size_bytes=sum(len(entry.payload) for entry in seen), output_bytes=7)

    # Then the broker hears of what it has sent
    size_bytes = sum(len(entry.payload) for entry in sent)
    assert [("ack", (), {"entries": 2, "size_bytes": size_bytes, "output_bytes": 7})] == scene.port.sent


def test_everything_else_passes_as_it_is(scene):
    scene.port.inbox.append(Pong(b"epoch", True))
    assert [Pong(b"epoch", True)] == scene.client.receive()

    calls = {
        "flush": {},
        "submit": {"spec": "spec", "function": b"f", "blocks": [], "closed": True},
        "submit_now": {"spec": "spec", "function": b"f", "blocks": [], "closed": True},
        "feed": {"run_id": RUN, "blocks": [], "closed": True},
        "attach": {"run_id": RUN, "cursor": 1, "output_cursor": 2},
        "revoke": {"run_id": RUN, "start": 0, "stop": 1, "manner": "gently"},
        "forget": {"run_ids": [RUN]},
        "ping": {},
        "inspect": {},
        "purge": {"request": 1, "queue": "q"},
        "command": {"request": 1, "order": "order", "worker_ids": [b"w"]},
        "start_workers": {"request": 1, "slots": 2, "python": "p", "in_addition": True, "offer": "offer"},
        "stop_workers": {"request": 1},
        "close": {},
    }
    for name, arguments in calls.items():
        getattr(scene.client, name)(**arguments)
        said, positional, named = scene.port.sent.pop()
        assert name == said
        assert list(arguments.values()) == [*positional, *named.values()]
    others = {"fileno", "receive", "is_idle", "ack"}
    assert ClientPort.__abstractmethods__ | {"submit_now", "is_idle"} == calls.keys() | others


def test_whoever_accepts_everything_has_nothing_judged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def opened(**options):
        return open_broker("redis://nowhere", Settings.load({}, url="redis://nowhere"), **options)

    def restricted(**options):
        return open_broker("redis://nowhere", Settings.load({}, accept="json"), **options)

    assert not isinstance(opened(), AcceptingBroker)
    assert isinstance(restricted(), AcceptingBroker)
    assert not isinstance(restricted(role="worker"), AcceptingBroker)
