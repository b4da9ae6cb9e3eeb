"""The app: one connection to a broker, and the calls that put work on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nbqueue.brokers.base import Broker
from nbqueue.brokers.nesting import NEST
from nbqueue.brokers.registry import invite, open_broker
from nbqueue.client.link import Link
from nbqueue.client.map_result import MapResult
from nbqueue.client.options import check_names, duration_s
from nbqueue.client.result import AsyncResult
from nbqueue.client.revoking import RevokeReport, manner
from nbqueue.client.submitter import Display, NoDisplay, Submitter
from nbqueue.core.routing import DEFAULT_QUEUE, Offer
from nbqueue.errors import BrokerUnavailable, NoWorkers
from nbqueue.settings import Settings, is_on_this_machine, shown_url

if TYPE_CHECKING:  # what not every session needs is imported where it is used: the first result should come soon
    from nbqueue.client.check import CheckReport
    from nbqueue.client.control import Control
    from nbqueue.client.env_diff import EnvDiff
    from nbqueue.client.inspect import Inspect


class Line(str):
    """A line for a shell: shown as it is to be pasted."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class WorkerGroup:
    """Local workers that `start_workers` added."""

    def __init__(self, link: Link, request: int, slots: int, connected: int) -> None:
        self._link = link
        self._request = request
        self.slots = slots  #: of this group
        self._connected = connected

    def stop(self) -> None:
        """Stop these workers; what they run goes back to the queue."""
        self._link.stop_workers(self._request)

    def __repr__(self) -> str:
        return f"<WorkerGroup of {self.slots} slots; {self._connected} slots in all>"


class App:
    """A connection to a broker, made on first use.

    Usable from any thread, and as a context manager.
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
        display: Display | None = None,
    ) -> None:
        """Use the broker at *url*.

        Args:
            url: None: `NBQUEUE_URL`, else the embedded broker of this user.
            token: The file with the key for a broker elsewhere, or the key itself; None: `NBQUEUE_KEY_FILE`, else the
                usual file.
            name: Which embedded broker; None: that of this Python environment.
            workers: Local slots it should have at least; None: `NBQUEUE_WORKERS`, else as many as usable cores; 0:
            none.
            encrypt: Hide tasks and results from whoever can read a broker elsewhere; None: `NBQUEUE_ENCRYPT`.
            runtime_dir: Private folder of the embedded broker; None: `NBQUEUE_RUNTIME_DIR`, else the user's.
            display: How runs are shown; None: not at all.
        """
        is_key = isinstance(token, str) and _is_key_text(token)
        self.settings = Settings.load(
            url=url,
            hub_name=name,
            workers=workers,
            runtime_dir=runtime_dir,
            encrypt=encrypt,
            token=token if is_key else None,
            key_file=None if is_key else token,
        )
        self.display: Display = display or NoDisplay()
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._link: Link | None = None
        self._workers_started: Future[int] | None = None
        self._is_closed = False
        self._submitter = Submitter(self, {})

    # -- connection ----------------------------------------------------------------------------------------------------

    def connect(self) -> Self:
        """Connect now instead of on first use; starts the embedded broker and its workers if they do not run.

        Raises:
            BrokerUnavailable: It cannot be reached or started.
            EnvironmentMismatch: It runs versions that do not fit.
        """
        self.connection()
        return self

    def close(self) -> None:
        """Send what is queued and disconnect; work goes on. May be called twice."""
        with self._lock:
            self._is_closed = True
            link, self._link = self._link, None
        if link is not None and link.pid == os.getpid():
            link.close()

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {shown_url(self.settings.url)} {self.settings.hub_name!r}>"

    def connection(self) -> tuple[Link, Broker]:
        """The live connection; a new one when there is none, or when the last one died."""
        with self._lock:
            if self._is_closed:
                raise BrokerUnavailable("this app is closed")
            if self._link is None or self._link.error is not None or self._link.pid != os.getpid():
                self._open()
            assert self._link is not None
            assert self._broker is not None
            self._ask_for_workers(self._link)
            return self._link, self._broker

    def _open(self) -> None:
        # A task never starts a broker: it would be one of its own, with workers of its own.
        self._broker = open_broker(self.settings.url, self.settings, start=not NEST.is_slot)
        if self._broker is None:
            raise BrokerUnavailable("the broker that this task came from cannot be found, and a task starts none")
        port = self._broker.open_client(os.urandom(16))
        self._link = Link(port, submit_timeout_s=self.settings.submit_timeout_s)
        self._workers_started = None

    def _ask_for_workers(self, link: Link) -> None:
        """Ask for local slots once; again with the next call when they could not be started."""
        started = self._workers_started
        if NEST.is_slot or not is_on_this_machine(self.settings.url):
            return  # its cores are not ours to count
        if self.settings.workers and (started is None or (started.done() and started.exception() is not None)):
            _, self._workers_started = link.start_workers(self.settings.workers)

    # -- work ----------------------------------------------------------------------------------------------------------

    def options(self, **task_options: Any) -> Submitter:
        """The calls of this app with options: ``app.options(max_retries=3).submit(fetch, url)``.

        Args:
            **task_options: max_retries, autoretry_for, retry_backoff (True or seconds), retry_backoff_max (seconds),
                retry_jitter, max_lost, queue, tags (a worker must have all of them), priority (higher first), countdown
                (seconds), expires (seconds), strict_fence, label.

        Raises:
            TypeError: There is no such option.
        """
        return Submitter(self, task_options)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Run ``fn(*args, **kwargs)`` on a worker; see `Submitter.submit`."""
        return self._submitter.submit(fn, *args, **kwargs)

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Any) -> MapResult:
        """Run *fn* over items; see `Submitter.map`."""
        return self._submitter.map(fn, *iterables, **options)

    def starmap(self, fn: Callable[..., Any], iterable: Iterable[Iterable[Any]], /, **options: Any) -> MapResult:
        """`map` for items that are tuples of arguments."""
        return self._submitter.starmap(fn, iterable, **options)

    def imap(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Any) -> Iterator[Any]:
        """Results in input order, reading the input as they are consumed; see `Submitter.imap`."""
        return self._submitter.imap(fn, *iterables, **options)

    def imap_unordered(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Any) -> Iterator[Any]:
        """`imap` in the order in which items end."""
        return self._submitter.imap_unordered(fn, *iterables, **options)

    def revoke(
        self,
        id_or_ids: str | AsyncResult | Iterable[str | AsyncResult],
        *,
        terminate: bool = False,
        signal: str | int | None = None,
        grace_s: float | None = None,
        wait: bool = False,
    ) -> RevokeReport | list[RevokeReport]:
        """Stop runs by their ids, whoever has submitted them.

        Args:
            id_or_ids: An id, at least four characters of it, a handle, or several of these. ``"ID.7"`` is item 7 of a
                map, as `current_task().id` has it.
            terminate: Begin with SIGTERM; see `AsyncResult.revoke`.
            signal: Begin with this one, e.g. "SIGUSR1"; SIGKILL follows.
            grace_s: Seconds between one step and the next; default 2.
            wait: Until they have ended.

        Returns:
            What came of it; a list if several were given.

        Raises:
            UnknownTask: The broker knows no such run, or several whose ids begin like this.
        """
        from nbqueue.client.recall import revoke_by_id

        how = manner(terminate=terminate, signal=signal, grace_s=grace_s)
        link, _ = self.connection()
        if isinstance(id_or_ids, str | AsyncResult):
            return revoke_by_id(link, [_id_of(id_or_ids)], how, wait=wait)[0]
        return revoke_by_id(link, [_id_of(one) for one in id_or_ids], how, wait=wait)

    def attach(self, task_id: str) -> AsyncResult:
        """The handle of what was submitted before, by this process or another one.

        Args:
            task_id: Its id, or at least four characters of it, as `inspect` and the cards show them.

        Returns:
            A `MapResult` if it has several items. Its results stay with the broker when the handle goes.

        Raises:
            UnknownTask: The broker knows no such run, or several whose ids begin like this.
        """
        link, broker = self.connection()
        from nbqueue.client.attach import attach

        return attach(link, broker.blobs, task_id, attendant=self.display)

    #: Celery's name for it.
    AsyncResult = attach

    def start_workers(
        self,
        n: int | None = None,
        *,
        python: str | None = None,
        timeout: float = 60.0,
        queues: str | Collection[str] = (DEFAULT_QUEUE,),
        tags: str | Collection[str] = (),
        only_tagged: bool = False,
    ) -> WorkerGroup:
        """Add *n* local slots (default: usable cores) and wait until they are connected.

        Args:
            n: 1 or more.
            python: Their interpreter; None: this one.
            timeout: Seconds to wait.
            queues: Those that they serve.
            tags: What they have, for work that asks for it.
            only_tagged: They leave work without tags to others.

        Raises:
            NoWorkers: They cannot be started; says why.
        """
        slots = self.settings.workers if n is None else n
        if slots < 1:
            raise ValueError(f"n must be 1 or more, not {slots}")
        offer = Offer(
            queues=check_names("queues", queues) or (DEFAULT_QUEUE,),
            tags=check_names("tags", tags),
            only_tagged=only_tagged,
        )
        link, _ = self.connection()
        request, answer = link.start_workers(slots, python=python, in_addition=True, offer=offer)
        try:
            connected = answer.result(timeout)
        except TimeoutError:
            raise NoWorkers(f"{slots} workers were not connected after {timeout:g} s") from None
        return WorkerGroup(link, request, slots, connected)

    def invite(self, ttl: float | str = "1h", *, tags: Iterable[str] = (), slots: int | None = None) -> Line:
        """A line to paste on another machine, which then works for this user's hub; see `nbqueue.invite`."""
        if slots is not None and slots < 1:
            raise ValueError(f"slots must be 1 or more, not {slots}")
        invitation = invite(self.settings, ttl_s=duration_s(ttl), tags=check_names("tags", tags), slots=slots)
        return Line(invitation.line)

    # -- looking and control -------------------------------------------------------------------------------------------

    def check(self, fn: Callable[..., Any], /, *args: Any, trial: bool = True) -> CheckReport:
        """Examine a call before it is mapped: whether it can be sent, how large it is, and what one run takes.

        Args:
            fn: The function.
            *args: Of one call.
            trial: Run it once on a worker.

        Returns:
            A table with what was found and what to do about it.
        """
        from nbqueue.client.check import check

        return check(fn, args, submit=self.submit if trial else None, env_diff=self.env_diff)

    def inspect(self) -> Inspect:
        """What the broker has now: `active`, `queued`, `scheduled`, `workers`, `queues`, `stats`, `ping` and more."""
        link, _ = self.connection()
        from nbqueue.client.inspect import Inspect
        from nbqueue.client.recall import ANSWER_TIMEOUT_S

        return Inspect(link.inspect().result(ANSWER_TIMEOUT_S), ping=lambda timeout: self.control.ping(timeout=timeout))

    @property
    def control(self) -> Control:
        """Orders to workers: more or fewer slots, shutdown, ping."""
        from nbqueue.client.control import Control

        return Control(lambda: self.connection()[0])

    def env_diff(self, timeout: float = 10.0) -> EnvDiff:
        """The packages of each worker that differ from those here."""
        from nbqueue.client.env_diff import EnvDiff
        from nbqueue.wire.versions import installed_versions

        return EnvDiff(installed_versions(), self.control.versions(timeout))

    def purge(self, queue: str = DEFAULT_QUEUE) -> int:
        """Revoke whatever waits in *queue*, of all clients; what runs goes on.

        Returns:
            How many items that were.
        """
        return self.control.purge(queue)


def _id_of(task: str | AsyncResult) -> str:
    return task if isinstance(task, str) else task.id


def _is_key_text(token: str) -> bool:
    from nbqueue.wire.keyfile import is_key_text

    return is_key_text(token)
