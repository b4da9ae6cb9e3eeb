"""The options of tasks and maps as the user writes them, checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import Any, Literal

import msgspec

from nbqueue.core.exchange import ALL_ITEMS
from nbqueue.core.retry import RetryPolicy
from nbqueue.core.routing import DEFAULT_QUEUE
from nbqueue.core.task import TaskLimits, TaskOptions
from nbqueue.errors import MemoryLimitExceeded, TimeLimitExceeded
from nbqueue.settings import parse_size

OnError = Literal["raise", "return", "skip"]
OnInterrupt = Literal["revoke", "detach"]
Progress = bool | str | dict[str, Any]

#: Larger numbers are no priorities and counts, but mistakes.
MOST = 1_000_000
#: What the dict given as `progress` may hold.
STYLE = frozenset({"desc", "unit", "leave"})

#: Celery's spelling where Celery has one.
DEFAULTS: dict[str, Any] = {
    "max_retries": 0,
    "autoretry_for": (),
    "retry_backoff": False,
    "retry_backoff_max": 600,
    "retry_jitter": True,
    "max_lost": 2,
    "priority": 0,
    "countdown": 0,
    "expires": None,
    "queue": DEFAULT_QUEUE,
    "tags": (),
    "strict_fence": False,
    "soft_time_limit": None,
    "time_limit": None,
    "memory": None,
    "label": None,
}


class MapOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a map is fed, waited for and shown; `Submitter.map` says what each means."""

    chunksize: int | Literal["auto"] = "auto"
    buffersize: int | None = None
    ordered: bool = True
    timeout: float | None = None
    on_error: OnError = "raise"
    progress: Progress = True
    desc: str | None = None
    total: int | None = None
    on_interrupt: OnInterrupt = "revoke"

    def __post_init__(self) -> None:
        for name, choices in (("on_error", ("raise", "return", "skip")), ("on_interrupt", ("revoke", "detach"))):
            quoted = [f'"{choice}"' for choice in choices]
            is_good = getattr(self, name) in choices
            _check(name, getattr(self, name), is_good, f"{', '.join(quoted[:-1])} or {quoted[-1]}")
        is_count = self.chunksize == "auto" or (_is_whole(self.chunksize) and self.chunksize >= 1)
        _check("chunksize", self.chunksize, is_count, '1 or more, or "auto"')
        for name, least in (("buffersize", 1), ("total", 0)):
            value = getattr(self, name)
            _check(name, value, value is None or (_is_whole(value) and value >= least), f"{least} or more, or None")
        _check(
            "timeout", self.timeout, self.timeout is None or _is_duration(self.timeout), "seconds, 0 or more, or None"
        )
        _check("desc", self.desc, self.desc is None or isinstance(self.desc, str), "a text")
        is_style = isinstance(self.progress, dict) and STYLE.issuperset(self.progress)
        _check("progress", self.progress, is_style or self.progress in (True, False, "text"), _PROGRESS)

    @property
    def chunk_items(self) -> int | None:
        """Items of a chunk, as the broker takes it; None: it is to find out."""
        return None if self.chunksize == "auto" else min(int(self.chunksize), ALL_ITEMS)


#: Likewise for maps.
MAP_DEFAULTS: dict[str, Any] = {field.name: field.default for field in msgspec.structs.fields(MapOptions)}
_PROGRESS = f'True, False, "text", or a dict with some of {", ".join(sorted(STYLE))}'


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options with defaults filled in.

    Raises:
        TypeError: There is no such option; names the nearest.
        ValueError: A value is out of its range.
    """
    for name in options:
        if name not in DEFAULTS:
            raise TypeError(f"there is no task option {name!r}{_hint(name)}")
    values = {**DEFAULTS, **options}
    for name in ("max_retries", "max_lost"):
        value = values[name]
        _check(name, value, _is_whole(value) and 0 <= value <= MOST, f"a whole number from 0 to {MOST:,}")
        values[name] = int(value)
    priority = values["priority"]
    is_priority = _is_whole(priority) and -MOST <= priority <= MOST
    _check("priority", priority, is_priority, f"a whole number from -{MOST:,} to {MOST:,}")
    values["priority"] = int(priority)
    for name in ("countdown", "retry_backoff", "retry_backoff_max"):
        _check(name, values[name], _is_duration(values[name]), "a number of seconds, 0 or more")
    for name in ("expires", "soft_time_limit", "time_limit"):
        value = values[name]
        _check(name, value, value is None or (_is_duration(value) and value > 0), "a number of seconds above 0")
    if values["memory"] is not None:
        values["memory"] = parse_size("memory", values["memory"])
    _check("queue", values["queue"], _is_name(values["queue"]), "a name without spaces and commas")
    values["tags"] = check_names("tags", values["tags"])
    for name in ("strict_fence", "retry_jitter"):
        _check(name, values[name], isinstance(values[name], bool), "True or False")
    _check("label", values["label"], values["label"] is None or isinstance(values["label"], str), "a text")
    return values


def _hint(name: str) -> str:
    """What may be meant by *name*, of which there is no task option."""
    import difflib

    if name in MapOptions.__struct_fields__:
        return "; it is a keyword of map, starmap and imap themselves"
    near = difflib.get_close_matches(name, [*DEFAULTS, *MapOptions.__struct_fields__], n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(DEFAULTS)}"


def _check(name: str, value: object, is_good: bool, wanted: str) -> None:
    if not is_good:
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


def check_names(what: str, names: object) -> tuple[str, ...]:
    """One name or several, sorted and without doubles.

    Raises:
        ValueError: These are no names; *what* they should name is said.
    """
    listed = [names] if isinstance(names, str) else names
    is_good = isinstance(listed, Collection) and all(map(_is_name, listed))
    _check(what, names, is_good, "names without spaces and commas")
    return tuple(sorted(set(listed)))  # type: ignore[call-overload]  # checked in the line above


def timing(*, countdown: float | None, eta: datetime | None, expires: float | datetime | None) -> dict[str, float]:
    """When a task may begin, and until when, as options.

    Raises:
        ValueError: Both *countdown* and *eta* are given.
    """
    if countdown is not None and eta is not None:
        raise ValueError("give countdown or eta, not both")
    given: dict[str, float | None] = {
        "countdown": countdown if eta is None else max(0.0, _seconds_until(eta)),
        "expires": _seconds_until(expires) if isinstance(expires, datetime) else expires,
    }
    return {name: value for name, value in given.items() if value is not None}


def _seconds_until(moment: datetime) -> float:
    """Seconds from now; a moment without a time zone is local time."""
    return (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()


def duration_s(value: object) -> float:
    """Seconds from a number, or from "90s", "30m", "1h", "2d".

    Raises:
        ValueError: It is neither, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value) if isinstance(value, str) else None
    if found is not None:
        value = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f'a duration is a number of seconds, or "30m", "1h" and the like, not {value!r}')
    return float(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and not any(c.isspace() or c == "," for c in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_duration(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value) and float(value) >= 0


def retry_on(values: Mapping[str, Any]) -> tuple[type[BaseException], ...]:
    """Which exceptions are retried: those named, or every `Exception` when only ``max_retries`` is given."""
    named = values["autoretry_for"]
    named = (named,) if isinstance(named, type) else tuple(named)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in named):
        raise TypeError(f"autoretry_for must hold exception types, not {values['autoretry_for']!r}")
    if not named and values["max_retries"]:
        return (Exception,)
    return named


def task_options(values: Mapping[str, Any], *, chunksize: int | None = None) -> TaskOptions:
    """The options as the broker takes them."""
    backoff = values["retry_backoff"]
    retry = RetryPolicy(
        max_retries=values["max_retries"],
        backoff_s=float(backoff),  # True: 1 s, as in Celery
        backoff_max_s=float(values["retry_backoff_max"]),
        jitter=bool(values["retry_jitter"]),
    )
    return TaskOptions(
        retry=retry,
        max_lost=values["max_lost"],
        strict_fence=values["strict_fence"],
        priority=values["priority"],
        countdown_s=float(values["countdown"]),
        expires_s=None if values["expires"] is None else float(values["expires"]),
        chunksize=chunksize,
        limits=_limits(values),
        queue=values["queue"],
        tags=values["tags"],
    )


def _limits(values: Mapping[str, Any]) -> TaskLimits:
    retried = retry_on(values)
    soft_time_s, time_s = values["soft_time_limit"], values["time_limit"]
    return TaskLimits(
        soft_time_s=None if soft_time_s is None else float(soft_time_s),
        time_s=None if time_s is None else float(time_s),
        memory_bytes=values["memory"],
        retry_time=issubclass(TimeLimitExceeded, retried),  # a limit may still be ordered by name
        retry_memory=values["memory"] is not None and issubclass(MemoryLimitExceeded, retried),
    )
