"""A Redis or Valkey server as the broker."""

from __future__ import annotations

from nbqueue.brokers.base import Broker, ClientPort, WorkerPort
from nbqueue.brokers.redis.address import Address
from nbqueue.brokers.redis.client_port import RedisClientPort
from nbqueue.brokers.redis.session import Listener, ScriptLoader, Session, load_scripts
from nbqueue.brokers.redis.worker_port import RedisWorkerPort
from nbqueue.core.dispatcher import Limits
from nbqueue.core.exchange import WorkerInfo
from nbqueue.wire.blobs import BlobStore

#: Longer than on one machine: networks stall, and a failover takes its time. The server's own maxmemory is the limit of
#: bytes, so ours is out of the way.
LIMITS = Limits(lease_s=30.0, max_bytes=2**46)
#: A server is further away than a hub: of very short chunks, so many times more are held ahead than a supervisor asks
#: for (lua/workers.lua bounds them by the work that they are).
AHEAD = 32
#: Every port looks at the clock so often; it costs the server some microseconds.
TICK_S = 1.0


class RedisBroker(Broker):
    """The server behind an address. Ports connect to it directly; nothing of ours runs in between."""

    def __init__(
        self,
        address: Address,
        *,
        limits: Limits = LIMITS,
        tick_s: float = TICK_S,
        ahead: int = AHEAD,
        load: ScriptLoader = load_scripts,
    ) -> None:
        """Use the server at *address*; *load* lets tests bring a clock of their own."""
        self._address = address
        self._limits = limits
        self._tick_s = tick_s
        self._ahead = ahead
        self._load = load

    @property
    def blobs(self) -> BlobStore | None:
        """None: payloads travel through the server."""
        return None

    def open_client(self, client_id: bytes) -> ClientPort:
        """See `Broker.open_client`."""
        return RedisClientPort(client_id, lambda port: self._open_session(port, b"n:" + client_id, client_id))

    def open_worker(self, info: WorkerInfo) -> WorkerPort:
        """See `Broker.open_worker`."""
        return RedisWorkerPort(info, self._ahead, lambda port: self._open_session(port, b"w:" + info.worker_id + b":"))

    def _open_session(self, listener: Listener, news: bytes, client_id: bytes = b"") -> Session:
        return Session(
            self._address,
            news=self._address.prefix.encode() + news,
            client_id=client_id,
            limits=self._limits,
            listener=listener,
            tick_s=self._tick_s,
            load=self._load,
        )
