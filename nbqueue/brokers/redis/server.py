"""Opens connections to the master behind an address, and checks that it can be a broker."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

from nbqueue.brokers.redis.address import Address
from nbqueue.brokers.redis.failures import translate_redis_errors
from nbqueue.errors import BrokerUnavailable, EnvironmentMismatch

logger = logging.getLogger(__name__)

#: A server answers a connect or a simple question within this time.
ANSWER_TIMEOUT_S = 3.0
OLDEST_VERSION = (6, 2)

AnyConnection = Connection | UnixDomainSocketConnection


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself."""

    version: tuple[int, int]
    pid: int
    uptime_s: float
    policy: str
    max_memory: int
    is_persistent: bool
    role: str
    run_id: str  #: new with every start of its process

    @property
    def knows_functions(self) -> bool:
        """Whether scripts may live in it as functions, and say that they need no memory."""
        return self.version >= (7, 0)


def open_connection(address: Address) -> AnyConnection:
    """A connection, blocking and logged in, to the master of *address*.

    Raises:
        BrokerUnavailable: There is none that answers.
    """
    with translate_redis_errors(address):
        connection = _connection(address)
        connection.connect()
        return connection


def _connection(address: Address) -> AnyConnection:
    options: dict[str, Any] = {
        **address.credentials,
        "db": address.db,
        "protocol": 2,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": ANSWER_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    if address.kind == "unix":
        return UnixDomainSocketConnection(path=address.path, **options)  # type: ignore[abstract] # its stub is wrong
    host, port = _master(address)
    if address.tls:
        return SSLConnection(host=host, port=port, socket_keepalive=True, ssl_ca_certs=address.ca, **options)
    return Connection(host=host, port=port, socket_keepalive=True, **options)


def _master(address: Address) -> tuple[str, int]:
    """Who holds the data now."""
    if address.kind == "sentinel":
        options = {"socket_timeout": ANSWER_TIMEOUT_S / 3, "protocol": 2}
        host, port = Sentinel(address.hosts, sentinel_kwargs=options).discover_master(address.service)
        return str(host), int(port)
    if address.kind == "cluster":
        return _master_in_cluster(address)
    return address.hosts[0]


def _master_in_cluster(address: Address) -> tuple[str, int]:
    """All keys of a namespace lie in one slot, hence on one master."""
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        socket_timeout=ANSWER_TIMEOUT_S,
        ssl=address.tls,
        require_full_coverage=False,
        protocol=2,
        **address.credentials,
    )
    try:
        node = cluster.get_node_from_key(address.prefix)
    finally:
        cluster.close()
    if node is None:
        raise redis.ConnectionError(f"no master of the cluster serves the namespace {address.namespace!r}")
    return str(node.host), int(node.port)


def ask(connection: AnyConnection, *command: Any) -> Any:
    """The answer to one command on a blocking connection; raises what redis-py raises."""
    connection.send_command(*command)
    return connection.read_response()


def read_info(connection: AnyConnection) -> ServerInfo:
    """What the server says of itself."""
    info: dict[str, str] = {}
    for section in ("server", "memory", "persistence", "replication"):
        text = ask(connection, "INFO", section)
        text = text.decode() if isinstance(text, bytes) else text
        for line in text.splitlines():
            name, _, value = line.partition(":")
            info[name] = value
    major, minor = info.get("redis_version", "0.0").split(".")[:2]
    return ServerInfo(
        version=(int(major), int(minor)),
        pid=int(info.get("process_id", 0)),
        uptime_s=float(info.get("uptime_in_seconds", 0)),
        policy=info.get("maxmemory_policy", "noeviction"),
        max_memory=int(info.get("maxmemory", 0)),
        is_persistent=info.get("aof_enabled") == "1" or _saves(connection),
        role=info.get("role", "master"),
        run_id=info.get("run_id", ""),
    )


def _saves(connection: AnyConnection) -> bool:
    try:
        found = ask(connection, "CONFIG", "GET", "save")
    except redis.ResponseError:
        return True  # a managed server that does not tell
    return bool(found and found[-1])


def check(info: ServerInfo, address: Address) -> None:
    """Say in one sentence what is wrong with a server, if something is.

    Raises:
        EnvironmentMismatch: It is too old.
        BrokerUnavailable: It would throw work away.
    """
    if info.version < OLDEST_VERSION:
        found, needed = (".".join(map(str, version)) for version in (info.version, OLDEST_VERSION))
        raise EnvironmentMismatch(
            f"Redis at {address} is version {found}, nbqueue needs {needed} or newer, or any Valkey"
        )
    if info.role != "master":
        raise BrokerUnavailable(f"Redis at {address} is a replica, which takes no work: give the address of its master")
    if info.policy != "noeviction" and info.max_memory and address.eviction != "allow":
        raise BrokerUnavailable(
            f"Redis at {address} throws keys away when memory is short (maxmemory-policy {info.policy}), and with them "
            "accepted work: set it to noeviction, or add ?eviction=allow to the address"
        )
    if not info.is_persistent:
        logger.warning("redis does not persist: accepted work is lost when it restarts", extra={"server": str(address)})
