"""Real kernels over the Jupyter protocol, on each version of ipykernel that behaves in a way of its own."""

import json
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import KernelManager

#: 6.31: one shell; 7.3: subshells; 7.4 sends comm messages where the comm last published; installed: what users get.
IPYKERNELS = ("6.31.0", "7.3.0", "7.4.0", "installed")
PATIENCE_S = 15.0


class Kernel:
    """One kernel, its messages, and clicks as a frontend sends them."""

    def __init__(self, manager: KernelManager) -> None:
        self.manager = manager
        self.client = manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=30)
        self.heard: list[dict[str, Any]] = []  #: on IOPub, in order

    def start(self, code: str) -> str:
        """Begin to execute a cell; its id."""
        return self.client.execute(code)

    def run(self, code: str) -> dict[str, Any]:
        """Execute a cell to its end; the reply's content."""
        return self.reply_to(self.start(code))

    def reply_to(self, cell: str) -> dict[str, Any]:
        """Wait for the end of a cell, on both channels."""
        self.wait_for(
            lambda m: m["msg_type"] == "status" and m["content"]["execution_state"] == "idle", "the end", parent=cell
        )
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE_S)
            if reply["parent_header"].get("msg_id") == cell:
                return reply["content"]

    def wait_for(
        self, is_it: Callable[[dict[str, Any]], bool], what: str, *, parent: str | None = None
    ) -> dict[str, Any]:
        """The first message on IOPub, heard before or to come, that *is_it*."""
        deadline = time.monotonic() + PATIENCE_S
        position = 0
        while True:
            for message in self.heard[position:]:
                position += 1
                if (parent is None or message["parent_header"].get("msg_id") == parent) and is_it(message):
                    return message
            try:
                self.heard.append(self.client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic())))
            except queue.Empty:
                pytest.fail(f"{what} did not come; heard {[m['msg_type'] for m in self.heard]}")

    def button(self, description: str, *, parent: str | None = None) -> str:
        """The comm of the button with this description."""

        def is_it(message: dict[str, Any]) -> bool:
            state = message["content"].get("data", {}).get("state", {})
            return message["msg_type"] == "comm_open" and state.get("description") == description

        return self.wait_for(is_it, f"a button {description!r}", parent=parent)["content"]["comm_id"]

    def wait_until_shown(self, text: str) -> None:
        """Wait until a card says *text*."""
        self.wait_for(lambda m: text in json.dumps(m["content"].get("data", {}), ensure_ascii=False), repr(text))

    def click(self, comm_id: str, *, subshell: str | None = None) -> None:
        """Click as a frontend does that handles comms in a subshell, or in none."""
        data = {"method": "custom", "content": {"event": "click"}}
        message = self.client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)

    def make_subshell(self) -> str | None:
        """Its id, if this kernel has subshells."""
        if "kernel subshells" not in self.client.kernel_info(reply=True, timeout=PATIENCE_S)["content"].get(
            "supported_features", []
        ):
            return None
        self.client.control_channel.send(self.client.session.msg("create_subshell_request", {}))
        reply = self.client.get_control_msg(timeout=PATIENCE_S)
        return reply["content"]["subshell_id"]

    def printed_under(self, cell: str) -> str:
        """What a cell has printed so far, both streams."""
        return "".join(
            m["content"]["text"]
            for m in self.heard
            if m["msg_type"] == "stream" and m["parent_header"].get("msg_id") == cell
        )

    def shown_under(self, cell: str) -> list[dict[str, Any]]:
        """The bundles that are shown in a cell, as a notebook file would hold them."""
        shown: dict[str, dict[str, Any]] = {}
        for number, m in enumerate(self.heard):
            kind, display_id = m["msg_type"], m["content"].get("transient", {}).get("display_id") or str(number)
            opens = kind in ("display_data", "execute_result") and m["parent_header"].get("msg_id") == cell
            if opens or (kind == "update_display_data" and display_id in shown):
                shown[display_id] = m["content"]["data"]
        return list(shown.values())


@pytest.fixture(scope="module", params=IPYKERNELS)
def kernel(request: pytest.FixtureRequest, hub_environment: dict[str, str]) -> Iterator[Kernel]:
    environment = hub_environment
    if request.param != "installed":
        folder = Path(sys.prefix, "kernels", request.param)
        if not folder.is_dir():
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no ipykernel {request.param}: make test")
        environment = environment | {"PYTHONPATH": f"{folder}{os.pathsep}{environment.get('PYTHONPATH', '')}"}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment)
    kernel = Kernel(manager)
    try:
        version = kernel.start("import ipykernel; print(ipykernel.__version__)")
        kernel.reply_to(version)
        assert request.param in ("installed", kernel.printed_under(version).strip())
        yield kernel
    finally:
        kernel.client.stop_channels()
        manager.shutdown_kernel(now=True)
