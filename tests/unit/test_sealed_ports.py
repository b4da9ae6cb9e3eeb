"""Whoever can write to the broker's server, but has no key, has nothing of his unpickled: neither here nor there.

The broker of these tests is the attacker: it hands the ports whatever a test wants. The canary is a pickle that leaves
a mark when it is read.
"""

import pickle
from pathlib import Path

import msgspec
import pytest

from nbqueue.brokers.base import Broker, ClientPort, WorkerPort
from nbqueue.brokers.sealed import REDELIVERY_S, SPANS_REMEMBERED, SealedBroker
from nbqueue.core.exchange import Delivery, ForgetFunctions, Note, WorkerInfo
from nbqueue.core.progress import Counts
from nbqueue.core.states import State
from nbqueue.core.task import Block, Entry, Failed, Killed, RunSpec, Succeeded, TaskOptions
from nbqueue.errors import KeyFileError
from nbqueue.wire.failure import rebuild, unpack_failure
from nbqueue.wire.messages import Deliver, Forgotten, NoteMessage
from nbqueue.wire.payload import PackedValues
from nbqueue.wire.seal import Sealer, SealingKey

RUN, OTHER_RUN = b"r" * 16, b"o" * 16
FUNCTION, OTHER_FUNCTION = b"f" * 32, b"g" * 32
SPEC = RunSpec(run_id=RUN, function=FUNCTION, label="work")
OTHER_SPEC = RunSpec(run_id=OTHER_RUN, function=OTHER_FUNCTION, label="other")
WORKER = WorkerInfo(worker_id=b"w" * 16, name="w", host="h", pid=1, slots=1, prefetch=0)


class Recorder:
    """Notes what is called, and hands out what it is given."""

    def __init__(self):
        self.inbox = []
        self.sent = []

    def fileno(self):
        return 0

    def receive(self):
        messages, self.inbox = self.inbox, []
        return messages

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.sent.append((name, args, kwargs))


class HostileBroker(Broker):
    """Does nothing by itself."""

    def __init__(self):
        self.client, self.worker = Recorder(), Recorder()
        ClientPort.register(Recorder)
        WorkerPort.register(Recorder)

    @property
    def blobs(self):
        raise AssertionError("large payloads would pass by the seal")

    def open_client(self, client_id):
        return self.client

    def open_worker(self, info):
        return self.worker


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


class Scene:
    """A client and a worker that share a key, and a broker between them that belongs to the attacker."""

    def __init__(self, **options):
        self.clock = Clock()
        self.broker = HostileBroker()
        self.sealer = Sealer([SealingKey(b"k" * 32)], clock=self.clock, **options)
        sealed = SealedBroker(self.broker, self.sealer)
        assert sealed.blobs is None
        self.client, self.worker = sealed.open_client(b"c" * 16), sealed.open_worker(WORKER)

    def submit(self, spec=SPEC, items=2, payload=b"arguments", **options):
        """What the broker gets to see of a run: its function and its block."""
        self.client.submit(spec, function=b"body", blocks=[Block(0, items, payload)], closed=True)
        _, _, seen = self.broker.client.sent.pop()
        return seen["function"], seen["blocks"][0]

    def deliver(self, function, blocks, *, token=1, run_id=RUN, start=0, stop=2, attempt=1, digest=FUNCTION):
        """What the supervisor gets to see of a delivery: None if it was refused."""
        self.broker.worker.inbox.append(
            Deliver(
                Delivery(
                    token=token,
                    run_id=run_id,
                    label="work",
                    start=start,
                    stop=stop,
                    attempt=attempt,
                    digest=digest,
                    function=function,
                    blocks=blocks,
                    environment=b"",
                )
            )
        )
        messages = self.worker.receive()
        return messages[0].delivery if messages else None

    def refusals(self):
        """Why the worker refused the last delivery: what its client would be told."""
        name, (_, run_id, outcomes), options = self.broker.worker.sent.pop()
        assert ("commit", {"final": True}) == (name, options)
        return [str(self._told(run_id, outcome)) for outcome in outcomes]

    def _told(self, run_id, outcome):
        entry = Entry(outcome.item, outcome.item + 1, State.FAILURE, outcome.record, attempt=1)
        return rebuild(unpack_failure(self.note(entry, run_id=run_id).payload))

    def report(self, *outcomes, token=1, final=True):
        """What the broker gets to see of outcomes."""
        self.worker.commit(token, RUN, outcomes, final=final)
        _, (_, _, seen), _ = self.broker.worker.sent.pop()
        return seen

    def note(self, *entries, run_id=RUN, finished=False):
        """What the client gets to see of entries of a run's log."""
        counts = Counts(total=2)
        self.broker.client.inbox.append(
            NoteMessage(Note(run_id=run_id, cursor=0, entries=list(entries), counts=counts, finished=finished))
        )
        [message] = self.client.receive()
        return message.note.entries[0]

    def result(self, outcome=None):
        """A genuine result of the items 0 and 1 as the broker sees it."""
        self.deliver(*self._genuine())
        [sealed] = self.report(outcome or Succeeded(0, 2, b"values", 1.0))
        return sealed

    def _genuine(self):
        function, block = self.submit()
        return function, [block]


@pytest.fixture(params=[False, True], ids=["sealed", "encrypted"])
def scene(request):
    return Scene(encrypt=request.param)


@pytest.fixture
def canary(tmp_path):
    """A block and a failure record that leave a mark when they are unpickled."""
    return Canary(tmp_path / "mark")


class Canary:
    def __init__(self, path):
        self.path = path
        self.block = b"L" + pickle.dumps(self)

    def __reduce__(self):
        return Path.touch, (self.path,)

    @property
    def sang(self):
        return self.path.exists()


# -- what is genuine passes --------------------------------------------------------------------------------------------


def test_genuine_work_passes_and_so_does_its_result(scene):
    function, block = scene.submit()

    delivery = scene.deliver(function, [block])

    assert (b"body", [Block(0, 2, b"arguments")]) == (delivery.function, delivery.blocks)
    [sealed] = scene.report(Succeeded(0, 2, b"values", 1.0))
    entry = scene.note(Entry(0, 2, State.SUCCESS, sealed.payload, attempt=1))
    assert (State.SUCCESS, b"values") == (entry.state, entry.payload)


def test_the_broker_sees_nothing_of_what_is_encrypted():
    scene = Scene(encrypt=True)
    function, block = scene.submit()
    scene.deliver(function, [block])
    succeeded, failed = scene.report(Succeeded(0, 1, b"values", 1.0), Failed(1, b"record", False, 0.0))

    for seen, hidden in (
        (function, b"body"),
        (block.payload, b"arguments"),
        (succeeded.payload, b"values"),
        (failed.record, b"record"),
    ):
        assert hidden not in seen


def test_a_result_may_come_in_parts_and_from_an_earlier_attempt(scene):
    sealed = scene.result()

    part = scene.note(Entry(1, 2, State.SUCCESS, sealed.payload, offset=1, attempt=3))

    assert (State.SUCCESS, b"values", 1) == (part.state, part.payload, part.offset)


def test_a_function_that_was_opened_is_known_until_it_is_forgotten(scene):
    function, block = scene.submit()

    assert scene.deliver(function, [block]) is not None
    assert scene.deliver(None, [block], token=2) is not None
    scene.broker.worker.inbox.append(Forgotten(ForgetFunctions([FUNCTION])))
    scene.worker.receive()
    assert scene.deliver(None, [block], token=3) is None


def test_what_a_broker_says_by_itself_passes(scene):
    scene.deliver(*scene._genuine())
    [killed] = scene.report(Killed(0, "it died"))
    entry = scene.note(Entry(0, 1, State.LOST, reason="it died"))

    assert ("it died", "it died", b"") == (killed.reason, entry.reason, entry.payload)


def test_a_client_confirms_the_bytes_that_the_broker_has_counted(scene):
    sealed = scene.result()
    scene.note(Entry(0, 2, State.SUCCESS, sealed.payload, attempt=1))

    scene.client.ack(entries=1, size_bytes=len(b"values"), output_bytes=7)

    confirmed = {"entries": 1, "size_bytes": len(sealed.payload), "output_bytes": 7}
    assert ("ack", (), confirmed) == scene.broker.client.sent[-1]


def test_a_task_may_wait_for_its_countdown_and_then_as_long_as_any(scene):
    spec = msgspec.structs.replace(SPEC, options=TaskOptions(countdown_s=1e6))
    function, block = scene.submit(spec)

    scene.clock.now += 1e6 + scene.sealer.lifetime_s

    assert scene.deliver(function, [block]) is not None


# -- what is not genuine is refused, unread: tasks and functions -------------------------------------------------------


def test_a_forged_task_is_refused(scene, canary):
    function, _ = scene.submit()

    assert scene.deliver(function, [Block(0, 2, canary.block)]) is None

    assert all("carries no seal" in reason for reason in scene.refusals())
    assert not canary.sang


def test_a_task_sealed_with_another_key_is_refused(scene, canary):
    function, block = scene.submit()
    scene.deliver(function, [block])

    assert scene.deliver(function, [forged_with_a_key_of_his_own(canary)], token=2) is None

    assert all("was sealed with the key" in reason for reason in scene.refusals())
    assert not canary.sang


def test_a_worker_that_was_given_the_wrong_key_fails_nobodys_task(scene, canary):
    forged = forged_with_a_key_of_his_own(canary)

    with pytest.raises(KeyFileError, match=r"given the wrong key.*`nbqueue key` tells how"):
        scene.deliver(forged.payload, [forged])

    assert [] == scene.refusals()  # it handed the task back
    assert not canary.sang


def forged_with_a_key_of_his_own(canary):
    attacker = Scene()
    attacker.sealer.__init__([SealingKey(b"a" * 32)], clock=attacker.clock)
    return attacker.submit(payload=canary.block)[1]


def test_a_changed_task_is_refused(scene, canary):
    function, block = scene.submit()
    changed = Block(0, 2, block.payload[: -len(b"arguments")] + canary.block)

    assert scene.deliver(function, [changed]) is None

    assert all("does not fit" in reason for reason in scene.refusals())


def test_a_forged_function_is_refused_with_every_task_that_names_it(scene, canary):
    _, block = scene.submit()

    assert scene.deliver(canary.block, [block]) is None
    assert scene.deliver(None, [block], token=2) is None

    assert all("refused before" in reason for reason in scene.refusals())
    assert all("carries no seal" in reason for reason in scene.refusals())


def test_a_function_under_the_name_of_another_is_refused(scene):
    other, _ = scene.submit(OTHER_SPEC)
    _, block = scene.submit()

    assert scene.deliver(other, [block]) is None

    assert all("genuine but for function" in reason for reason in scene.refusals())


def test_a_task_given_to_another_function_is_refused(scene):
    function, _ = scene.submit()
    _, block = scene.submit(msgspec.structs.replace(SPEC, function=OTHER_FUNCTION))

    assert scene.deliver(function, [block]) is None

    assert all("genuine but for function" in reason for reason in scene.refusals())


def test_a_task_put_into_another_run_is_refused(scene):
    function, _ = scene.submit()
    _, block = scene.submit(msgspec.structs.replace(OTHER_SPEC, function=FUNCTION))

    assert scene.deliver(function, [block]) is None

    assert all("genuine but for run_id" in reason for reason in scene.refusals())


@pytest.mark.parametrize("route", [{"queue": "night"}, {"tags": ("gpu",)}])
def test_a_task_for_other_workers_is_refused(scene, route):
    spec = msgspec.structs.replace(SPEC, options=TaskOptions(**route))
    function, block = scene.submit(spec)

    assert scene.deliver(function, [block]) is None

    assert all("workers of another queue" in reason for reason in scene.refusals())


def test_arguments_of_other_items_are_refused(scene):
    function, block = scene.submit(items=2)

    assert scene.deliver(function, [Block(2, 4, block.payload)], start=2, stop=4) is None
    assert all("genuine but for start" in reason for reason in scene.refusals())
    assert scene.deliver(function, [Block(0, 3, block.payload)], stop=3) is None
    assert all("genuine but for stop" in reason for reason in scene.refusals())


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (1, 1), (2, 3), (-1, 1)])
def test_a_claim_of_items_that_are_not_there_is_refused(scene, start, stop):
    function, block = scene.submit(items=2)

    assert scene.deliver(function, [block], start=start, stop=stop) is None


def test_a_task_in_the_place_of_its_function_is_refused(scene):
    _, block = scene.submit()

    assert scene.deliver(block.payload, [block]) is None

    assert all("genuine but for kind 'task', not 'function'" in reason for reason in scene.refusals())


def test_a_result_sent_back_as_a_task_is_refused(scene):
    sealed = scene.result()
    function, _ = scene.submit()

    assert scene.deliver(function, [Block(0, 2, sealed.payload)]) is None

    assert all("genuine but for kind 'result', not 'task'" in reason for reason in scene.refusals())


def test_a_task_that_is_brought_back_after_its_time_is_refused(scene):
    function, block = scene.submit()
    scene.clock.now += scene.sealer.lifetime_s + 1

    assert scene.deliver(function, [block]) is None

    assert all("too old" in reason for reason in scene.refusals())


def test_a_task_that_ran_here_long_ago_is_refused_and_one_that_ran_just_now_is_not(scene):
    function, block = scene.submit()
    scene.deliver(function, [block])
    scene.report(Succeeded(0, 2, b"values", 1.0))

    scene.clock.now += REDELIVERY_S
    assert scene.deliver(function, [block], token=2) is not None
    scene.clock.now += 1
    assert scene.deliver(function, [block], token=3, start=1) is None
    assert all("it is a replay" in reason for reason in scene.refusals())


def test_what_a_worker_remembers_of_finished_items_is_bounded(scene):
    function, block = scene.submit()
    scene.deliver(function, [block])
    finished = scene.worker._finished
    for number in range(SPANS_REMEMBERED + 5):
        finished.add(number.to_bytes(16), 0, 1, 0.0)

    assert SPANS_REMEMBERED == len(finished._runs) == finished._count


def test_a_refused_claim_of_endless_items_costs_nothing(scene, canary):
    assert scene.deliver(None, [Block(0, 2, canary.block)], stop=2**62) is None

    assert [] == scene.refusals()


# -- results -----------------------------------------------------------------------------------------------------------


def error_of(entry):
    """What the handle of a refused result raises."""
    assert State.FAILURE is entry.state
    return str(rebuild(unpack_failure(entry.payload)))


@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILURE])
def test_a_forged_result_is_refused(scene, canary, state):
    entry = scene.note(Entry(0, 1, state, canary.block, worker="w"))

    assert "a result of worker 'w' was refused unread: it carries no seal" in error_of(entry)
    assert not canary.sang


def test_a_result_of_another_run_is_refused(scene):
    sealed = scene.result()

    assert "genuine but for run_id" in error_of(
        scene.note(Entry(0, 2, State.SUCCESS, sealed.payload), run_id=OTHER_RUN)
    )


def test_a_result_of_other_items_is_refused(scene):
    sealed = scene.result()

    for entry in (
        Entry(2, 4, State.SUCCESS, sealed.payload, attempt=1),
        Entry(0, 3, State.SUCCESS, sealed.payload, attempt=1),
        Entry(2, 3, State.SUCCESS, sealed.payload, offset=2, attempt=1),
        Entry(1, 2, State.SUCCESS, sealed.payload, attempt=1),
        Entry(1, 1, State.SUCCESS, sealed.payload, offset=1, attempt=1),
    ):
        assert "genuine but for" in error_of(scene.note(entry))


def test_a_result_of_an_attempt_that_was_not_made_is_refused(scene):
    function, block = scene.submit()
    scene.deliver(function, [block], attempt=2)
    [sealed] = scene.report(Succeeded(0, 2, b"values", 1.0))

    assert "another attempt" in error_of(scene.note(Entry(0, 2, State.SUCCESS, sealed.payload, attempt=0)))


def test_the_failure_of_one_attempt_is_not_that_of_another(scene):
    sealed = scene.result(Failed(0, b"record", True, 0.0))

    assert "another attempt" in error_of(scene.note(Entry(0, 1, State.FAILURE, sealed.record, attempt=2)))


def test_a_failure_is_not_taken_for_a_result_nor_the_other_way_round(scene):
    record = scene.result(Failed(0, b"record", True, 0.0)).record
    values = scene.result(Succeeded(0, 1, b"values", 1.0)).payload

    assert "for kind 'failure', not 'result'" in error_of(scene.note(Entry(0, 1, State.SUCCESS, record, attempt=1)))
    assert "for kind 'result', not 'failure'" in error_of(scene.note(Entry(0, 1, State.FAILURE, values, attempt=1)))


def test_arguments_sent_back_as_a_result_are_refused(scene, canary):
    _, block = scene.submit(payload=canary.block)

    assert "for kind 'task', not 'result'" in error_of(scene.note(Entry(0, 2, State.SUCCESS, block.payload)))
    assert not canary.sang


def test_other_ends_bring_no_payload_along(scene, canary):
    assert b"" == scene.note(Entry(0, 1, State.LOST, canary.block)).payload


def test_the_canary_sings_when_it_is_unpickled(canary):
    # Given that the tests above would notice
    PackedValues(canary.block, None)

    assert canary.sang
