"""The module-level calls: those of a default app, which is made on first use."""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, overload

from nbqueue.client import app as client_app
from nbqueue.client import task as client_task
from nbqueue.client.app import Line, WorkerGroup
from nbqueue.client.check import CheckReport
from nbqueue.client.control import Control
from nbqueue.client.env_diff import EnvDiff
from nbqueue.client.inspect import Inspect
from nbqueue.client.interrupts import answer_together
from nbqueue.client.map_result import MapResult
from nbqueue.client.options import check_options
from nbqueue.client.result import AsyncResult, View
from nbqueue.client.revoking import RevokeReport
from nbqueue.client.submitter import Progress, Submitter
from nbqueue.client.waiting import slices

if TYPE_CHECKING:
    from pathlib import Path

    from nbqueue.worker.context import Request


def _kernel_shell() -> Any:
    """The shell of the IPython kernel that this process is, or None; imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


class _Display:
    """Cards in a notebook, bars in a terminal; loaded when there is something to show."""

    def show(self, handle: AsyncResult, *, progress: Progress, desc: str | None) -> View | None:
        """Begin to show *handle*; never raises."""
        if progress is False:
            return None
        from nbqueue.notebook import show

        return show(handle, progress=progress, desc=desc)

    def follow(self, handle: AsyncResult) -> None:
        """Show what a single task prints: in the cell that has submitted it, or on the terminal."""
        from nbqueue.notebook.output import follow

        follow(handle)

    @property
    def preparation(self) -> object:
        """In a notebook, what lets tasks display things."""
        if _kernel_shell() is None:
            return None
        from nbqueue.notebook.slot_shell import PREPARATION

        return PREPARATION

    def attend(self) -> float | None:
        """Serve the buttons of the cards, if there are any."""
        pump = sys.modules.get("nbqueue.notebook.pump")  # no card, no pump
        return None if pump is None else pump.PUMP.serve()

    def attending_loop(self) -> AbstractContextManager[None]:
        """The same while a cell awaits."""
        pump = sys.modules.get("nbqueue.notebook.pump")
        return nullcontext() if pump is None else pump.PUMP.installed()

    def occasion(self) -> object:
        """Which cell of a notebook runs now."""
        shell = _kernel_shell()
        return None if shell is None else shell.get_parent()["header"].get("msg_id")

    def draw(self, handle: AsyncResult) -> bool:
        """In a notebook, show *handle* as a card."""
        if _kernel_shell() is None:
            return False
        from nbqueue.notebook import draw

        return draw(handle)


_display = _Display()


class App(client_app.App):
    """A connection to a broker; its runs are shown as cards or bars.

    It is made on first use. Usable from any thread, and as a context manager. The functions of this module are those of
    a default app.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | Path | None = None,
        name: str | None = None,
        workers: int | None = None,
        encrypt: bool | None = None,
        runtime_dir: Path | None = None,
    ) -> None:
        """Use the broker at *url*; see `connect`."""
        super().__init__(
            url,
            token=token,
            name=name,
            workers=workers,
            encrypt=encrypt,
            runtime_dir=runtime_dir,
            display=_display,
        )

    @overload
    def task(self, fn: Callable[..., Any], /) -> Task: ...
    @overload
    def task(self, /, **task_options: Any) -> Callable[[Callable[..., Any]], Task]: ...
    def task(self, fn: Callable[..., Any] | None = None, /, **task_options: Any) -> Any:
        """The decorator `nbqueue.task`, for tasks of this app."""
        return _decorate(fn, task_options, self.options)


class Task(client_task.Task):
    """A function that can be called here, or run on a worker with `delay`.

    Made by the decorator `task`. It can be pickled, used by other tasks, and passed to `submit` and `map`.
    """

    def _with(self, task_options: Mapping[str, Any]) -> Submitter:
        if self._submit is None:  # of the default app, whichever that is when it is used
            return _default.app().options(**{**self._options, **task_options})
        return super()._with(task_options)


def _decorate(
    fn: Callable[..., Any] | None, options: dict[str, Any], submit: Callable[..., Submitter] | None
) -> Task | Callable[[Callable[..., Any]], Task]:
    """What a decorator returns, with and without parentheses; wrong options are told at once."""
    name = options.pop("name", None)
    if name is not None:
        options["label"] = name
    check_options(options)
    return (lambda fn: Task(fn, options, submit)) if fn is None else Task(fn, options, submit)


class _Default:
    """The default app of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._app: App | None = None

    def app(self) -> App:
        """The app in use; made when there is none."""
        with self._lock:
            if self._app is None:
                self._app = App()
            return self._app

    def use(self, app: App) -> None:
        """From now on, use *app*."""
        with self._lock:
            self._app = app

    def close(self) -> None:
        """Disconnect, at the end of the process."""
        if self._app is not None:
            self._app.close()


_default = _Default()
atexit.register(_default.close)


def default_app() -> App:
    """The app that the functions of this module use."""
    return _default.app()


def connect(
    url: str | None = None,
    *,
    token: str | Path | None = None,
    name: str | None = None,
    workers: int | None = None,
    encrypt: bool | None = None,
) -> App:
    """Connect the functions of this module to a broker; start it if need be.

    Args:
        url: None: `NBQUEUE_URL`, else ``"embedded"``, this user's broker on this machine.
        token: The file with the key for a broker elsewhere, or the key itself; None: `NBQUEUE_KEY_FILE`, else the usual
            file, which is made on first use.
        name: Which embedded broker; None: that of this Python environment.
        workers: Local slots it should have at least; None: `NBQUEUE_WORKERS`, else as many as usable cores; 0: none.
        encrypt: Hide tasks and results from whoever can read a broker elsewhere; None: `NBQUEUE_ENCRYPT`, else False.

    Returns:
        The app, connected. Handles of an earlier default app stay valid while something holds that app.

    Raises:
        BrokerUnavailable: It cannot be reached or started.
        EnvironmentMismatch: It runs versions that do not fit.
        KeyFileError: The key is missing, damaged, or open to others.
    """
    app = App(url, token=token, name=name, workers=workers, encrypt=encrypt).connect()
    _default.use(app)
    return app


def submit(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
    """Run ``fn(*args, **kwargs)`` on a worker; the handle comes back at once.

    Raises:
        NotSerializable: The function or an argument cannot be pickled.
        BrokerUnavailable: The broker cannot be reached or started.
    """
    return _default.app().submit(fn, *args, **kwargs)


@overload
def task(fn: Callable[..., Any], /) -> Task: ...
@overload
def task(*, name: str | None = None, **task_options: Any) -> Callable[[Callable[..., Any]], Task]: ...
def task(fn: Callable[..., Any] | None = None, /, **task_options: Any) -> Any:
    """Make a function a task: it can still be called, and run on a worker.

    Args:
        fn: The function, when the decorator is used without parentheses.
        **task_options: name (what cards show), and those of `options`: max_retries, queue, tags, priority, time_limit
            and so on.

    Example:
        >>> @nbqueue.task(max_retries=3)
        ... def add(x, y):
        ...     return x + y
        >>> add.delay(2, 2).get()
        4
    """
    return _decorate(fn, task_options, None)


def options(**task_options: Any) -> Submitter:
    """`submit`, `map` and the rest with options for the task.

    The function's own keywords stay free.

    Args:
        **task_options: max_retries, autoretry_for, retry_backoff (True or seconds), retry_backoff_max (seconds),
            retry_jitter, max_lost, queue, tags (a worker must have all of them), priority (higher first), countdown
            (seconds), expires (seconds), strict_fence, label.

    Example:
        >>> nbqueue.options(max_retries=3).submit(int, "7").get()
        7
    """
    return _default.app().options(**task_options)


def map(fn: Callable[..., Any], /, *iterables: Iterable[Any], **keywords: Any) -> MapResult:
    """Run *fn* over items on the workers, and show a card meanwhile.

    Args:
        fn: Called with one item of each iterable.
        *iterables: Read up to the end of the shortest.
        **keywords: chunksize="auto", buffersize=None, ordered=True, timeout=None, on_error="raise"|"return"|"skip",
            progress=True, desc=None, total=None, label=None, on_interrupt="revoke"|"detach", and task options; see
            `Submitter.map`.

    Returns:
        A `MapResult`: iterate it, index it, or ``get()`` the whole list.

    Example:
        >>> nbqueue.map(abs, [-1, 2, -3]).get()
        [1, 2, 3]
    """
    return _default.app().map(fn, *iterables, **keywords)


def starmap(fn: Callable[..., Any], iterable: Iterable[Iterable[Any]], /, **keywords: Any) -> MapResult:
    """`map` for items that are tuples of arguments: ``fn(*item)``.

    Takes the keywords of `map`.
    """
    return _default.app().starmap(fn, iterable, **keywords)


def imap(fn: Callable[..., Any], /, *iterables: Iterable[Any], **keywords: Any) -> Iterator[Any]:
    """Results in input order; the input may be endless.

    It is read as the results are consumed. Takes the keywords of `map`; ``buffersize`` (default 10,000) bounds how far
    the input is read ahead.
    """
    return _default.app().imap(fn, *iterables, **keywords)


def imap_unordered(fn: Callable[..., Any], /, *iterables: Iterable[Any], **keywords: Any) -> Iterator[Any]:
    """`imap` in the order in which items end."""
    return _default.app().imap_unordered(fn, *iterables, **keywords)


def start_workers(
    n: int | None = None,
    *,
    python: str | None = None,
    timeout: float = 60.0,
    queues: str | Collection[str] = ("default",),
    tags: str | Collection[str] = (),
    only_tagged: bool = False,
) -> WorkerGroup:
    """Add *n* local slots (default: usable cores) and wait until they are connected.

    Args:
        n: 1 or more.
        python: Their interpreter; None: this one.
        timeout: Seconds to wait.
        queues: Those that they serve.
        tags: What they have, for work that asks for it with ``tags=``.
        only_tagged: They leave work without tags to others.

    Raises:
        NoWorkers: They cannot be started; says why.
    """
    return _default.app().start_workers(
        n, python=python, timeout=timeout, queues=queues, tags=tags, only_tagged=only_tagged
    )


def attach(task_id: str) -> AsyncResult:
    """The handle of what was submitted before, by this process or another one.

    Args:
        task_id: Its id, or at least four characters of it, as `inspect` and the cards show them.

    Returns:
        A `MapResult` if it has several items. Its results stay with the broker when the handle goes.

    Raises:
        UnknownTask: The broker knows no such run, or several whose ids begin like this.
    """
    return _default.app().attach(task_id)


def check(fn: Callable[..., Any], /, *args: Any, trial: bool = True) -> CheckReport:
    """Examine a call before it is mapped over many items.

    Args:
        fn: The function.
        *args: Of one call.
        trial: Run it once on a worker.

    Returns:
        Whether it can be sent (if not, which variable is to blame), its size with all that it captures, what one run
        took in time and memory, which packages differ on the workers, the chunk size that fits, and advice. It prints
        as a table.
    """
    return _default.app().check(fn, *args, trial=trial)


def inspect() -> Inspect:
    """What the broker has now, in tables: active, queued, workers, and so on.

    Returns:
        One answer of the broker; its methods `active`, `reserved`, `queued`, `scheduled`, `revoked`, `runs`, `queues`,
        `workers` and `stats` show parts of it, and `ping` asks the workers.
    """
    return _default.app().inspect()


def env_diff(timeout: float = 10.0) -> EnvDiff:
    """The packages of each worker that differ from those here, as a table.

    Args:
        timeout: Seconds to wait for the workers' answers.

    Returns:
        A list of `Difference`, those first that are likely to matter: another major or minor version, or a package that
        one side lacks. Python itself is among them.
    """
    return _default.app().env_diff(timeout)


def purge(queue: str = "default") -> int:
    """Revoke whatever waits in a queue, of all clients; what runs goes on.

    Returns:
        How many items that were.
    """
    return _default.app().purge(queue)


#: Orders to the workers of the default app.
control = Control(lambda: _default.app().connection()[0])


def revoke(
    id_or_ids: str | AsyncResult | Iterable[str | AsyncResult],
    *,
    terminate: bool = False,
    signal: str | int | None = None,
    grace_s: float | None = None,
    wait: bool = False,
) -> RevokeReport | list[RevokeReport]:
    """Stop tasks and maps by their ids, whichever process has submitted them.

    Args:
        id_or_ids: An id, at least four characters of it, a handle, or several of these. ``"ID.7"`` is item 7 of a map,
            as `current_task().id` has it.
        terminate: Begin with SIGTERM; see `AsyncResult.revoke`.
        signal: Begin with this one, e.g. "SIGUSR1"; SIGKILL follows.
        grace_s: Seconds between one step and the next; default 2.
        wait: Until they have ended.

    Returns:
        What came of it; a list if several were given.

    Raises:
        UnknownTask: The broker knows no such run, or several whose ids begin like this.
    """
    return _default.app().revoke(id_or_ids, terminate=terminate, signal=signal, grace_s=grace_s, wait=wait)


def invite(ttl: float | str = "1h", *, tags: Iterable[str] = (), slots: int | None = None) -> Line:
    """A line to paste on another machine, which then works for this one.

    This machine needs a hub that others can reach: ``nbqueue hub --bind tcp://0.0.0.0:PORT``. The other one needs
    nbqueue in the same version of Python, and dials out to that one port.

    Args:
        ttl: How long the line is good: seconds, or "90s", "30m", "1h", "2d". A worker that has come by then may stay.
        tags: What the worker has, e.g. ``["gpu"]``: work asks for it by ``tags=``.
        slots: Its slots; None: its usable cores.

    Returns:
        The line. Whoever has it can join as a worker and see the tasks that it is given.

    Raises:
        BrokerUnavailable: There is no hub that other machines can reach.
    """
    return _default.app().invite(ttl, tags=tags, slots=slots)


def wait(
    handles: Iterable[AsyncResult], timeout: float | None = None, return_when: str = futures.ALL_COMPLETED
) -> tuple[set[AsyncResult], set[AsyncResult]]:
    """Wait for several handles, as `concurrent.futures.wait` does.

    Args:
        handles: Of any kind.
        timeout: Seconds to wait at most.
        return_when: "ALL_COMPLETED", "FIRST_COMPLETED" or "FIRST_EXCEPTION".

    Returns:
        Those that are done, and those that are not.
    """
    if return_when not in (futures.ALL_COMPLETED, futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION):
        raise ValueError(f"return_when must be ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION, not {return_when!r}")
    waited = set(handles)
    try:
        done = {handle for handle in waited if handle.done()}
        if waited - done and not _is_enough(done, return_when):
            _wait(waited, timeout, return_when)
        done = {handle for handle in waited if handle.done()}
        for handle in waited:
            _finish_view(handle)
        return done, waited - done
    except KeyboardInterrupt as interrupt:
        raise answer_together(interrupt, waited) from None


def _wait(waited: set[AsyncResult], timeout: float | None, return_when: str) -> None:
    with contextlib.suppress(TimeoutError):
        for handle in as_completed(waited, timeout):
            if _is_enough([handle], return_when):
                break


def as_completed(handles: Iterable[AsyncResult], timeout: float | None = None) -> Iterator[AsyncResult]:
    """Handles in the order in which they end.

    Raises:
        TimeoutError: Not all were done in *timeout* seconds.
    """
    waited = list(dict.fromkeys(handles))
    try:
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for handle in waited:  # their own `add_done_callback` would go through the blocked event loop
            futures.Future.add_done_callback(handle, ended.put)
        deadline = None if timeout is None else time.monotonic() + timeout
        for position in range(len(waited)):
            for pause in slices(_display, deadline):
                try:
                    handle = ended.get(timeout=pause)
                    break
                except queue.Empty:
                    continue
            else:
                left = len(waited) - position
                raise TimeoutError(f"{left} of {len(waited)} handles are not done after {timeout:g} s")
            _finish_view(handle)
            yield handle  # not inside of the wait: whoever works on it does not wait
    except KeyboardInterrupt as interrupt:
        raise answer_together(interrupt, waited) from None


def _finish_view(handle: AsyncResult) -> None:
    """Draw the end of a run from here, whose cell may end next, and with it the chance to be stored in it."""
    if handle.done() and handle.view is not None:
        handle.view.finish()


def _is_enough(done: Iterable[futures.Future[Any]], return_when: str) -> bool:
    """Whether the handles that are done end a wait for the first one, or for the first that failed."""
    if return_when == futures.FIRST_EXCEPTION:
        return any(futures.Future.exception(handle) is not None for handle in done)
    return return_when == futures.FIRST_COMPLETED and any(True for _ in done)


def get_task_logger(name: str) -> logging.Logger:
    """A logger for tasks, whose records from INFO on are output of the task.

    Outside of a task it is a logger like any other.

    Example:
        >>> nbqueue.get_task_logger(__name__).info("epoch %d", 3)
    """
    return logging.getLogger(f"nbqueue.task.{name}")


def current_task() -> Request | None:
    """Inside a task: its id, attempt, label and so on; None elsewhere."""
    from nbqueue.worker.context import current_task as current

    return current()
