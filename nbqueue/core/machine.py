"""The task lifecycle: ``step(item, event, rules) -> (item, commands)``.

Every broker runs this function, or a translation of it that the same contract suite holds to it. A picture is in
docs/explanation/lifecycle.md.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import assert_never

import msgspec

from nbqueue.core.retry import lost_backoff_s
from nbqueue.core.states import HELD, LEGAL, TERMINAL, State, Trigger
from nbqueue.core.task import Item, TaskOptions

#: An item claimed this often without an end is given up (a poison message, whatever the reason).
MAX_DELIVERIES = 20


class Event(msgspec.Struct, frozen=True):
    """Something that happens to an item."""

    trigger: Trigger
    now: float = 0.0  #: broker clock, seconds
    token: int = 0  #: the claim that speaks
    retryable: bool = False  #: FAIL: the exception is one to retry on
    draw: float = 0.0  #: random number in [0, 1) for jitter
    retry_after_s: float | None = None  #: FAIL: the task itself asked for a retry after this wait
    max_retries: int | None = None  #: FAIL: likewise, and this is how often it may


class Command(Enum):
    """What the broker must do because of a step."""

    ENQUEUE_FRONT = auto()  #: it waits again, before all others
    ENQUEUE_BACK = auto()  #: it waits again, behind the others
    WAIT = auto()  #: wake it at ``item.due``
    FINISH = auto()  #: it is terminal: log the outcome
    STOP_HOLDER = auto()  #: tell the holder of the item's *former* token to stop it
    REFUSED = auto()  #: nothing changed


Step = tuple[Item, tuple[Command, ...]]

_FINISHED: dict[State, Item] = {state: Item(state) for state in TERMINAL}


def step(item: Item, event: Event, rules: TaskOptions) -> Step:
    """Decide what becomes of *item*.

    Args:
        item: The record as it is.
        event: What happened.
        rules: The options of the item's run.

    Returns:
        The new record and the commands it entails; ``(item, (REFUSED,))`` when the event is not legal now.

    Guarantees:
        Pure. Terminal records never change. Failures count only from the current claim, a success from any.
    """
    if item.state in TERMINAL:
        return _refuse(item)

    match event.trigger:
        case Trigger.SUCCEED:
            return _succeed(item, event, rules)
        case Trigger.REVOKE:
            return _revoke(item, event)
        case Trigger.CLAIM:
            return _claim(item, event)
        case Trigger.DUE:
            return _due(item, event)
        case Trigger.EXPIRE:
            return _expire(item, event)
        case (
            Trigger.START
            | Trigger.FAIL
            | Trigger.KILL
            | Trigger.BLAME
            | Trigger.RELEASE
            | Trigger.REAP
            | Trigger.STOPPED
        ):
            return _from_holder(item, event, rules)
        case _:
            assert_never(event.trigger)


def _from_holder(item: Item, event: Event, rules: TaskOptions) -> Step:
    """Events that only the current holder may report."""
    if item.state not in HELD or event.token != item.token:
        return _refuse(item)
    if event.trigger is Trigger.START:
        return _start(item, event)
    if item.revoking:
        return _end(item, event, State.REVOKED)

    match event.trigger:
        case Trigger.FAIL:
            return _fail(item, event, rules)
        case Trigger.KILL | Trigger.BLAME:
            return _lose(item, event, rules)
        case Trigger.RELEASE:
            has_begun = item.state is State.STARTED
            attempt = item.attempt if has_begun else item.attempt - 1  # nobody has run it
            return _requeue(item, event, attempt=attempt, deliveries=item.deliveries - 1)
        case Trigger.REAP:
            return _requeue(item, event, attempt=item.attempt, deliveries=item.deliveries)
        case _:  # STOPPED although nobody asked for it
            return _refuse(item)


def _succeed(item: Item, event: Event, rules: TaskOptions) -> Step:
    is_current = item.state in HELD and event.token == item.token
    if rules.strict_fence and not is_current:
        return _refuse(item)
    finished, commands = _end(item, event, State.SUCCESS)
    if item.state in HELD and not is_current:
        commands = (*commands, Command.STOP_HOLDER)
    return finished, commands


def _revoke(item: Item, event: Event) -> Step:
    if item.state not in HELD:
        return _end(item, event, State.REVOKED)
    return _move(item, event, msgspec.structs.replace(item, revoking=True), Command.STOP_HOLDER)


def _claim(item: Item, event: Event) -> Step:
    if item.state is not State.PENDING:
        return _refuse(item)
    if item.deliveries >= MAX_DELIVERIES:
        return _end(item, event, State.LOST)
    claimed = Item(
        State.RECEIVED,
        attempt=item.attempt + 1,
        deliveries=item.deliveries + 1,
        lost=item.lost,
        retries=item.retries,
        token=event.token,
    )
    return _move(item, event, claimed)


def _due(item: Item, event: Event) -> Step:
    if item.state not in (State.SCHEDULED, State.RETRY) or event.now < item.due:
        return _refuse(item)
    return _move(item, event, msgspec.structs.replace(item, state=State.PENDING, due=0.0), Command.ENQUEUE_BACK)


def _expire(item: Item, event: Event) -> Step:
    if item.has_run:
        return _refuse(item)  # it did start in time; what waits is its next attempt
    return _end(item, event, State.EXPIRED)


def _start(item: Item, event: Event) -> Step:
    if item.state is not State.RECEIVED or item.revoking:
        return _refuse(item)
    return _move(item, event, msgspec.structs.replace(item, state=State.STARTED))


def _fail(item: Item, event: Event, rules: TaskOptions) -> Step:
    delay_s = _retry_delay_s(item, event, rules) if event.retryable else None
    if delay_s is None:
        return _end(item, event, State.FAILURE)
    waiting = Item(
        State.RETRY,
        attempt=item.attempt,
        lost=item.lost,
        retries=item.retries + 1,
        due=event.now + delay_s,
    )
    return _move(item, event, waiting, Command.WAIT)


def _retry_delay_s(item: Item, event: Event, rules: TaskOptions) -> float | None:
    """Seconds until the next attempt; None when no retry is left. What the task asked for beats its options."""
    policy = rules.retry
    if event.max_retries is not None:
        policy = msgspec.structs.replace(policy, max_retries=event.max_retries)
    delay_s = policy.delay_s(item.retries, event.draw)
    return delay_s if delay_s is None or event.retry_after_s is None else max(0.0, event.retry_after_s)


def _lose(item: Item, event: Event, rules: TaskOptions) -> Step:
    lost = item.lost + 1
    if lost > rules.max_lost:
        return _end(item, event, State.LOST)
    waiting = Item(
        State.RETRY,
        attempt=item.attempt,
        deliveries=item.deliveries,
        lost=lost,
        retries=item.retries,
        due=event.now + lost_backoff_s(lost),
    )
    return _move(item, event, waiting, Command.WAIT)


def _requeue(item: Item, event: Event, *, attempt: int, deliveries: int) -> Step:
    pending = msgspec.structs.replace(item, state=State.PENDING, token=0, attempt=attempt, deliveries=deliveries)
    return _move(item, event, pending, Command.ENQUEUE_FRONT)


def _end(item: Item, event: Event, state: State) -> Step:
    return _move(item, event, _FINISHED[state], Command.FINISH)


def _move(item: Item, event: Event, target: Item, *commands: Command) -> Step:
    if (item.state, event.trigger, target.state) not in LEGAL:
        return _refuse(item)
    return target, commands


def _refuse(item: Item) -> Step:
    return item, (Command.REFUSED,)
