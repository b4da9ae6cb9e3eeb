"""What somebody may ask of supervisors, and what they answer.

An order goes from a client through the broker to the supervisors that it names, or to all. The broker first says whom
it has asked; each supervisor that lives then answers for itself. Nothing waits for one that does not.
"""

from __future__ import annotations

import msgspec


class SayAlive(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Answer, and do nothing else."""


class ResizePool(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Have so many slots more, or fewer if negative; one always stays."""

    by: int


class EndWork(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Stop in good order: what is held goes back to the queue."""


class LimitTime(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Hold tasks of this name that begin from now on to these limits; without both, no longer."""

    name: str
    soft_s: float | None = None
    time_s: float | None = None


class TellVersions(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Say which packages a function of the client could import, and in which versions."""

    path: list[str] = []  #: the client's import path, which its functions bring along


class SealedOrder(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One of the others, as it passes through a broker that others may write to."""

    data: bytes


Order = SayAlive | ResizePool | EndWork | TellVersions | SealedOrder | LimitTime


class OrderFor(msgspec.Struct, frozen=True, array_like=True):
    """An order on its way to a supervisor."""

    client_id: bytes  #: who wants the answer
    request: int  #: the client's number for it
    order: Order


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """Whom the broker has asked; no answer comes from anybody else."""

    request: int
    workers: list[tuple[bytes, str]]  #: id and name


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What a supervisor says to an order."""

    request: int
    worker_id: bytes
    text: str  #: for people
    done: bool = True  #: False: the order could not be carried out; the text says why
    versions: dict[str, str] = {}  #: of packages, for `TellVersions`
