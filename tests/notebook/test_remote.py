"""``%%remote``: a cell does on a worker what it would have done here."""

import re

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def _magics(kernel):
    assert "ok" == kernel.run("%load_ext nbqueue")["status"]


@pytest.fixture(autouse=True)
def _no_news(kernel):
    kernel.heard.clear()


@pytest.fixture
def cell(kernel):
    """Execute a cell that must end well; what it shows and prints."""

    def run(code):
        started = kernel.start(code)
        reply = kernel.reply_to(started)
        assert "ok" == reply["status"], "\n".join(reply.get("traceback", [reply.get("evalue", "")]))
        return kernel.shown_under(started), kernel.printed_under(started)

    return run


@pytest.fixture
def failing(kernel):
    """Execute a cell that must fail; its error, without colours."""

    def run(code):
        reply = kernel.reply_to(kernel.start(code))
        assert "error" == reply["status"]
        text = "\n".join(reply["traceback"])
        return reply["ename"], re.sub(r"\x1b\[[\d;]*m", "", text)

    return run


def values(shown):
    """The text of all values shown, without cards."""
    return [bundle["text/plain"] for bundle in shown if "%%remote" not in bundle["text/plain"]]


def test_names_that_are_read_go_along_and_names_that_are_set_come_back(cell):
    cell("x = 20; untouched = object()")

    shown, _ = cell("%%remote\ny = x + 1\nx += 1\ny * 2")

    assert ["42"] == values(shown)
    assert ["(21, 21)"] == values(cell("x, y")[0])


def test_the_last_expression_is_the_value_of_the_cell(cell):
    cell("%%remote\n6 * 7")

    assert ["42"] == values(cell("_")[0])
    assert ["True"] == values(cell("max(Out) in Out and Out[max(Out)] == 42")[0])


def test_a_semicolon_keeps_the_value_back(cell):
    assert [] == values(cell("%%remote\n6 * 7;")[0])


def test_it_runs_in_another_process(cell):
    cell("%%remote\nimport os\npid = os.getpid()")

    assert ["True"] == values(cell("import os; pid != os.getpid()")[0])


def test_functions_and_classes_live_in_the_notebook_afterwards(cell):
    # Given functions on both sides that use the same global name
    cell("rate = 2\ndef local(n): return n * rate")
    cell(
        "%%remote\ndef twice(n): return local(n) + rate\n"
        "class Pair:\n    def both(self): return twice(1), rate\npair = Pair()"
    )

    # When the name is set anew in the notebook
    cell("rate = 10")

    # Then both see it
    assert ["(20, (20, 10), True)"] == values(cell("twice(1), pair.both(), type(pair) is Pair")[0])


def test_nested_functions_keep_what_they_close_over_on_both_ways(cell):
    cell("def outer(n):\n    def inner():\n        return n * scale\n    return inner\nscale = 2; six = outer(3)")

    shown, _ = cell(
        "%%remote\ndef twice(f):\n    def g():\n        return 2 * f()\n    return g\ntwelve = twice(six)\ntwelve()"
    )

    assert ["12"] == values(shown)
    assert ["(120, 60)"] == values(cell("scale = 20\ntwelve(), six()")[0])


def test_a_function_of_the_notebook_sees_what_the_cell_assigns(cell):
    cell("level = 1\ndef read(): return level")

    assert ["5"] == values(cell("%%remote\nlevel = 5\nread()")[0])


def test_what_two_names_share_stays_shared(cell):
    cell("a = []; b = a")
    cell("%%remote\nc = b\na = a\nc.append(1)\nd = c")

    assert ["True"] == values(cell("c is d and c == [1]")[0])


def test_names_that_are_deleted_are_gone(cell):
    cell("doomed = 1")
    cell("%%remote\ndel doomed")

    assert ["False"] == values(cell("'doomed' in globals()")[0])


def test_imports_await_loops_and_comprehensions_are_what_they_are_here(cell):
    cell("steps = 3")

    shown, _ = cell(
        "%%remote\nimport asyncio, math as m\nawait asyncio.sleep(0)\nt = [m.sqrt(i * i) for i in range(steps)]\nsum(t)"
    )

    assert ["3.0"] == values(shown)
    assert ["(3.0, False)"] == values(cell("m.sqrt(9), 'i' in globals()")[0])


def test_a_table_looks_as_it_does_here(cell):
    cell("import pandas as pd")

    shown, _ = cell("%%remote\ndf = pd.DataFrame({'a': [1, 2]})\ndf")

    assert "<table" in shown[-1]["text/html"]
    assert ["[1, 2]"] == values(cell("df.a.tolist()")[0])


def test_names_can_be_chosen(cell):
    cell("kept = 1; sent = 2")
    cell("%%remote -i sent -o back\nback = sent + 1\nkept = back")

    assert ["(1, 3)"] == values(cell("kept, back")[0])


def test_names_can_be_kept_from_coming_back(cell):
    cell("%%remote -o -\nghost = 1")

    assert ["False"] == values(cell("'ghost' in globals()")[0])


def test_a_handle_waits_when_it_is_asked_to(cell):
    cell("%%remote --handle later\nz = 5\nz + 1")

    assert ["(6, 5)"] == values(cell("later.get(), z")[0])


def test_noblock_gives_the_handle_at_once(cell):
    cell("%%remote -a\nimport time; time.sleep(0.2); w = 1; w")

    assert ["(1, 1)"] == values(cell("_.get(), w")[0])


def test_one_expression_on_a_line(cell):
    cell("n = 4")

    assert ["16"] == values(cell("%remote n ** 2")[0])


def test_what_cannot_come_back_is_named_and_the_rest_comes(cell):
    _, printed = cell("%%remote\nimport threading\nlock = threading.Lock()\nfine = 1")

    assert "lock stayed on the worker: a lock cannot be sent" in printed
    assert ["1"] == values(cell("fine")[0])


def test_what_cannot_be_sent_is_named(cell, failing):
    cell("import threading; own_lock = threading.Lock()")

    ename, text = failing("%%remote\nx = 1\nown_lock.acquire()")

    assert "NotSerializable" == ename
    assert "the cell uses 'own_lock', a lock, in line 3, and that cannot be sent" in text
    assert "magics.py" not in text


def test_an_error_is_the_cells_own_and_what_was_set_before_it_is_there(cell, failing):
    ename, text = failing("%%remote\nbefore = 7\nimport os\n1 / 0\nafter = 8")

    assert "ZeroDivisionError" == ename
    assert "line 4" in text
    assert "1 / 0" in text
    assert "magics.py" not in text
    assert ["(7, False)"] == values(cell("before, 'after' in globals()")[0])


def test_a_syntax_error_shows_at_once_and_with_the_line_of_the_cell(failing):
    ename, text = failing("%%remote\nx = 3\nfor in x")

    assert "SyntaxError" == ename
    assert "line 3" in text
    assert "for in x" in text
    assert "nbqueue" not in text


def test_a_name_that_is_to_be_sent_must_exist(failing):
    assert "name 'nowhere' is not defined" in failing("%%remote -i nowhere\n1")[1]


def test_an_unknown_option_is_refused(kernel):
    reply = kernel.reply_to(kernel.start("%%remote --nonsense\n1"))

    assert ("error", "UsageError") == (reply["status"], reply["ename"])


def test_the_magic_explains_itself(kernel):
    reply = kernel.reply_to(kernel.start("%%remote?"))

    assert "--noblock" in reply["payload"][0]["data"]["text/plain"]


def test_cancel_works_while_a_remote_cell_blocks(kernel):
    cell = kernel.start("%%remote\nimport time\ntime.sleep(60)")
    button = kernel.button("Cancel", parent=cell)

    kernel.click(button)

    assert "TaskRevoked" == kernel.reply_to(cell)["ename"]
    [card] = kernel.shown_under(cell)
    assert "revoked" in card["text/plain"]


def test_a_cell_can_be_limited_in_time(failing):
    ename, text = failing("%%remote --timeout 0.3\nimport time; time.sleep(60)")

    assert "TimeLimitExceeded" == ename
    assert "0.3 s" in text


def test_options_complete_on_the_first_line_and_nowhere_else(cell):
    cell("def completed(text, at): return get_ipython().complete('', text, at)[1]")

    assert ["['--noblock']"] == values(cell("completed('%%remote --no', 13)")[0])
    assert ["['--memory']"] == values(cell("completed('%%remote_all --mem', 18)")[0])
    assert ["True"] == values(cell("'--noblock' not in completed('%timeit --no', 12)")[0])


def test_what_runs_can_be_listed_and_revoked(cell):
    cell("import nbqueue, time\nnap = nbqueue.submit(time.sleep, 60)")

    assert "sleep" in cell("%nbq runs")[0][0]["text/plain"]
    cell("get_ipython().run_line_magic('nbq', f'revoke {nap.id[:8]}')")
    assert ["'REVOKED'"] == values(cell("nap.exception(); nap.state")[0])


def test_a_run_is_joined_and_its_output_read_by_its_id(cell):
    cell("import nbqueue\ndef chat(n):\n    print('line', n)\n    return n")
    cell("talk = nbqueue.map(chat, range(3))\ntalk.get();")
    cell("line, id = get_ipython().run_line_magic, talk.id[:8]")

    assert ["[0, 1, 2]"] == values(cell("line('nbq', f'attach {id}').get()")[0])
    _, printed = cell("line('nbq', f'logs {id}')")
    assert {"[0] line 0", "[1] line 1", "[2] line 2"} == set(printed.splitlines())


def test_reading_what_still_runs_ends_with_it_or_with_an_interrupt(kernel, cell):
    # Given a task of an earlier cell that prints and goes on
    cell("import nbqueue, time\ndef hum():\n    print('hum')\n    time.sleep(60)\nhumming = nbqueue.submit(hum)")
    reading = kernel.start("get_ipython().run_line_magic('nbq', f'logs {humming.id[:8]}')")
    kernel.wait_for(lambda m: m["content"].get("text") == "hum\n", "its output", parent=reading)

    # When the reading is interrupted, then the task goes on
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" == kernel.reply_to(reading)["ename"]
    assert ["False"] == values(cell("humming.done()")[0])
    cell("humming.revoke(wait=True);")


def test_words_and_ids_of_nbq_complete(cell):
    cell("def completed(text): return get_ipython().complete('', text, len(text))[1]")
    cell("import nbqueue\ntalk = nbqueue.submit(abs, -1)")

    assert ["['attach']"] == values(cell("completed('%nbq at')")[0])
    assert ["True"] == values(cell("talk.id[:8] in completed(f'%nbq logs {talk.id[:3]}')")[0])
    assert ["True"] == values(cell("talk.id[:8] not in completed(f'%nbq runs {talk.id[:3]}')")[0])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("%nbq revoke", "say which run"),
        ("%nbq logs", "say which run"),
        ("%nbq attach 1234 5678", "takes one id, not 2"),
        ("%nbq runs 7", "takes no ids"),
        ("%nbq dance", "invalid choice: 'dance'"),
    ],
)
def test_nonsense_for_nbq_is_refused_in_one_sentence(kernel, line, sentence):
    reply = kernel.reply_to(kernel.start(line))

    assert ("error", "UsageError") == (reply["status"], reply["ename"])
    assert sentence in reply["evalue"]


def test_an_id_that_nobody_knows_is_one_sentence(failing):
    ename, text = failing("%nbq attach ffffffff")

    assert "UnknownTask" == ename
    assert "lookout.py" not in text
