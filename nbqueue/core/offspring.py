"""Which runs were submitted inside which items: a revoke of an item is one of all that it has submitted."""

from __future__ import annotations

from nbqueue.core.run import Run
from nbqueue.core.states import State
from nbqueue.core.task import RunSpec


class Offspring:
    """The children of each run, by the item in which they were submitted."""

    def __init__(self) -> None:
        self._children: dict[bytes, dict[bytes, int]] = {}

    def add(self, spec: RunSpec, parent: Run | None) -> bool:
        """A run comes; whether the item that has submitted it is revoked already, and the run with it."""
        if not spec.parent:
            return False
        self._children.setdefault(spec.parent, {})[spec.run_id] = spec.parent_item
        if parent is None or spec.parent_item >= parent.total:
            return False
        item = parent.items[spec.parent_item]
        return item.revoking or item.state is State.REVOKED

    def of(self, run_id: bytes, start: int, stop: int) -> list[bytes]:
        """Runs that were submitted inside the items *start* to *stop*."""
        return [child for child, item in self._children.get(run_id, {}).items() if start <= item < stop]

    def forget(self, spec: RunSpec) -> None:
        """The run is forgotten."""
        siblings = self._children.get(spec.parent)
        if siblings is not None:
            siblings.pop(spec.run_id, None)
            if not siblings:
                del self._children[spec.parent]
