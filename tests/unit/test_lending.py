"""How many slots a worker lends to the children of tasks that wait."""

from nbqueue.worker.lending import LEND_AFTER_S, MAX_LENT, Lender, Wait

A_MOMENT_S = LEND_AFTER_S / 4


def test_a_slot_is_lent_for_each_task_that_has_waited_for_a_while():
    lender = Lender()

    assert 2 == lender.wanted([0.0, 0.0, 1.0], now=1.0)


def test_when_nobody_waits_any_more_all_are_taken_back():
    lender = Lender()
    lender.lent = 3

    assert 0 == lender.wanted([], now=1.0)


def test_a_task_that_ends_takes_a_lent_slot_with_it_which_is_not_lent_again_at_once():
    # Given a slot that was lent
    lender = Lender()
    lender.lent = 1

    # When a task ends
    assert lender.take_back(now=1.0)

    # Then the slot is gone, and comes back only if somebody still waits a moment later
    assert 0 == lender.lent
    assert 0 == lender.wanted([0.0], now=1.0)
    assert 1 == lender.wanted([0.0], now=1.0 + LEND_AFTER_S)


def test_without_a_lent_slot_none_is_taken_back():
    assert not Lender().take_back(now=1.0)


def test_there_is_an_end_to_lending_and_whoever_waits_then_is_refused():
    lender = Lender()

    assert MAX_LENT == lender.wanted([0.0] * 1000, now=1.0)
    assert not lender.refuses(MAX_LENT)
    assert lender.refuses(MAX_LENT + 1)


def test_a_wait_that_looks_up_for_a_moment_is_the_same_wait():
    # Given a task that waits, and looks up at every piece of news
    wait = Wait()
    wait.begin(0.0)
    for number in range(1, 20):
        wait.end(number * A_MOMENT_S)
        assert 0.0 == wait.since(number * A_MOMENT_S)
        wait.begin(number * A_MOMENT_S)

    # Then it has waited all the time
    assert 0.0 == wait.since(20 * A_MOMENT_S)


def test_a_task_that_goes_on_waits_no_more_and_waits_anew_later():
    wait = Wait()
    wait.begin(0.0)
    wait.end(1.0)

    assert wait.since(1.0 + LEND_AFTER_S) is None
    wait.begin(5.0)
    assert 5.0 == wait.since(5.0)


def test_a_task_that_has_ended_does_not_wait():
    wait = Wait()
    wait.begin(0.0)
    wait.forget()

    assert wait.since(0.0) is None
