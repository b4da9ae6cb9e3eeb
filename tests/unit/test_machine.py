"""The lifecycle of one item: each row of the table, and that nothing else can happen."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.core.machine import MAX_DELIVERIES, Command, Event, step
from nbqueue.core.retry import RetryPolicy
from nbqueue.core.states import HELD, LEGAL, TERMINAL, TRANSITIONS, WAITING, State, Trigger
from nbqueue.core.task import Item, TaskOptions

PATIENT = TaskOptions(retry=RetryPolicy(max_retries=5, backoff_s=10.0, jitter=False), max_lost=5)
STRICT = TaskOptions(retry=RetryPolicy(), max_lost=0, strict_fence=True)
TOKEN = 7

#: What becomes of an item in each state by each trigger, from its holder, with retries left and nobody revoking it.
#: What is not here is refused.
TABLE = {
    (State.SCHEDULED, Trigger.DUE): State.PENDING,
    (State.SCHEDULED, Trigger.EXPIRE): State.EXPIRED,
    (State.SCHEDULED, Trigger.REVOKE): State.REVOKED,
    (State.SCHEDULED, Trigger.SUCCEED): State.SUCCESS,
    (State.PENDING, Trigger.CLAIM): State.RECEIVED,
    (State.PENDING, Trigger.EXPIRE): State.EXPIRED,
    (State.PENDING, Trigger.REVOKE): State.REVOKED,
    (State.PENDING, Trigger.SUCCEED): State.SUCCESS,
    (State.RETRY, Trigger.DUE): State.PENDING,
    (State.RETRY, Trigger.REVOKE): State.REVOKED,
    (State.RETRY, Trigger.SUCCEED): State.SUCCESS,
    (State.RECEIVED, Trigger.START): State.STARTED,
    (State.RECEIVED, Trigger.REVOKE): State.RECEIVED,
    (State.STARTED, Trigger.REVOKE): State.STARTED,
    **{
        (state, trigger): target
        for state in (State.RECEIVED, State.STARTED)
        for trigger, target in {
            Trigger.SUCCEED: State.SUCCESS,
            Trigger.FAIL: State.RETRY,
            Trigger.KILL: State.RETRY,
            Trigger.BLAME: State.RETRY,
            Trigger.RELEASE: State.PENDING,
            Trigger.REAP: State.PENDING,
        }.items()
    },
}

items = st.builds(
    Item,
    st.sampled_from(State),
    attempt=st.integers(0, 30),
    deliveries=st.integers(0, 25),
    lost=st.integers(0, 4),
    retries=st.integers(0, 4),
    token=st.integers(0, 3),
    revoking=st.booleans(),
    due=st.floats(0, 100),
)
events = st.builds(
    Event,
    st.sampled_from(Trigger),
    now=st.floats(0, 100),
    token=st.integers(0, 3),
    retryable=st.booleans(),
    draw=st.floats(0, 1, exclude_max=True),
)
rules = st.builds(
    TaskOptions,
    retry=st.builds(RetryPolicy, max_retries=st.integers(0, 4), backoff_s=st.floats(0, 1000), jitter=st.booleans()),
    max_lost=st.integers(0, 4),
    strict_fence=st.booleans(),
)


def item_in(state, **more):
    return Item(state, token=TOKEN if state in HELD else 0, **{"attempt": 1, "deliveries": 1, **more})


def event(trigger, **more):
    return Event(trigger, **{"now": 50.0, "token": TOKEN, "retryable": True, **more})


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_the_table_says_what_becomes_of_an_item(state, trigger):
    before = item_in(state)

    after, commands = step(before, event(trigger), PATIENT)

    assert TABLE.get((state, trigger), state) == after.state
    if (state, trigger) not in TABLE:
        assert (before, (Command.REFUSED,)) == (after, commands)


@given(items, events, rules)
def test_no_step_leaves_the_table(item, event, rules):
    after, commands = step(item, event, rules)

    if Command.REFUSED in commands:
        assert (item, (Command.REFUSED,)) == (after, commands)
    else:
        assert (item.state, event.trigger, after.state) in LEGAL


@given(items.filter(lambda item: item.state in TERMINAL), events, rules)
def test_what_has_ended_stays_as_it_is(item, event, rules):
    assert (item, (Command.REFUSED,)) == step(item, event, rules)


@given(st.lists(events, max_size=40), rules)
def test_a_life_ends_at_most_once(events, rules):
    # Given an item to which anything happens, in any order
    item, ends = Item(State.PENDING), []
    for event in events:
        item, commands = step(item, event, rules)
        ends += [item] * commands.count(Command.FINISH)

    # Then it ends once, stays so, and its counters keep to the rules
    assert len(ends) == (item.state in TERMINAL)
    assert [item] * len(ends) == ends
    assert item.lost <= rules.max_lost
    assert item.retries <= rules.retry.max_retries
    assert 0 <= item.deliveries <= MAX_DELIVERIES


@given(items, events, rules)
def test_an_end_is_told_exactly_when_it_happens(item, event, rules):
    after, commands = step(item, event, rules)

    assert (item.state not in TERMINAL and after.state in TERMINAL) == (Command.FINISH in commands)


@given(items, events, rules)
def test_whatever_comes_to_wait_is_queued_or_woken(item, event, rules):
    after, commands = step(item, event, rules)

    comes_to_wait = after.state in WAITING and after != item
    assert comes_to_wait == bool({Command.ENQUEUE_FRONT, Command.ENQUEUE_BACK, Command.WAIT} & set(commands))
    assert (after.state is State.RETRY and after != item) == (Command.WAIT in commands)


@given(items.filter(lambda item: item.state in HELD), events, rules)
def test_only_the_holder_can_do_harm(item, event, rules):
    stranger = msgspec.structs.replace(event, token=item.token + 1)
    after, _ = step(item, stranger, rules)

    assert after.state in {item.state, State.SUCCESS}
    assert after.state is item.state or event.trigger is Trigger.SUCCEED


@given(items, events, rules)
def test_what_was_counted_is_not_uncounted(item, event, rules):
    after, _ = step(item, event, rules)

    if after.state not in TERMINAL:
        assert after.lost - item.lost == (event.trigger in (Trigger.KILL, Trigger.BLAME) and after != item)
        assert after.retries - item.retries == (event.trigger is Trigger.FAIL and after != item)
        is_claimed = item.state is State.PENDING and after.state is State.RECEIVED
        is_handed_back = event.trigger is Trigger.RELEASE and item.state is State.RECEIVED and after != item
        assert after.attempt - item.attempt == is_claimed - is_handed_back


@given(items, events, rules)
def test_only_held_items_have_a_token(item, event, rules):
    if item.state not in HELD:
        item = msgspec.structs.replace(item, token=0, revoking=False)
    after, _ = step(item, event, rules)

    assert after.state in HELD or (after.token == 0 and not after.revoking)


def test_a_claim_opens_the_next_attempt():
    after, _ = step(Item(State.PENDING, attempt=2, deliveries=1, lost=1, retries=1), event(Trigger.CLAIM), PATIENT)

    assert Item(State.RECEIVED, attempt=3, deliveries=2, lost=1, retries=1, token=TOKEN) == after


@pytest.mark.parametrize(
    ("deliveries", "expected"), [(MAX_DELIVERIES - 1, State.RECEIVED), (MAX_DELIVERIES, State.LOST)]
)
def test_an_item_claimed_too_often_is_given_up(deliveries, expected):
    after, _ = step(Item(State.PENDING, deliveries=deliveries), event(Trigger.CLAIM), PATIENT)

    assert expected == after.state


@pytest.mark.parametrize(("now", "expected"), [(9.99, State.SCHEDULED), (10.0, State.PENDING)])
def test_an_item_is_due_at_its_time_and_not_before(now, expected):
    after, _ = step(Item(State.SCHEDULED, due=10.0), event(Trigger.DUE, now=now), PATIENT)

    assert expected == after.state


@pytest.mark.parametrize(
    ("retries", "retryable", "expected"),
    [(0, True, State.RETRY), (4, True, State.RETRY), (5, True, State.FAILURE), (0, False, State.FAILURE)],
)
def test_a_failure_is_final_without_retries_left_or_reason_to_retry(retries, retryable, expected):
    after, _ = step(item_in(State.STARTED, retries=retries), event(Trigger.FAIL, retryable=retryable), PATIENT)

    assert expected == after.state


def test_a_retry_waits_for_its_backoff():
    after, commands = step(item_in(State.STARTED, retries=1), event(Trigger.FAIL), PATIENT)

    assert (2, 50.0 + 20.0, (Command.WAIT,)) == (after.retries, after.due, commands)


@pytest.mark.parametrize("trigger", [Trigger.KILL, Trigger.BLAME])
@pytest.mark.parametrize(("lost", "expected"), [(4, State.RETRY), (5, State.LOST)])
def test_an_item_may_kill_so_many_processes_and_no_more(trigger, lost, expected):
    after, _ = step(item_in(State.STARTED, lost=lost), event(trigger), PATIENT)

    assert expected == after.state


@pytest.mark.parametrize(("lost", "due"), [(0, 55.0), (1, 70.0)])
def test_an_item_that_killed_its_process_waits(lost, due):
    after, _ = step(item_in(State.STARTED, lost=lost), event(Trigger.KILL), PATIENT)

    assert (due, lost + 1) == (after.due, after.lost)


@pytest.mark.parametrize(("trigger", "deliveries"), [(Trigger.RELEASE, 2), (Trigger.REAP, 3)])
def test_only_a_release_is_no_delivery(trigger, deliveries):
    after, commands = step(item_in(State.RECEIVED, deliveries=3), event(trigger), PATIENT)

    assert (deliveries, 0, (Command.ENQUEUE_FRONT,)) == (after.deliveries, after.token, commands)


@pytest.mark.parametrize(
    ("state", "trigger", "attempt"),
    [
        (State.RECEIVED, Trigger.RELEASE, 2),
        (State.STARTED, Trigger.RELEASE, 3),
        (State.RECEIVED, Trigger.REAP, 3),
    ],
)
def test_what_is_handed_back_before_it_has_begun_was_no_attempt(state, trigger, attempt):
    after, _ = step(item_in(state, attempt=3), event(trigger), PATIENT)

    assert attempt == after.attempt


@pytest.mark.parametrize("state", sorted(HELD))
@pytest.mark.parametrize(
    "trigger", [Trigger.FAIL, Trigger.KILL, Trigger.BLAME, Trigger.RELEASE, Trigger.REAP, Trigger.STOPPED]
)
def test_a_revoked_item_ends_as_revoked_by_whatever_its_holder_reports(state, trigger):
    after, commands = step(item_in(state, revoking=True), event(trigger), PATIENT)

    assert (State.REVOKED, (Command.FINISH,)) == (after.state, commands)


def test_a_revoked_item_that_succeeds_is_a_success():
    after, _ = step(item_in(State.STARTED, revoking=True), event(Trigger.SUCCEED), PATIENT)

    assert State.SUCCESS == after.state


def test_a_revoked_item_is_not_started():
    revoked = item_in(State.RECEIVED, revoking=True)

    assert (revoked, (Command.REFUSED,)) == step(revoked, event(Trigger.START), PATIENT)


def test_a_revoke_marks_a_held_item_and_tells_its_holder():
    after, commands = step(item_in(State.STARTED), event(Trigger.REVOKE), PATIENT)

    assert (True, TOKEN, (Command.STOP_HOLDER,)) == (after.revoking, after.token, commands)


@pytest.mark.parametrize(("token", "commands"), [(TOKEN, {Command.FINISH}), (3, {Command.FINISH, Command.STOP_HOLDER})])
def test_a_success_of_an_older_attempt_stops_the_newer_one(token, commands):
    after, told = step(item_in(State.STARTED), event(Trigger.SUCCEED, token=token), PATIENT)

    assert (State.SUCCESS, commands) == (after.state, set(told))


@pytest.mark.parametrize("state", sorted({*WAITING, *HELD}))
def test_under_a_strict_fence_an_older_attempt_cannot_succeed(state):
    before = item_in(state)

    assert (before, (Command.REFUSED,)) == step(before, event(Trigger.SUCCEED, token=3), STRICT)


def test_under_a_strict_fence_the_holder_succeeds():
    assert State.SUCCESS == step(item_in(State.STARTED), event(Trigger.SUCCEED), STRICT)[0].state


def test_every_row_of_the_table_can_happen():
    # Given every state of affairs that the table speaks of
    conditions = [
        (item, Event(row.trigger, now=50.0, token=TOKEN, retryable=retryable), rules)
        for row in TRANSITIONS
        for source in row.sources
        for revoking in (False, True)
        for deliveries in (0, MAX_DELIVERIES)
        for item in [item_in(source, revoking=revoking and source in HELD, deliveries=deliveries)]
        for retryable in (False, True)
        for rules in (PATIENT, STRICT)
    ]

    # Then all its transitions happen, so none is there for nothing
    seen = {(item.state, event.trigger, step(item, event, rules)[0].state) for item, event, rules in conditions}
    assert set() == LEGAL - seen
