"""`nbqueue inspect`, `nbqueue purge` and `nbqueue control`: the calls of the same names, typed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import click

from nbqueue.brokers.registry import open_broker
from nbqueue.client.control import Control
from nbqueue.client.inspect import Inspect
from nbqueue.client.link import Link
from nbqueue.client.recall import ANSWER_TIMEOUT_S
from nbqueue.client.tables import Fact, Table
from nbqueue.errors import NBQueueError
from nbqueue.settings import Settings

WHAT = ("active", "reserved", "queued", "scheduled", "revoked", "runs", "queues", "workers", "stats", "ping")


@click.command()
@click.argument("what", type=click.Choice(WHAT), required=False)
@click.pass_obj
def inspect(settings: Settings, what: str | None) -> None:
    """Show what the broker has: all in short, or WHAT in full."""
    with _connected(settings) as link:
        answer = Inspect(
            link.questions.inspect().result(ANSWER_TIMEOUT_S),
            ping=lambda timeout: Control(lambda: link).ping(timeout=timeout),
        )
        if what == "stats":
            click.echo(repr(Table(Fact(name, value) for name, value in answer.stats().items())))
        else:
            click.echo(repr(getattr(answer, what)() if what else answer))


@click.command()
@click.option("-Q", "--queue", default="default", show_default=True, help="Which queue.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(settings: Settings, queue: str, force: bool) -> None:
    """Revoke whatever waits in a queue, of all clients; what runs goes on."""
    with _connected(settings) as link:
        if not force:
            click.confirm(f"Revoke everything that waits in queue {queue!r}, of all notebooks?", abort=True)
        items = Control(lambda: link).purge(queue)
        click.echo(f"Revoked {items:,} waiting {'item' if items == 1 else 'items'} of queue {queue!r}.")


@click.group()
def control() -> None:
    """Give workers an order: ping, more or fewer slots, time limits, shutdown."""


_destination = click.option("-d", "--destination", multiple=True, help="Name of a worker; default: all.")
_timeout = click.option("--timeout", type=click.FloatRange(min=0), default=5.0, help="Seconds to wait for answers.")


@control.command()
@_destination
@_timeout
@click.pass_obj
def ping(settings: Settings, destination: tuple[str, ...], timeout: float) -> None:
    """Ask workers whether they live."""
    _give(settings, "ping", {}, destination, timeout)


@control.command()
@click.argument("n", type=click.IntRange(min=1), default=1)
@_destination
@_timeout
@click.pass_obj
def pool_grow(settings: Settings, n: int, destination: tuple[str, ...], timeout: float) -> None:
    """Give each worker N slots more."""
    _give(settings, "pool_grow", {"n": n}, destination, timeout)


@control.command()
@click.argument("n", type=click.IntRange(min=1), default=1)
@_destination
@_timeout
@click.pass_obj
def pool_shrink(settings: Settings, n: int, destination: tuple[str, ...], timeout: float) -> None:
    """Give each worker N slots fewer, at least one; busy ones go when their work is over."""
    _give(settings, "pool_shrink", {"n": n}, destination, timeout)


@control.command()
@click.argument("name")
@click.option(
    "--soft", type=float, default=None, help="Seconds after which SoftTimeLimitExceeded is raised in the task."
)
@click.option("--hard", type=float, default=None, help="Seconds after which the task's process is ended.")
@_destination
@_timeout
@click.pass_obj
def time_limit(
    settings: Settings, name: str, soft: float | None, hard: float | None, destination: tuple[str, ...], timeout: float
) -> None:
    """Limit the time of tasks called NAME that begin from now on; without limits, take the rule away."""
    _give(settings, "time_limit", {"name": name, "soft": soft, "hard": hard}, destination, timeout)


@control.command()
@_destination
@_timeout
@click.pass_obj
def shutdown(settings: Settings, destination: tuple[str, ...], timeout: float) -> None:
    """Stop workers in good order; what they run goes back to the queue."""
    _give(settings, "shutdown", {}, destination, timeout)


def _give(
    settings: Settings, command: str, arguments: dict[str, Any], destination: tuple[str, ...], timeout: float
) -> None:
    with _connected(settings) as link:
        replies = Control(lambda: link).broadcast(command, arguments, destination or None, timeout)
    click.echo(repr(replies))
    if not all(reply.ok for reply in replies):
        raise SystemExit(1)


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[Link]:
    """A connection to the broker that runs; without one, the command ends with a sentence."""
    try:
        broker = open_broker(settings.url, settings, start=False)
        if broker is None:
            raise click.ClickException("no hub runs: a notebook that uses nbqueue starts one")
        link = Link(broker.open_client(os.urandom(16)), submit_timeout_s=settings.submit_timeout_s)
        try:
            yield link
        finally:
            link.close()
    except (NBQueueError, ValueError, TimeoutError) as error:
        raise click.ClickException(str(error)) from error
