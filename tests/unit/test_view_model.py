import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbqueue.core.progress import Counts, Pace, RunSnapshot
from nbqueue.notebook.tail import TailLine
from nbqueue.notebook.view_model import Retry, State, describe, render_html, render_text, when_saved

RUN = RunSnapshot(label="parse modules", counts=Counts(total=2_000), elapsed_s=6.2)
ENDED = replace(RUN, slots=8, elapsed_s=32.8, work_s=242.0, counts=Counts(total=2_000, done=2_000))
FAILED = replace(
    ENDED,
    elapsed_s=33.1,
    counts=Counts(total=2_000, done=1_997, failed=3),
    first_error="ValueError: bad thirty-seven",
    first_error_item=37,
)


def going_at(items_per_s: float) -> Pace:
    pace = Pace()
    for ended in range(100):
        pace.sample(ended / items_per_s, ended)
    return pace


def words(html: str) -> str:
    """What a page shows that strips every style."""
    return " ".join(re.sub(r"<[^>]+>", "", re.sub(r"<div", " <div", html)).split())


def test_waiting_for_workers_says_since_when_and_why():
    run = replace(RUN, hint="No worker can take this run: it asks for tag `gpu`.")

    view = describe(run, Pace())

    assert State.WAITING is view.state
    assert view.count == "0 / 2,000"
    assert view.facts == "waiting 6 s"
    assert view.note == "No worker can take this run: it asks for tag `gpu`."


def test_running_says_speed_time_left_and_slots():
    run = replace(RUN, slots=8, counts=Counts(total=2_000, done=1_204, running=16))

    view = describe(run, going_at(61))

    assert State.RUNNING is view.state
    assert view.count == "1,204 / 2,000"
    assert view.facts == "61/s · 13 s left · 8 of 8 slots"
    assert view.error is None


def test_running_with_a_failure_says_the_first_error_and_its_item():
    run = replace(
        RUN,
        label="train folds",
        counts=Counts(total=12, done=4, failed=1, running=4),
        slots=4,
        first_error="ValueError: Input X contains NaN.",
        first_error_item=3,
    )

    view = describe(run, going_at(0.2))

    assert view.count == "5 / 12"
    assert view.facts == "0.2/s · 35 s left · 4 of 4 slots"
    assert render_text(view).splitlines()[1].strip() == "1 failed · item 3: ValueError: Input X contains NaN."
    assert "1 failed · item 3: <b>ValueError</b>: Input X contains NaN." in render_html(view)


def test_an_error_is_called_by_the_last_part_of_its_name():
    run = replace(FAILED, first_error="nbqueue.errors.TimeLimitExceeded: it ran for longer than its time_limit of 1 s")

    assert "item 37: TimeLimitExceeded: it ran for longer" in render_text(describe(run, Pace()))


def test_cancelling_says_what_is_being_stopped():
    run = replace(RUN, cancelling=True, counts=Counts(total=2_000, done=1_377, running=8))

    view = describe(run, going_at(61), cancelling_s=1.2)

    assert State.CANCELLING is view.state
    assert view.count == "1,377 / 2,000"
    assert view.facts == "stopping 8 running items · 1.2 s"


def test_done_says_time_slots_work_and_gain():
    view = describe(ENDED, Pace())

    assert State.DONE is view.state
    assert view.count == "2,000 / 2,000"
    assert view.facts == "32.8 s on 8 slots · 4 min 02 s of work · 7.4×"


def test_done_with_failures_says_how_many_and_where_they_are():
    view = describe(FAILED, Pace())

    assert State.FAILED is view.state
    assert view.count == "1,997 of 2,000 done, 3 failed"
    assert view.facts == "33.1 s on 8 slots · 7.3×"
    assert (
        render_text(view).splitlines()[1].strip()
        == "3 failed · item 37: ValueError: bad thirty-seven · all of them: `.errors()` · again: `.retry()`"
    )


def test_failed_items_that_run_again_say_when_and_where_their_handle_is():
    running = replace(FAILED, counts=Counts(total=2_000, done=1_000, failed=3, running=8))

    asked = describe(running, going_at(61), retry=Retry.AT_THE_END)
    sent = describe(FAILED, Pace(), retry=Retry.SENT)

    assert asked.error.more == " · again at the end"
    assert sent.error.more == " · all of them: `.errors()` · sent again: `.retried`"


def test_what_cannot_run_again_does_not_say_how():
    failed = describe(replace(FAILED, can_retry=False), Pace())
    revoked = describe(replace(RUN, can_retry=False, counts=Counts(total=9, done=1, revoked=8)), Pace())

    assert failed.error.more == " · all of them: `.errors()`"
    assert revoked.note == "Finished items are kept."


def test_revoked_says_what_is_left_and_what_is_kept():
    run = replace(RUN, elapsed_s=22.6, counts=Counts(total=2_000, done=1_381, revoked=619))

    view = describe(run, Pace())

    assert State.REVOKED is view.state
    assert view.count == "1,381 of 2,000 done, revoked"
    assert view.facts == "after 22.6 s · 619 not finished"
    assert view.note == "Finished items are kept. `.retry()` runs the others."


def test_a_run_that_ended_short_of_its_items_never_looks_done():
    # Given a handle that is over although not every item has ended: its broker died
    run = replace(RUN, counts=Counts(total=10, done=4))

    assert State.REVOKED is describe(run, Pace(), ended=True).state
    assert describe(replace(run, first_error="BrokerUnavailable"), Pace(), ended=True).count == "4 of 10 done, failed"


def test_waiting_again_in_the_middle_says_that_there_are_no_slots():
    run = replace(RUN, counts=Counts(total=10, done=4), hint="No worker is connected.")

    assert describe(run, going_at(1)).facts == "waiting · 0 slots"


def test_before_the_first_item_has_ended_the_time_so_far_is_said():
    run = replace(RUN, slots=1, elapsed_s=12.0, counts=Counts(total=1, running=1))

    assert describe(run, Pace()).facts == "12 s · 1 of 1 slot"


def test_a_lazy_input_has_no_time_left_and_no_position():
    run = replace(RUN, slots=8, counts=Counts(total=1_300, closed=False, done=1_204, running=8))

    view = describe(run, going_at(61), unit="files")

    assert view.count == "1,204 / 1,300 files so far"
    assert view.facts == "61/s · 8 of 8 slots"
    assert "aria-valuenow" not in render_html(view)


def test_an_empty_input_is_done():
    view = describe(replace(RUN, elapsed_s=0.004, counts=Counts(total=0)), Pace())

    assert State.DONE is view.state
    assert render_text(view) == "parse modules: done, 0 / 0 · 4 ms"
    assert "width:100.00%" in render_html(view)


def test_a_million_items_read_well():
    run = replace(RUN, slots=128, counts=Counts(total=10**6, done=654_321, failed=12, running=128))

    view = describe(run, going_at(12_345))

    assert view.count == "654,333 / 1,000,000"
    assert view.facts == "12,345/s · 28 s left · 128 of 128 slots"


@pytest.mark.parametrize(
    ("rate", "words"),
    [(12_345.4, "12,345/s"), (61.2, "61/s"), (4.13, "4.1/s"), (0.2, "0.2/s"), (0.05, "3.0/min"), (1 / 1800, "2.0/h")],
)
def test_a_rate_has_two_figures_that_can_be_read(rate, words):
    run = replace(RUN, counts=Counts(total=2_000, done=99, running=1, closed=False))

    assert words == describe(run, going_at(rate)).facts


@pytest.mark.parametrize(
    ("elapsed_s", "words"),
    [
        (0.042, "42 ms"),
        (0.4, "0.4 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (242.0, "4 min 02 s"),
        (7_500.0, "2 h 05 min"),
        (273_600.0, "3 d 04 h"),
    ],
)
def test_a_duration_is_said_in_the_units_of_its_size(elapsed_s, words):
    run = replace(RUN, elapsed_s=elapsed_s, counts=Counts(total=1, done=1))

    assert words == describe(run, Pace()).facts


def test_a_run_that_was_not_faster_claims_no_gain():
    run = replace(ENDED, elapsed_s=2.0, work_s=1.0)

    assert describe(run, Pace()).facts == "2.0 s on 8 slots · 1.0 s of work"


def test_a_notebook_saved_during_the_run_says_so():
    run = replace(RUN, slots=8, counts=Counts(total=100, done=12, running=8))

    view = when_saved(describe(run, going_at(2)))

    assert render_text(view) == "parse modules: 12 / 100 · running when saved"


def test_every_state_is_in_words_also_when_styles_are_stripped():
    for run in (RUN, ENDED, FAILED, replace(RUN, cancelling=True)):
        view = describe(run, Pace())

        assert words(render_html(view)).startswith(f"{view.state.value} parse modules ")
    assert (
        words(render_html(describe(ENDED, Pace())))
        == "done parse modules 2,000 / 2,000 · 32.8 s on 8 slots · 4 min 02 s of work · 7.4×"
    )


def test_the_bar_shows_failures_apart_and_tells_screen_readers():
    html = render_html(describe(FAILED, Pace()))

    assert 'role="progressbar"' in html
    assert 'aria-valuemin="0" aria-valuemax="2000" aria-valuenow="2000"' in html
    assert 'aria-valuetext="1,997 of 2,000 done, 3 failed"' in html
    assert "width:99.85%" in html
    assert "width:0.15%;min-width:3px" in html


def test_only_the_live_card_announces_changes_and_leaves_room_for_the_button():
    view = describe(RUN, Pace())

    assert 'aria-live="polite"' in render_html(view, button_px=100)
    assert "float:right;width:100px" in render_html(view, button_px=100)
    assert "aria-live" not in render_html(view)


def test_what_users_write_cannot_become_markup():
    run = replace(
        FAILED,
        label="<script>alert(1)</script>",
        first_error="<img src=x onerror=alert(1)>: `<b>`",
        hint="`<script>`",
    )

    html = render_html(describe(run, Pace(), unit="<i>")) + render_html(describe(run, Pace(), ended=False))

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<code>&lt;script&gt;</code>" in html
    assert not re.search(r"<(script|img|i)\b", html)


def test_a_label_stays_in_its_line():
    # Given a label with a line break, an escape sequence and a mark that turns the direction of writing
    run = replace(RUN, label="a\nb\x1b[31mc\u202ed " + "x" * 200)

    label = describe(run, Pace()).label

    assert label.startswith("a b [31mc d xxx")
    assert label.endswith("…")
    assert len(label) == 80


@given(label=st.text(max_size=500), error=st.text(max_size=500), counts=st.builds(Counts, total=st.just(10**9)))
def test_a_static_card_is_at_most_4_kb_of_inline_html(label, error, counts):
    run = replace(FAILED, label=label, first_error=error, counts=replace(counts, failed=10**9 - 1, done=1))

    html = render_html(describe(run, Pace()))

    assert len(html.encode()) <= 4096
    assert "<style" not in html
    assert "<script" not in html


def test_the_longest_static_card_is_at_most_4_kb():
    run = replace(FAILED, label="'" * 500, first_error="'" * 500, first_error_item=10**9)

    assert len(render_html(describe(run, Pace(), unit="'" * 50)).encode()) <= 4096


def test_equal_views_are_equal_so_that_nothing_is_painted_twice():
    assert describe(RUN, Pace()) == describe(replace(RUN, elapsed_s=6.3), Pace())
    assert describe(RUN, Pace()) != describe(replace(RUN, elapsed_s=7.2), Pace())


def test_a_single_call_has_no_bar_and_says_its_state_and_time():
    snapshot = RunSnapshot(label="%%remote · In [14]", counts=Counts(total=1, running=1), elapsed_s=72.0, slots=8)

    view = describe(snapshot, Pace(), is_single=True)

    assert ("running", "1 min 12 s") == (view.count, view.facts)
    assert "progressbar" not in render_html(view)
    assert "%%remote · In [14]: running · 1 min 12 s" == render_text(view)


def test_bars_of_tasks_are_lines_of_the_card_and_leave_with_its_end():
    view = replace(
        describe(RunSnapshot(label="folds", counts=Counts(total=12, running=2), elapsed_s=3.0), Pace()),
        tail=(TailLine("[6] epoch", 0.62, "31/50 · 4.1 it/s"), TailLine("[7]", None, "<b>loss</b>")),
    )

    html = render_html(view, button_px=100)

    assert "width:62.0%" in html
    assert 'aria-label="[6] epoch"' in html
    assert "[7] &lt;b&gt;loss&lt;/b&gt;" in html
    assert "epoch" not in render_html(when_saved(view))


def test_a_log_is_all_there_while_it_is_read_and_folded_when_it_is_saved():
    lines = tuple(f"[0] line {n} {'x' * 200}" for n in range(200))
    view = replace(describe(RunSnapshot(label="f", counts=Counts(total=2), elapsed_s=1.0), Pace()), log=lines)

    assert "line 0 " in render_html(view, button_px=100)
    saved = render_html(view)
    assert "<details" in saved
    assert "line 199 " in saved
    assert "line 3 " not in saved
    assert len(saved) < 4096
