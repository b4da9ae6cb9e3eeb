"""The buttons of a card while a cell blocks, as a user sees them."""

import time

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.timeout(120)

NAPS = "import nbqueue, time\nrun = nbqueue.map(time.sleep, [60, 60], label='naps')\nrun.get()"
NEXT = "print('the next cell', 'runs')"
SUBSHELLS = "@jupyterlab/apputils-extension/kernels-settings"


@pytest.mark.parametrize("subshells", ["perCommTarget", "disabled"])
def test_cancel_while_get_blocks_stops_the_run_within_two_seconds(notebook, subshells):
    # Given a cell that waits in get(), in a Lab that does, or does not, handle clicks in a subshell
    notebook.lab.set(SUBSHELLS, commsOverSubshells=subshells)
    notebook.write(NAPS, NEXT).open().run(1)
    expect(notebook.output(1)).to_contain_text("2 of 2 slots")
    notebook.picture(f"cancel-{subshells}-before")

    # When Cancel is clicked
    clicked = time.monotonic()
    notebook.button("Cancel").click()

    # Then the run ends, the card says so and has no button any more
    expect(notebook.output(1)).to_contain_text("TaskRevoked")
    assert time.monotonic() - clicked < 2
    expect(notebook.output(1)).to_contain_text("0 of 2 done, revoked")
    expect(notebook.button("Cancel")).to_have_count(0)

    # And the next cell runs
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("the next cell runs")
    notebook.picture(f"cancel-{subshells}-after")


@pytest.mark.parametrize("subshells", ["perCommTarget", "disabled"])
def test_cancel_while_a_remote_cell_blocks(notebook, subshells):
    notebook.lab.set(SUBSHELLS, commsOverSubshells=subshells)
    notebook.write("%load_ext nbqueue", "%%remote\nimport time\ntime.sleep(60)", NEXT).open().run(1).run(2)
    expect(notebook.output(2)).to_contain_text("running")

    clicked = time.monotonic()
    notebook.button("Cancel").click()

    expect(notebook.output(2)).to_contain_text("TaskRevoked")
    assert time.monotonic() - clicked < 2
    notebook.run(3)
    expect(notebook.output(3)).to_contain_text("the next cell runs")
    notebook.picture(f"cancel-remote-{subshells}-after")


@pytest.mark.parametrize("kind", ["get", "remote"])
def test_the_interrupt_button_does_the_same(notebook, kind):
    cell = NAPS if kind == "get" else "%%remote\nimport time\ntime.sleep(60)"
    notebook.write("%load_ext nbqueue", cell, NEXT).open().run(1).run(2)
    expect(notebook.output(2)).to_contain_text("running" if kind == "remote" else "2 of 2 slots")

    pressed = time.monotonic()
    notebook.page.locator('[data-command="notebook:interrupt-kernel"]').first.click()

    expect(notebook.output(2)).to_contain_text("KeyboardInterrupt")
    assert time.monotonic() - pressed < 2
    expect(notebook.output(2)).to_contain_text("revoked")
    notebook.run(3)
    expect(notebook.output(3)).to_contain_text("the next cell runs")
    notebook.picture(f"interrupt-{kind}-after")


TWICE = """
import nbqueue, pathlib, time
mended = pathlib.Path('mended').absolute()
def parse(n):
    if n == 2 and not mended.exists():
        raise ValueError('a page is missing')
    while n > 2 and not mended.exists():
        time.sleep(0.02)
    return n
run = nbqueue.map(parse, range(6), label='parse pages', chunksize=1)
"""


def test_what_has_failed_is_retried_from_the_page_while_the_cell_blocks(notebook):
    # Given a cell that waits for items of which one has failed
    notebook.write(TWICE + "nbqueue.wait([run]);", "run.retried.get()").open().run(1)
    expect(notebook.output(1)).to_contain_text("a page is missing")
    notebook.picture("retry-before")

    # And a window that leaves no room for words beside the buttons has them below
    notebook.page.set_viewport_size({"width": 760, "height": 900})
    label = notebook.output(1).get_by_text("parse pages")
    notebook.picture("retry-narrow")
    assert label.bounding_box()["height"] < 30, "the label stands in one line"
    assert label.bounding_box()["y"] > notebook.button("Retry failed").bounding_box()["y"] + 20
    notebook.page.set_viewport_size({"width": 1100, "height": 900})

    # When its button is pressed from the keyboard
    notebook.button("Retry failed").focus()
    notebook.page.keyboard.press("Enter")
    expect(notebook.button("Will retry")).to_be_disabled()
    expect(notebook.output(1)).to_contain_text("again at the end")
    notebook.picture("retry-asked")

    # Then the item runs again at the end of the others, with a card of its own, and the results are whole
    (notebook.path.parent / "mended").touch()
    expect(notebook.output(1)).to_contain_text("5 of 6 done, 1 failed")
    expect(notebook.output(1)).to_contain_text("sent again: .retried")
    expect(notebook.output(1)).to_contain_text("6 / 6")
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("[0, 1, 2, 3, 4, 5]")
    notebook.picture("retry-after")
