"""What is on its way to a broker, from the hand-over to the broker's word."""

import threading

import pytest

from nbqueue.client.submissions import CREDIT_ITEMS, Standing, Submissions
from nbqueue.core.exchange import Receipt
from nbqueue.core.task import Block, RunSpec
from nbqueue.errors import BrokerUnavailable

RUN = b"r" * 16
TIMEOUT_S = 60.0


class Port:
    """Notes what it is asked to send."""

    def __init__(self):
        self.sent = []

    def submit(self, spec, *, function, blocks, closed):
        self.sent.append(("submit", spec.run_id, function, blocks, closed))

    def feed(self, run_id, *, blocks, closed):
        self.sent.append(("feed", run_id, blocks, closed))


@pytest.fixture
def submissions():
    return Submissions(timeout_s=TIMEOUT_S)


def hand_over(submissions, *blocks, closed=True):
    submissions.reserve(blocks, wait=True)
    submissions.add(RunSpec(run_id=RUN, function=b"d", label="f"), b"body", blocks, closed=closed)


def block(start, stop):
    return Block(start, stop, b"x")


def test_a_run_is_on_its_way_until_all_its_items_are_confirmed(submissions):
    hand_over(submissions, block(0, 5), block(5, 9))

    assert Standing.UNDER_WAY is submissions.take(Receipt(run_id=RUN, total=5), 0.0)
    assert RUN in submissions
    assert Standing.ACCEPTED is submissions.take(Receipt(run_id=RUN, total=9), 0.0)
    assert RUN not in submissions


def test_an_open_run_stays_since_more_will_come(submissions):
    hand_over(submissions, block(0, 5), closed=False)
    assert Standing.ACCEPTED is submissions.take(Receipt(run_id=RUN, total=5), 0.0)

    assert submissions.extend(RUN, [block(5, 6)], closed=True)
    assert Standing.ACCEPTED is submissions.take(Receipt(run_id=RUN, total=6), 0.0)
    assert RUN not in submissions


def test_what_a_full_broker_turned_away_is_offered_again_as_a_whole(submissions):
    # Given a run of which the broker has the first block and had no room for the rest
    port = Port()
    hand_over(submissions, block(0, 5), block(5, 9), closed=False)
    assert Standing.UNDER_WAY is submissions.take(Receipt(run_id=RUN, total=5, is_full=True), 0.0)

    # When more is fed, then it waits for its turn
    assert submissions.has_refused
    assert not submissions.extend(RUN, [block(9, 10)], closed=True)

    # And all that is missing is sent when it is offered again
    submissions.offer_again(port)
    assert [("feed", RUN, [block(5, 9), block(9, 10)], True)] == port.sent
    assert Standing.ACCEPTED is submissions.take(Receipt(run_id=RUN, total=10), 1.0)
    assert not submissions.has_refused


def test_a_run_that_a_full_broker_has_nothing_of_is_submitted_again_with_its_function(submissions):
    port = Port()
    hand_over(submissions, block(0, 5))
    submissions.take(Receipt(run_id=RUN, total=0, is_full=True), 0.0)

    submissions.offer_again(port)

    assert [("submit", RUN, b"body", [block(0, 5)], True)] == port.sent


def test_a_broker_that_stays_full_turns_the_run_away_in_the_end(submissions):
    hand_over(submissions, block(0, 5))
    full = Receipt(run_id=RUN, total=0, is_full=True)

    assert Standing.UNDER_WAY is submissions.take(full, 0.0)
    assert Standing.UNDER_WAY is submissions.take(full, TIMEOUT_S)
    assert Standing.TURNED_AWAY is submissions.take(full, TIMEOUT_S + 1)


def test_who_hands_over_too_much_waits_until_the_broker_has_confirmed(submissions):
    # Given as much on its way as may be
    hand_over(submissions, block(0, CREDIT_ITEMS))
    waiting = threading.Thread(target=submissions.reserve, args=([block(0, 1)],), kwargs={"wait": True})
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()

    # When it is confirmed, or given up, then there is room
    submissions.drop(RUN)
    waiting.join(5)
    assert not waiting.is_alive()


def test_nobody_waits_for_a_broker_that_is_gone(submissions):
    hand_over(submissions, block(0, CREDIT_ITEMS))
    submissions.fail(BrokerUnavailable("it died"))

    with pytest.raises(BrokerUnavailable, match="it died"):
        submissions.reserve([block(0, 1)], wait=True)
