"""Orders to connected workers: ping, more or fewer slots, time limits, shutdown."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from nbqueue.client.link import Link
from nbqueue.client.recall import ANSWER_TIMEOUT_S
from nbqueue.client.tables import Table
from nbqueue.core.orders import Answer, EndWork, LimitTime, Order, ResizePool, SayAlive, TellVersions
from nbqueue.wire.environment import current_environment


class Reply(NamedTuple):
    """What a worker said to an order."""

    worker: str
    ok: bool  #: whether it did what it was asked to
    text: str


class Control:
    """Orders to workers: ping, pool_grow, time_limit, shutdown and so on.

    Each order goes to all workers, or to those that *destination* names, waits up to *timeout* seconds for their
    answers, and returns one `Reply` per worker. A worker that has not answered in time may carry it out later.
    """

    def __init__(self, link: Callable[[], Link]) -> None:
        """Give orders through the connection that *link* returns."""
        self._link = link

    def ping(self, destination: str | Iterable[str] | None = None, timeout: float = 1.0) -> Table[Reply]:
        """Ask workers whether they live."""
        return self._order(SayAlive(), destination, timeout)

    def pool_grow(
        self, n: int = 1, destination: str | Iterable[str] | None = None, timeout: float = 5.0
    ) -> Table[Reply]:
        """Give each worker *n* slots more; the reply says how many it has then."""
        return self._order(ResizePool(_positive(n)), destination, timeout)

    def pool_shrink(
        self, n: int = 1, destination: str | Iterable[str] | None = None, timeout: float = 5.0
    ) -> Table[Reply]:
        """Give each worker *n* slots fewer, at least one.

        Idle slots end at once, busy ones when their work is over; what was fetched ahead goes back to the queue.
        """
        return self._order(ResizePool(-_positive(n)), destination, timeout)

    def time_limit(
        self,
        name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: str | Iterable[str] | None = None,
        timeout: float = 5.0,
    ) -> Table[Reply]:
        """Limit the time of tasks of a name that begin from now on.

        Of these limits and the task's own, the stricter ones hold. A chunk of items that has begun keeps those that it
        began with. The rule lasts for as long as the worker's process; workers that come later do not know it.

        Args:
            name: Of the tasks, as cards and `inspect` show it: ``name=`` of the decorator or ``label=``, else the
                function's own.
            soft: Seconds, as `soft_time_limit` of `options`; None: none.
            hard: Seconds, as `time_limit` of `options`; None: none. With both None the rule for the name is taken away.
            destination: Names of workers; None: all.
            timeout: Seconds to wait for their answers.

        Raises:
            ValueError: That is no name or no limit, or the soft one would never be reached.
        """
        return self._order(_limit_time(name, soft, hard), destination, timeout)

    def shutdown(self, destination: str | Iterable[str] | None = None, timeout: float = 5.0) -> Table[Reply]:
        """Stop workers in good order: what they run goes back to the queue, and local ones are not started again."""
        return self._order(EndWork(), destination, timeout)

    def broadcast(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        destination: str | Iterable[str] | None = None,
        timeout: float = 5.0,
    ) -> Table[Reply]:
        """Give an order by its name, as in Celery: ``broadcast("pool_grow", {"n": 2})``.

        Raises:
            ValueError: There is no such order; names the nearest.
        """
        orders: dict[str, Callable[..., Table[Reply]]] = {
            "ping": self.ping,
            "pool_grow": self.pool_grow,
            "pool_shrink": self.pool_shrink,
            "time_limit": self.time_limit,
            "shutdown": self.shutdown,
        }
        if command not in orders:
            near = difflib.get_close_matches(command, orders, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(orders)}"
            raise ValueError(f"there is no order {command!r}; {hint}")
        return orders[command](**(arguments or {}), destination=destination, timeout=timeout)

    def purge(self, queue: str = "default") -> int:
        """Revoke whatever waits in *queue*, of all clients; how many items that were. What runs goes on."""
        return self._link().questions.purge(queue).result(ANSWER_TIMEOUT_S)

    def versions(self, timeout: float = 10.0) -> dict[str, dict[str, str] | None]:
        """The packages that each worker has, by worker; None: it did not answer."""
        answers = self._ask(TellVersions(list(current_environment().path)), None, timeout)
        return {name: answer.versions if answer is not None and answer.done else None for name, answer in answers}

    def _order(self, order: Order, destination: str | Iterable[str] | None, timeout: float) -> Table[Reply]:
        answers = self._ask(order, destination, timeout)
        return Table((_reply(name, answer, timeout) for name, answer in answers), empty="no worker is connected")

    def _ask(
        self, order: Order, destination: str | Iterable[str] | None, timeout: float
    ) -> list[tuple[str, Answer | None]]:
        link = self._link()
        worker_ids = None if destination is None else self._ids(link, destination)
        return link.questions.give_order(order, worker_ids).wait(timeout)

    def _ids(self, link: Link, destination: str | Iterable[str]) -> list[bytes]:
        """The workers of these names, of which there may be several with one name."""
        wanted = {destination} if isinstance(destination, str) else set(destination)
        workers = link.questions.inspect().result(ANSWER_TIMEOUT_S).inspection.workers
        unknown = wanted - {worker.name for worker in workers}
        if unknown:
            known = ", ".join(repr(worker.name) for worker in workers) or "none"
            raise ValueError(f"no worker is called {min(unknown)!r}; connected: {known}")
        return [worker.worker_id for worker in workers if worker.name in wanted]

    def __repr__(self) -> str:
        return "<Control: ping, pool_grow, pool_shrink, time_limit, shutdown, broadcast, purge>"


def _reply(name: str, answer: Answer | None, timeout: float) -> Reply:
    if answer is None:
        return Reply(name, False, f"no answer within {timeout:g} s")
    return Reply(name, answer.done, answer.text)


def _limit_time(name: object, soft: float | None, hard: float | None) -> LimitTime:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name must be the name of tasks, as cards show it, not {name!r}")
    soft_s, time_s = _seconds("soft", soft), _seconds("hard", hard)
    if soft_s is not None and time_s is not None and soft_s >= time_s:
        raise ValueError(f"soft must be less than hard, or it is never reached: {soft_s:g} s and {time_s:g} s")
    return LimitTime(name, soft_s, time_s)


def _seconds(name: str, value: float | None) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a number of seconds above 0, or None, not {value!r}")
    return None if value is None else float(value)


def _positive(n: int) -> int:
    if type(n) is not int or n < 1:
        raise ValueError(f"n must be a whole number, 1 or more, not {n!r}")
    return n
