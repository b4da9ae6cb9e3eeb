"""Whatever the connections do, every packet arrives once and in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.brokers.zmq.courier import MAX_BYTES, SESSION_BYTES, WINDOW, Courier, read_greeting
from nbqueue.errors import ProtocolError

SESSION = b"s" * SESSION_BYTES


class Wire:
    """Two couriers and a connection between them that can break at any frame."""

    def __init__(self):
        self.ends = Courier(chunk_bytes=10), Courier(chunk_bytes=10)
        self.arrived = [], []

    def pump(self, frames=10_000):
        """Carry up to so many frames, both ways in turn."""
        while frames > 0:
            moved = 0
            for side in (0, 1):
                for frame in self.ends[side].frames():
                    if frames <= 0:
                        return  # there was no room for it
                    packet = self.ends[1 - side].receive(frame)
                    if packet is not None:
                        self.arrived[1 - side].append(packet)
                    moved += 1
                    frames -= 1
            if not moved:
                return

    def lose(self, side, frames):
        """So many frames leave and never arrive."""
        leaving = iter(self.ends[side].frames())
        for _ in range(frames + 1):
            if next(leaving, None) is None:
                return

    def reconnect(self):
        greetings = [end.greeting(SESSION) for end in self.ends]
        for side in (0, 1):
            received, session = read_greeting(greetings[1 - side])
            assert session == SESSION
            self.ends[side].go_on(received)


@given(
    script=st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 1), st.integers(0, 200)),
            st.tuples(st.just("pump"), st.integers(1, 30), st.none()),
            st.tuples(st.just("lose"), st.integers(0, 1), st.integers(1, 5)),
            st.tuples(st.just("reconnect"), st.none(), st.none()),
        ),
        max_size=60,
    )
)
def test_every_packet_arrives_once_and_in_order(script):
    wire, sent, is_broken = Wire(), ([], []), False
    for number, (what, first, second) in enumerate(script):
        match what:
            case "send":
                packet = number.to_bytes(2) * second
                wire.ends[first].send(packet)
                sent[first].append(packet)
            case "pump" if not is_broken:
                wire.pump(first)
            case "lose":
                wire.lose(first, second)
                is_broken = True
            case "reconnect":
                wire.reconnect()
                is_broken = False

    wire.reconnect()
    wire.pump()

    assert (sent[1], sent[0]) == wire.arrived


def test_a_large_packet_never_has_more_than_a_few_chunks_under_way():
    courier = Courier(chunk_bytes=10)
    courier.send(bytes(1000))

    assert WINDOW == len(list(courier.frames()))


def test_what_is_confirmed_is_not_kept():
    wire = Wire()
    for _ in range(100):
        wire.ends[0].send(b"ping")
        wire.pump()
        wire.ends[1].send(b"pong")
        wire.pump()

    assert (0, 1) == tuple(len(end._sent) for end in wire.ends)


def test_a_side_that_has_forgotten_the_conversation_is_found_out():
    wire = Wire()
    for _ in range(3):
        wire.ends[0].send(b"before")
        wire.pump()
        wire.ends[1].send(b"answer")
        wire.pump()

    stranger = Courier()

    with pytest.raises(ProtocolError, match="forgotten this conversation"):
        wire.ends[0].go_on(read_greeting(stranger.greeting(SESSION))[0])


@pytest.mark.parametrize("frame", [b"", b"x" * 16, b"x" * 17, b"x" * 40, b"C" + bytes(16), b"G" + bytes(16)])
def test_nonsense_is_refused(frame):
    with pytest.raises(ProtocolError):
        Courier().receive(frame)


def test_a_hole_is_noticed():
    sender, receiver = Courier(chunk_bytes=10), Courier(chunk_bytes=10)
    for packet in (b"one", b"two", bytes(30)):
        sender.send(packet)
    first, second, *chunks = sender.frames()

    with pytest.raises(ProtocolError, match="message 1 is missing"):
        receiver.receive(second)
    receiver.receive(first)
    receiver.receive(second)
    receiver.receive(chunks[0])
    with pytest.raises(ProtocolError, match="piece of a message is missing"):
        receiver.receive(chunks[2])


def test_a_packet_that_claims_to_be_endless_is_refused():
    class Endless(bytes):
        def __len__(self):
            return MAX_BYTES + 1

    with pytest.raises(ProtocolError, match="over the limit"):
        Courier().send(Endless())


@pytest.mark.parametrize("frame", [b"", b"G" + bytes(16), b"W" + bytes(32), b"G" + bytes(33)])
def test_a_conversation_begins_with_a_greeting(frame):
    with pytest.raises(ProtocolError):
        read_greeting(frame)
