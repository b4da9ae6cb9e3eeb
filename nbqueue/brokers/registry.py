"""From an address to a broker; each transport is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nbqueue.brokers.base import Broker
from nbqueue.core.serializers import SERIALIZERS
from nbqueue.settings import Settings, is_on_this_machine

if TYPE_CHECKING:
    from nbqueue.brokers.zmq.invitation import Invitation
    from nbqueue.wire.seal import SealingKey

EMBEDDED = "embedded"
#: Addresses of a server that is not ours to start.
SERVER_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "redis+sentinel", "redis+cluster")


Role = Literal["client", "worker"]


def open_broker(url: str, settings: Settings, *, start: bool = True, role: Role = "client") -> Broker | None:
    """The broker behind *url*.

    Args:
        url: ``"embedded"``: this user's hub on this machine. ``tcp://host:port``: a hub on another one. ``redis://``,
            ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://``: a Redis or Valkey server, see
            docs/howto/redis.md; what passes through it is sealed.
        settings: Where it lives, how it is started, and where the keys are.
        start: Start it if it does not run.
        role: What is wanted of it.

    Returns:
        None when it does not run and *start* is False.

    Raises:
        ValueError: There is no such kind of broker.
        BrokerUnavailable: It cannot be reached or started.
        KeyFileError: The key that it needs is missing, damaged, or open to others.
    """
    broker = _open(url, settings, start=start, role=role)
    if broker is None or role == "worker" or settings.accept == SERIALIZERS:
        return broker
    from nbqueue.brokers.accepting import AcceptingBroker

    return AcceptingBroker(broker, settings.accept)


def _open(url: str, settings: Settings, *, start: bool, role: Role) -> Broker | None:
    """The broker as it is; see `open_broker`."""
    scheme = url.partition("://")[0]
    if scheme in SERVER_SCHEMES:
        from nbqueue.brokers.redis.address import parse
        from nbqueue.brokers.redis.broker import RedisBroker

        address = parse(url)
        return _sealed(RedisBroker(address), address.namespace, url, settings, role)
    if scheme == "tcp":
        from nbqueue.brokers.zmq.curve import find_credentials
        from nbqueue.brokers.zmq.remote import RemoteBroker

        return RemoteBroker(url, find_credentials(role, settings.token, settings.key_file))
    if url != EMBEDDED:
        shown = url if scheme == url else f"{scheme}://"  # the rest may hold a password
        raise ValueError(f"unknown broker {shown!r}: there are {EMBEDDED!r}, tcp://host:port and redis://host")
    from nbqueue.brokers.zmq.embedded import find_hub, find_or_start_hub

    if not start:
        return find_hub(settings.runtime_dir, settings.hub_name)
    return find_or_start_hub(
        settings.runtime_dir,
        settings.hub_name,
        workers=settings.workers,
        idle_timeout_s=settings.idle_timeout_s,
        worker_python=settings.worker_python,
    )


def _sealed(broker: Broker, namespace: str, url: str, settings: Settings, role: Role) -> Broker:
    """The broker, which sees sealed bytes only."""
    from nbqueue.brokers.sealed import SealedBroker
    from nbqueue.wire.seal import Sealer

    keys = sealing_keys(url, settings, role=role)
    return SealedBroker(broker, Sealer(keys, namespace=namespace, encrypt=settings.encrypt))


def sealing_keys(url: str, settings: Settings, *, role: Role) -> list[SealingKey]:
    """The keys for a broker that others may write to; made on first use, but not by a worker far from its notebook.

    Raises:
        KeyFileError: There is none, or others can read it.
    """
    from nbqueue.wire.keyfile import default_key_file, load_keys, load_or_make_keys, parse_key

    if settings.token:
        return [parse_key(settings.token)]
    path = settings.key_file or default_key_file()
    return load_or_make_keys(path) if role == "client" or is_on_this_machine(url) else load_keys(path)


def invite(settings: Settings, *, ttl_s: float, tags: tuple[str, ...], slots: int | None) -> Invitation:
    """Let one more machine work for this user's hub.

    Raises:
        BrokerUnavailable: There is no hub that other machines can reach.
    """
    from nbqueue.brokers.zmq.invitation import invite_worker

    return invite_worker(settings.runtime_dir, settings.hub_name, ttl_s=ttl_s, tags=tags, slots=slots)
