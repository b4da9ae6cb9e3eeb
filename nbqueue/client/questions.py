"""What is asked of a broker beside runs, and answered once: how it is, more workers, orders to them, purges."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any
from weakref import WeakValueDictionary

from nbqueue.brokers.base import ClientPort
from nbqueue.client.inquiry import Inquiry
from nbqueue.core.orders import Order
from nbqueue.core.routing import DEFAULT_OFFER, Offer
from nbqueue.errors import NoWorkers
from nbqueue.wire.messages import Answered, Inspected, Purged, WereAsked, WorkersStarted

Answer = Inspected | WorkersStarted | WereAsked | Answered | Purged


class Questions:
    """Asked by anybody; whoever reads what the broker says takes the answers."""

    def __init__(self, enqueue: Callable[[Callable[[ClientPort], None]], None]) -> None:
        """Have *enqueue* call what uses the port."""
        self._enqueue = enqueue
        self._inspections: deque[Future[Inspected]] = deque()
        self._starts: dict[int, Future[int]] = {}
        self._purges: dict[int, Future[int]] = {}
        self._inquiries: WeakValueDictionary[int, Inquiry] = WeakValueDictionary()
        self._requests = 0
        self.no_workers: NoWorkers | None = None  #: there are none, and none can be started

    def inspect(self) -> Future[Inspected]:
        """Ask the broker about itself."""
        answer: Future[Inspected] = Future()

        def command(port: ClientPort) -> None:
            self._inspections.append(answer)
            port.inspect()

        self._enqueue(command)
        return answer

    def start_workers(
        self, slots: int, *, python: str | None = None, in_addition: bool = False, offer: Offer = DEFAULT_OFFER
    ) -> tuple[int, Future[int]]:
        """Ask for local slots; the future tells how many are connected then, or raises `NoWorkers`."""
        request, answer = self._new_request(), Future[int]()

        def command(port: ClientPort) -> None:
            self._starts[request] = answer
            self.no_workers = None
            port.start_workers(request, slots, python=python, in_addition=in_addition, offer=offer)

        self._enqueue(command)
        return request, answer

    def stop_workers(self, request: int) -> None:
        """Stop the workers that this request started."""
        self._enqueue(lambda port: port.stop_workers(request))

    def give_order(self, order: Order, worker_ids: Sequence[bytes] | None = None) -> Inquiry:
        """Ask supervisors, or all; what comes back is the caller's for as long as it keeps it."""
        inquiry = Inquiry(self._new_request())

        def command(port: ClientPort) -> None:
            self._inquiries[inquiry.request] = inquiry
            port.command(inquiry.request, order, worker_ids=worker_ids)

        self._enqueue(command)
        return inquiry

    def purge(self, queue: str) -> Future[int]:
        """Revoke whatever waits in a queue; the future tells how many items that were."""
        request, answer = self._new_request(), Future[int]()

        def command(port: ClientPort) -> None:
            self._purges[request] = answer
            port.purge(request, queue)

        self._enqueue(command)
        return answer

    def _new_request(self) -> int:
        self._requests += 1
        return self._requests

    # -- whoever reads -------------------------------------------------------------------------------------------------

    def take(self, message: Answer) -> None:
        """The broker, or a worker, has answered."""
        match message:
            case Inspected():
                self._inspections.popleft().set_result(message)
            case WorkersStarted(request, slots, error):
                self._take_workers(request, slots, error)
            case WereAsked(content) | Answered(content):
                inquiry = self._inquiries.get(content.request)  # nobody may wait for it any more
                if inquiry is not None:
                    inquiry.take(content)
            case Purged(request, items):
                self._purges.pop(request).set_result(items)

    def _take_workers(self, request: int, slots: int, error: str) -> None:
        answer = self._starts.pop(request, None)
        if answer is None:
            return
        if not error:
            answer.set_result(slots)
            return
        answer.set_exception(NoWorkers(error))
        if not slots:
            self.no_workers = NoWorkers(error)

    def fail(self, error: BaseException) -> None:
        """Nothing will be answered any more."""
        answers: list[Future[Any]] = [*self._inspections, *self._starts.values(), *self._purges.values()]
        for answer in answers:
            if not answer.done():
                answer.set_exception(error)
        for inquiry in list(self._inquiries.values()):
            inquiry.fail(error)
