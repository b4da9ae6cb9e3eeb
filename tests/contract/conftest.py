"""One suite for every broker: the fixture `broker` is each of them in turn, behind the same blocking harness.

The clock is ours and the hub takes its turns in the test's own thread, so nothing here depends on how fast the machine
is. Every call of a harness object returns only when the broker has carried it out, hence "nothing was delivered" can be
asserted without waiting for it.
"""

from collections.abc import Callable, Iterator

import pytest

from nbqueue.core.dispatcher import Limits
from tests.contract.harness import BrokerHarness
from tests.contract.transports import TRANSPORTS


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: runs for more than a few seconds")
    config.addinivalue_line("markers", "plain: not on the sealed broker, whose bytes are more")


def pytest_collection_modifyitems(config, items):
    plain = {item for item in items if item.get_closest_marker("plain") and "sealed" in item.callspec.params.values()}
    config.hook.pytest_deselected(items=plain)
    items[:] = [item for item in items if item not in plain]


@pytest.fixture(params=list(TRANSPORTS))
def kind(request) -> str:
    """Which broker."""
    return request.param


@pytest.fixture
def open_broker(kind) -> Iterator[Callable[..., BrokerHarness]]:
    """Opens brokers of this kind, with limits of the test's choice."""
    opened = []

    def open_one(**limits) -> BrokerHarness:
        opened.append(BrokerHarness(kind, Limits(**limits)))
        return opened[-1]

    yield open_one
    for harness in opened:
        harness.close()


@pytest.fixture
def broker(open_broker) -> BrokerHarness:
    """A broker with the usual limits."""
    return open_broker()
