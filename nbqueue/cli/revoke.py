"""`nbqueue revoke`: stop what another process has submitted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from nbqueue.errors import NBQueueError
from nbqueue.settings import Settings

if TYPE_CHECKING:
    from nbqueue.client.revoking import RevokeReport


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--terminate", is_flag=True, help="Begin with SIGTERM instead of SIGINT.")
@click.option("--signal", default=None, metavar="NAME", help="Begin with this signal; SIGKILL follows.")
@click.option("--grace", default=None, type=click.FloatRange(min=0), help="Seconds between two steps; default 2.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it has ended.")
@click.pass_obj
def revoke(
    settings: Settings, ids: tuple[str, ...], terminate: bool, signal: str | None, grace: float | None, no_wait: bool
) -> None:
    """Stop runs by their ids, or by at least four characters of them; "ID.7" is item 7 of a map.

    What waits never starts. What runs is interrupted, then terminated, then killed.
    """
    try:
        _revoke(settings, ids, terminate=terminate, signal=signal, grace_s=grace, wait=not no_wait)
    except (NBQueueError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _revoke(
    settings: Settings, ids: tuple[str, ...], *, terminate: bool, signal: str | None, grace_s: float | None, wait: bool
) -> None:
    from nbqueue.brokers.registry import open_broker
    from nbqueue.client.link import Link
    from nbqueue.client.recall import revoke_by_id
    from nbqueue.client.revoking import manner

    how = manner(terminate=terminate, signal=signal, grace_s=grace_s)
    broker = open_broker(settings.url, settings, start=False)
    if broker is None:
        raise click.ClickException("no hub runs, so there is nothing to revoke")
    link = Link(broker.open_client(os.urandom(16)), submit_timeout_s=0.0)
    try:
        for task_id, report in zip(ids, revoke_by_id(link, ids, how, wait=wait), strict=True):
            click.echo(f"{task_id}: {_in_words(report)}")
    finally:
        link.close()


def _in_words(report: RevokeReport) -> str:
    if report.after_s is None:
        return "asked to stop"
    kept = f"; {report.kept:,} had ended and are kept" if report.kept else ""
    if not report.revoked:
        return "had ended already"
    items = "1 item" if report.revoked == 1 else f"{report.revoked:,} items"
    return f"{items} revoked after {report.after_s:.2f} s ({report.how}){kept}"
