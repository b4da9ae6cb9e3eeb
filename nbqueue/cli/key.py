"""``nbqueue key``: where the sealing key is, and how it gets to other machines. Never shows the key itself."""

from __future__ import annotations

import shlex

import click

from nbqueue.errors import NBQueueError
from nbqueue.settings import Settings


@click.command("key")
@click.option("--new", is_flag=True, help="Seal with a new key; what the old one has sealed can still be opened.")
@click.pass_obj
def key(settings: Settings, new: bool) -> None:
    """Show where the key for brokers like Redis is, and how to carry it to other machines.

    The key proves who has written a task or a result. It is made on first use. Whoever has it can run code on all
    workers that have it.
    """
    from nbqueue.wire.keyfile import add_new_key, default_key_file, load_or_make_keys

    path = settings.key_file or default_key_file()
    try:
        keys = load_or_make_keys(path)
        if new:
            keys = add_new_key(path)
    except NBQueueError as error:
        raise click.ClickException(str(error)) from error
    others = f", opens what {' and '.join(other.name for other in keys[1:])} sealed, too" if keys[1:] else ""
    quoted = shlex.quote(str(path))
    click.echo(f"The key {keys[0].name} is in {path}{others}.")
    click.echo("To carry it to a machine HOST, where workers will find it by themselves:")
    click.echo(f"  ssh HOST 'umask 077; mkdir -p ~/.config/nbqueue; cat > ~/.config/nbqueue/key' < {quoted}")
    click.echo("Anywhere else, give workers the file: nbqueue-worker URL --token-file FILE, or NBQUEUE_KEY_FILE=FILE.")
