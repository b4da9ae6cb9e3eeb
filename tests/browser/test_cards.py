"""Cards over the life of a page and of a notebook file."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.timeout(120)

SLOW = "import nbqueue, time\nrun = nbqueue.map(time.sleep, [0.2] * 80, label='slow naps')"


def test_a_card_lives_on_when_the_page_is_reloaded(notebook):
    # Given a run whose cell has ended, in a notebook that was saved meanwhile
    notebook.write(SLOW).open().run(1)
    expect(notebook.output(1)).to_contain_text("2 of 2 slots")
    notebook.save()

    # When the page is loaded anew
    notebook.open()

    # Then the card goes on, its button works, and it ends
    expect(notebook.output(1)).to_contain_text("of 2 slots")
    notebook.picture("reload-live")
    notebook.button("Cancel").click()
    expect(notebook.output(1)).to_contain_text("of 80 done, revoked")
    notebook.picture("reload-ended")


@pytest.mark.parametrize("subshells", ["perCommTarget", "disabled"])
def test_a_card_lives_on_when_the_page_is_reloaded_while_its_cell_blocks(notebook, subshells):
    # Given a cell that waits for its run, in a notebook that was saved meanwhile
    notebook.lab.set("@jupyterlab/apputils-extension/kernels-settings", commsOverSubshells=subshells)
    long = "import nbqueue, time\nrun = nbqueue.map(time.sleep, [0.2] * 1000, label='naps')\nrun.get()"
    notebook.write(long, "run.counts.revoked > 0").open().run(1)
    expect(notebook.output(1)).to_contain_text("2 of 2 slots")
    notebook.save()

    # When the page is loaded anew, while the kernel is busy
    notebook.open()

    # Then the card goes on, and its button ends the wait
    expect(notebook.output(1)).to_contain_text("of 2 slots")
    notebook.button("Cancel").click()
    expect(notebook.output(1)).to_contain_text("of 1,000 done, revoked")
    notebook.picture("reload-blocked-ended")

    # And the next cell runs
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("True")


def test_a_saved_notebook_reads_well_without_its_kernel(notebook):
    # Given a run that has ended, and one that has not, in a notebook that is saved
    notebook.write(
        "import nbqueue, time\ndone = nbqueue.map(abs, range(100), label='quick')\ndone.get()[-1]", SLOW
    ).open().run(1)
    expect(notebook.output(1)).to_contain_text("100 / 100")
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("slots")
    saved = notebook.save()

    # Then the file holds no widget for what is over
    [card, value] = saved.cells[0].outputs
    assert {"text/html", "text/plain"} == set(card.data)
    assert "quick: done, 100 / 100" in card.data["text/plain"]
    assert "99" == value.data["text/plain"]

    # When the run ends and the notebook is opened again with a dead kernel
    notebook.button("Cancel").click()
    expect(notebook.output(2)).to_contain_text("of 80 done, revoked")
    notebook.save()
    notebook.kernel("shutdown")
    notebook.page.goto("about:blank")
    notebook.open()

    # Then both cards are there, and nothing is missing
    expect(notebook.output(1)).to_contain_text("100 / 100")
    expect(notebook.output(2)).to_contain_text("of 80 done, revoked")
    expect(notebook.page.get_by_text("model not found")).to_have_count(0)
    notebook.picture("reopened")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_cards_in_each_theme(notebook, theme):
    notebook.lab.set("@jupyterlab/apputils-extension/themes", theme=f"JupyterLab {theme}")
    notebook.write(
        "import nbqueue, time\nnbqueue.map(abs, range(2000), label='squares').get()[:3]",
        "def f(x):\n    if x in (3, 5): raise ValueError('Input X contains NaN.')\n    return x\n"
        "bad = nbqueue.map(f, range(12), label='train folds'); nbqueue.wait([bad]);",
        "gone = nbqueue.map(time.sleep, [0.01] * 8 + [30] * 50, label='parse modules', chunksize=1)\n"
        "time.sleep(1); gone.revoke(); nbqueue.wait([gone]);",
        "live = nbqueue.map(lambda x: time.sleep(0.2), range(400), label='parse modules')",
        "lost = nbqueue.map(abs, range(3), label='on a gpu', tags='gpu')",
    ).open().run_all()

    expect(notebook.output(1)).to_contain_text("2,000 / 2,000")
    expect(notebook.output(2)).to_contain_text("2 failed")
    expect(notebook.output(2)).to_contain_text("ValueError: Input X contains NaN.")
    expect(notebook.output(3)).to_contain_text("done, revoked")
    expect(notebook.output(4)).to_contain_text("left")
    expect(notebook.output(5)).to_contain_text("gpu")
    bars = notebook.page.locator(".jp-OutputArea").get_by_role("progressbar")
    expect(bars).to_have_count(5)
    notebook.picture(f"cards-{theme.lower()}")
    notebook.page.set_viewport_size({"width": 620, "height": 900})
    notebook.picture(f"cards-{theme.lower()}-narrow")


def test_what_tasks_say_is_on_the_card_and_the_log_opens(notebook):
    # Given a map whose tasks show bars and print
    notebook.write(
        "import nbqueue, time\nfrom tqdm import tqdm\n"
        "def train(fold):\n    print('fold', fold)\n"
        "    for _ in tqdm(range(50), desc='epoch'):\n        time.sleep(0.2)\n"
        "run = nbqueue.map(train, range(4), label='train folds', chunksize=1)",
        "def parse(n):\n    time.sleep(0.1)\n    print('xml/etree/part', n)\n"
        "other = nbqueue.map(parse, range(40), label='parse', chunksize=1)\nother.get();",
    ).open().run(1)

    # Then each task has its line
    expect(notebook.output(1)).to_contain_text("[0] epoch")
    expect(notebook.output(1)).to_contain_text("[1] epoch")

    # And the log shows what was printed
    notebook.button("Log").click()
    expect(notebook.output(1).get_by_label("log")).to_contain_text("[0] fold 0")
    notebook.picture("tail-and-log")
    notebook.button("Cancel").click()
    expect(notebook.output(1)).to_contain_text("done, revoked")
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("40 / 40")
    notebook.output(2).get_by_text("last lines").click()
    expect(notebook.output(2)).to_contain_text("[39] xml/etree/part 39")
    notebook.picture("saved-log")


def test_a_run_can_be_shown_again(notebook):
    notebook.write(
        "import nbqueue, time\nrun = nbqueue.map(time.sleep, [0.3] * 8, label='again')\nrun",
        "run",
        "run.get(); run",
        "run",
    ).open().run(1)
    notebook.run(2)
    expect(notebook.output(1).get_by_role("progressbar")).to_have_count(1)
    expect(notebook.output(2)).to_contain_text("again")
    notebook.run(3)
    expect(notebook.output(3)).to_contain_text("8 / 8")
    notebook.run(4)
    for number in (1, 2, 3, 4):
        expect(notebook.output(number)).to_contain_text("8 / 8")
        expect(notebook.output(number).get_by_role("progressbar")).to_have_count(1)
    notebook.picture("shown-again")
