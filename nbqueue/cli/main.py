"""The command `nbqueue`: look at the broker, control it, and stop the embedded one."""

from __future__ import annotations

import os
import secrets
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from nbqueue._version import __version__
from nbqueue.brokers.registry import EMBEDDED, open_broker
from nbqueue.cli import control
from nbqueue.cli.key import key
from nbqueue.cli.revoke import revoke
from nbqueue.cli.serve import hub
from nbqueue.errors import NBQueueError
from nbqueue.settings import Settings

if TYPE_CHECKING:
    from nbqueue.brokers.base import ClientPort
    from nbqueue.brokers.zmq.broker import ZmqClientPort
    from nbqueue.brokers.zmq.connection import HubFiles
    from nbqueue.wire.messages import Inspected

#: The hub needs up to 5 s to end its workers in good order.
STOP_TIMEOUT_S = 8.0
ANSWER_TIMEOUT_S = 5.0

Message = TypeVar("Message")


@click.group()
@click.version_option(__version__)
@click.option("--hub-name", default=None, help="Which hub of this user; default: that of this environment.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), default=None, help="Folder of the hub's files.")
@click.pass_context
def main(context: click.Context, hub_name: str | None, runtime_dir: Path | None) -> None:
    """Look at the broker of NBQUEUE_URL, else the embedded one of this user, and control it."""
    context.obj = Settings.load(hub_name=hub_name, runtime_dir=runtime_dir)


@main.command()
@click.pass_obj
def status(settings: Settings) -> None:
    """Show the broker, its workers, and what runs."""
    try:
        inspected = _inspect(settings)
    except (NBQueueError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if inspected is None:
        click.echo("No hub runs. A notebook that uses nbqueue starts one.")
        return
    from nbqueue.cli.tables import show_status

    # The rest of an address may hold a password.
    name = f"hub {settings.hub_name}" if settings.url == EMBEDDED else f"broker {settings.url.partition(':')[0]}"
    show_status(inspected, name)


@main.command()
@click.pass_obj
def stop(settings: Settings) -> None:
    """Stop the hub and its local workers; runs that are not finished are lost."""
    from nbqueue.brokers.zmq.connection import HubFiles

    files = HubFiles(settings.runtime_dir, settings.hub_name)
    if not files.is_hub_alive():
        click.echo("No hub runs.")
        return
    _ask_to_stop(settings, files)
    if not _wait_for_end(files):
        raise click.ClickException(f"the hub did not stop in {STOP_TIMEOUT_S:.0f} s; its log is {files.log}")
    click.echo("Stopped the hub and its workers.")


main.add_command(revoke)
main.add_command(control.inspect)
main.add_command(control.purge)
main.add_command(control.control)


def _inspect(settings: Settings) -> Inspected | None:
    from nbqueue.wire.messages import Inspected

    broker = open_broker(settings.url, settings, start=False)
    if broker is None:
        return None
    port = broker.open_client(secrets.token_bytes(16))
    try:
        port.inspect()
        return _await_answer(port, Inspected)
    finally:
        port.close()


def _open_port(settings: Settings) -> ZmqClientPort | None:
    from nbqueue.brokers.zmq.embedded import find_hub

    broker = find_hub(settings.runtime_dir, settings.hub_name)
    return None if broker is None else broker.open_client(secrets.token_bytes(16))


def _await_answer(port: ClientPort, kind: type[Message]) -> Message:
    port.flush()
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while (remaining_s := deadline - time.monotonic()) > 0:
        select.select([port.fileno()], [], [], remaining_s)
        for message in port.receive():
            if isinstance(message, kind):
                return message
    raise click.ClickException("the broker does not answer: `nbqueue stop` ends a hub of this machine")


def _ask_to_stop(settings: Settings, files: HubFiles) -> None:
    """Ask in its own protocol; a hub that cannot be asked (another version, or hung) is terminated."""
    try:
        port = _open_port(settings)
        if port is not None:
            port.shut_down()
            port.close()
    except NBQueueError:
        pid = files.pid_in_any_version()
        if pid is None:
            raise click.ClickException(f"{files.connection} does not say which process to stop") from None
        os.kill(pid, signal.SIGTERM)
        if not _wait_for_end(files):
            os.kill(pid, signal.SIGKILL)


def _wait_for_end(files: HubFiles) -> bool:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while files.is_hub_alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


main.add_command(hub)
main.add_command(key)


if __name__ == "__main__":
    main()
