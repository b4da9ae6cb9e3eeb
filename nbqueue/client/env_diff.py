"""How the packages of workers differ from those of this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nbqueue.client.tables import Table
from nbqueue.core.compatibility import differing, is_notable


class Difference(NamedTuple):
    """One package that is not the same."""

    worker: str
    package: str
    here: str  #: version in this process; "-": it is not there
    there: str  #: version on the worker
    notable: bool  #: the first two parts of the version differ, or one side lacks it


class EnvDiff(Table[Difference]):
    """The packages that differ between this process and each worker.

    A list of `Difference`, the notable ones first; it prints as a table, and says so when all is the same.

    Attributes:
        workers: Names of the workers that answered.
        silent: Names of those that did not.
    """

    def __init__(self, here: Mapping[str, str], there: Mapping[str, Mapping[str, str] | None]) -> None:
        self.workers = [worker for worker, versions in there.items() if versions is not None]
        self.silent = [worker for worker, versions in there.items() if versions is None]
        rows = [
            Difference(worker, package, mine or "-", theirs or "-", is_notable(theirs, mine))
            for worker, versions in there.items()
            if versions is not None
            for package, (theirs, mine) in differing(versions, here).items()
        ]
        super().__init__(sorted(rows, key=lambda row: (not row.notable, row.package, row.worker)), empty=self._same())

    def _same(self) -> str:
        answered = f"no difference to {', '.join(self.workers)}" if self.workers else "no worker answered"
        return f"{answered}; no answer from {', '.join(self.silent)}" if self.silent else answered
