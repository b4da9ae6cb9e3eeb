"""The app: one connection to a broker, and the calls that go through it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from nbqueue.brokers.base import Broker, BrokerEnded, ClientPort
from nbqueue.brokers.nesting import NEST
from nbqueue.brokers.registry import open_broker
from nbqueue.client.calls import Calls
from nbqueue.client.link import Link
from nbqueue.client.submitter import Display, NoDisplay
from nbqueue.errors import BrokerUnavailable
from nbqueue.settings import Settings, is_on_this_machine, shown_url

#: A broker that ends is gone within this time.
END_S = 2.0


class App(Calls):
    """A connection to a broker, made on first use.

    Usable from any thread, and as a context manager.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | Path | None = None,
        name: str | None = None,
        workers: int | None = None,
        encrypt: bool | None = None,
        accept: str | Collection[str] | None = None,
        runtime_dir: Path | None = None,
        display: Display | None = None,
    ) -> None:
        """Use the broker at *url*.

        Args:
            url: None: `NBQUEUE_URL`, else the embedded broker of this user.
            token: The file with the key for a broker elsewhere, or the key itself; None: `NBQUEUE_KEY_FILE`, else the
                usual file.
            name: Which embedded broker; None: that of this Python environment.
            workers: Local slots it should have at least; None: `NBQUEUE_WORKERS`, else as many as usable cores; 0:
            none.
            encrypt: Hide tasks and results from whoever can read a broker elsewhere; None: `NBQUEUE_ENCRYPT`.
            accept: What results may be packed with: "cloudpickle", "json" or both; None: `NBQUEUE_ACCEPT`, else both.
            runtime_dir: Private folder of the embedded broker; None: `NBQUEUE_RUNTIME_DIR`, else the user's.
            display: How runs are shown; None: not at all.
        """
        super().__init__()
        is_key = isinstance(token, str) and _is_key_text(token)
        self._settings = Settings.load(
            url=url,
            hub_name=name,
            workers=workers,
            runtime_dir=runtime_dir,
            encrypt=encrypt,
            accept=accept,
            token=token if is_key else None,
            key_file=None if is_key else token,
        )
        self.display: Display = display or NoDisplay()
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._link: Link | None = None
        self._workers_started: Future[int] | None = None
        self._has_workers = False  # or will have none of ours
        self._is_closed = False

    @property
    def settings(self) -> Settings:
        """How the broker is found, and what was asked of it."""
        return self._settings

    # -- connection ----------------------------------------------------------------------------------------------------

    def connect(self) -> Self:
        """Connect now instead of on first use; starts the embedded broker and its workers if they do not run.

        Raises:
            BrokerUnavailable: It cannot be reached or started.
            EnvironmentMismatch: It runs versions that do not fit.
        """
        self.connection()
        return self

    def close(self) -> None:
        """Send what is queued and disconnect; work goes on. May be called twice."""
        with self._lock:
            self._is_closed = True
            link, self._link = self._link, None
        if link is not None and link.pid == os.getpid():
            link.close()

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {shown_url(self._settings.url)} {self._settings.hub_name!r}>"

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection; to ask makes none."""
        with self._lock:
            return self._link is not None and self._link.error is None and self._link.pid == os.getpid()

    def connection(self) -> tuple[Link, Broker]:
        """The live connection; a new one when there is none, or when the last one died."""
        with self._lock:
            if self._is_closed:
                raise BrokerUnavailable("this app was closed: nbqueue.connect() opens another connection")
            if self._link is None or self._link.error is not None or self._link.pid != os.getpid():
                self._open()
            assert self._link is not None
            assert self._broker is not None
            if not self._has_workers:
                self._ask_for_workers(self._link)
            return self._link, self._broker

    def _open(self) -> None:
        deadline = time.monotonic() + END_S
        while True:
            try:
                self._broker, port = self._open_port()
                break
            except BrokerEnded as error:  # killed, or idle for long, in this moment: it may not be gone yet
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(str(error)) from error
                time.sleep(0.01)
        self._link = Link(port, submit_timeout_s=self._settings.submit_timeout_s)
        self._workers_started = None
        # Elsewhere, and where tasks run, cores are not ours to count.
        self._has_workers = NEST.is_slot or not is_on_this_machine(self._settings.url)

    def _open_port(self) -> tuple[Broker, ClientPort]:
        # A task never starts a broker: it would be one of its own, with workers of its own.
        broker = open_broker(self._settings.url, self._settings, start=not NEST.is_slot)
        if broker is None:
            raise BrokerUnavailable("the broker that this task came from cannot be found, and a task starts none")
        return broker, broker.open_client(os.urandom(16))

    def _ask_for_workers(self, link: Link) -> None:
        """Ask for local slots once; again with the next call when they could not be started."""
        started = self._workers_started
        if self._settings.workers and (started is None or (started.done() and started.exception() is not None)):
            _, self._workers_started = link.questions.start_workers(self._settings.workers)
        elif started is None or started.done():
            self._has_workers = True


def _is_key_text(token: str) -> bool:
    from nbqueue.wire.keyfile import is_key_text

    return is_key_text(token)
