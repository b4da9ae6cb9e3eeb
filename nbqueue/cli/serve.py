"""``nbqueue hub``: this user's broker in the foreground, open to other machines if asked."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import click

from nbqueue.cli.log import log_events
from nbqueue.errors import KeyFileError, NBQueueError
from nbqueue.processes import HubArguments
from nbqueue.settings import Settings, is_on_this_machine, usable_cores

DEFAULT_PORT = 7913


@click.command("hub")
@click.option("--bind", default=None, metavar="tcp://HOST:PORT", help="Accept workers and clients of other machines.")
@click.option("--keys", type=click.Path(path_type=Path), default=None, help="Folder of the hub's keys.")
@click.option("--make-keys", is_flag=True, help="Write new keys into that folder, and end.")
@click.option("-c", "--concurrency", type=click.IntRange(min=0), default=None, help="Local slots; default: all cores.")
@click.pass_obj
def hub(settings: Settings, bind: str | None, keys: Path | None, make_keys: bool, concurrency: int | None) -> None:
    """Run this user's broker in the foreground, until Ctrl-C or `nbqueue stop`.

    Notebooks of this user find it as they find one that they start themselves. With --bind, workers of other machines
    find it, too: `nbqueue.invite()` in a notebook prints the line to paste there.
    """
    from nbqueue.wire.keyfile import default_key_file

    folder = keys or default_key_file().parent / "hub"
    try:
        if make_keys:
            _make_keys(folder)
        else:
            slots = usable_cores() if concurrency is None else concurrency
            _serve(settings, normal_endpoint(bind) if bind else "", folder, slots)
    except (NBQueueError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def normal_endpoint(text: str) -> str:
    """``tcp://host:port`` from that, ``host:port`` or ``host``. Raises `ValueError`."""
    found = re.fullmatch(r"(?:tcp://)?(\[[0-9a-fA-F:]+\]|[^:/\[\]\s]+)(?::(\d{1,5}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is no address: write tcp://HOST:PORT")
    host, port = found[1], found[2] or str(DEFAULT_PORT)
    return f"tcp://{host}:{port}"


def _make_keys(folder: Path) -> None:
    from nbqueue.brokers.zmq.curve import make_hub_keys

    _, client, worker = make_hub_keys(folder)
    click.echo(f"Made the keys of a hub in {folder}. Next: nbqueue hub --bind tcp://0.0.0.0:{DEFAULT_PORT}")
    click.echo(f"Workers of other machines need a copy of {worker}, or a line from nbqueue.invite().")
    click.echo(f"Whoever has {client} can run code on all workers.")


def _serve(settings: Settings, bind: str, keys: Path, slots: int) -> None:
    from nbqueue.brokers.zmq.connection import HubFiles
    from nbqueue.cli.hub import serve

    hub_key = keys / "hub.key"
    if bind and not hub_key.exists():
        _make_keys_for_loopback(bind, keys)
    files = HubFiles(settings.runtime_dir, settings.hub_name)
    files.secure_folder()
    lock = files.try_lock()
    if lock is None:
        raise click.ClickException("a hub of yours runs already: `nbqueue stop` ends it")
    log_events()
    arguments = HubArguments(
        folder=str(files.folder.absolute()),
        name=files.name,
        workers=slots,
        idle_timeout_s=float("1e9"),  # whoever started it by hand ends it by hand
        worker_python=settings.worker_python,
        lock_fd=lock,
        ready_fd=-1,
        bind=bind,
        keys=str(hub_key.absolute()),
    )
    serve(arguments, lambda endpoint: _show_banner(settings.hub_name, slots, endpoint))


def _make_keys_for_loopback(bind: str, keys: Path) -> None:
    from nbqueue.brokers.zmq.curve import make_hub_keys

    if not is_on_this_machine(bind):
        raise KeyFileError(
            f"a hub that others can reach needs keys, and there are none in {keys}: `nbqueue hub --make-keys` once, "
            "then start it again"
        )
    make_hub_keys(keys)


def _show_banner(name: str, slots: int, endpoint: str) -> None:
    from nbqueue._version import __version__

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    click.echo(f"nbqueue {__version__} hub {name}, Python {python}, pid {os.getpid()} on {socket.gethostname()}")
    click.echo(f"  local slots   {slots}")
    if endpoint:
        click.echo(f"  listens at    {endpoint} (CURVE; strangers were refused in a test)")
        click.echo("  add workers   nbqueue.invite() in a notebook on this machine prints the line to paste elsewhere")
    sys.stdout.flush()
