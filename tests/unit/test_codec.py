"""Messages to bytes and back, and what is said of all other bytes."""

import enum
import functools
import inspect
import itertools
import operator
import struct
import types
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.retry import RetryPolicy
from nbqueue.core.task import Block, Failed, Killed, Released, RunSpec, Stopped, Succeeded, TaskOptions
from nbqueue.errors import ProtocolError
from nbqueue.wire import messages
from nbqueue.wire.codec import MAGIC, MAX_MESSAGES, MAX_PACKET_BYTES, OutOfStep, PacketReader, encode
from nbqueue.wire.messages import PROTOCOL_VERSION, Commit, Hello, Ping, Submit

DIRECTIONS = {
    "from a peer": messages.FromPeer,
    "to a client": messages.ToClientPeer,
    "to a worker": messages.ToWorkerPeer,
    "to a slot": messages.ToSlot,
    "from a slot": messages.FromSlot,
}
KINDS = [(direction, kind) for direction, union in DIRECTIONS.items() for kind in typing.get_args(union)]
LEAVES = {
    int: st.integers(0, 2**63 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=20),
    bool: st.booleans(),
    type(None): st.none(),
    typing.Any: st.text(max_size=20) | st.lists(st.integers(0, 9), max_size=3),
}

#: What these messages were in protocol 1. If one changes, older peers misunderstand: raise PROTOCOL_VERSION.
GOLDEN = {
    "97a548656c6c6f01c405746f6b656ea6636c69656e74a4332e3131c4026964a0": Hello(1, b"token", "client", "3.11", b"id"),
    "95a65375626d697485a672756e5f6964c40372756ea866756e6374696f6ec406646967657374a56c6162656ca166ab656e7669726f6e6d656e"
    "74c403656e76a76f7074696f6e7382a5726574727981ab6d61785f7265747269657303a96368756e6b73697a6502c404626f647991930002c4"
    "034c7070c3": Submit(
        RunSpec(
            run_id=b"run",
            function=b"digest",
            label="f",
            environment=b"env",
            options=TaskOptions(retry=RetryPolicy(max_retries=3), chunksize=2),
        ),
        b"body",
        [Block(0, 2, b"Lpp")],
        True,
    ),
    "95a6436f6d6d697405c40372756e9597a95375636365656465640002c4034c7676cb3ff8000000000000cb3fe00000000000000099a64661"
    "696c656402c4067265636f7264c3cb3fd0000000000000cb0000000000000000c0c00094a64b696c6c656403a75349474b494c4c0095a753"
    "746f707065640405a6534947494e540093a852656c65617365640506c3": Commit(
        5,
        b"run",
        [
            Succeeded(0, 2, b"Lvv", 1.5, 0.5),
            Failed(2, b"record", True, 0.25),
            Killed(3, "SIGKILL"),
            Stopped(4, 5, "SIGINT"),
            Released(5, 6),
        ],
        True,
    ),
}


@functools.cache
def any_of(kind):
    """Any value of a type that messages are made of."""
    arguments = typing.get_args(kind)
    if kind in LEAVES:
        return LEAVES[kind]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(kind, **{field.name: any_of(field.type) for field in msgspec.structs.fields(kind)})
    match typing.get_origin(kind):
        case types.UnionType | typing.Union:
            return st.one_of(*map(any_of, arguments))
        case origin if origin is dict:
            return st.dictionaries(*map(any_of, arguments), max_size=3)
        case origin if origin is list:
            return st.lists(any_of(*arguments), max_size=3)
        case origin if origin is tuple and arguments[-1] is ...:
            return st.lists(any_of(arguments[0]), max_size=3).map(tuple)
        case origin if origin is dict:
            return st.dictionaries(*map(any_of, arguments), max_size=3)
        case origin if origin is tuple:
            return st.tuples(*map(any_of, arguments))
    raise AssertionError(f"no message was made of {kind} before: teach this test how")


def read(direction, data):
    """The messages of the packets in *data*."""
    reader = PacketReader(DIRECTIONS[direction])
    reader.feed(data)
    found = []
    while (messages := reader.next()) is not None:
        found += messages
    return found


def packet(body):
    return MAGIC + struct.pack("<I", len(body)) + body


# -- there and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "kind"), KINDS)
def test_every_message_comes_back_equal(direction, kind):
    @given(any_of(kind))
    def comes_back_equal(message):
        [again] = read(direction, encode([message]))

        assert (type(message), message) == (type(again), again)

    comes_back_equal()


def test_every_message_goes_in_some_direction():
    defined = {
        kind for _, kind in inspect.getmembers(messages, inspect.isclass) if kind.__module__ == messages.__name__
    }

    assert {messages._Message} == defined - {kind for _, kind in KINDS}


@given(
    st.lists(
        st.lists(any_of(functools.reduce(operator.or_, typing.get_args(messages.ToSlot))), max_size=3), max_size=3
    ),
    st.data(),
)
def test_messages_come_back_in_order_however_the_bytes_are_cut(packets, data):
    # Given a stream of packets, cut anywhere
    stream = b"".join(map(encode, packets))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    reader = PacketReader(messages.ToSlot)

    # When the pieces arrive one by one
    found = []
    for start, stop in itertools.pairwise([0, *cuts, len(stream)]):
        reader.feed(stream[start:stop])
        while (arrived := reader.next()) is not None:
            found.append(arrived)

    # Then the packets come out as they went in
    assert packets == found


@pytest.mark.parametrize(("golden", "message"), GOLDEN.items(), ids=lambda value: type(value).__name__)
def test_messages_are_on_the_wire_what_they_always_were(golden, message):
    assert golden == encode([message])[9:].hex()
    assert [message] == read("from a peer", packet(b"\x91" + bytes.fromhex(golden)))


def test_the_golden_messages_are_of_this_protocol():
    assert (2, b"NBQ2") == (PROTOCOL_VERSION, MAGIC)


def test_a_field_added_at_the_end_by_a_newer_peer_is_passed_over():
    hello = Hello(1, b"t", "client", "3.11")
    [fields] = msgspec.msgpack.decode(encode([hello])[8:])

    assert [hello] == read("from a peer", packet(msgspec.msgpack.encode([[*fields, "new"]])))


# -- all other bytes ---------------------------------------------------------------------------------------------------


def is_refused_or_a_message(direction, data):
    """Whatever the bytes are, the reader answers with messages of its direction, or the one error."""
    try:
        found = read(direction, data)
    except ProtocolError:
        return
    assert {type(message) for message in found} <= set(typing.get_args(DIRECTIONS[direction]))


@given(st.sampled_from(list(DIRECTIONS)), st.binary(max_size=200))
def test_rubbish_is_a_protocol_error_and_no_other(direction, data):
    is_refused_or_a_message(direction, data)
    is_refused_or_a_message(direction, packet(data))


@given(st.sampled_from(KINDS).flatmap(lambda pair: st.tuples(st.just(pair[0]), any_of(pair[1]))), st.data())
def test_a_damaged_message_is_a_protocol_error_and_no_other(sent, data):
    # Given the bytes of a message, of which some are others now, or missing
    direction, message = sent
    damaged = encode([message])
    for position, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)))):
        damaged[position] = value
    cut = data.draw(st.integers(0, len(damaged)))

    # Then it is refused, unless by chance it still is a message
    is_refused_or_a_message(direction, bytes(damaged[:cut]))
    is_refused_or_a_message(direction, bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x91\x91\xa4Pin",
        b"\x91\x91\xa4Pingx",
        b"\x91" * 100_000,
        b"\x91\xa5\xff\xff\xff\xff\xff",
        b"\x95\xa5Hello\x01\xc4\x01t\xa1\xff\xa43.11",
        b"\x96\xa5Hello\x01\xc4\x01t\xa1c\xa43.11" + b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ],
)
def test_well_known_kinds_of_rubbish_are_refused(data):
    with pytest.raises(ProtocolError, match="not a message of ours"):
        read("from a peer", packet(data))


def test_a_message_of_another_direction_is_refused():
    with pytest.raises(ProtocolError):
        read("to a worker", encode([Ping()]))


def test_what_follows_a_packet_that_makes_no_sense_is_read():
    reader = PacketReader(messages.FromPeer)
    reader.feed(packet(b"rubbish") + encode([Ping()]))

    with pytest.raises(ProtocolError, match="not a message of ours"):
        reader.next()

    assert [Ping()] == reader.next()


def test_a_packet_over_the_limit_is_refused_unread():
    with pytest.raises(OutOfStep, match=f"a packet of {MAX_PACKET_BYTES + 1} bytes is over the limit"):
        read("from a peer", MAGIC + struct.pack("<I", MAX_PACKET_BYTES + 1))


def test_a_packet_over_the_limit_is_not_made():
    with pytest.raises(ProtocolError, match="is over the limit"):
        encode([messages.Deliver(bytes(MAX_PACKET_BYTES))])


def test_too_many_messages_are_refused():
    with pytest.raises(ProtocolError, match=f"{MAX_MESSAGES + 1} messages in one packet"):
        read("from a peer", encode([Ping()] * (MAX_MESSAGES + 1)))


def test_as_many_messages_as_may_be_are_read():
    assert [Ping()] * MAX_MESSAGES == read("from a peer", encode([Ping()] * MAX_MESSAGES))


# -- versions ----------------------------------------------------------------------------------------------------------


def test_another_version_is_told_in_one_sentence():
    with pytest.raises(OutOfStep) as caught:
        read("from a peer", b"NBQ9" + b"what we cannot read")

    assert str(caught.value) == (
        f"the other side speaks protocol 9, this one {PROTOCOL_VERSION}: "
        "install the same nbqueue on both, then run `nbqueue stop`"
    )


@pytest.mark.parametrize("data", [b"\0", b"NBx", b"NBQx----", b"GET / HTTP/1.1", b"nbq1", b" " + MAGIC])
def test_another_protocol_is_told_in_one_sentence(data):
    with pytest.raises(OutOfStep, match=r"^the other side does not speak the nbqueue protocol$"):
        read("from a peer", data)
