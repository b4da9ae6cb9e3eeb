"""A delivery on its way through a supervisor: what is to be stopped of it, and what becomes of it if its slot dies."""

from __future__ import annotations

import msgspec

from nbqueue.core.exchange import Delivery
from nbqueue.core.run import StopHolder
from nbqueue.core.task import Failed, Killed, Outcome, Released, Stopped, Succeeded
from nbqueue.worker.cell import Cell
from nbqueue.worker.revoke import Ladder


class Work:
    """A delivery, and the steps taken against its items."""

    __slots__ = (
        "_held_bytes",
        "_installed",
        "_seen",
        "announced",
        "delivery",
        "ladder",
        "last_words",
        "reported_to",
        "sentence",
        "since",
        "soft_limit_told",
        "stop_at",
        "stops",
    )

    def __init__(self, delivery: Delivery, now: float) -> None:
        self.delivery = delivery
        self.since = now  #: when it arrived; later, when its slot began
        self.reported_to = delivery.start  #: items before this one have been reported
        self.stop_at = delivery.stop  #: items from here on are not, or no longer, its slot's
        self._seen: tuple[int, float] | None = None  # the item that ran when we looked last, and since when it does
        self.announced = False
        self.stops: list[StopHolder] = []
        self.ladder: Ladder | None = None
        #: The slot is being killed because of an item that passed a limit: this is what becomes of the item.
        self.sentence: Failed | Killed | None = None
        self.soft_limit_told: int | None = None  #: to this item
        #: The final report of a slot that is spent: passed on when its process is dead.
        self.last_words: list[Outcome] | None = None
        self._installed = 0  # of `stops`, those that the slot has been told of
        self._held_bytes = 0  # at most, by its process and all that descends from it, as far as that was measured

    def running_item(self, cell: Cell) -> int | None:
        """The item that runs at this moment; None when none does."""
        return cell.current(self.delivery.token)

    def note_held(self, size_bytes: int) -> None:
        """Its process, with all that descends from it, was found to hold so much memory."""
        self._held_bytes = max(self._held_bytes, size_bytes)

    # -- an item that takes long ---------------------------------------------------------------------------------------

    def runs_for(self, item: int, now: float) -> float:
        """For how many seconds *item*, which runs now, was seen to run; ask again and again."""
        if self._seen is None or self._seen[0] != item:
            self._seen = item, now
        return now - self._seen[1]

    def has_finished_before(self, item: int) -> bool:
        """Whether the slot has results of items before *item* that it did not report yet."""
        return self.reported_to < item

    def take_back(self, cell: Cell, item: int) -> list[Outcome]:
        """Take those behind *item* from the slot, but for what it has begun; what the broker is to be told."""
        if item + 1 >= self.stop_at:
            return []
        running = cell.hold_back(self.delivery.token, item + 1, self.stop_at)
        if running is None or running + 1 >= self.stop_at:
            return []
        first, self.stop_at = running + 1, running + 1
        return [Released(first, self.delivery.stop)]

    # -- stopping ------------------------------------------------------------------------------------------------------

    def stop(self, stop: StopHolder) -> None:
        """Items of it are to be stopped."""
        self.stops.append(stop)
        if self.ladder is not None and stop.start <= self.ladder.item < stop.stop:
            self.ladder.press(stop.manner)

    def is_stopped(self, item: int) -> bool:
        """Whether the item is to be stopped."""
        return any(stop.start <= item < stop.stop for stop in self.stops)

    def show_stops(self, cell: Cell) -> None:
        """Tell the slot which items it must not run; what finds no room is told when earlier items are done with."""
        ahead = [stop for stop in self.stops[self._installed :] if stop.stop > self.reported_to]
        for stop in ahead:
            if not cell.ask_to_stop(self.delivery.token, stop.start, stop.stop):
                return
            self._installed = self.stops.index(stop, self._installed) + 1

    def make_room_for_stops(self, cell: Cell) -> None:
        """Earlier items are done with: tell the slot of stops that found no room before."""
        if self._installed < len(self.stops):
            self.stops = [stop for stop in self.stops if stop.stop > self.reported_to]
            self._installed = 0
            if self.stop_at < self.delivery.stop:
                cell.keep_only(self.stop_at, self.delivery.stop)
            else:
                cell.forget_stops()
            self.show_stops(cell)

    def ladder_for(self, item: int) -> Ladder:
        """The steps against *item*, which is to be stopped."""
        if self.ladder is None or self.ladder.item != item:
            asked = [stop for stop in self.stops if stop.start <= item < stop.stop]
            self.ladder = Ladder(item, asked[0].manner)
            for stop in asked[1:]:
                self.ladder.press(stop.manner)
        return self.ladder

    # -- its end -------------------------------------------------------------------------------------------------------

    def take_report(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Note what the slot has reported; returns it as the broker is to have it."""
        outcomes = [outcome for outcome in outcomes if end_of(outcome) <= self.stop_at]  # the others are not its own
        if outcomes:
            self.reported_to = end_of(outcomes[-1])
        ladder = self.ladder
        if ladder is not None and ladder.item < self.reported_to:
            self.ladder = None
        return outcomes

    def leftovers(self, *, blamed: int | None, reason: str, peak_bytes: int = 0) -> list[Outcome]:
        """What becomes of the items that were not reported when the slot died while it ran *blamed*.

        An item that passed a limit has failed, one that was to be stopped is stopped, and one whose process died by
        itself is blamed; all others go back unharmed. *peak_bytes* is the most that the process itself has held; its
        family may have been found to hold more.
        """
        peak_bytes = max(peak_bytes, self._held_bytes)
        outcomes: list[Outcome] = list(self.last_words or ())
        for item in range(self.reported_to, self.stop_at):
            if self.sentence is not None and item == self.sentence.item:
                outcomes.append(msgspec.structs.replace(self.sentence, peak_bytes=peak_bytes))
            elif self.is_stopped(item):
                how = self._how(item, blamed)
                outcomes.append(Stopped(item, item + 1, how, peak_bytes if item == blamed else 0))
            elif item == blamed and self.sentence is None and self.last_words is None:
                outcomes.append(Killed(item, reason, peak_bytes))
        return [*outcomes, Released(self.reported_to, self.stop_at)] if self.has_unreported else outcomes

    @property
    def has_unreported(self) -> bool:
        """Whether there are items that the slot said nothing about."""
        return self.reported_to < self.stop_at

    def _how(self, item: int, blamed: int | None) -> str:
        is_hit = item == blamed and self.ladder is not None and self.ladder.last is not None
        return self.ladder.last.name if is_hit and self.ladder and self.ladder.last else ""


def limited(delivery: Delivery, items: int) -> Delivery:
    """The first *items* of a delivery; what is left goes back to the broker with the final report."""
    return msgspec.structs.replace(delivery, stop=min(delivery.stop, delivery.start + items))


def end_of(outcome: Outcome) -> int:
    """The item after the last one that the outcome speaks of."""
    match outcome:
        case Succeeded(stop=stop) | Stopped(stop=stop) | Released(stop=stop):
            return stop
        case Failed(item=item) | Killed(item=item):
            return item + 1
