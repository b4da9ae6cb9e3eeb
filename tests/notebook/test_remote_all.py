"""``%%remote_all``: a cell on every worker once."""

import json

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def _two_workers(kernel):
    # Given the local worker, and one more for another queue
    started = "%load_ext nbqueue\nimport nbqueue\nother = nbqueue.start_workers(1, queues=['night'], tags=['big'])"
    assert "ok" == kernel.run(started)["status"]
    assert "ok" == kernel.run("import ast, nbqueue\nnbqueue.submit(abs, -1).get()")["status"]
    yield
    kernel.run("other.stop()")


@pytest.fixture
def cell(kernel):
    """Execute a cell; its reply, what it shows and what it prints."""

    def run(code):
        kernel.heard.clear()
        started = kernel.start(code)
        reply = kernel.reply_to(started)
        return reply, kernel.shown_under(started), kernel.printed_under(started)

    return run


@pytest.fixture
def names(cell):
    """The workers, by pid."""
    _, shown, _ = cell("import json\njson.dumps({w.pid: w.worker for w in nbqueue.inspect().workers()})")
    return json.loads(shown[0]["text/plain"].strip("'"))


def test_each_worker_runs_it_once_with_the_names_of_the_notebook(cell, names):
    cell("greeting = 'hello'")

    _, _, printed = cell("%%remote_all\nimport os\nprint(greeting)\nx = 1\nos.getppid()")

    assert 2 == len(names)
    assert {f"[{name}] hello" for name in names.values()} == set(printed.splitlines())
    _, [value], _ = cell(f"(len(_), len(set(_.values())), sorted(_) == {sorted(names.values())})")
    assert "(2, 2, True)" == value["text/plain"]


def test_names_stay_on_the_workers(cell):
    cell("kept = 1")
    cell("%%remote_all\nkept = 2\nghost = 3\ndel kept")

    _, [value], _ = cell("kept, 'ghost' in globals()")
    assert "(1, False)" == value["text/plain"]


def test_it_can_be_kept_to_some_workers(cell):
    for option in ("-q night", "-t big"):
        reply, [value], _ = cell(f"%%remote_all {option}\n6 * 7")

        assert "ok" == reply["status"]
        assert value["text/plain"].endswith(": 42}")
        assert 1 == value["text/plain"].count(":")


def test_an_error_says_on_which_workers(cell, names):
    reply, _, _ = cell("%%remote_all\n1 / 0")

    assert "ZeroDivisionError" == reply["ename"]
    assert f"2 of 2 workers failed: {', '.join(sorted(names.values()))}" in "\n".join(reply["traceback"])


def test_a_worker_that_does_not_exist_is_an_error_at_once(cell):
    reply, _, _ = cell("%%remote_all -t gpu\n1")

    assert "NoWorkers" == reply["ename"]
    assert "has the tag 'gpu'" in reply["evalue"]


def test_one_card_stands_for_all_and_its_cancel_stops_all(kernel):
    kernel.heard.clear()
    started = kernel.start("%%remote_all -n naps\nimport time; time.sleep(60)")
    button = kernel.button("Cancel", parent=started)
    kernel.wait_until_shown("0 / 2")

    kernel.click(button)

    assert "TaskRevoked" == kernel.reply_to(started)["ename"]
    [card] = kernel.shown_under(started)
    assert "naps: 0 of 2 done, revoked" in card["text/plain"]


def test_an_interrupt_stops_all(kernel):
    kernel.heard.clear()
    started = kernel.start("%%remote_all --progress-after 0\nimport time; time.sleep(60)")
    kernel.button("Cancel", parent=started)

    kernel.manager.interrupt_kernel()

    assert "KeyboardInterrupt" == kernel.reply_to(started)["ename"]
    assert "revoked 2 at your interrupt" in kernel.printed_under(started)
