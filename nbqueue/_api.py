"""The module-level calls: those of a default app, which is made on first use."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, overload

from nbqueue.brokers.base import Broker
from nbqueue.client import app as client_app
from nbqueue.client import task as client_task
from nbqueue.client.calls import Calls
from nbqueue.client.kernel import kernel_shell
from nbqueue.client.keywords import shows
from nbqueue.client.link import Link
from nbqueue.client.options import DEFAULTS, Progress, check_options
from nbqueue.client.output import Prints
from nbqueue.client.result import AsyncResult, View
from nbqueue.client.submitter import Submitter
from nbqueue.core.named import NamedTask
from nbqueue.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from nbqueue.client.control import Control
    from nbqueue.worker.context import Request


class _Display:
    """Cards in a notebook, bars in a terminal; loaded when there is something to show."""

    def show(self, handle: AsyncResult, *, progress: Progress, desc: str | None) -> View | None:
        """Begin to show *handle*; never raises."""
        if progress is False:
            return None
        from nbqueue.notebook.showing import show

        return show(handle, progress=progress, desc=desc)

    def follow(self, prints: Prints) -> None:
        """Show what single tasks print: in the cell that has submitted them, or on the terminal."""
        from nbqueue.notebook.output import follow

        follow(prints)

    @property
    def preparation(self) -> object:
        """In a notebook, what lets tasks display things."""
        if kernel_shell() is None:
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
        shell = kernel_shell()
        return None if shell is None else shell.get_parent()["header"].get("msg_id")

    def draw(self, handle: AsyncResult) -> bool:
        """In a notebook, show *handle* as a card."""
        if kernel_shell() is None:
            return False
        from nbqueue.notebook.showing import draw

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
        accept: str | Collection[str] | None = None,
        runtime_dir: Path | None = None,
    ) -> None:
        """Use the broker at *url*; see `connect`."""
        super().__init__(
            url,
            token=token,
            name=name,
            workers=workers,
            encrypt=encrypt,
            accept=accept,
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


class Task(client_task.Task, NamedTask):
    """A function that can be called here, or run on a worker with `delay`.

    Made by the decorator `task`. It can be pickled, used by other tasks, and passed to `submit` and `map`.
    """

    @property
    def name(self) -> str:
        """By which workers that import its module run it for `send_task`: its name, else "module.function"."""
        return self._options.get("label") or f"{self._fn.__module__}.{_qualified(self._fn)}"

    @property
    def function(self) -> Callable[..., Any]:
        """The function that it was made of."""
        return self._fn

    def _with(self, task_options: Mapping[str, Any]) -> Submitter:
        if self._submit is None:  # of the default app, whichever that is when it is used
            return _default.options(**{**self._options, **task_options})
        return super()._with(task_options)


def _qualified(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", type(fn).__qualname__)  # a `functools.partial` has none


def _decorate(
    fn: Callable[..., Any] | None, options: dict[str, Any], submit: Callable[..., Submitter] | None
) -> Task | Callable[[Callable[..., Any]], Task]:
    """What a decorator returns, with and without parentheses; wrong options are told at once."""
    name = options.pop("name", None)
    if name is not None:
        options["label"] = name
    check_options(options)
    return (lambda fn: Task(fn, options, submit)) if fn is None else Task(fn, options, submit)


class _Default(Calls):
    """The calls of the default app of this process, whichever that is when one is made."""

    def __init__(self) -> None:
        super().__init__()
        self.display = _display
        self._lock = threading.Lock()
        self._current: App | None = None

    def app(self) -> App:
        """The app in use; made when there is none."""
        with self._lock:
            if self._current is None:
                self._current = App()
            return self._current

    def use(self, app: App) -> None:
        """From now on, use *app*."""
        with self._lock:
            self._current = app

    @property
    def settings(self) -> Settings:
        """Those of the app in use."""
        return self.app().settings

    def connection(self) -> tuple[Link, Broker]:
        """That of the app in use."""
        return self.app().connection()

    def close(self) -> None:
        """Disconnect, at the end of the process."""
        if self._current is not None:
            self._current.close()

    def __reduce__(self) -> str:
        return "_default"  # elsewhere, the default app of that process


_default = _Default()
atexit.register(_default.close)

submit, options, send_task = _default.submit, _default.options, _default.send_task
map, starmap, imap, imap_unordered = _default.map, _default.starmap, _default.imap, _default.imap_unordered
attach, revoke, purge = _default.attach, _default.revoke, _default.purge
inspect, check, env_diff = _default.inspect, _default.check, _default.env_diff
start_workers, invite = _default.start_workers, _default.invite

if TYPE_CHECKING:
    control: Control


def __getattr__(name: str) -> Any:
    if name == "control":  # which few programs use, is made when it is asked for
        return _default.control
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    accept: str | Collection[str] | None = None,
) -> App:
    """Connect the functions of this module to a broker; start it if need be.

    Args:
        url: None: `NBQUEUE_URL`, else ``"embedded"``, this user's broker on this machine.
        token: The file with the key for a broker elsewhere, or the key itself; None: `NBQUEUE_KEY_FILE`, else the usual
            file, which is made on first use.
        name: Which embedded broker; None: that of this Python environment.
        workers: Local slots it should have at least; None: `NBQUEUE_WORKERS`, else as many as usable cores; 0: none.
        encrypt: Hide tasks and results from whoever can read a broker elsewhere; None: `NBQUEUE_ENCRYPT`, else False.
        accept: What results may be packed with: "cloudpickle", "json" or both; None: `NBQUEUE_ACCEPT`, else both. With
            "json" nothing that comes from a worker is unpickled; results of `send_task` are JSON, all others are
            refused.

    Returns:
        The app, connected. Handles of an earlier default app stay valid while something holds that app.

    Raises:
        BrokerUnavailable: It cannot be reached or started.
        EnvironmentMismatch: It runs versions that do not fit.
        KeyFileError: The key is missing, damaged, or open to others.
    """
    app = App(url, token=token, name=name, workers=workers, encrypt=encrypt, accept=accept).connect()
    _default.use(app)
    return app


@overload
def task(fn: Callable[..., Any], /) -> Task: ...
@overload
def task(*, name: str | None = None, **task_options: Any) -> Callable[[Callable[..., Any]], Task]: ...
@shows({"name": None}, DEFAULTS)
def task(fn: Callable[..., Any] | None = None, /, **task_options: Any) -> Any:
    """Make a function a task: it can still be called, and run on a worker.

    Args:
        fn: The function, when the decorator is used without parentheses.
        **task_options: name (what cards show, and what `send_task` calls it by), and those of `options`: max_retries,
            queue, tags, priority, time_limit and so on.

    Example:
        >>> @nbqueue.task(max_retries=3)
        ... def add(x, y):
        ...     return x + y
        >>> add.delay(2, 2).get()
        4
    """
    return _decorate(fn, task_options, None)


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
