"""Gives the items of a map to the broker: all at once, or as the results are consumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from nbqueue.client.again import KeptArguments
from nbqueue.client.link import Link
from nbqueue.client.run import ClientRun
from nbqueue.core.exchange import ALL_ITEMS
from nbqueue.core.task import Block
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.payload import pack_blocks


class Feeder:
    """Reads an input in the caller's thread, never in a hidden one, so that a generator sees the thread it expects."""

    def __init__(
        self,
        items: Iterable[Any],
        run: ClientRun,
        link: Link,
        blobs: BlobStore | None,
        *,
        buffersize: int | None,
        kept: KeptArguments | None = None,
    ) -> None:
        """Feed *run* from *items*.

        Args:
            items: Read by `feed_all` and `top_up`.
            run: What is fed.
            link: To its broker.
            blobs: Where large items go.
            buffersize: Bounds the items ahead of what was consumed; None: no bound.
            kept: Where packed items are kept until they have succeeded.
        """
        self._kept = kept
        self._items: Iterator[Any] = iter(items)
        self._run = run
        self._link = link
        self._blobs = blobs
        self._buffersize = buffersize
        self._fed = 0
        self._is_used_up = False
        self._is_stopped = False

    def feed_all(self) -> None:
        """Read the input to its end. Raises what it raises, and what packing and `Link.feed` do."""
        self._feed(self._items)
        self._close()

    def top_up(self, consumed: int) -> None:
        """Read on until `buffersize` items are ahead of the first *consumed* ones."""
        assert self._buffersize is not None
        room = consumed + self._buffersize - self._fed
        if self._is_stopped:
            self._close()
        if self._is_used_up or room * 2 < self._buffersize:
            return  # worth a message only when half of the buffer is free
        before = self._fed
        self._feed(islice(self._items, room))
        if self._fed - before < room:
            self._close()

    def give_up(self) -> None:
        """Read no more, and revoke what was read: the call that wanted it has failed."""
        self._is_used_up = True
        self._link.revoke(self._run.run_id, 0, ALL_ITEMS)
        self._link.feed(self._run.run_id, [], closed=True)

    def stop(self) -> None:
        """Read no more: the run was revoked. Called by any thread."""
        self._is_stopped = True
        if self._buffersize is not None and not self._is_used_up:
            self._link.feed(self._run.run_id, [], closed=True)  # nobody may ever ask for more and so close it

    def _feed(self, items: Iterable[Any]) -> None:
        folder = self._run.run_id.hex()
        try:
            for block in pack_blocks(items, start=self._fed, blobs=self._blobs, folder=folder):
                self._hand_over(block)
                if self._is_stopped:
                    break
        except BaseException:
            self.give_up()
            raise

    def _hand_over(self, block: Block) -> None:
        if self._kept is not None:
            with self._run.changed:
                self._kept.add(block)
        self._link.feed(self._run.run_id, [block], closed=False)
        self._fed = block.stop
        self._run.expect(block.stop, closed=False)

    def _close(self) -> None:
        if self._is_used_up:
            return
        self._is_used_up = True
        self._link.feed(self._run.run_id, [], closed=True)
        self._run.expect(self._fed, closed=True)
