"""How our processes write their logs: one event a line, its facts behind it as name=value, for grep."""

from __future__ import annotations

import logging
import sys

_USUAL = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime"}


class EventFormatter(logging.Formatter):
    """``2026-11-22 21:30:00,000 INFO nbqueue.worker: worker joined slots=8``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- the standard library's name
        """The line, with the event's facts."""
        facts = [f"{name}={_word(value)}" for name, value in vars(record).items() if name not in _USUAL]
        return " ".join([super().formatMessage(record), *facts])


def log_events(level: str = "INFO") -> None:
    """Log to standard error, for the life of this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter())
    logging.basicConfig(level=level, handlers=[handler])


def _word(value: object) -> str:
    text = str(value)
    return repr(text) if any(c.isspace() for c in text) or not text else text
