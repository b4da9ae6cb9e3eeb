"""What a user's call becomes: a run and its options, and what attempts make of it."""

from __future__ import annotations

from math import isfinite

import msgspec

from nbqueue.core.retry import RetryPolicy
from nbqueue.core.routing import DEFAULT_QUEUE, Route
from nbqueue.core.states import State


class TaskLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much one item may take; its supervisor sees to it. None: no limit."""

    soft_time_s: float | None = None  #: raises SoftTimeLimitExceeded in the task
    time_s: float | None = None  #: ends its process
    memory_bytes: int | None = None  #: of its process and all that descend from it; ends them
    retry_time: bool = False  #: an item that passed `time_s` may be retried
    retry_memory: bool = False  #: likewise for `memory_bytes`

    @property
    def is_any(self) -> bool:
        """Whether there is a limit at all."""
        return not (self.soft_time_s is None and self.time_s is None and self.memory_bytes is None)


class Manner(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """How running items are stopped by a revoke."""

    first: str = "SIGINT"  #: the first signal; harder ones follow
    grace_s: float = 2.0  #: between one signal and the next


#: Asked, interrupted, terminated, killed.
GENTLY = Manner()
NO_LIMITS = TaskLimits()


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the items of a run are to be treated by the broker."""

    retry: RetryPolicy = RetryPolicy()
    max_lost: int = 2  #: deaths of its process that an item may cause before it is LOST
    strict_fence: bool = False  #: take a success from the current attempt only
    priority: int = 0  #: higher first
    countdown_s: float = 0.0  #: wait this long before the first attempt
    expires_s: float | None = None  #: give up when not started within this time
    chunksize: int | None = None  #: items a claim takes; None: learnt from their run time
    result_expires_s: float = 7 * 86400.0  #: keep a finished run this long
    limits: TaskLimits = NO_LIMITS
    queue: str = DEFAULT_QUEUE  #: only who serves it may run this
    tags: tuple[str, ...] = ()  #: only who has all of them may run this; sorted

    @property
    def route(self) -> Route:
        """What is asked of a supervisor."""
        return Route(self.queue, self.tags)


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of the user: a function, and options shared by all its items."""

    run_id: bytes  #: 16 random bytes
    function: bytes  #: digest of the pickled function
    label: str  #: what the user sees, e.g. the function's name
    environment: bytes = b""  #: digest of the modules it may import; a slot serves one environment
    options: TaskOptions = TaskOptions()
    parent: bytes = b""  #: the run in one of whose items this was submitted; empty: none
    parent_item: int = 0
    depth: int = 0  #: of tasks inside tasks


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Payload of the items *start* to *stop* (exclusive), opaque to the broker."""

    start: int
    stop: int
    payload: bytes


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """The broker's record of one item. Neighbours with equal records are stored once."""

    state: State
    attempt: int = 0  #: executions begun, the current claim's included
    deliveries: int = 0  #: claims that were not handed back
    lost: int = 0  #: processes it killed
    retries: int = 0
    token: int = 0  #: the claim that holds it; 0: none
    revoking: bool = False  #: a revoke waits for the holder's answer
    due: float = 0.0  #: broker clock, when SCHEDULED or RETRY

    @property
    def has_run(self) -> bool:
        """Whether an attempt was made that ended without a success."""
        return self.retries > 0 or self.lost > 0


class Succeeded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Items *start* to *stop* returned; the payload holds their values in order."""

    start: int
    stop: int
    payload: bytes
    wall_s: float  #: for all of them together
    cpu_s: float = 0.0
    peak_bytes: int = 0  #: the most memory that the process held meanwhile


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The item raised."""

    item: int
    record: bytes  #: a wire.failure record
    retryable: bool
    wall_s: float
    cpu_s: float = 0.0
    retry_after_s: float | None = None  #: the task itself named the wait; None: as its options say
    max_retries: int | None = None  #: likewise
    peak_bytes: int = 0


class Killed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The slot's process died while it ran the item."""

    item: int
    reason: str
    peak_bytes: int = 0


class Stopped(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Items stopped, or never begun, because of a revoke."""

    start: int
    stop: int
    how: str = ""  #: e.g. "SIGINT"; empty: it had not begun
    peak_bytes: int = 0


class Released(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Items handed back unrun."""

    start: int
    stop: int


#: What a supervisor reports about items of one claim.
Outcome = Succeeded | Failed | Killed | Stopped | Released


def makes_sense(outcome: Outcome) -> bool:
    """Whether ranges are not empty and times are finite: a broken worker must not break the broker."""
    match outcome:
        case Succeeded(start, stop, _, wall_s, cpu_s):
            return start < stop and isfinite(wall_s) and isfinite(cpu_s)
        case Failed(_, _, _, wall_s, cpu_s, retry_after_s):
            return isfinite(wall_s) and isfinite(cpu_s) and (retry_after_s is None or isfinite(retry_after_s))
        case Stopped(start, stop) | Released(start, stop):
            return start < stop
        case Killed():
            return True


def item_count(outcome: Outcome) -> int:
    """How many items the outcome brings to an end by running them."""
    match outcome:
        case Succeeded(start=start, stop=stop):
            return stop - start
        case Failed():
            return 1
        case _:
            return 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One line of a run's log: items *start* to *stop* reached a terminal state.

    Every item of a finished run is in exactly one entry. A client reads the log by cursor, so nothing it missed is
    lost.
    """

    start: int
    stop: int
    state: State
    payload: bytes = b""  #: values (SUCCESS) or a failure record (FAILURE)
    offset: int = 0  #: index of *start* within the payload's values
    reason: str = ""  #: in words, for LOST, EXPIRED, REVOKED
    attempt: int = 0
    worker: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0  #: the most memory that the process held meanwhile
