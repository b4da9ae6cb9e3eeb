"""Tasks in Celery's words, on real workers."""

import datetime as dt
import inspect
import os
import pickle
import time

import cloudpickle
import pytest

import nbqueue

pytestmark = pytest.mark.timeout(60)


@nbqueue.task
def add(x, y=1):
    """Sum of two."""
    return x + y


@pytest.fixture(scope="module", autouse=True)
def default_app(hub):
    """The default app of this process uses the hub of this module."""
    with nbqueue.connect() as app:
        yield app


def test_a_task_is_still_the_function():
    assert 5 == add(2, y=3)
    assert ("add", "Sum of two.", "(x, y=1)") == (add.__name__, add.__doc__, str(inspect.signature(add)))
    assert "<Task add>" == repr(add)


def test_a_task_runs_elsewhere_when_it_is_delayed():
    @nbqueue.task
    def where(*args, **kwargs):
        return os.getpid(), args, kwargs

    pid, args, kwargs = where.delay(1, 2, z=3).get(20)

    assert os.getpid() != pid
    assert ((1, 2), {"z": 3}) == (args, kwargs)


def test_options_of_the_decorator_hold_for_every_call(tmp_path):
    # Given a task that fails twice, and may be tried three times
    @nbqueue.task(name="shaky", max_retries=3, retry_jitter=False)
    def shaky(path):
        with open(path, "a") as file:
            file.write(".")
        if os.path.getsize(path) < 3:
            raise ConnectionError
        return nbqueue.current_task().label

    assert "shaky" == shaky.delay(tmp_path / "tries").get(20)
    assert "<Task shaky, max_retries=3, retry_jitter=False, label='shaky'>" == repr(shaky)


def test_options_of_one_call_hold_for_that_call():
    @nbqueue.task(label="usual")
    def label():
        return nbqueue.current_task().label

    assert "special" == label.apply_async(label="special").get(20)
    assert "usual" == label.apply_async().get(20)
    assert "other" == label.options(label="other").delay().get(20)


def test_apply_async_takes_arguments_as_celery_does():
    assert 5 == add.apply_async((2, 3)).get(20)
    assert 5 == add.apply_async([2], {"y": 3}).get(20)
    assert 5 == add.apply_async(kwargs={"x": 2, "y": 3}).get(20)


def now(**offset):
    return dt.datetime.now(dt.UTC) + dt.timedelta(**offset)


@pytest.mark.parametrize(
    "when",
    [
        lambda: {"countdown": 0.5},
        lambda: {"eta": now(seconds=0.5)},
        lambda: {"eta": now(seconds=0.5).astimezone(dt.timezone(dt.timedelta(hours=5)))},
        lambda: {"eta": now(seconds=0.5).astimezone().replace(tzinfo=None)},
    ],
    ids=["countdown", "eta", "eta in another zone", "eta in local time"],
)
def test_a_task_may_wait_for_its_time(when):
    assert 2 == add.delay(1).get(20)  # workers are up
    started = time.time()

    began = nbqueue.task(time.time).apply_async(**when()).get(20)

    assert 0.45 <= began - started < 5


def test_a_moment_that_has_passed_is_now():
    assert 2 == add.apply_async((1,), eta=now(hours=-1)).get(20)


@pytest.mark.parametrize("expires", [0.3, lambda: now(seconds=0.3)], ids=["seconds", "moment"])
def test_a_task_that_is_not_started_in_time_expires(expires):
    # Given a task for a queue that nobody serves
    handle = add.apply_async((1,), queue="nobody", expires=expires() if callable(expires) else expires)

    with pytest.raises(nbqueue.TaskExpired):
        handle.get(20)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: nbqueue.task(retries=3), TypeError, "there is no task option 'retries'"),
        (lambda: nbqueue.task(queue="a b")(abs), ValueError, "queue must be a name"),
        (lambda: nbqueue.task(42), TypeError, "a task is made of a function, not of 42"),
        (lambda: add.apply_async((1,), tag="gpu"), TypeError, "did you mean 'tags'"),
        (lambda: add.apply_async((1,), countdown=1, eta=now()), ValueError, "countdown or eta, not both"),
        (
            lambda: add.apply_async((1,), expires=now(hours=-1)),
            ValueError,
            "expires must be a number of seconds above 0",
        ),
    ],
)
def test_wrong_options_are_told_at_once(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_tasks_use_each_other():
    # Given tasks that call, delay and map each other and themselves
    @nbqueue.task
    def double(x):
        return 2 * x

    @nbqueue.task
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    @nbqueue.task
    def all_of_it(x):
        return double(x), double.delay(x).get(20), double.map([x, x]).get(20), factorial(x)

    assert (6, 6, [6, 6], 6) == all_of_it.delay(3).get(40)
    assert 120 == factorial.delay(5).get(20)


def test_a_task_is_a_function_to_everybody_else():
    assert [2, 3] == nbqueue.map(add, [1, 2]).get(20)
    assert 3 == nbqueue.submit(add, 1, y=2).get(20)
    assert [2, 3] == add.map([1, 2]).get(20)
    assert [3, 7] == add.starmap([(1, 2), (3, 4)]).get(20)
    assert 3 == pickle.loads(cloudpickle.dumps(add))(1, 2)
    assert 3 == pickle.loads(cloudpickle.dumps(add)).delay(1, 2).get(20)


def test_a_task_of_an_app_runs_there(own_hub):
    # Given an app with a hub of its own
    app = own_hub.app(workers=1)

    @app.task(label="here")
    def hub_name():
        return os.environ["NBQUEUE_RUNTIME_DIR"]

    # Then the task runs there
    assert str(own_hub.runtime) == hub_name.delay().get(20)
    assert ["here"] == [run.label for run in app.inspect().runs()]


# -- signatures --------------------------------------------------------------------------------------------------------


def test_a_signature_is_a_call_that_is_made_later():
    call = add.s(2, y=3)

    assert 5 == call() == call.delay().get(20) == call.apply_async().get(20)
    assert "add(2, y=3)" == repr(call)
    assert add.s(2, y=3) == call == call.clone()
    assert 5 == pickle.loads(cloudpickle.dumps(call))() == nbqueue.submit(call).get(20)


def test_arguments_that_come_later_come_first():
    minus = nbqueue.task(lambda x, y: x - y)

    assert 7 == minus.s(3)(10) == minus.s(3).delay(10).get(20)
    assert 5 == add.s(y=1)(1, y=4)


def test_an_immutable_signature_takes_no_more_arguments():
    assert 5 == add.si(2, 3)(99) == add.si(2, 3).delay(99).get(20)


def test_options_of_a_signature_hold_when_the_call_is_made():
    label = nbqueue.task(lambda: nbqueue.current_task().label)

    assert "mine" == label.s().set(label="mine").delay().get(20)
    assert "yours" == label.s().set(label="mine").apply_async(label="yours").get(20)
