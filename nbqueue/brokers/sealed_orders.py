"""Orders to supervisors under a seal: who can write to a broker, but lacks the key, can give none.

The seal covers whom the order is for, who gave it and when, so that it can neither be re-addressed nor repeated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from nbqueue.core.orders import Order, OrderFor, SealedOrder
from nbqueue.errors import SealBroken
from nbqueue.wire.seal import Header, Sealer

#: An order is good for so long; its supervisor may be stopped for a while, or its clock be off.
ORDER_LIFETIME_S = 120.0


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    """What is in the seal."""

    client_id: bytes
    request: int
    order: Order
    worker_ids: list[bytes] | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Sealed).decode


def seal_order(
    sealer: Sealer, client_id: bytes, request: int, order: Order, worker_ids: Sequence[bytes] | None
) -> SealedOrder:
    """The order as it passes through the broker."""
    body = _encode(_Sealed(client_id, request, order, None if worker_ids is None else list(worker_ids)))
    return SealedOrder(sealer.seal(Header(kind="control", not_after=sealer.clock() + ORDER_LIFETIME_S), body))


class OrderOpener:
    """Opens orders for one supervisor, each once."""

    def __init__(self, sealer: Sealer, worker_id: bytes) -> None:
        self._sealer = sealer
        self._worker_id = worker_id
        self._seen: OrderedDict[tuple[bytes, int], float] = OrderedDict()  # until when they could be repeated

    def open(self, message: OrderFor) -> OrderFor:
        """The order as it was given.

        Raises:
            SealBroken: It carries no seal of ours, is for somebody else, or came before.
        """
        if not isinstance(message.order, SealedOrder):
            raise SealBroken("it carries no seal")
        opened = self._sealer.open(message.order.data, kind="control")
        sealed = _decode(opened.body)
        if (sealed.client_id, sealed.request) != (message.client_id, message.request):
            raise SealBroken("its seal is genuine but for the order of another client")
        if sealed.worker_ids is not None and self._worker_id not in sealed.worker_ids:
            raise SealBroken("its seal is genuine but for other workers")
        self._check_first((sealed.client_id, sealed.request), opened.header.not_after)
        return OrderFor(sealed.client_id, sealed.request, sealed.order)

    def _check_first(self, name: tuple[bytes, int], not_after: float) -> None:
        now = self._sealer.clock()
        while self._seen and next(iter(self._seen.values())) < now:
            self._seen.popitem(last=False)
        if name in self._seen:
            raise SealBroken("it is genuine but came before: it is a replay")
        self._seen[name] = not_after
