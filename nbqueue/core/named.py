"""What a worker can be asked for by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any


class NamedTask(ABC):
    """A function that its module offers to whoever may give work to a worker; the decorator `nbqueue.task` makes it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """By which it is called."""

    @property
    @abstractmethod
    def function(self) -> Callable[..., Any]:
        """What runs then."""
