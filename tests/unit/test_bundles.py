"""Which tasks travel together, and what each of them sees of that."""

import pytest

from nbqueue.client.bundles import MOST_MEMBERS, Bundles, Habit, Recipe
from nbqueue.client.items import OneItem
from nbqueue.core.exchange import Note
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Entry, TaskOptions
from nbqueue.errors import BrokerUnavailable
from nbqueue.wire.payload import pack_blocks

RECIPE = Recipe(b"digest", b"body", "double", TaskOptions(), b"environment")


class Handle:
    """What is told of an end."""

    calls_back = False

    def __init__(self, run):
        self.run = run

    def retry_with(self, again):
        self.again = again

    def on_over(self):
        pass


@pytest.fixture
def habit():
    return Habit()


def ended(start=0, stop=1, state=State.SUCCESS, *, wall_s=0.0001, payload=b"small"):
    return Entry(start, stop, state, payload=payload, wall_s=wall_s)


def test_nothing_is_known_of_a_function_that_has_not_run(habit):
    assert not habit.is_short


def test_a_function_is_short_while_its_tasks_are(habit):
    habit.learn(ended())
    assert habit.is_short

    habit.learn(ended(wall_s=1.0))
    assert not habit.is_short


def test_a_first_call_that_took_long_is_soon_forgotten(habit):
    habit.learn(ended(wall_s=0.1))
    assert not habit.is_short

    for _ in range(6):
        habit.learn(ended())
    assert habit.is_short


def test_items_that_ended_together_share_their_time(habit):
    habit.learn(ended(0, 1000, wall_s=0.1))

    assert habit.is_short


def test_large_results_do_not_travel_together(habit):
    habit.learn(ended(payload=bytes(100_000)))

    assert not habit.is_short


@pytest.mark.parametrize(
    "strange", [lambda habit: habit.has_printed(), lambda habit: habit.learn(ended(0, 1, State.LOST))]
)
def test_what_prints_or_kills_its_process_is_looked_at_one_by_one(habit, strange):
    habit.learn(ended())
    strange(habit)
    habit.learn(ended())

    assert not habit.is_short


def test_a_revoke_says_nothing_of_a_function(habit):
    habit.learn(ended())
    habit.learn(ended(state=State.REVOKED, wall_s=100.0))

    assert habit.is_short


@pytest.fixture
def bundles():
    """Of a connection on which `RECIPE` is known to be short."""
    bundles = Bundles()
    bundles.habit(RECIPE.function).learn(ended())
    bundles.begun = []
    return bundles


def join(bundles, argument, recipe=RECIPE, occasion=None):
    return bundles.join(
        recipe, argument, occasion=occasion, make_handle=Handle, again=lambda *_: None, begin=bundles.begun.append
    )


@pytest.mark.parametrize("argument", [1, 2.5, "text", b"bytes", None, True, (1, "two"), ()])
def test_small_values_that_nobody_can_change_may_travel_later(bundles, argument):
    assert bundles.may_join(RECIPE, argument)


@pytest.mark.parametrize(
    "argument", [[1], {}, object(), "x" * 5000, b"x" * 5000, 1 << 13_000, (1, [2]), tuple(range(99))]
)
def test_what_could_change_or_is_large_travels_at_once(bundles, argument):
    assert not bundles.may_join(RECIPE, argument)


def test_tasks_of_one_kind_join_one_bundle(bundles):
    handles = [join(bundles, number) for number in range(3)]

    [bundle] = bundles.begun
    assert [0, 1, 2] == [handle.run.item for handle in handles]
    assert [f"{bundle.id}.{number}" for number in range(3)] == [handle.run.id for handle in handles]
    assert [0, 1, 2] == bundles.close(bundle)
    assert Counts(total=3, closed=True) == bundle.counts


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": Recipe(b"digest", b"body", "other", TaskOptions(), b"environment")},
        {"recipe": Recipe(b"digest", b"body", "double", TaskOptions(priority=1), b"environment")},
        {"recipe": Recipe(b"digest", b"body", "double", TaskOptions(), b"another folder")},
        {"occasion": "another cell"},
    ],
)
def test_a_task_of_another_kind_begins_another_bundle(bundles, other):
    join(bundles, 1)
    join(bundles, 2, **other)

    assert 2 == len(bundles.begun)


def test_what_is_closed_or_full_is_not_joined(bundles):
    join(bundles, 1)
    bundles.close(bundles.begun[0])
    for number in range(MOST_MEMBERS + 1):
        join(bundles, number)

    assert [1, MOST_MEMBERS, 1] == [len(bundle.members) for bundle in bundles.begun]
    assert bundles.begun[1].is_full


def values(*results):
    [block] = pack_blocks(results, start=0, blobs=None, folder="")
    return block.payload


def note(bundle, entries, **counts):
    return Note(run_id=bundle.run_id, cursor=bundle.cursor, entries=entries, counts=Counts(**counts))


def test_each_member_sees_its_own_end(bundles):
    # Given a bundle of four
    handles = [join(bundles, number) for number in range(4)]
    [bundle] = bundles.begun
    bundles.close(bundle)

    # When two have succeeded together and one has failed
    done = Entry(0, 2, State.SUCCESS, payload=values("a", "b"), attempt=1, worker="w", wall_s=4.0)
    failed = Entry(3, 4, State.FAILURE, payload=b"record", attempt=2, worker="w", wall_s=1.0)
    bundle.fold(note(bundle, [done, failed], total=4, closed=True, done=2, failed=1, running=1))

    # Then these are told, once
    assert [handles[0], handles[1], handles[3]] == bundle.take_ended()
    assert [] == bundle.take_ended()
    first, second, third, fourth = [handle.run for handle in handles]
    assert [True, True, False, True] == [run.is_over for run in (first, second, third, fourth)]
    assert ["a", "b"] == [first.value(0, None), second.value(0, None)]
    assert 2.0 == second.work_s
    assert [1] == [entry.stop - entry.start for entry in second.entries()]
    assert Counts(total=1, closed=True, done=1) == second.counts
    assert Counts(total=1, closed=True, running=1) == third.counts
    assert Counts(total=1, closed=True, failed=1) == fourth.counts
    assert fourth.first_failure.payload == b"record"
    assert ([], None) == (second.failures, second.first_failure)


def test_arguments_are_kept_until_they_have_succeeded(bundles):
    handles = [join(bundles, number) for number in range(2)]
    [bundle] = bundles.begun

    bundle.fold(note(bundle, [ended(0, 1), ended(1, 2, State.FAILURE)], total=2))

    assert [None, 1] == [handle.run.argument for handle in handles]


def test_when_the_broker_is_gone_all_that_have_not_ended_are_told(bundles):
    handles = [join(bundles, number) for number in range(3)]
    [bundle] = bundles.begun
    bundle.fold(note(bundle, [ended(1, 2)], total=3))
    bundle.take_ended()

    bundle.fail(BrokerUnavailable("gone"))

    assert [handles[0], handles[2]] == bundle.take_ended()
    assert isinstance(handles[0].run.error, BrokerUnavailable)
    assert handles[1].run.error is None


def test_a_place_that_was_not_taken_is_nobody_to_be_revoked(bundles):
    [first, second] = [join(bundles, number) for number in range(2)]
    [bundle] = bundles.begun
    lost = OneItem(bundle, 1)  # an interrupt came before it joined, and another one has its place

    assert [(1, 2)] == second.run.on_broker(0, 1)
    assert [] == lost.on_broker(0, 1)
    assert [(0, 1)] == first.run.on_broker(0, 1)
