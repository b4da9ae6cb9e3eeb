"""Inputs that are read as their results are consumed, and other shapes of input."""

import gc
import itertools
import threading
import time

import pytest


class Counted:
    """Numbers from 0 on, and how many of them were read."""

    def __init__(self, stop):
        self._numbers = iter(range(stop)) if stop else itertools.count()
        self.read = 0
        self.threads = set()

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.current_thread())
        number = next(self._numbers)
        self.read += 1
        return number


@pytest.mark.parametrize("ordered", [True, False])
def test_ten_million_items_are_read_no_further_ahead_than_the_buffer(app, ordered):
    # Given a lazy map over ten million items
    numbers = Counted(10_000_000)
    results = app.map(lambda x: x + 1, numbers, buffersize=1000, ordered=ordered)
    assert numbers.read <= 1000

    # When results are consumed
    ahead = 0
    for consumed, value in enumerate(itertools.islice(results, 20_000), 1):
        assert not ordered or consumed == value
        ahead = max(ahead, numbers.read - consumed)

    # Then the input was read up to the buffer, in the caller's thread
    assert ahead <= 1000
    assert {threading.main_thread()} == numbers.threads
    results.revoke()


def test_a_lazy_map_gives_all_its_results_once(app):
    results = app.map(lambda x: -x, iter(range(5000)), buffersize=100)

    assert [-x for x in range(5000)] == list(results)
    assert 5000 == len(results) == results.counts.done
    with pytest.raises(LookupError, match="consumed"):
        next(iter(results))


@pytest.mark.parametrize("buffersize", [1, 2, 3, 7])
def test_a_small_buffer_is_slow_but_right(app, buffersize):
    assert list(range(50)) == list(app.map(abs, iter(range(50)), buffersize=buffersize))
    assert list(range(50)) == sorted(app.map(abs, iter(range(50)), buffersize=buffersize, ordered=False))


def test_get_of_a_lazy_map_reads_it_to_its_end(app):
    assert [-x for x in range(3000)] == app.map(lambda x: -x, iter(range(3000)), buffersize=64).get(10)


def test_the_length_of_a_lazy_map_is_unknown_until_its_input_is_used_up(app):
    results = app.map(abs, iter(range(10)), buffersize=2)

    with pytest.raises(TypeError, match="not known yet"):
        len(results)
    list(results)
    assert 10 == len(results)


def test_imap_works_on_an_endless_input(app):
    numbers = Counted(None)

    squares = list(itertools.islice(app.imap(lambda x: x * x, numbers, buffersize=500), 2000))

    assert [x * x for x in range(2000)] == squares
    assert numbers.read <= 2500


def test_imap_unordered_gives_a_quick_item_before_a_slow_one(app, tmp_path):
    # Given an item that ends only after another one
    marker = tmp_path / "seen"

    def wait_for_marker(x):
        while x == 0 and not marker.exists():
            time.sleep(0.01)
        return x

    # When they are mapped without order
    results = app.imap_unordered(wait_for_marker, range(2), chunksize=1)

    # Then the quick one comes first
    assert 1 == next(results)
    marker.touch()
    assert [0] == list(results)


def test_an_input_that_raises_midway_raises_in_the_caller_and_revokes_the_run(app, wait_until):
    # Given a generator that fails after some items
    def numbers():
        yield from range(300)
        raise RuntimeError("the disk is on fire")

    # When it is mapped, then its own error reaches the caller
    with pytest.raises(RuntimeError, match="the disk is on fire"):
        app.map(lambda x: time.sleep(10), numbers(), label="burning")

    # And nothing of it goes on
    def burning():
        return [run for run in app.inspect().inspection.runs if run.label == "burning" and not run.finished]

    wait_until(lambda: not burning(), "end of the revoked run", timeout_s=5)


def test_a_lazy_input_that_raises_midway_raises_where_it_is_read(app):
    def numbers():
        yield from range(50)
        raise RuntimeError("the disk is on fire")

    results = iter(app.map(abs, numbers(), buffersize=10))

    with pytest.raises(RuntimeError, match="the disk is on fire"):
        list(results)
    assert [1] == app.map(abs, [-1]).get(10)


def test_work_begins_before_a_slow_input_is_used_up(app, tmp_path, wait_until):
    # Given an input whose last item appears only when an earlier one has been run
    marker = tmp_path / "ran"

    def numbers():
        yield from range(300)
        wait_until(marker.exists, "the first item's run")
        yield 300

    # When it is mapped, then that is no deadlock
    assert [None] * 301 == app.map(lambda x: marker.touch(), numbers()).get(10)


def test_revoking_a_lazy_map_ends_it_for_good(app):
    # Given a lazy map over an endless input, revoked after some results
    numbers = Counted(None)
    results = app.map(abs, numbers, buffersize=100, on_error="skip")
    iterator = iter(results)
    assert 0 == next(iterator)
    results.revoke()

    # When the rest is consumed, then it comes to an end soon, instead of reading on for ever
    deadline = time.monotonic() + 5
    for _ in iterator:
        assert time.monotonic() < deadline, f"{numbers.read} items were read after a revoke"
    assert numbers.read < 1000


def test_an_iterator_that_is_not_read_to_its_end_leaves_no_open_run(app, wait_until):
    # Given an endless imap of which only some results are wanted
    assert [0, 1, 2] == list(itertools.islice(app.imap(abs, itertools.count(), label="endless"), 3))

    # When its iterator is gone, then its run ends
    def endless():
        return [run for run in app.inspect().inspection.runs if run.label == "endless" and not run.finished]

    gc.collect()
    wait_until(lambda: not endless(), "end of the run that nobody reads", timeout_s=5)


def test_a_client_that_left_in_the_middle_of_a_lazy_map_does_not_keep_the_hub_alive(short_lived_hub):
    # Given a script that reads some results of an endless imap and ends, on a hub with an idle time of two seconds
    output = short_lived_hub.run_script("""
        import itertools, nbqueue
        print(list(itertools.islice(nbqueue.imap(abs, itertools.count()), 3)))
    """)
    assert "[0, 1, 2]\n" == output

    # When the idle time is over, then nothing is left
    short_lived_hub.wait_until_gone(timeout_s=10)


def test_several_iterables_go_in_step_up_to_the_shortest(app):
    assert [11, 22, 33] == app.map(lambda x, y: x + y, [1, 2, 3], itertools.count(10, 10)).get(10)


def test_starmap_spreads_tuples(app):
    assert [8, 9, 1] == app.starmap(pow, [(2, 3), (3, 2), (10, 0)]).get(10)
    assert [8, 9] == app.starmap(pow, iter([(2, 3), (3, 2)]), buffersize=1).get(10)


@pytest.mark.parametrize("options", [{}, {"buffersize": 10}, {"ordered": False}], ids=["eager", "lazy", "unordered"])
def test_an_empty_input_gives_nothing(app, options):
    results = app.map(abs, [], **options)

    assert [] == list(results) == results.get(10)
    assert (0, "SUCCESS", True) == (len(results), results.state, results.ready())
    assert results.counts.finished


@pytest.mark.parametrize(
    "items",
    [
        [None] * 600,
        ["é" * 1000] * 600,
        [b"\0" * 100_000] * 30,
        [{"a": [1, (2, 3)]}] * 600,
        [float("inf")] * 3,
        [(1, "a")] * 600,
    ],
    ids=["none", "text", "bytes", "nested", "inf", "tuples"],
)
def test_items_of_all_kinds_and_sizes_come_back_as_they_went(app, items):
    assert items == app.map(lambda item: item, items).get(15)


def test_items_of_mixed_kinds_keep_their_order(app):
    items = [0, "one", 2.0, None, [4], {"five": 5}, b"6" * 500_000, (7,), {8}, range(9)] * 50

    assert items == app.map(lambda item: item, items).get(15)
