"""Who reads what the broker says: the I/O thread, or a thread that waits for just that.

Waking a thread that sleeps on another core takes 30 to 60 us, and costs the one that wakes it half of that. So a thread
that waits takes over the port and reads for itself, instead of being woken by a thread that was woken by the socket;
and if the last answer came within a millisecond, it looks for the next one a millisecond long before it goes to sleep.
What it hears that is meant for others it passes on. See docs/adr/0019.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import threading
import time
from collections.abc import Callable

from nbqueue.brokers.base import Port
from nbqueue.client.condition import Condition
from nbqueue.client.held_back import HeldBack

#: A thread that waits looks again and again for so long, if the last answer did not take longer.
BRISK_S = 0.001
#: Who waits while another thread reads looks up so often whether it still does.
LOOK_UP_S = 0.1


class Bell:
    """Makes a thread look up that waits for descriptors."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._has_rung = False

    def fileno(self) -> int:
        """Readable when it has rung."""
        return self._reader

    def ring(self) -> None:
        """May be called by any thread, and by signal handlers."""
        if not self._has_rung:
            self._has_rung = True
            with contextlib.suppress(OSError):  # closed: nobody waits any more
                os.write(self._writer, b"!")

    def hush(self) -> bool:
        """Whether it has rung since the last time."""
        if not self._has_rung:  # a read that finds nothing would still hand the GIL to another thread
            return False
        self._has_rung = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        return True

    def close(self) -> None:
        """Free the descriptors."""
        writer, self._writer = self._writer, -1  # what is rung from now on must not reach who gets the number next
        os.close(writer)
        os.close(self._reader)


class Reading:
    """Takes turns at a port: the I/O thread `look`s, whoever waits for something does so in `wait`."""

    def __init__(self, port: Port, take_in: Callable[[], None]) -> None:
        """*take_in* reads and understands what has arrived; it is called by whoever has the turn, and may raise."""
        self._descriptor = port.fileno()
        self._take_in = take_in
        self._turn = threading.Lock()  # held by whoever reads
        self._news = Condition()
        self._waiting = 0  # for news, because another thread reads
        self._is_brisk = False
        self._is_over = False
        self._has_cores = len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else True
        self.bell = Bell()  #: wakes the I/O thread
        self._alarm = Bell()  # wakes the thread that reads instead
        self._selector = selectors.DefaultSelector()  # of the I/O thread
        self._selector.register(self.bell, selectors.EVENT_READ)
        self._selector.register(self._descriptor, selectors.EVENT_READ)
        self._poll = select.poll()  # of the thread that reads instead
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(self._alarm.fileno(), select.POLLIN)

    # -- the I/O thread ------------------------------------------------------------------------------------------------

    def look(self, timeout_s: float) -> None:
        """Wait for the bell, or for news, which is taken in unless another thread does so. Raises what that does."""
        self._selector.select(timeout_s)
        if self._turn.acquire(blocking=False):
            try:
                self._hear()
            finally:
                self._turn.release()

    def end(self) -> None:
        """Nothing more will be heard: whoever reads is sent away, and the port can be closed."""
        self._is_over = True
        self.tell()
        with self._turn:
            self._selector.close()
            self._alarm.close()
        self.bell.close()

    # -- any thread ----------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        """Something that others may wait for has happened, without news from the broker."""
        self._alarm.ring()
        self._tell_others()

    def wait(self, is_reached: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until *is_reached*, which only what this reads, or `tell`, can bring about.

        Args:
            is_reached: Asked again and again, by this thread.
            timeout_s: None: as long as it takes.

        Returns:
            Whether it is reached; if not, the time is over, or there will be no more news.

        Raises:
            KeyboardInterrupt: The user does not want to wait; raised where nothing is half done.
        """
        if is_reached():
            return True
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with HeldBack() as held:
            while not (is_reached() or held.has_come or self._is_over):
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                if self._turn.acquire(blocking=False):
                    try:
                        self._read_until(is_reached, deadline, held)
                    finally:
                        self._turn.release()
                else:
                    self._wait_for_news(is_reached, left_s)
            held.answer()
        return is_reached()

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _read_until(self, is_reached: Callable[[], bool], deadline: float | None, held: HeldBack) -> None:
        """Read instead of the I/O thread."""
        began = time.monotonic()
        brisk_until = began + BRISK_S if self._is_brisk and self._has_cores else began
        self._selector.unregister(self._descriptor)  # takes effect at once, even while the I/O thread waits
        held.wake_by(self._alarm.ring)
        try:
            while not (is_reached() or held.has_come or self._is_over):
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    break
                if now < brisk_until:
                    ready = self._poll.poll(0)
                else:
                    ready = self._poll.poll(None if deadline is None else 1000 * (deadline - now))
                if ready:
                    self._alarm.hush()
                    self._hear()
        finally:
            held.wake_by(None)
            self._is_brisk = time.monotonic() - began < BRISK_S
            if not self._is_over:
                self._selector.register(self._descriptor, selectors.EVENT_READ)

    def _wait_for_news(self, is_reached: Callable[[], bool], left_s: float | None) -> None:
        """Another thread reads: wait until it has heard something."""
        with self._news:
            self._waiting += 1
            try:
                if not is_reached():
                    self._news.wait(LOOK_UP_S if left_s is None else min(left_s, LOOK_UP_S))
            finally:
                self._waiting -= 1

    def _hear(self) -> None:
        try:
            self._take_in()
        finally:
            self._tell_others()

    def _tell_others(self) -> None:
        if self._waiting:
            with self._news:
                self._news.notify_all()
