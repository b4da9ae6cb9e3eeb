"""Orders to workers as the user writes them: what makes no sense is refused before anybody is asked."""

import math

import pytest

from nbqueue.client.control import Control


def no_link():
    raise AssertionError("somebody would be asked")


@pytest.fixture
def control():
    return Control(no_link)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": ""}, "name must be the name of tasks, as cards show it, not ''"),
        ({"name": abs, "hard": 1}, "name must be the name of tasks, as cards show it, not <built-in function abs>"),
        ({"name": "fit", "soft": 0}, "soft must be a number of seconds above 0, or None, not 0"),
        ({"name": "fit", "hard": -1.5}, "hard must be a number of seconds above 0, or None, not -1.5"),
        ({"name": "fit", "hard": math.inf}, "hard must be a number of seconds above 0, or None, not inf"),
        ({"name": "fit", "hard": True}, "hard must be a number of seconds above 0, or None, not True"),
        ({"name": "fit", "soft": "5"}, "soft must be a number of seconds above 0, or None, not '5'"),
        ({"name": "fit", "soft": 9, "hard": 9}, "soft must be less than hard, or it is never reached: 9 s and 9 s"),
    ],
)
def test_time_limits_that_cannot_be_meant_are_refused_in_a_sentence(control, arguments, complaint):
    for give in (lambda: control.time_limit(**arguments), lambda: control.broadcast("time_limit", arguments)):
        with pytest.raises(ValueError, match=complaint.replace("(", ".")):
            give()


def test_an_unknown_order_is_answered_with_the_nearest(control):
    with pytest.raises(ValueError, match="there is no order 'time_limits'; did you mean 'time_limit'"):
        control.broadcast("time_limits")
