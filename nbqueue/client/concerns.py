"""What is said to the user beside results: warnings, each once, in the thread of whoever waits."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable

from nbqueue.errors import EnvironmentWarning, WaitingWarning


class Concerns:
    """Warns of each thing once in the life of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def of_environment(self, remarks: Iterable[str]) -> None:
        """A worker's packages differ from ours."""
        for remark in remarks:
            if self._is_new(remark):
                warnings.warn(remark, EnvironmentWarning, stacklevel=5)

    def of_waiting(self, who: str, why: str) -> None:
        """Somebody waits for what cannot come as things are."""
        if self._is_new(f"{who}: {why}"):
            warnings.warn(f"{who} waits: {why}", WaitingWarning, stacklevel=5)

    def _is_new(self, text: str) -> bool:
        with self._lock:
            is_new = text not in self._said
            self._said.add(text)
        return is_new


CONCERNS = Concerns()
