"""Cancel while a cell blocks, on real kernels over the Jupyter protocol."""

import time

import pytest

pytestmark = pytest.mark.timeout(60)

MAP = "import nbqueue, time\nrun = nbqueue.map(time.sleep, [60, 60], label='naps')\n"


@pytest.fixture(autouse=True)
def no_news(kernel):
    kernel.heard.clear()


def test_a_click_stops_the_run_while_get_blocks(kernel):
    # Given a cell that blocks in get() while its items run
    cell = kernel.start(MAP + "run.get()")
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")

    # When Cancel is clicked
    clicked = time.monotonic()
    kernel.click(button)
    reply = kernel.reply_to(cell)

    # Then the cell ends within two seconds, its card is final, and the next cell runs
    assert time.monotonic() - clicked < 2
    assert ("error", "TaskRevoked") == (reply["status"], reply["ename"])
    [card] = kernel.shown_under(cell)
    assert {"text/html", "text/plain"} == set(card)
    assert "naps: 0 of 2 done, revoked" in card["text/plain"]
    assert "ok" == kernel.run("1 + 1")["status"]


def test_a_click_that_the_frontend_sends_to_a_subshell_stops_the_run(kernel):
    subshell = kernel.make_subshell()
    if subshell is None:
        pytest.skip("this ipykernel has no subshells")
    cell = kernel.start(MAP + "run.get()")
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")

    clicked = time.monotonic()
    kernel.click(button, subshell=subshell)

    assert "TaskRevoked" == kernel.reply_to(cell)["ename"]
    assert time.monotonic() - clicked < 2


@pytest.mark.parametrize(
    "wait",
    ["next(iter(run))", "run[1]", "list(nbqueue.as_completed([run]))[0].get()", "nbqueue.wait([run]); run.get()"],
)
def test_a_click_is_heard_in_every_kind_of_wait(kernel, wait):
    cell = kernel.start(MAP + wait)
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")

    kernel.click(button)

    assert "TaskRevoked" == kernel.reply_to(cell)["ename"]


def test_a_click_is_heard_while_a_cell_awaits(kernel):
    cell = kernel.start(MAP + "await run")
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")

    kernel.click(button)

    assert "TaskRevoked" == kernel.reply_to(cell)["ename"]


def test_cells_that_wait_behind_a_blocked_one_run_in_order_afterwards(kernel):
    # Given a blocked cell, and two behind it
    cell = kernel.start(MAP + "try:\n    run.get()\nexcept nbqueue.TaskRevoked:\n    order = ['first']")
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")
    second = kernel.start("order.append('second')")
    third = kernel.start("order.append('third'); print(order)")

    # When the first is cancelled
    kernel.click(button)

    # Then they run, each once, and print under themselves
    assert ["ok"] * 3 == [kernel.reply_to(one)["status"] for one in (cell, second, third)]
    assert "['first', 'second', 'third']\n" == kernel.printed_under(third)


def test_cells_that_wait_behind_one_that_fails_are_aborted_as_usual(kernel):
    cell = kernel.start(MAP + "run.get()")
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")
    behind = kernel.start("print('must not run')")

    kernel.click(button)

    assert ["error", "aborted"] == [kernel.reply_to(one)["status"] for one in (cell, behind)]
    assert "ok" == kernel.run("1 + 1")["status"]


def test_a_page_that_is_loaded_while_a_cell_blocks_is_told_the_state_of_the_card(kernel):
    # Given a cell that blocks
    cell = kernel.start(MAP + "run.get()")
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")

    # When another page asks for the state of all widgets, as a page does when it is loaded
    for kind, more in (
        ("comm_open", {"target_name": "jupyter.widget.control", "data": {}}),
        ("comm_msg", {"data": {"method": "request_states"}}),
    ):
        message = kernel.client.session.msg(kind, {"comm_id": "page", **more}, metadata={"version": "1.0.0"})
        kernel.client.shell_channel.send(message)

    # Then it is told at once, and the kernel is still busy
    told = kernel.wait_for(lambda m: "states" in m["content"].get("data", {}), "the answer")["content"]["data"]
    assert "update_states" == told["method"]
    assert "Cancel" == told["states"][button]["state"]["description"]
    kernel.wait_for(lambda m: m["content"].get("execution_state") == "idle", "the end of the answer")
    kernel.wait_for(lambda m: m is kernel.heard[-1] and m["content"].get("execution_state") == "busy", "the truth")
    kernel.click(button)
    assert "TaskRevoked" == kernel.reply_to(cell)["ename"]


def test_what_a_cell_prints_after_a_click_is_its_own(kernel):
    cell = kernel.start(MAP + "try:\n    run.get()\nexcept nbqueue.TaskRevoked:\n    print('stopped')")
    button = kernel.button("Cancel", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")

    kernel.click(button)
    kernel.reply_to(cell)

    assert "stopped\n" == kernel.printed_under(cell)


def test_an_interrupt_revokes_what_the_same_cell_has_submitted(kernel):
    # Given a cell that maps and waits
    cell = kernel.start(MAP + "run.get()")
    kernel.wait_until_shown("2 of 2 slots")

    # When the kernel is interrupted
    kernel.manager.interrupt_kernel()
    pressed = time.monotonic()
    reply = kernel.reply_to(cell)

    # Then the run is revoked, its card is final, and the next cell runs
    assert time.monotonic() - pressed < 2.5
    assert "KeyboardInterrupt" == reply["ename"]
    assert "0 of 2 done, revoked" in kernel.shown_under(cell)[0]["text/plain"]
    assert "nbqueue: revoked 'naps'" in kernel.printed_under(cell)
    assert "ok" == kernel.run("assert run.state == 'REVOKED'")["status"]


def test_an_interrupt_of_a_wait_for_an_earlier_cell_only_ends_the_wait(kernel):
    # Given a cell that waits for the run of another
    kernel.run(MAP)
    cell = kernel.start("print('waiting'); run.get()")
    kernel.wait_for(lambda m: "waiting" in m["content"].get("text", ""), "the wait", parent=cell)
    kernel.wait_until_shown("2 of 2 slots")

    # When the kernel is interrupted
    kernel.manager.interrupt_kernel()

    # Then the run goes on
    assert "KeyboardInterrupt" == kernel.reply_to(cell)["ename"]
    assert "goes on" in kernel.printed_under(cell)
    assert "ok" == kernel.run("assert run.state == 'STARTED'; run.revoke()")["status"]
