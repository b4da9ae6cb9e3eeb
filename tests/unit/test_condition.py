"""A lock around a wait, and interrupts that fall where they hurt most."""

import threading

import pytest

from nbqueue.client.condition import Condition


def is_free(condition):
    """Whether another thread can have it."""
    got = []
    thread = threading.Thread(target=lambda: got.append(condition.acquire(timeout=1.0)))
    thread.start()
    thread.join()
    return got == [True]


@pytest.mark.parametrize("depth", [1, 2])
def test_an_interrupt_right_behind_the_release_is_heard_of_and_leaves_the_lock_as_it_was(depth):
    # Given a wait in which Ctrl-C falls between the release of the lock and all that follows
    condition = Condition()
    release = condition._release_save

    def release_and_be_interrupted():
        release()
        raise KeyboardInterrupt

    condition._release_save = release_and_be_interrupted

    # When somebody waits, then it is that interrupt that is raised, and nothing else
    def wait(levels):
        with condition:
            condition.wait(1.0) if levels == 1 else wait(levels - 1)

    with pytest.raises(KeyboardInterrupt):
        wait(depth)

    # And the lock is nobody's
    assert is_free(condition)


def test_an_interrupt_of_the_wait_itself_leaves_the_lock_free():
    condition = Condition()
    waiting = condition._acquire_restore

    def restore_and_be_interrupted(state):
        waiting(state)
        raise KeyboardInterrupt

    condition._acquire_restore = restore_and_be_interrupted

    with pytest.raises(KeyboardInterrupt), condition:
        condition.wait(0.01)
    assert is_free(condition)


def test_news_end_a_wait():
    condition = Condition()

    def tell():
        with condition:
            condition.notify_all()

    with condition:
        threading.Thread(target=tell).start()
        assert condition.wait(5.0)
