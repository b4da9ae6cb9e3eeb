"""A million items through one map."""

import gc

import psutil
import pytest

ITEMS = 1_000_000
MEBIBYTE = 2**20


@pytest.mark.timeout(60)
@pytest.mark.parametrize("options", [{}, {"buffersize": 50_000}], ids=["eager", "lazy"])
def test_a_million_items_are_right_and_cost_little_memory(own_hub, options):
    # Given an app and a hub that have worked already
    app = own_hub.app()
    assert list(range(1000)) == app.map(lambda x: x, range(1000)).get(10)
    hub, client = own_hub.hub(), psutil.Process()
    gc.collect()
    before = hub.memory_info().rss, client.memory_info().rss
    peaks = list(before)

    # When a million items are mapped and consumed one by one
    expected = 0
    results = app.map(lambda x: x, range(ITEMS), **options)
    for value in results:
        if expected % 50_000 == 0:
            peaks = [max(peak, process.memory_info().rss) for peak, process in zip(peaks, (hub, client), strict=True)]
        assert expected == value
        expected += 1

    # Then all were right, and neither side grew by more than a hundred megabytes
    after = hub.memory_info().rss, client.memory_info().rss
    grown = [(max(peak, end) - start) / MEBIBYTE for peak, end, start in zip(peaks, after, before, strict=True)]
    assert ITEMS == expected == results.counts.done
    assert max(grown) < 100, f"hub and client grew by {grown} MiB"
