"""What a supervisor does when it is given an order."""

from __future__ import annotations

from typing import Protocol, assert_never

from nbqueue.core.orders import (
    Answer,
    EndWork,
    LimitTime,
    OrderFor,
    ResizePool,
    SayAlive,
    SealedOrder,
    TellVersions,
)
from nbqueue.wire.versions import installed_versions


class Crew(Protocol):
    """A supervisor, as orders see it."""

    def resize(self, by: int) -> int:
        """Have so many slots more or fewer, at least one; how many that makes."""

    def limit_time(self, name: str, *, soft_s: float | None, time_s: float | None) -> str:
        """Hold tasks of this name to these limits from now on; what holds for them now, in words."""

    def stop(self) -> None:
        """End in good order."""


def obey(message: OrderFor, crew: Crew, worker_id: bytes) -> Answer:
    """Carry out an order; what to answer."""
    answer = Answer(message.request, worker_id, "")
    match message.order:
        case SayAlive():
            return _say(answer, "alive")
        case ResizePool(by):
            return _say(answer, _plural(crew.resize(by)))
        case LimitTime(name, soft_s, time_s):
            return _say(answer, crew.limit_time(name, soft_s=soft_s, time_s=time_s))
        case EndWork():
            crew.stop()
            return _say(answer, "stops")
        case TellVersions(path):
            return Answer(message.request, worker_id, "", versions=installed_versions(path))
        case SealedOrder():  # the port of a worker that has the key opens these
            return Answer(message.request, worker_id, "this worker has no key to open the order", done=False)
        case _:
            assert_never(message.order)


def _say(answer: Answer, text: str) -> Answer:
    return Answer(answer.request, answer.worker_id, text)


def _plural(slots: int) -> str:
    return "1 slot" if slots == 1 else f"{slots} slots"
