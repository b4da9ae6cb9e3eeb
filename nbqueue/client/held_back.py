"""Ctrl-C as a note: it is heard where nothing is half done.

Python raises `KeyboardInterrupt` between any two instructions of the main thread. That would break off a submit behind
the message that it sends and before the handle that it returns, or leave a message read and not understood. So while
nbqueue does something that must be done as a whole, an interrupt is only noted; it is answered, by the handler that was
set up for it, when that is done, or where a wait can end.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # a part of CPython without annotations
import functools
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

_SIGINT = int(signal.SIGINT)


class Revocable(Protocol):
    """Work that was begun."""

    def revoke(self) -> Any:
        """Stop it."""


class _Notes:
    """What the main thread holds back, which alone hears of interrupts.

    It calls what `signal` wraps: the wrappers make enums of handlers, which takes 7 us, for every task that is sent.
    """

    def __init__(self) -> None:
        self.handler: Any = None  #: who is to hear of interrupts, which are held back; None: they are not
        self.has_come = False
        self.wake: Callable[[], None] | None = None  #: ends the wait that goes on
        self.handovers = 0  #: calls that begin work, one within the other
        self.begun: list[Revocable] = []  #: what they have begun
        self._main_thread = threading.main_thread().ident

    @property
    def is_mine(self) -> bool:
        """Whether this is the main thread."""
        return threading.get_ident() == self._main_thread

    def hold(self) -> bool:
        """From now on, only note interrupts; False where there is nothing to hold, or somebody does so already."""
        if self.handler is not None or not self.is_mine:
            return False
        handler = _signal.getsignal(_SIGINT)
        if not callable(handler):
            return False
        self.handler = handler  # before `note` can be called
        _signal.signal(_SIGINT, self.note)
        return True

    def release(self) -> None:
        """From now on, interrupts are heard at once, and so is one that has come; may raise."""
        handler = self.handler
        if handler is None:
            return
        try:
            if _signal.getsignal(_SIGINT) == self.note:  # else the user has set up another one
                _signal.signal(_SIGINT, handler)  # one that falls here is heard at once
        finally:
            self.handler = None
            has_come, self.has_come = self.has_come, False
        if has_come:
            handler(_SIGINT, None)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of interrupts meanwhile."""
        self.has_come = True
        if self.wake is not None:
            self.wake()

    def become_child(self) -> None:
        """A fork that another thread has made meanwhile has nobody who would ever let go."""
        self._main_thread = threading.get_ident()
        self.has_come, self.wake, self.handovers, self.begun = False, None, 0, []
        self.release()


_NOTES = _Notes()
os.register_at_fork(after_in_child=_NOTES.become_child)


class HeldBack:
    """While this is open, an interrupt is only noted. It is heard at the end, or when somebody calls `answer`.

    May be nested; the outermost one counts. In other threads than the main one, and where the process ignores
    interrupts, it does nothing.
    """

    __slots__ = ("_hears", "_is_outermost")

    def __enter__(self) -> Self:
        self._hears = _NOTES.is_mine
        self._is_outermost = _NOTES.hold()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._is_outermost:
            _NOTES.release()

    @property
    def has_come(self) -> bool:
        """Whether there is an interrupt that was not answered."""
        return self._hears and _NOTES.has_come

    def answer(self) -> None:
        """Let an interrupt that has come be heard here, where nothing is half done; may raise."""
        if self.has_come:
            _NOTES.has_come = False
            _NOTES.handler(_SIGINT, None)

    def wake_by(self, wake: Callable[[], None] | None) -> None:
        """What an interrupt is to call when it comes, so that a wait ends."""
        if self._hears:
            _NOTES.wake = wake


Parameters = ParamSpec("Parameters")


Handle = TypeVar("Handle", bound=Revocable)


def handed_over(begin: Callable[Parameters, Handle]) -> Callable[Parameters, Handle]:
    """Let a function that begins work return its handle, or raise `KeyboardInterrupt` and leave nothing running.

    Without it, an interrupt that falls behind the submit, and before the caller has the handle, would leave work that
    nobody can stop. Such functions may call each other; the outermost one counts.
    """

    @functools.wraps(begin)
    def begin_or_leave(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Handle:
        if not _NOTES.is_mine:
            return begin(*args, **kwargs)
        if not _NOTES.handovers:
            _NOTES.begun = []
        try:
            _NOTES.handovers += 1
            try:  # no context manager: an interrupt that falls into the beginning of its exit would leave the count
                handle = begin(*args, **kwargs)
            finally:
                _NOTES.handovers -= 1
            if not _NOTES.handovers:
                _NOTES.begun = []
            return handle  # noqa: TRY300 -- an interrupt that falls before it is ours to answer, too
        except KeyboardInterrupt:
            begun, _NOTES.begun = _NOTES.begun, []
            for work in begun:
                work.revoke()
            raise

    return begin_or_leave


def begins(work: Revocable) -> None:
    """Tell the function around, which `handed_over` has made, of work that begins now."""
    if _NOTES.handovers and _NOTES.is_mine:
        _NOTES.begun.append(work)
