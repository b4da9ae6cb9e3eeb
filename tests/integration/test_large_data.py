"""Arguments and results of hundreds of megabytes."""

import gc
from pathlib import Path

import numpy as np
import psutil
import pytest

MEBIBYTE = 2**20


def blob_bytes(app):
    """What lies in the folders for large payloads."""
    _, broker = app.connection()
    files = [path for root in broker.blobs.roots for path in Path(root).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


@pytest.mark.timeout(60)
def test_three_hundred_megabytes_go_and_come_back(app, wait_until):
    # Given a large array
    array = np.arange(300 * MEBIBYTE // 8, dtype=np.float64)

    # When a task takes it, changes it in place, and returns it
    def negate(values):
        values *= -1
        return values

    handle = app.submit(negate, array)
    result = handle.get(30)

    # Then the result is right, and can be written to without harm to the next reader
    assert np.array_equal(-array, result)
    result[:] = 0
    assert -1.0 == handle.get(10)[1]
    assert 1.0 == array[1]

    # And nothing of it is left when handle and result are gone
    assert blob_bytes(app) > 300 * MEBIBYTE
    del handle, result
    gc.collect()
    wait_until(lambda: 0 == blob_bytes(app), "end of the large files")


@pytest.mark.timeout(120)
def test_a_gigabyte_goes_and_comes_back(app, wait_until):
    # Given an array of a gigabyte, and memory for it, its copies in both directions and a spare
    free_gib = psutil.virtual_memory().available / 2**30
    if free_gib < 8:
        pytest.skip(f"a gigabyte there and back needs 8 GiB of free memory, this machine has {free_gib:.1f}")
    array = np.ones(2**30 // 8)

    # When it goes and comes back
    handle = app.submit(lambda values: values + 1, array)
    result = handle.get(60)

    # Then it is right
    assert (2.0, 2.0, array.size * 2.0) == (result[0], result[-1], result.sum())
    del handle, result
    gc.collect()
    wait_until(lambda: 0 == blob_bytes(app), "end of the large files")


def test_large_items_of_a_map_keep_their_order(app):
    results = app.map(lambda number: np.full(200_000, number), range(30))

    assert list(range(30)) == [int(values[0]) for values in results]
    assert [int(values[-1]) for values in results.get(10)] == list(range(30))


def test_small_arrays_can_be_written_to_on_both_sides(app):
    def change(values):
        values += 1
        return values

    for size in (1, 1000, 20_000, 100_000):
        result = app.submit(change, np.zeros(size)).get(10)
        result += 1
        assert 2.0 * size == result.sum()


def test_an_array_in_a_closure_travels_once_and_right(app):
    table = np.arange(1_000_000)

    assert [0, 500_000, 999_999] == app.map(lambda index: int(table[index]), [0, 500_000, 999_999]).get(10)


def test_text_and_bytes_of_many_megabytes_come_back(app):
    for value in ("x" * 30_000_000, b"y" * 30_000_000, ["z" * 100] * 100_000):
        assert value == app.submit(lambda it: it, value).get(15)
