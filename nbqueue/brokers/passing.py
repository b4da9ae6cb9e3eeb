"""A client's port around another one, to which it passes everything on: others override what they change."""

from __future__ import annotations

from collections.abc import Sequence

from nbqueue.brokers.base import ClientPort
from nbqueue.core.orders import Order
from nbqueue.core.routing import DEFAULT_OFFER, Offer
from nbqueue.core.task import GENTLY, Block, Manner, RunSpec
from nbqueue.wire.messages import ToClientPeer


class PassingClientPort(ClientPort):
    """Passes on whatever is said and heard."""

    def __init__(self, port: ClientPort) -> None:
        self._port = port

    def fileno(self) -> int:
        """See `Port.fileno`."""
        return self._port.fileno()

    def flush(self) -> None:
        """See `Port.flush`."""
        self._port.flush()

    def receive(self) -> list[ToClientPeer]:
        """See `ClientPort.receive`."""
        return self._port.receive()

    def submit(self, spec: RunSpec, *, function: bytes | None, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.submit`."""
        self._port.submit(spec, function=function, blocks=blocks, closed=closed)

    @property
    def is_idle(self) -> bool:
        """See `ClientPort.is_idle`."""
        return self._port.is_idle

    def submit_now(self, spec: RunSpec, *, function: bytes, blocks: Sequence[Block], closed: bool) -> bool:
        """See `ClientPort.submit_now`."""
        return self._port.submit_now(spec, function=function, blocks=blocks, closed=closed)

    def feed(self, run_id: bytes, *, blocks: Sequence[Block], closed: bool) -> None:
        """See `ClientPort.feed`."""
        self._port.feed(run_id, blocks=blocks, closed=closed)

    def attach(self, run_id: bytes, *, cursor: int, output_cursor: int = 0) -> None:
        """See `ClientPort.attach`."""
        self._port.attach(run_id, cursor=cursor, output_cursor=output_cursor)

    def ack(self, *, entries: int, size_bytes: int, output_bytes: int = 0) -> None:
        """See `ClientPort.ack`."""
        self._port.ack(entries=entries, size_bytes=size_bytes, output_bytes=output_bytes)

    def revoke(self, run_id: bytes, *, start: int, stop: int, manner: Manner = GENTLY) -> None:
        """See `ClientPort.revoke`."""
        self._port.revoke(run_id, start=start, stop=stop, manner=manner)

    def forget(self, run_ids: Sequence[bytes]) -> None:
        """See `ClientPort.forget`."""
        self._port.forget(run_ids)

    def ping(self) -> None:
        """See `ClientPort.ping`."""
        self._port.ping()

    def inspect(self) -> None:
        """See `ClientPort.inspect`."""
        self._port.inspect()

    def purge(self, request: int, queue: str) -> None:
        """See `ClientPort.purge`."""
        self._port.purge(request, queue)

    def command(self, request: int, order: Order, *, worker_ids: Sequence[bytes] | None = None) -> None:
        """See `ClientPort.command`."""
        self._port.command(request, order, worker_ids=worker_ids)

    def start_workers(
        self,
        request: int,
        slots: int,
        *,
        python: str | None = None,
        in_addition: bool = False,
        offer: Offer = DEFAULT_OFFER,
    ) -> None:
        """See `ClientPort.start_workers`."""
        self._port.start_workers(request, slots, python=python, in_addition=in_addition, offer=offer)

    def stop_workers(self, request: int) -> None:
        """See `ClientPort.stop_workers`."""
        self._port.stop_workers(request)

    def close(self) -> None:
        """See `Port.close`."""
        self._port.close()
