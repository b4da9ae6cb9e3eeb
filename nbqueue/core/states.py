"""The states of an item and every legal transition, as data.

The words are Celery's wherever Celery has one. `machine.step` decides which transition happens; nothing can happen that
is not in `TRANSITIONS`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum, auto
from typing import NamedTuple


class State(IntEnum):
    """Where an item is in its life."""

    SCHEDULED = 0  #: waits in the broker for its countdown
    PENDING = 1  #: queued
    RECEIVED = 2  #: claimed by a supervisor
    STARTED = 3  #: running in a slot
    RETRY = 4  #: waits out a backoff
    SUCCESS = 5
    FAILURE = 6  #: raised, and its retries are used up
    REVOKED = 7
    LOST = 8  #: killed its process too often
    EXPIRED = 9  #: not started in time


WAITING = frozenset({State.SCHEDULED, State.PENDING, State.RETRY})
HELD = frozenset({State.RECEIVED, State.STARTED})
TERMINAL = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED, State.LOST, State.EXPIRED})


class Trigger(StrEnum):
    """What can happen to an item."""

    DUE = auto()  #: the countdown or the backoff is over
    CLAIM = auto()  #: a supervisor takes it
    START = auto()  #: a slot begins to run it
    SUCCEED = auto()  #: an attempt returned
    FAIL = auto()  #: an attempt raised
    KILL = auto()  #: the slot died while running it
    RELEASE = auto()  #: handed back unrun
    REAP = auto()  #: its supervisor is gone, and it was not running
    BLAME = auto()  #: its supervisor is gone, and it was running
    REVOKE = auto()  #: somebody wants it stopped
    STOPPED = auto()  #: the supervisor stopped it, as asked
    EXPIRE = auto()  #: its time to start has passed


class Transition(NamedTuple):
    """One row of the table."""

    sources: frozenset[State]
    trigger: Trigger
    target: State
    condition: str


_PENDING = frozenset({State.PENDING})
_TIMED = frozenset({State.SCHEDULED, State.RETRY})

TRANSITIONS: tuple[Transition, ...] = (
    Transition(_TIMED, Trigger.DUE, State.PENDING, "broker clock >= due"),
    Transition(_PENDING, Trigger.CLAIM, State.RECEIVED, "deliveries < 20"),
    Transition(_PENDING, Trigger.CLAIM, State.LOST, "deliveries >= 20"),
    Transition(frozenset({State.RECEIVED}), Trigger.START, State.STARTED, "token current, not revoking"),
    Transition(HELD, Trigger.SUCCEED, State.SUCCESS, "any attempt; only the current one under strict_fence"),
    Transition(WAITING, Trigger.SUCCEED, State.SUCCESS, "an older attempt was faster than the next"),
    Transition(HELD, Trigger.FAIL, State.FAILURE, "token current, no retry left"),
    Transition(HELD, Trigger.FAIL, State.RETRY, "token current, retryable, retries < max_retries"),
    Transition(HELD, Trigger.KILL, State.RETRY, "token current, lost < max_lost"),
    Transition(HELD, Trigger.KILL, State.LOST, "token current, lost >= max_lost"),
    Transition(HELD, Trigger.BLAME, State.RETRY, "token current, lost < max_lost"),
    Transition(HELD, Trigger.BLAME, State.LOST, "token current, lost >= max_lost"),
    Transition(HELD, Trigger.RELEASE, State.PENDING, "token current"),
    Transition(HELD, Trigger.REAP, State.PENDING, "token current"),
    Transition(WAITING, Trigger.REVOKE, State.REVOKED, ""),
    Transition(frozenset({State.RECEIVED}), Trigger.REVOKE, State.RECEIVED, "marked; its holder is told to stop"),
    Transition(frozenset({State.STARTED}), Trigger.REVOKE, State.STARTED, "marked; its holder is told to stop"),
    Transition(HELD, Trigger.STOPPED, State.REVOKED, "token current, marked by a revoke"),
    Transition(HELD, Trigger.FAIL, State.REVOKED, "marked by a revoke"),
    Transition(HELD, Trigger.KILL, State.REVOKED, "marked by a revoke"),
    Transition(HELD, Trigger.BLAME, State.REVOKED, "marked by a revoke"),
    Transition(HELD, Trigger.RELEASE, State.REVOKED, "marked by a revoke"),
    Transition(HELD, Trigger.REAP, State.REVOKED, "marked by a revoke"),
    Transition(
        frozenset({State.SCHEDULED, State.PENDING}), Trigger.EXPIRE, State.EXPIRED, "broker clock >= expiry, never run"
    ),
)

LEGAL: frozenset[tuple[State, Trigger, State]] = frozenset(
    (source, row.trigger, row.target) for row in TRANSITIONS for source in row.sources
)
