"""From an address to a broker; each transport is imported when it is asked for."""

from __future__ import annotations

from nbqueue.brokers.base import Broker
from nbqueue.settings import Settings

EMBEDDED = "embedded"
#: Addresses of a server that is not ours to start.
SERVER_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "redis+sentinel", "redis+cluster")


def open_broker(url: str, settings: Settings, *, start: bool = True) -> Broker | None:
    """The broker behind *url*.

    Args:
        url: ``"embedded"``: this user's hub on this machine. ``redis://``, ``rediss://``, ``unix://``,
            ``redis+sentinel://`` or ``redis+cluster://``: a Redis or Valkey server, see docs/howto/redis.md.
        settings: Where it lives and how it is started.
        start: Start it if it does not run.

    Returns:
        None when it does not run and *start* is False.

    Raises:
        ValueError: There is no such kind of broker.
        BrokerUnavailable: It cannot be reached or started.
    """
    scheme = url.partition("://")[0]
    if scheme in SERVER_SCHEMES:
        from nbqueue.brokers.redis.address import parse
        from nbqueue.brokers.redis.broker import RedisBroker

        return RedisBroker(parse(url))
    if url != EMBEDDED:
        shown = url if scheme == url else f"{scheme}://"  # the rest may hold a password
        raise ValueError(f"unknown broker {shown!r}: there are {EMBEDDED!r} and addresses that begin with redis://")
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
