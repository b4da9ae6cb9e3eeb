"""Why a process died, in words."""

from nbqueue.worker.limits import Budget
from nbqueue.worker.obituary import Death, obituary

GIB = 2**30
ROOMY = Budget("the machine's memory", 16 * GIB, 4 * GIB)
DUMP = """\
warming up
Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "Cell In[3]", line 2 in native
  File "/site-packages/nbqueue/worker/slot.py", line 126 in _run_block

Extension modules: numpy
""".splitlines()


def test_a_signal_is_named_and_so_are_the_figures():
    text = obituary(Death(7, "SIGTERM", 0, 3 * GIB), ROOMY, [])

    assert text == (
        "the process (pid 7) that ran it was killed by SIGTERM; its memory peaked at 3.0 GiB; "
        "the machine's memory has 16.0 GiB, 12.0 GiB of them free"
    )


def test_a_status_is_named():
    assert "that ran it ended with status 3;" in obituary(Death(7, "", 3, GIB), ROOMY, [])


def test_a_large_process_that_was_killed_was_out_of_memory():
    assert "almost surely it was out of memory" in obituary(Death(7, "SIGKILL", 0, 14 * GIB), ROOMY, [])
    assert "almost surely" in obituary(Death(7, "SIGKILL", 0, GIB), Budget("the memory", 100, 95), [])


def test_no_other_death_is_taken_for_one_of_memory():
    assert "almost surely" not in obituary(Death(7, "SIGKILL", 0, GIB), ROOMY, [])
    assert "almost surely" not in obituary(Death(7, "SIGSEGV", 0, 14 * GIB), ROOMY, [])


def test_a_crash_in_native_code_is_told_by_the_task_s_own_lines():
    sentence, *words = obituary(Death(7, "SIGSEGV", 0, GIB), ROOMY, DUMP).split("\n")

    assert (
        "it crashed in string_at (/usr/lib/python3.11/ctypes/__init__.py, line 519), "
        "called by native (Cell In[3], line 2);"
    ) in sentence
    assert ["  stderr | warming up"] == words


def test_only_the_end_of_what_it_wrote_is_shown():
    lines = [f"line {number}" for number in range(50)]

    words = obituary(Death(7, "SIGKILL", 0, GIB), ROOMY, lines).split("\n")[1:]

    assert [f"  stderr | line {number}" for number in range(38, 50)] == words
