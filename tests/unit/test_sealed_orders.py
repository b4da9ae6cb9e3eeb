"""Orders under a seal: only who has the key can give one, to whom it names, once."""

import pytest

from nbqueue.brokers.sealed_orders import ORDER_LIFETIME_S, OrderOpener, seal_order
from nbqueue.core.orders import EndWork, OrderFor, ResizePool, SealedOrder
from nbqueue.errors import SealBroken
from nbqueue.wire.seal import Header, Sealer, SealingKey

CLIENT, WORKER, OTHER = b"c" * 16, b"w" * 16, b"o" * 16


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def sealer(clock, secret=b"k", **options):
    return Sealer([SealingKey(secret * 32)], clock=clock, **options)


def given(clock, order=EndWork(), *, request=1, worker_ids=None, **options):  # noqa: B008 -- an order never changes
    return OrderFor(CLIENT, request, seal_order(sealer(clock, **options), CLIENT, request, order, worker_ids))


@pytest.mark.parametrize("worker_ids", [None, [WORKER], [OTHER, WORKER]])
def test_a_genuine_order_is_opened(clock, worker_ids):
    opened = OrderOpener(sealer(clock), WORKER).open(given(clock, ResizePool(2), worker_ids=worker_ids))

    assert OrderFor(CLIENT, 1, ResizePool(2)) == opened


def forgeries(clock):
    genuine = given(clock)
    body = sealer(clock).seal(Header(kind="task"), b"")
    return {
        "carries no seal": OrderFor(CLIENT, 1, EndWork()),
        "does not fit": OrderFor(CLIENT, 1, SealedOrder(genuine.order.data[:-1] + b"\xff")),
        "sealed with the key": given(clock, secret=b"x"),
        "for other workers": given(clock, worker_ids=[OTHER]),
        "of another client": OrderFor(OTHER, 1, genuine.order),
        "order of another": OrderFor(CLIENT, 2, genuine.order),
        "but for kind": OrderFor(CLIENT, 1, SealedOrder(body)),
        "but for namespace": given(clock, namespace="elsewhere"),
    }


@pytest.mark.parametrize("reason", list(forgeries(Clock())))
def test_a_forged_or_readdressed_order_is_refused(clock, reason):
    with pytest.raises(SealBroken, match=reason):
        OrderOpener(sealer(clock), WORKER).open(forgeries(clock)[reason])


def test_an_order_is_carried_out_once_however_often_it_comes(clock):
    # Given an order that was opened
    opener, order = OrderOpener(sealer(clock), WORKER), given(clock)
    opener.open(order)

    # When it comes again, then it is refused: at first as a repetition, later because it is too old
    with pytest.raises(SealBroken, match="a replay"):
        opener.open(order)
    clock.now += ORDER_LIFETIME_S + 1
    with pytest.raises(SealBroken, match="too old"):
        opener.open(order)

    # And the next order is opened
    assert 2 == opener.open(given(clock, request=2)).request
