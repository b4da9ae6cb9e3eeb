"""The rule of queues and tags, and which of several idle supervisors is taken."""

import pytest

from nbqueue.client.options import check_options, task_options
from nbqueue.core.exchange import WorkerInfo
from nbqueue.core.routing import Offer, Route, serves, why_unserved
from nbqueue.core.workforce import Workforce


@pytest.mark.parametrize(
    ("offer", "route", "expected"),
    [
        (Offer(), Route(), True),
        (Offer(), Route("other"), False),
        (Offer(queues=()), Route(), False),
        (Offer(queues=("other",)), Route(), False),
        (Offer(queues=("default", "other")), Route("other"), True),
        (Offer(tags=("a", "b")), Route(tags=("a", "b")), True),
        (Offer(tags=("a", "b")), Route(tags=("b",)), True),
        (Offer(tags=("a",)), Route(tags=("a", "b")), False),
        (Offer(tags=("a",)), Route("other", ("a",)), False),
        (Offer(tags=("a",)), Route(), True),
        (Offer(tags=("a",), only_tagged=True), Route(), False),
        (Offer(tags=("a",), only_tagged=True), Route(tags=("a",)), True),
    ],
)
def test_a_supervisor_serves_its_queues_and_what_its_tags_allow(offer, route, expected):
    assert expected is serves(offer, route)


@pytest.mark.parametrize(
    ("route", "offers", "sentence"),
    [
        (Route("gpu"), [], ""),
        (Route(), [Offer()], ""),
        (
            Route("gpu"),
            [Offer(), Offer(queues=("night", "default"))],
            "No worker serves queue 'gpu' (2 connected: 'default', 'night'); start one with `nbqueue-worker -Q gpu`.",
        ),
        (
            Route(tags=("gpu",)),
            [Offer()],
            (
                "No worker of queue 'default' has the tag 'gpu' (1 connected; none has tags); "
                "start one with `nbqueue-worker -t gpu`."
            ),
        ),
        (
            Route("night", ("a", "b")),
            [Offer(queues=("night",), tags=("a",)), Offer(tags=("a", "b"))],
            (
                "No worker of queue 'night' has all the tags 'a', 'b' (2 connected; they have 'a'); "
                "start one with `nbqueue-worker -Q night -t a,b`."
            ),
        ),
    ],
)
def test_why_nobody_could_run_it_is_one_sentence_that_says_what_to_do(route, offers, sentence):
    assert sentence == why_unserved(route, offers)


def workforce(*offers, slots=2):
    force = Workforce()
    for number, offer in enumerate(offers):
        info = WorkerInfo(
            worker_id=b"%d" % number, name=f"w{number}", host="here", pid=number, slots=slots, prefetch=0, offer=offer
        )
        force.join(info, 0.0)
    return force


def test_of_idle_supervisors_the_one_that_can_do_least_else_is_taken():
    # Given a supervisor with a GPU, and one without
    force = workforce(Offer(tags=("gpu",)), Offer())

    # Then untagged work goes to the one without, as long as it has a free slot
    assert "w1" == force.pick(Route()).info.name
    force.get(b"1").claims.update({1: None, 2: None})
    assert "w0" == force.pick(Route()).info.name
    assert "w0" == force.pick(Route(tags=("gpu",))).info.name


def test_who_serves_what_is_worked_out_anew_when_somebody_comes_or_goes():
    force = workforce(Offer())
    assert (2, 0) == (force.slots_for(Route()), force.slots_for(Route("other")))

    force.part(b"0")

    assert (0, None) == (force.slots_for(Route()), force.pick(Route()))


@pytest.mark.parametrize(("given", "expected"), [("gpu", ("gpu",)), (["b", "a", "b"], ("a", "b")), ((), ())])
def test_tags_are_a_set_however_they_are_written(given, expected):
    assert expected == task_options(check_options({"tags": given})).tags


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"queue": ""}, "queue must be a name without spaces and commas, not ''"),
        ({"queue": None}, "queue must be a name without spaces and commas, not None"),
        ({"tags": "gpu,big"}, "tags must be names without spaces and commas, not 'gpu,big'"),
        ({"tags": ["gpu", 1]}, r"tags must be names without spaces and commas, not \['gpu', 1\]"),
        ({"tags": 3}, "tags must be names without spaces and commas, not 3"),
    ],
)
def test_names_that_no_worker_could_have_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_options(options)
