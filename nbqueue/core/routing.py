"""Which supervisor may run what: the one rule that every broker keeps.

A task names a queue and tags; a supervisor offers queues and tags. Tags are abilities ("gpu"): a task goes only where
all of its tags are, and a supervisor that has tags takes work without any, too, unless it was told otherwise. Queues
are reservations: what is put on a queue is run only by those who serve it. One tag of each supervisor is its address,
which nobody else has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

DEFAULT_QUEUE = "default"
_ADDRESS = "@"


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a supervisor takes on."""

    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    tags: tuple[str, ...] = ()
    only_tagged: bool = False  #: leaves work without tags to others

    @property
    def abilities(self) -> tuple[str, ...]:
        """Its tags without the address."""
        return tuple(tag for tag in self.tags if not is_address(tag))


DEFAULT_OFFER = Offer()


class Route(NamedTuple):
    """What a run asks of a supervisor."""

    queue: str = DEFAULT_QUEUE
    tags: tuple[str, ...] = ()


def address(worker_id: bytes) -> str:
    """The tag that only this supervisor has, for as long as it lives."""
    return f"{_ADDRESS}{worker_id.hex()}"


def is_address(tag: str) -> bool:
    """Whether the tag names one supervisor."""
    return tag.startswith(_ADDRESS)


def with_address(offer: Offer, worker_id: bytes) -> Offer:
    """The offer of this one supervisor."""
    return msgspec.structs.replace(offer, tags=(*offer.tags, address(worker_id)))


def encode_offer(offer: Offer) -> str:
    """As one argument of a command."""
    return msgspec.json.encode(offer).decode()


def decode_offer(text: str) -> Offer:
    """What `encode_offer` made."""
    return msgspec.json.decode(text, type=Offer)


def serves(offer: Offer, route: Route) -> bool:
    """Whether a supervisor with this offer may run what asks for *route*."""
    if route.queue not in offer.queues:
        return False
    if not route.tags:
        return not offer.only_tagged
    return all(tag in offer.tags for tag in route.tags)


def breadth(offer: Offer) -> int:
    """How much a supervisor could do: of several idle ones the narrowest is taken, so that the others stay free."""
    return len(offer.queues) + len(offer.tags)


def why_unserved(route: Route, offers: Iterable[Offer]) -> str:
    """One sentence on why none of the connected supervisors could ever run this; empty when one could, or none is."""
    offers = list(offers)
    if not offers or any(serves(offer, route) for offer in offers):
        return ""
    if any(map(is_address, route.tags)):
        return "The worker that this was sent to has left."
    there = f"{len(offers)} connected"
    serving = [offer for offer in offers if route.queue in offer.queues]
    if not serving:
        known = _listed({queue for offer in offers for queue in offer.queues})
        return (
            f"No worker serves queue {route.queue!r} ({there}: {known}); "
            f"start one with `nbqueue-worker {_flags(route)}`."
        )
    if not route.tags:
        return f"Every worker of queue {route.queue!r} takes tagged work only ({there}); start one without that limit."
    tags = {tag for offer in serving for tag in offer.abilities}
    known = f"they have {_listed(tags)}" if tags else "none has tags"
    wanted = f"the tag {route.tags[0]!r}" if len(route.tags) == 1 else f"all the tags {_listed(route.tags)}"
    return (
        f"No worker of queue {route.queue!r} has {wanted} ({there}; {known}); "
        f"start one with `nbqueue-worker {_flags(route)}`."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _flags(route: Route) -> str:
    queue = [] if route.queue == DEFAULT_QUEUE else ["-Q", route.queue]
    return " ".join([*queue, *(["-t", ",".join(route.tags)] if route.tags else [])])
