"""Everything that can be asked of a broker, through whatever connection there is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nbqueue.brokers.base import Broker
from nbqueue.brokers.registry import invite
from nbqueue.client.held_back import handed_over
from nbqueue.client.keywords import shows
from nbqueue.client.link import Link
from nbqueue.client.options import DEFAULTS, check_names, duration_s, timing
from nbqueue.client.result import AsyncResult
from nbqueue.client.revoking import RevokeReport, manner
from nbqueue.client.submitter import Display, Submitter
from nbqueue.core.routing import DEFAULT_QUEUE, Offer
from nbqueue.errors import NoWorkers
from nbqueue.settings import Settings

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
        self._link.questions.stop_workers(self._request)

    def __repr__(self) -> str:
        return f"<WorkerGroup of {self.slots} slots; {self._connected} slots in all>"


class Calls(Submitter, ABC):
    """The calls of an app: those of a `Submitter` without options, and all others.

    They are the functions of the package, too, which has them of its default app.
    """

    display: Display

    def __init__(self) -> None:
        super().__init__(self, {})

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """How the broker is found."""

    @abstractmethod
    def connection(self) -> tuple[Link, Broker]:
        """The live connection."""

    @shows(DEFAULTS)
    def options(self, **task_options: Any) -> Submitter:
        """`submit`, `map` and the rest with options for the task.

        The function's own keywords stay free.

        Args:
            **task_options: max_retries, autoretry_for, retry_backoff (True or seconds), retry_backoff_max (seconds),
                retry_jitter, max_lost, soft_time_limit and time_limit (seconds), memory (bytes, or "4G"), queue, tags
                (a worker must have all of them), priority (higher first), countdown (seconds), expires (seconds),
                strict_fence, label.

        Raises:
            TypeError: There is no such option; names the nearest.
            ValueError: A value is out of its range.

        Example:
            >>> nbqueue.options(max_retries=3).submit(int, "7").get()
            7
        """
        return Submitter(self, task_options)

    @handed_over
    @shows(DEFAULTS)
    def send_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        **task_options: Any,
    ) -> AsyncResult:
        """Have a worker call a task that it knows by name, with JSON.

        Arguments and result are JSON, so that nothing is unpickled, neither there nor here: tuples come as lists, and
        what JSON does not have is refused. Nothing of this process goes along: the task is what its worker has.

        Args:
            name: That of a task of the modules that the worker was started with (``nbqueue-worker --import``). If it
                accepts cloudpickle, too, also "package.module.function", whatever it can import.
            args: Positional arguments.
            kwargs: Keyword arguments.
            countdown: Seconds to wait before it may run.
            eta: The moment from which it may run, instead of *countdown*; without a time zone it is local time.
            expires: Seconds, or the moment, after which it is not started any more.
            **task_options: As for `options`, but for autoretry_for. Those with which the worker's module defines the
                task are not known here.

        Returns:
            Its handle. `get` raises `NotRegistered` if the worker knows no such task.

        Raises:
            NotSerializable: An argument is nothing that JSON has.

        Example:
            >>> nbqueue.send_task("math.sqrt", [9]).get()
            3.0
        """
        from nbqueue.client.by_name import send

        options = {**task_options, **timing(countdown=countdown, eta=eta, expires=expires)}
        return send(self, name, args, {} if kwargs is None else kwargs, options)

    def revoke(
        self,
        id_or_ids: str | AsyncResult | Iterable[str | AsyncResult],
        *,
        terminate: bool = False,
        signal: str | int | None = None,
        grace_s: float | None = None,
        wait: bool = False,
    ) -> RevokeReport | list[RevokeReport]:
        """Stop tasks and maps by their ids, whichever process has submitted them.

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
            task_id: Its id, or at least four characters of it, as `inspect` and the cards show them. ``"ID.7"`` is item
                7 of a map, as `current_task().id` has it.

        Returns:
            A `MapResult` if it has several items. Its results stay with the broker when the handle goes.

        Raises:
            UnknownTask: The broker knows no such run, or several whose ids begin like this, or there is no such item.
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
            tags: What they have, for work that asks for it with ``tags=``.
            only_tagged: They leave work without tags to others.

        Raises:
            NoWorkers: They cannot be started; says why.
        """
        slots = self.settings.workers if n is None else n
        if type(slots) is not int or slots < 1:
            raise ValueError(f"n must be a whole number, 1 or more, not {slots!r}")
        offer = Offer(
            queues=check_names("queues", queues) or (DEFAULT_QUEUE,),
            tags=check_names("tags", tags),
            only_tagged=only_tagged,
        )
        link, _ = self.connection()
        request, answer = link.questions.start_workers(slots, python=python, in_addition=True, offer=offer)
        try:
            connected = answer.result(timeout)
        except TimeoutError:
            raise NoWorkers(f"{slots} workers were not connected after {timeout:g} s") from None
        return WorkerGroup(link, request, slots, connected)

    def invite(self, ttl: float | str = "1h", *, tags: Iterable[str] = (), slots: int | None = None) -> Line:
        """A line to paste on another machine, which then works for this one.

        This machine needs a hub that others can reach: ``nbqueue hub --bind tcp://0.0.0.0:PORT``. The other one needs
        nbqueue in the same version of Python, and dials out to that one port.

        Args:
            ttl: How long the line is good: seconds, or "90s", "30m", "1h", "2d". A worker that has come by then may
                stay.
            tags: What the worker has, e.g. ``["gpu"]``: work asks for it by ``tags=``.
            slots: Its slots; None: its usable cores.

        Returns:
            The line. Whoever has it can join as a worker and see the tasks that it is given.

        Raises:
            BrokerUnavailable: There is no hub that other machines can reach.
        """
        if slots is not None and slots < 1:
            raise ValueError(f"slots must be 1 or more, not {slots}")
        invitation = invite(self.settings, ttl_s=duration_s(ttl), tags=check_names("tags", tags), slots=slots)
        return Line(invitation.line)

    # -- looking and control -------------------------------------------------------------------------------------------

    def check(self, fn: Callable[..., Any], /, *args: Any, trial: bool = True) -> CheckReport:
        """Examine a call before it is mapped over many items.

        Args:
            fn: The function.
            *args: Of one call.
            trial: Run it once on a worker.

        Returns:
            Whether it can be sent (if not, which variable is to blame), its size with all that it captures, what one
            run took in time and memory, which packages differ on the workers, the chunk size that fits, and advice. It
            prints as a table.
        """
        from nbqueue.client.check import check

        return check(fn, args, submit=self.submit if trial else None, env_diff=self.env_diff)

    def inspect(self) -> Inspect:
        """What the broker has now, in tables: active, queued, workers, and so on.

        Returns:
            One answer of the broker; its methods `active`, `reserved`, `queued`, `scheduled`, `revoked`, `runs`,
            `queues`, `workers` and `stats` show parts of it, and `ping` asks the workers.
        """
        link, _ = self.connection()
        from nbqueue.client.inspect import Inspect
        from nbqueue.client.recall import ANSWER_TIMEOUT_S

        return Inspect(
            link.questions.inspect().result(ANSWER_TIMEOUT_S), ping=lambda timeout: self.control.ping(timeout=timeout)
        )

    @property
    def control(self) -> Control:
        """Orders to the workers: ping, more or fewer slots, time limits, shutdown."""
        from nbqueue.client.control import Control

        return Control(lambda: self.connection()[0])

    def env_diff(self, timeout: float = 10.0) -> EnvDiff:
        """The packages of each worker that differ from those here, as a table.

        Args:
            timeout: Seconds to wait for the workers' answers.

        Returns:
            A list of `Difference`, those first that are likely to matter: another major or minor version, or a package
            that one side lacks. Python itself is among them.
        """
        from nbqueue.client.env_diff import EnvDiff
        from nbqueue.wire.versions import installed_versions

        return EnvDiff(installed_versions(), self.control.versions(timeout))

    def purge(self, queue: str = DEFAULT_QUEUE) -> int:
        """Revoke whatever waits in a queue, of all clients; what runs goes on.

        Returns:
            How many items that were.
        """
        return self.control.purge(queue)


def _id_of(task: str | AsyncResult) -> str:
    return task if isinstance(task, str) else task.id
