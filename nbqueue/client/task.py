"""A function with its options, in Celery's words: call it here, `delay` it elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from nbqueue.client.held_back import handed_over
from nbqueue.client.keywords import shows
from nbqueue.client.map_result import MapResult
from nbqueue.client.options import DEFAULTS, MAP_DEFAULTS, check_options, timing
from nbqueue.client.result import AsyncResult
from nbqueue.client.submitter import Submitter

Submit = Callable[..., Submitter]


class Task:
    """A function that can be called here, or run on a worker with `delay`.

    Made by the decorator `task`. It can be pickled, used by other tasks, and passed to `submit` and `map`.
    """

    def __init__(self, fn: Callable[..., Any], options: Mapping[str, Any], submit: Submit | None = None) -> None:
        """Wrap *fn*; *submit* makes a submitter of options, None: that of the default app."""
        if not callable(fn):
            raise TypeError(f"a task is made of a function, not of {fn!r}")
        check_options(options)
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._options = dict(options)
        self._submit = submit

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here and now, as if it were no task."""
        return self._fn(*args, **kwargs)

    @handed_over
    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Run ``task(*args, **kwargs)`` on a worker; the handle comes back at once."""
        return self._with({}).submit(self._fn, *args, **kwargs)

    @handed_over
    @shows(DEFAULTS)
    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        **task_options: Any,
    ) -> AsyncResult:
        """`delay` with options for this one call.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            countdown: Seconds to wait before it may run.
            eta: The moment from which it may run, instead of *countdown*; without a time zone it is local time.
            expires: Seconds, or the moment, after which it is not started any more.
            **task_options: As for `options`: queue, tags, priority, max_retries, time_limit, memory, label and so on.

        Raises:
            TypeError: There is no such option.
            ValueError: Both *countdown* and *eta* are given, or *expires* has passed.
        """
        options = {**task_options, **timing(countdown=countdown, eta=eta, expires=expires)}
        return self._with(options).submit(self._fn, *args, **(kwargs or {}))

    @handed_over
    @shows(MAP_DEFAULTS, DEFAULTS)
    def map(self, *iterables: Iterable[Any], **keywords: Any) -> MapResult:
        """Run the task over items; takes the keywords of `nbqueue.map`."""
        return self._with({}).map(self._fn, *iterables, **keywords)

    @handed_over
    @shows(MAP_DEFAULTS, DEFAULTS)
    def starmap(self, iterable: Iterable[Iterable[Any]], /, **keywords: Any) -> MapResult:
        """`map` for items that are tuples of arguments."""
        return self._with({}).starmap(self._fn, iterable, **keywords)

    @shows(DEFAULTS)
    def options(self, **task_options: Any) -> Task:
        """The same task with other options."""
        return type(self)(self._fn, {**self._options, **task_options}, self._submit)

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """A call of this task that is not made yet; arguments that are given later come before these."""
        return Signature(self, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """As `s`, but arguments that are given later are ignored."""
        return Signature(self, args, kwargs, immutable=True)

    def _with(self, task_options: Mapping[str, Any]) -> Submitter:
        if self._submit is None:
            raise RuntimeError("this task belongs to no app: make it with nbqueue.task, or with the task of an app")
        return self._submit(**{**self._options, **task_options})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_submit": None}  # elsewhere it belongs to the app of that process

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"<Task {getattr(self._fn, '__name__', repr(self._fn))}{options}>"


class Signature:
    """A call of a task that is made later.

    It can be kept, pickled, completed with more arguments and options, and made.
    """

    def __init__(
        self,
        task: Task,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        immutable: bool = False,
    ) -> None:
        """The call ``task(*args, **kwargs)`` with *options* of `Task.apply_async`."""
        self.task = task
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})
        self.options = dict(options or {})
        self.immutable = immutable  #: arguments that are given later are ignored

    def set(self, **options: Any) -> Signature:
        """Options for the call, as for `Task.apply_async`; this very signature comes back, as in Celery."""
        self.options.update(options)
        return self

    def clone(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Signature:
        """A copy with arguments before these, keywords over these, and more options."""
        more, over = ((), {}) if self.immutable else (tuple(args), dict(kwargs or {}))
        return Signature(
            self.task,
            (*more, *self.args),
            {**self.kwargs, **over},
            options={**self.options, **options},
            immutable=self.immutable,
        )

    @handed_over
    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Make the call on a worker, with these arguments before its own."""
        return self.apply_async(args, kwargs)

    @handed_over
    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """`delay` with options for this one call."""
        call = self.clone(args, kwargs, **options)
        return call.task.apply_async(call.args, call.kwargs, **call.options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the call here and now."""
        call = self.clone(args, kwargs)
        return call.task(*call.args, **call.kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # it can change

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{getattr(self.task, '__name__', 'task')}({', '.join(arguments)})"
