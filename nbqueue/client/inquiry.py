"""An order that was given to supervisors, and their answers as they come."""

from __future__ import annotations

import time

from nbqueue.client.condition import Condition
from nbqueue.core.orders import Answer, Asked


class Inquiry:
    """Whoever reads the news fills it, somebody waits for it; answers may come before it is known who was asked."""

    def __init__(self, request: int) -> None:
        self.request = request
        self._changed = Condition()
        self._names: dict[bytes, str] | None = None
        self._answers: dict[bytes, Answer] = {}
        self._error: BaseException | None = None

    def take(self, message: Asked | Answer) -> None:
        """Something has arrived."""
        with self._changed:
            match message:
                case Asked(workers=workers):
                    self._names = dict(workers)
                case Answer(worker_id=worker_id):
                    self._answers[worker_id] = message
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Nothing more will arrive."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> list[tuple[str, Answer | None]]:
        """Wait until all have answered, or the time is over.

        Returns:
            Name and answer of each supervisor that was asked; None: it has not answered.

        Raises:
            TimeoutError: The broker itself did not answer.
            BrokerUnavailable: The broker is gone.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._is_complete() and self._error is None and (left_s := deadline - time.monotonic()) > 0:
                self._changed.wait(left_s)
            if self._error is not None:
                raise self._error
            if self._names is None:
                raise TimeoutError(f"the broker did not answer within {timeout_s:g} s")
            return [(name, self._answers.get(worker_id)) for worker_id, name in self._names.items()]

    def _is_complete(self) -> bool:
        return self._names is not None and self._names.keys() <= self._answers.keys()
