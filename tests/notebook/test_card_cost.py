"""What a card costs a run that has a million items: CPU time and messages, counted."""

import ast

import pytest

pytestmark = pytest.mark.timeout(120)

#: The cost of drawing is told by the clock of the thread that draws, so a busy machine changes nothing.
MEASURED = """
import time, nbqueue
from nbqueue.notebook.painter import View
drawn = []
def repaint(view, repaint=View.repaint):
    began = time.thread_time()
    try:
        return repaint(view)
    finally:
        drawn.append(time.thread_time() - began)
View.repaint = repaint
nbqueue.map(abs, range(100), progress=False).get()
"""
#: Beyond what is drawn eight times a second: the card's opening, its first drawing, its end as HTML and in pages that
#: were reloaded, and its buttons being hidden there.
ONCE = ("display_data", "comm_msg", "update_display_data", "comm_msg", "comm_msg")
MILLION = """
began = time.process_time()
run = nbqueue.map(abs, range(1_000_000), label='million')
assert len(run.get()) == 1_000_000
cpu_s = time.process_time() - began
"""


def test_the_card_of_a_million_items_costs_less_than_two_percent_and_eight_messages_a_second(kernel):
    # Given a kernel that counts what drawing takes
    assert "ok" == kernel.run(MEASURED)["status"]
    kernel.heard.clear()

    # When a million items are mapped
    started = kernel.start(MILLION)
    assert "ok" == kernel.reply_to(started)["status"]
    messages = [m["msg_type"] for m in kernel.heard if m["msg_type"] not in ("status", "execute_input", "comm_open")]

    # Then drawing took little of the CPU time of the kernel and the items, and few messages were sent
    told = kernel.start("sum(drawn), cpu_s + run.info['cpu_s'], run.info['elapsed_s']")
    kernel.reply_to(told)
    drawing_s, cpu_s, elapsed_s = ast.literal_eval(kernel.shown_under(told)[0]["text/plain"])
    assert drawing_s < 0.02 * cpu_s
    assert len(messages) <= 8 * elapsed_s + len(ONCE)
    assert "million: done, 1,000,000 / 1,000,000" in kernel.shown_under(started)[0]["text/plain"]
