"""How much a broker holds: unfinished items and stored bytes, of each run and of all together."""

from __future__ import annotations


class Ledger:
    """Sums that are right at any time without looking at all runs."""

    def __init__(self) -> None:
        self._accounts: dict[bytes, tuple[int, int]] = {}
        self.open_items = 0  #: of all runs together
        self.stored_bytes = 0  #: likewise

    def note(self, run_id: bytes, open_items: int, stored_bytes: int) -> None:
        """A run has so many unfinished items and so many bytes now."""
        items_before, bytes_before = self._accounts.get(run_id, (0, 0))
        self._accounts[run_id] = open_items, stored_bytes
        self.open_items += open_items - items_before
        self.stored_bytes += stored_bytes - bytes_before

    def close(self, run_id: bytes) -> None:
        """The run is forgotten."""
        self.note(run_id, 0, 0)
        del self._accounts[run_id]
