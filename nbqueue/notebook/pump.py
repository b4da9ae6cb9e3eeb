"""Clicks on our buttons while a cell blocks: the only place that knows private names of ipykernel.

A kernel handles comm messages between two cells, so a Cancel button is dead while a cell waits in ``get()``. The pump
stands in for the receiver of the shell channel, in the main thread: messages for widgets of ours are handled at once,
all others go to ipykernel in the order in which they came, and wait there as usual. It works on ipykernel 6 and 7 and
with any frontend, whether it uses subshells or not. A page that is loaded meanwhile asks for the state of all widgets;
that is answered, too, or its cards would say "Loading widget..." until the cell ends.

Guarantees: whatever it does not know, it leaves alone. Without a kernel, off the main thread, or with a kernel that is
made otherwise, nothing is served and nothing breaks; the interrupt button remains.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nbqueue.client.kernel import kernel_shell

if TYPE_CHECKING:
    import asyncio

__all__ = ["PUMP", "CommPump", "keep_frontend_routing"]

logger = logging.getLogger(__name__)

_POLLIN = 1  # zmq.POLLIN
_MOST_AT_ONCE = 50
#: What a page opens to ask for the state of all widgets, when it is loaded.
_CONTROL = "jupyter.widget.control"


class CommPump:
    """Serves the messages of some widgets from the thread that waits."""

    #: Seconds between two looks: a click feels immediate, and 33 looks a second cost nothing.
    PERIOD_S = 0.03

    def __init__(self) -> None:
        self._widgets: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._controls: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._kernel: Any = None
        self._stream: Any = None
        self._pass_on: Callable[[Any], Any] | None = None
        self._depth = 0

    def add(self, widget: Any) -> None:
        """Serve *widget* for as long as it lives."""
        comm = getattr(widget, "comm", None)
        if comm is not None:
            self._widgets[comm.comm_id] = widget
            keep_frontend_routing(widget)

    def serve(self) -> float | None:
        """Handle what has come, in a thread that waits.

        Returns:
            Seconds until it should be called again; None when there is nothing that it could serve.
        """
        with self.installed():
            if self._stream is None or threading.current_thread() is not threading.main_thread():
                return None
            self._stream.flush(_POLLIN, _MOST_AT_ONCE)
            return self.PERIOD_S

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """While this is open, the kernel's own event loop serves the widgets too: for a cell that awaits."""
        self._install()
        try:
            yield
        finally:
            self._uninstall()

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._depth += 1
        if self._depth > 1 or not self._widgets:
            return
        shell = kernel_shell()
        try:
            if shell is not None:
                stream = _shell_stream(shell.kernel)
                self._pass_on, copy = stream._recv_callback, stream._recv_copy  # noqa: SLF001  # no public reader
                if self._pass_on is not None and not copy:
                    stream.on_recv(self._on_message, copy=False)
                    self._kernel, self._stream = shell.kernel, stream
        except Exception:
            logger.debug("this kernel cannot be served while a cell blocks", exc_info=True)

    def _uninstall(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._depth -= 1
        if self._depth == 0 and self._stream is not None:
            stream, self._stream = self._stream, None
            stream.on_recv(self._pass_on, copy=False)

    def _on_message(self, frames: Any) -> None:
        found = self._ours(frames)
        if found is not None:
            self._handle(*found)
            return
        assert self._pass_on is not None
        import asyncio  # a kernel has it, scripts wait less without it

        result = self._pass_on(frames)
        if asyncio.iscoroutine(result):
            _running.add(task := asyncio.ensure_future(result))
            task.add_done_callback(_running.discard)

    def _ours(self, frames: Any) -> tuple[Callable[[Any], Any], Any, Any] | None:
        """What handles the message, the message and its sender's address, when it is for us."""
        session = self._kernel.session
        try:
            address, rest = session.feed_identities(frames, copy=False)
            # The message is only looked at: a signature that was seen is refused the second time.
            kind = session.unpack(rest[1].bytes)["msg_type"]
            handler = self._handler(kind, session.unpack(rest[4].bytes)) if kind in ("comm_msg", "comm_open") else None
            return None if handler is None else (handler, session.deserialize(rest, copy=False), address)
        except Exception:
            return None

    def _handler(self, kind: str, content: dict[str, Any]) -> Callable[[Any], Any] | None:
        # Not comm.handle_msg: it would run the hooks of a cell's end.
        if kind == "comm_open":
            return self._open_control if content["target_name"] == _CONTROL else None
        if (widget := self._widgets.get(content["comm_id"])) is not None:
            return widget._handle_msg  # type: ignore[no-any-return]  # noqa: SLF001
        if (control := self._controls.get(content["comm_id"])) is not None:
            return control._msg_callback  # type: ignore[no-any-return]  # noqa: SLF001
        return None

    def _open_control(self, message: Any) -> None:
        """Let a page ask for the state of all widgets; to answer is to read."""
        manager, comm_id = self._kernel.comm_manager, message["content"]["comm_id"]
        manager.comm_open(None, None, message)
        self._controls[comm_id] = manager.get_comm(comm_id)

    def _handle(self, handler: Callable[[Any], Any], message: Any, address: Any) -> None:
        """Handle the message; what is sent meanwhile has the message as its parent, prints the cell."""
        from ipykernel.kernelbase import Kernel

        set_parent: Callable[..., None] = Kernel.set_parent  # published without types
        kernel = self._kernel
        cell, cell_address = kernel.get_parent("shell"), kernel._parent_ident["shell"]  # noqa: SLF001
        try:
            set_parent(kernel, address, message, channel="shell")
            kernel._publish_status("busy", "shell")  # noqa: SLF001
            handler(message)
        except Exception:
            logger.debug("a message for a card failed", exc_info=True)
        finally:
            kernel._publish_status("idle", "shell")  # noqa: SLF001
            set_parent(kernel, cell_address, cell, channel="shell")
            kernel._publish_status("busy", "shell")  # noqa: SLF001  # as the cell still is; a page shows the last word


#: Messages that were passed on and wait for the cell's end.
_running: set[asyncio.Future[Any]] = set()

PUMP = CommPump()


def _shell_stream(kernel: Any) -> Any:
    """Where the main thread receives the messages of the shell channel."""
    if getattr(kernel, "_supports_kernel_subshells", False):  # ipykernel 7
        return kernel.shell_channel_thread.manager.get_shell_channel_to_subshell_pair(None).to_stream
    return kernel.shell_stream


def keep_frontend_routing(widget: Any) -> None:
    """Let clicks be handled while another cell runs.

    ipykernel 7.4.0 sends every message of a comm to the shell that last published on it, and so undoes the
    frontend's choice of a subshell. Harmless where that attribute does not exist.
    Source: https://github.com/ipython/ipykernel/pull/1565
    """
    comm: Any = getattr(widget, "comm", None)
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001  # the only way there is
