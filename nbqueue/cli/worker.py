"""``nbqueue-worker``: a supervisor and its slots, started by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from nbqueue.cli.catalog import tasks_of
from nbqueue.cli.log import log_events
from nbqueue.core.routing import DEFAULT_QUEUE, Offer
from nbqueue.core.serializers import SERIALIZERS
from nbqueue.errors import KeyFileError, NBQueueError
from nbqueue.settings import Settings, shown_url, usable_cores
from nbqueue.worker.program import work, work_on
from nbqueue.worker.zygote_process import ZygoteProcess, usual_name

if TYPE_CHECKING:
    from nbqueue.brokers.zmq.invitation import Invitation
    from nbqueue.core.exchange import WorkerInfo

#: After the first signal, what runs may go on for so long.
GRACE_S = 30.0
_MAX_INVITATION = 64 * 1024


@click.command()
@click.argument("url", required=False)
@click.option("-c", "--concurrency", type=click.IntRange(min=1), default=None, help="Slots; default: usable cores.")
@click.option("-Q", "--queues", default=DEFAULT_QUEUE, help="Queues to serve, with commas between them.")
@click.option("-t", "--tags", default="", help="What this worker has, e.g. gpu,big: work asks for it by tags=.")
@click.option("--only-tagged", is_flag=True, help="Leave work without tags to other workers.")
@click.option("-n", "--name", default=None, help="Shown on cards and in errors; default: host name and pid.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="File with the key for the broker.",
)
@click.option("--invite", type=click.File("r"), default=None, help="File with an invitation; -: standard input.")
@click.option("--grace", type=click.FloatRange(min=0), default=GRACE_S, help="Seconds for running work after a signal.")
@click.option("--memory-limit", default=None, metavar="SIZE", help="Of all slots together, e.g. 8G.")
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(min=1),
    default=None,
    help="Items after which a slot gets a fresh process.",
)
@click.option("--accept", default=None, help="What tasks may be packed with; default: cloudpickle,json.")
@click.option(
    "--import",
    "imports",
    default=None,
    metavar="MODULES",
    envvar="NBQUEUE_IMPORT",
    help="Modules whose tasks are run by their names, with commas between them.",
)
@click.option("--hub-name", default=None, help="Which hub of this user; default: that of this environment.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), default=None, help="Folder of the hub's files.")
@click.option("--loglevel", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
def main(
    url: str | None,
    concurrency: int | None,
    queues: str,
    tags: str,
    only_tagged: bool,
    name: str | None,
    token_file: Path | None,
    invite: IO[str] | None,
    grace: float,
    memory_limit: str | None,
    max_tasks_per_child: int | None,
    accept: str | None,
    imports: str | None,
    hub_name: str | None,
    runtime_dir: Path | None,
    loglevel: str,
) -> None:
    """Run tasks for the broker at URL until Ctrl-C: what runs is finished first; a second Ctrl-C stops it.

    URL is redis://host, tcp://host:port (a hub on another machine) or embedded, the broker of this user on this
    machine; default: NBQUEUE_URL, else embedded. Every option can be given by a variable, too: NBQUEUE_CONCURRENCY,
    NBQUEUE_QUEUES, NBQUEUE_TAGS, NBQUEUE_NAME, NBQUEUE_KEY_FILE, NBQUEUE_GRACE, NBQUEUE_LOGLEVEL.

    With --accept json it unpickles nothing, and runs the tasks of the modules that --import names, for send_task.
    """
    log_events(loglevel)
    _set_variables(
        NBQUEUE_MEMORY_LIMIT=memory_limit,
        NBQUEUE_MAX_TASKS_PER_CHILD=max_tasks_per_child,
        NBQUEUE_ACCEPT=accept,
        NBQUEUE_IMPORT=imports,
    )
    try:
        invitation = _read_invitation(invite.read(_MAX_INVITATION)) if invite is not None else None
        settings = _settings(url, token_file, hub_name, runtime_dir, invitation)
        offer = Offer(
            queues=_names(queues),
            tags=_names(tags) or (invitation.tags if invitation is not None else ()),
            only_tagged=only_tagged,
        )
        if not offer.queues:
            raise click.BadParameter("name at least one queue", param_hint="--queues")
        slots = concurrency or (invitation.slots if invitation is not None else None) or usable_cores()
        name = name or usual_name()
        tasks = tasks_of(settings.imports, worker=name) if settings.imports else []
        _work(settings, slots, name, offer, grace, tasks)
    except (NBQueueError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _settings(
    url: str | None,
    token_file: Path | None,
    hub_name: str | None,
    runtime_dir: Path | None,
    invitation: Invitation | None,
) -> Settings:
    if invitation is None:
        return Settings.load(url=url, key_file=token_file, hub_name=hub_name, runtime_dir=runtime_dir)
    if url is not None or token_file is not None:
        raise ValueError("an invitation says where the hub is, and holds the key: leave out URL and --token-file")
    from nbqueue.brokers.zmq.curve import encode_credentials

    return Settings.load(
        url=invitation.url,
        token=encode_credentials(invitation.credentials),
        hub_name=hub_name,
        runtime_dir=runtime_dir,
    )


def _read_invitation(text: str) -> Invitation:
    from nbqueue.brokers.zmq.invitation import Invitation

    if not text.strip():
        raise KeyFileError("there is no invitation on standard input: paste the whole line of nbqueue.invite()")
    return Invitation.parse(text)


def _set_variables(**values: object) -> None:
    """For this process and those that it starts; None: not given."""
    os.environ.update({name: str(value) for name, value in values.items() if value is not None})


def _work(settings: Settings, slots: int, name: str, offer: Offer, grace_s: float, tasks: Sequence[str]) -> None:
    # A task that uses nbqueue itself finds this broker, and starts none of its own.
    _set_variables(
        NBQUEUE_URL=settings.url,
        NBQUEUE_WORKERS=0,
        NBQUEUE_RUNTIME_DIR=settings.runtime_dir,
        NBQUEUE_HUB_NAME=settings.hub_name,
        NBQUEUE_KEY_FILE=settings.key_file,
    )
    zygote = ZygoteProcess(name, slots=slots)
    if settings.url == "embedded":
        work(settings, slots, name, zygote=zygote, offer=offer, grace_s=grace_s)
        return

    def announce(info: WorkerInfo) -> None:
        show_banner(settings, info, tasks)

    work_on(settings, slots, name, zygote=zygote, offer=offer, grace_s=grace_s, announce=announce)


def show_banner(settings: Settings, info: WorkerInfo, tasks: Sequence[str] = ()) -> None:
    """Say what this worker is and has joined, without a secret in it; *tasks* are those that it runs by their names."""
    from nbqueue._version import __version__

    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    only = " (tagged work only)" if info.offer.only_tagged else ""
    named = [f"  accepts  {' and '.join(settings.accept)}"] if settings.accept != SERIALIZERS else []
    named += [f"  tasks    {', '.join(tasks) or 'none'}"] if settings.imports else []
    lines = (
        f"nbqueue-worker {__version__}, Python {python}, pid {info.pid} on {info.host}",
        f"  joined   {shown_url(settings.url)} as {info.name}",
        f"  queues   {', '.join(info.offer.queues)}",
        f"  tags     {', '.join(info.offer.abilities) or 'none'}{only}",
        f"  slots    {info.slots}",
        *named,
        "  ready    Ctrl-C finishes what runs; again: stops it",
    )
    click.echo("\n".join(lines), err=True)


def _names(text: str) -> tuple[str, ...]:
    """The names in ``"a, b"``, sorted and without doubles."""
    return tuple(sorted({name.strip() for name in text.split(",")} - {""}))


def command() -> None:
    """Run the command, with its variables."""
    main(auto_envvar_prefix="NBQUEUE")


if __name__ == "__main__":
    command()
