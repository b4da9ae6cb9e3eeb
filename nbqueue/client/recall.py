"""Revoking by id what was submitted elsewhere: by another process, or under a handle that is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from nbqueue.client.followed import Nobody
from nbqueue.client.link import Link
from nbqueue.client.revoking import RevokeReport, report
from nbqueue.client.run import ClientRun
from nbqueue.core.exchange import ALL_ITEMS, Note
from nbqueue.core.progress import Counts
from nbqueue.core.task import Manner
from nbqueue.errors import BrokerUnavailable, UnknownTask

#: A broker answers a question within this time.
ANSWER_TIMEOUT_S = 10.0
_ID_CHARACTERS = 32
#: A shorter prefix of an id could be a slip.
_MIN_PREFIX = 4
#: Beyond the end of every log: only what happens from now on.
_END = 2**62


def revoke_by_id(link: Link, ids: Sequence[str], manner: Manner, *, wait: bool) -> list[RevokeReport]:
    """Revoke runs, or single items of them.

    Args:
        link: To the broker that has them.
        ids: Of runs, in hex, or prefixes of them that no other run has; with ``.7`` behind it, of its item 7.
        manner: How what runs is stopped.
        wait: Until they have ended.

    Returns:
        What came of it, for each.

    Raises:
        UnknownTask: The broker knows no such run, or several; nothing was revoked.
    """
    targets = [_find(link, text) for text in ids]
    began = time.monotonic()
    for target in targets:
        link.revoke(target.run.run_id, target.start, target.stop, manner)
    if wait:
        for target in targets:
            link.wait(target.has_ended, None)
    return [report(target.run, target.ranges, began=began if wait else None) for target in targets]


class _Target(NamedTuple):
    """What an id names."""

    run: ClientRun
    item: int | None

    @property
    def ranges(self) -> list[tuple[int, int]] | None:
        return None if self.item is None else [(self.start, self.stop)]

    @property
    def start(self) -> int:
        return 0 if self.item is None else self.item

    @property
    def stop(self) -> int:
        return ALL_ITEMS if self.item is None else self.item + 1

    def has_ended(self) -> bool:
        return self.run.is_over or (self.item is not None and self.run.entry_of(self.item) is not None)


def _find(link: Link, task_id: str) -> _Target:
    run_id, item = parse_id(link, task_id)
    run = _follow(link, run_id, cursor=_END if item is None else 0)
    check_item(item, run.counts)
    return _Target(run, item)


def parse_id(link: Link, task_id: str) -> tuple[bytes, int | None]:
    """The run that an id names, and the item if it names one of several.

    Raises:
        UnknownTask: It is none, or the beginning of several.
    """
    text, _, number = task_id.strip().lower().partition(".")
    if number and not number.isdigit():
        raise UnknownTask(f"{task_id!r} is no id of a task: behind the dot stands the number of an item")
    return full_id(link, text), int(number) if number else None


def check_item(item: int | None, counts: Counts) -> None:
    """Raise `UnknownTask` if the run has no such item."""
    if item is not None and counts.closed and item >= counts.total:
        raise UnknownTask(f"there is no item {item}: the run has {counts.total}")


class _WatchedRun(ClientRun):
    """A run that was submitted elsewhere."""

    is_known = False
    is_from_its_begin = False

    def fold(self, note: Note) -> None:
        """The first news says that there is such a run, and where its log was joined."""
        if not self.is_known:
            self.is_known = True
            self.cursor = note.cursor
        super().fold(note)


def full_id(link: Link, text: str) -> bytes:
    """The id of the one run that *text* names."""
    if not text or any(character not in "0123456789abcdef" for character in text):
        raise UnknownTask(f"{text!r} is no id of a task: ids are hexadecimal")
    if len(text) == _ID_CHARACTERS:
        return bytes.fromhex(text)
    if len(text) < _MIN_PREFIX or len(text) > _ID_CHARACTERS:
        raise UnknownTask(
            f"{text!r} is no id of a task: give at least {_MIN_PREFIX} of its {_ID_CHARACTERS} characters"
        )
    inspected: Future[Any] = link.questions.inspect()
    runs: list[bytes] = [view.run_id for view in inspected.result(ANSWER_TIMEOUT_S).inspection.runs]
    found = [run_id for run_id in runs if run_id.hex().startswith(text)]
    if len(found) != 1:
        raise UnknownTask(f"the broker knows {len(found) or 'no'} runs whose id begins with {text!r}")
    return found[0]


def _follow(link: Link, run_id: bytes, *, cursor: int) -> ClientRun:
    """The run as it is now, kept up to date from now on."""
    run = link.followed(run_id)
    if run is not None:
        return run
    watched = _WatchedRun(run_id, run_id.hex()[:8])
    link.follow(watched, Nobody(), cursor=cursor)
    if not link.wait(lambda: watched.is_known or watched.error is not None, ANSWER_TIMEOUT_S):
        raise BrokerUnavailable("the broker does not answer")
    if watched.error is not None:
        raise watched.error
    return watched
