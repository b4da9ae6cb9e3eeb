"""Exceptions across processes."""

import inspect
import json
import linecache
import pickle
import threading
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbqueue
from nbqueue import errors
from nbqueue.errors import NBQueueError, NotSerializable, ProtocolError, RemoteError
from nbqueue.wire.failure import (
    MAX_EXCEPTIONS,
    MAX_PICKLE_BYTES,
    MAX_TEXT,
    FailureRecord,
    Raised,
    first_line,
    pack_failure,
    rebuild,
    safe_repr,
    type_name,
    unpack_failure,
    without_pickles,
)
from nbqueue.wire.traces import HALF_OF_FRAMES, FrameRecord, make_trace, theirs


class TwoArguments(Exception):
    """Pickle, which would call it with its one message, cannot remake it."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


class Prefixed(LookupError):
    """Pickle, which calls it with its message, gives that another prefix."""

    def __init__(self, name):
        super().__init__(f"no such name: {name}")


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Unrepresentable:
    def __repr__(self):
        raise RuntimeError("no words")


class Huge(Exception):
    def __init__(self):
        super().__init__("huge")
        self.data = bytes(MAX_PICKLE_BYTES + 1)


class Changeling(Exception):
    """Comes out of its pickle as something else."""

    def __reduce__(self):
        return ValueError, ("not me",)


def caught(error, cause=None):
    """The error as an except clause would see it."""
    try:
        raise error from cause
    except type(error) as seen:
        return seen


def sent(error, **more):
    return unpack_failure(pack_failure(error, **more))


@pytest.mark.parametrize(
    "error", [KeyError("k"), ValueError("a", 2), OSError(2, "none"), json.JSONDecodeError("a", "b", 0)]
)
def test_an_error_comes_back_as_what_it_was(error):
    again = rebuild(sent(caught(error)))

    assert (type(error), error.args) == (type(again), again.args)


def test_an_error_of_a_type_that_exists_only_in_a_notebook_comes_back_as_what_it_was():
    # Given a class that no module has
    Local = type("Local", (ValueError,), {"__module__": "__main__"})  # noqa: N806 -- a class

    # Then the record says its plain name, and its pickle brings it along
    record = sent(caught(Local("x")))
    assert "Local: x" == first_line(record)
    assert isinstance(rebuild(record), ValueError)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Unpicklable(), "holds a lock"),
        (Huge(), "huge"),
    ],
)
def test_an_error_that_cannot_travel_arrives_as_a_remote_error(error, message):
    again = rebuild(sent(caught(error)))

    assert isinstance(again, RemoteError)
    assert (type_name(error), message) == (again.type_name, again.message)
    assert f"{type_name(error)}: {message}" == str(again)
    assert "in caught" in again.remote_traceback


@pytest.mark.parametrize("error", [TwoArguments(7, "why"), Prefixed("x"), Changeling("me")])
def test_an_error_that_pickle_cannot_remake_comes_back_as_what_it_was(error):
    again = rebuild(sent(caught(error)))

    assert (type(error), str(error), vars(error)) == (type(again), str(again), vars(again))
    assert ["caught"] == names(again)


def test_an_error_whose_message_names_a_place_in_memory_comes_back_as_what_it_was():
    assert ValueError is type(rebuild(sent(caught(ValueError(Changeling("me"), object())))))


class Picky(ValueError):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.lock = threading.Lock()


class PickyKey(LookupError, OSError):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")


@pytest.mark.parametrize("kind", [Picky, PickyKey])
def test_an_error_that_cannot_travel_is_caught_as_what_it_is_based_on(kind):
    again = rebuild(sent(caught(kind(1, "no"))))

    assert isinstance(again, RemoteError)
    assert isinstance(again, kind.__bases__[0])
    assert f"{__name__}.{kind.__name__}: 1: no" == str(again)
    copy = pickle.loads(pickle.dumps(again))
    assert (type(again), str(again)) == (type(copy), str(copy))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(1), GeneratorExit()])
def test_what_would_end_its_reader_comes_as_a_remote_error(error):
    again = rebuild(sent(caught(error)))

    assert isinstance(again, RemoteError)
    assert not isinstance(again, type(error))
    assert type_name(error) == again.type_name


def test_an_error_without_words_is_sent_all_the_same():
    record = sent(caught(Speechless()))

    assert "<its __str__ raised RuntimeError>" == record.message
    assert "in caught" in record.traceback
    assert Speechless is type(rebuild(record))


@pytest.mark.parametrize("pickled", [b"", b"rubbish", pickle.dumps("no exception"), b"cno_such_module\nError\n."])
def test_a_pickle_that_is_of_no_use_is_no_trouble(pickled):
    again = rebuild(FailureRecord(Raised("lib.Bad", "no", pickled), "the traceback\n"))

    assert (RemoteError, "lib.Bad: no") == (type(again), str(again))


def test_notes_come_along_and_ours_is_one_line():
    error = ValueError("x")
    error.add_note("theirs")

    assert ["theirs", "nbqueue: item 3"] == rebuild(sent(caught(error)), note="item 3").__notes__


def test_notes_that_pickling_loses_come_along():
    error = json.JSONDecodeError("msg", "doc", 0)
    error.add_note("theirs")

    assert ["theirs"] == rebuild(sent(caught(error))).__notes__


def test_a_cause_is_told_with_its_effect():
    text = sent(caught(ValueError("effect"), cause=KeyError("cause"))).traceback

    assert text.index("KeyError: 'cause'") < text.index("direct cause") < text.index("ValueError: effect")


def test_causes_come_back_with_their_effects():
    again = rebuild(sent(caught(ValueError("effect"), cause=KeyError("cause"))))

    assert isinstance(again.__cause__, KeyError)
    assert again.__suppress_context__


def test_contexts_come_back_even_of_errors_that_cannot_travel():
    try:
        try:
            raise Unpicklable
        except Unpicklable:
            raise TypeError("while it was handled")  # noqa: B904 -- its context is what is tested
    except TypeError as error:
        again = rebuild(sent(error))

    assert isinstance(again.__context__, RemoteError)
    assert ["test_contexts_come_back_even_of_errors_that_cannot_travel"] == names(again.__context__)
    assert not again.__suppress_context__


def test_an_error_that_is_its_own_cause_is_sent_once():
    error = ValueError("round")
    other = KeyError("and round")
    error.__cause__, other.__cause__ = other, error

    again = rebuild(sent(error))

    assert isinstance(again.__cause__, KeyError)
    assert again.__cause__.__cause__ is None


def test_a_long_chain_is_cut():
    error = None
    for number in range(500):
        error = caught(ValueError(number), cause=error)
    again = rebuild(sent(error))

    length = 0
    while again is not None:
        again, length = again.__cause__, length + 1
    assert MAX_EXCEPTIONS == length


def test_groups_come_back_with_their_exceptions():
    group = ExceptionGroup("some", [caught(ValueError("a")), ExceptionGroup("inner", [caught(Unpicklable())])])

    again = rebuild(sent(caught(group)))

    assert (ExceptionGroup, "some (2 sub-exceptions)") == (type(again), str(again))
    first, inner = again.exceptions
    assert isinstance(first, ValueError)
    assert ["caught"] == names(first)
    assert isinstance(inner.exceptions[0], RemoteError)
    matched, rest = again.split(ValueError)
    assert (1, 1) == (len(matched.exceptions), len(rest.exceptions))


# -- frames ------------------------------------------------------------------------------------------------------------


def names(error):
    """Functions of its traceback, outermost first."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


class Machine:
    def run(self, number, *rest, name="x", **options):
        return [number / zero for zero in rest]


def outer(machine):
    return machine.run(1, 0)


def test_the_frames_of_the_worker_are_shown_as_if_they_were_here():
    try:
        outer(Machine())
    except ZeroDivisionError as error:
        original, again = error, rebuild(sent(error))

    expected = "".join(traceback.format_tb(original.__traceback__))
    assert expected == "".join(traceback.format_tb(again.__traceback__))
    assert "~~~~~~~^~~~~~" in expected
    codes = [frame.f_code for frame, _ in traceback.walk_tb(again.__traceback__)]
    assert "Machine.run" == codes[2].co_qualname
    assert inspect.getargs(codes[2]).args == ["self", "number", "name"] or "number" in codes[2].co_varnames


def test_source_that_the_reader_does_not_have_comes_along(monkeypatch):
    # Given a function of a file that exists nowhere else
    text = "def f(x):\n    y = x\n    return (y +\n            None)\n"
    name = "/tmp/ipykernel_1/no-such-file.py"
    monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(keepends=True), name))
    there = {}
    exec(compile(text, name, "exec"), there)
    try:
        there["f"](1)
    except TypeError as error:
        record = sent(error)

    # When it is read where nobody knows the file
    monkeypatch.delitem(linecache.cache, name)
    again = rebuild(record)

    # Then the line is shown all the same
    shown = "".join(traceback.format_tb(again.__traceback__))
    assert f'File "{name}", line 3, in f\n    return (y +\n' in shown


def test_source_that_the_reader_has_is_his_own(monkeypatch):
    name = "/tmp/ipykernel_1/known.py"
    monkeypatch.setitem(linecache.cache, name, (5, None, ["mine\n"], name))

    make_trace([FrameRecord(name, 1, "f", "f")], {name: {1: "another's"}})

    assert ["mine\n"] == linecache.getlines(name)


def test_excerpts_of_one_file_are_put_together():
    name = "/tmp/ipykernel_1/excerpts.py"
    make_trace([FrameRecord(name, 3, "f", "f")], {name: {3: "three"}})
    make_trace([FrameRecord(name, 5, "g", "g")], {name: {5: "five"}})

    assert ["\n", "\n", "three\n", "\n", "five\n"] == linecache.getlines(name)


def test_of_an_endless_recursion_both_ends_come_back():
    def dive():
        dive()

    try:
        dive()
    except RecursionError as error:
        record = sent(error)

    again = rebuild(record)
    assert isinstance(again, RecursionError)
    assert 2 * HALF_OF_FRAMES == len(names(again))
    assert len(record.traceback) < MAX_TEXT


def test_frames_of_ours_before_the_users_are_left_out():
    frames = [FrameRecord(nbqueue.__file__, 1, "ours", "ours"), FrameRecord("user.py", 1, "users", "users")]

    assert "users" == theirs(make_trace(frames, {})).tb_frame.f_code.co_name


@given(
    st.builds(
        FrameRecord,
        filename=st.text(max_size=20).filter(lambda text: "\0" not in text),
        line=st.integers(-5, 10**6),
        name=st.text(max_size=9),
        qualified_name=st.text(max_size=9),
        first_line=st.integers(-5, 10**6),
        end_line=st.integers(-5, 10**6),
        columns=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    )
)
def test_any_frame_can_be_rebuilt_or_is_left_out(frame):
    again = rebuild(FailureRecord(Raised("ValueError", "x", frames=[frame])))

    assert "ValueError: x" == str(again)


def test_the_record_knows_the_item_and_the_place():
    record = sent(KeyError("k"), item_repr="{'a': 1}", where="worker x, attempt 2")

    assert ("{'a': 1}", "worker x, attempt 2") == (record.item_repr, record.where)


def test_a_long_message_keeps_its_head_and_its_tail():
    message = sent(ValueError("a" * MAX_TEXT + "b" * 100)).message

    assert len(message) < MAX_TEXT + 100
    assert ("a", "b", True) == (message[0], message[-1], "… 100 characters left out …" in message)


@given(st.text(), st.text())
def test_any_words_arrive(message, item_repr):
    record = sent(ValueError(message), item_repr=item_repr)

    assert (message, item_repr) == (record.message, record.item_repr)


@pytest.mark.parametrize(
    ("message", "expected"), [("one\ntwo", "ValueError: one"), ("", "ValueError"), ("\n x\n", "ValueError: x")]
)
def test_the_first_line_is_one_line(message, expected):
    assert expected == first_line(sent(ValueError(message)))


def test_a_type_is_named_with_its_module_unless_it_is_built_in():
    assert "ValueError" == type_name(ValueError())
    assert "json.decoder.JSONDecodeError" == type_name(json.JSONDecodeError("", "", 0))


def test_a_short_form_is_short_and_never_raises():
    assert "[1, 2]" == safe_repr([1, 2])
    assert (20, "…") == (len(text := safe_repr("x" * 99, limit=20)), text[-1])
    assert "<Unrepresentable, whose repr raised RuntimeError>" == safe_repr(Unrepresentable())


class Falsy(Exception):
    def __len__(self):
        return 0


def test_a_message_that_is_no_unicode_is_spelt_out():
    assert "\\udc80" in sent(ValueError("\udc80")).message


def test_an_exception_that_counts_as_false_keeps_its_type():
    assert isinstance(rebuild(sent(Falsy("empty"))), Falsy)


# -- without pickles ---------------------------------------------------------------------------------------------------


class Canary(Exception):
    """Notes each time that it is unpickled."""

    sang = 0

    def __reduce__(self):
        return _sing, ()


def _sing():
    Canary.sang += 1
    return Canary("sang")


@pytest.fixture
def sang():
    """How often a canary has sung."""
    Canary.sang = 0
    return lambda: Canary.sang


def chained(kind):
    """An exception with a cause, and in a group one with a context."""
    try:
        try:
            raise kind("first")
        except kind:
            raise kind("second")  # noqa: B904 -- its context
    except kind as second:
        with_cause = kind("third")
        with_cause.__cause__ = second
        return ExceptionGroup("all", [with_cause])


def all_of(raised):
    yield raised
    for other in (raised.cause, raised.context, *raised.members):
        if other is not None:
            yield from all_of(other)


def test_an_exception_can_be_sent_without_a_pickle_and_none_is_read_for_it(sang):
    record = unpack_failure(pack_failure(chained(Canary), with_pickles=False))

    assert 4 == len(list(all_of(record.raised)))
    assert {None} == {raised.pickled for raised in all_of(record.raised)}
    assert 0 == sang()


def test_pickles_can_be_taken_out_unread_wherever_they_are(sang):
    # Given a record with pickles, each of which would be read by whoever rebuilds it
    packed = pack_failure(chained(Canary))
    assert None not in {raised.pickled for raised in all_of(unpack_failure(packed).raised.members[0])}
    Canary.sang = 0

    # When they are taken out
    record = unpack_failure(without_pickles(packed))

    # Then none is left, nothing was read, and the rest is as it was
    assert {None} == {raised.pickled for raised in all_of(record.raised)}
    error = rebuild(record)
    assert 0 == sang()
    assert isinstance(error.exceptions[0].__cause__, RemoteError)
    assert ("all (1 sub-exception)", unpack_failure(packed).traceback) == (str(error), record.traceback)


def test_what_is_no_record_is_refused():
    for data in (b"", b"nonsense", pickle.dumps(Canary())):
        with pytest.raises(ProtocolError, match="not the record of a failure"):
            without_pickles(data)


def test_errors_of_ours_need_no_pickle():
    simple = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, NBQueueError) and not issubclass(kind, RemoteError)
    ]
    assert len(simple) > 15

    for kind in simple:
        error = rebuild(unpack_failure(pack_failure(kind("why"), with_pickles=False)))
        assert (kind, "why") == (type(error), str(error))


def test_with_a_pickle_an_error_of_ours_keeps_what_it_knows():
    error = rebuild(unpack_failure(pack_failure(NotSerializable("why", path="score()", hint="do not"))))

    assert ("why", "score()", "do not") == (str(error), error.path, error.hint)


@pytest.mark.parametrize(
    "name", ["nbqueue.errors.RemoteError", "nbqueue.errors.builtins", "nbqueue.errors.nothing", "os.system"]
)
def test_no_other_names_are_looked_up(name):
    error = rebuild(FailureRecord(Raised(name, "touch /mark", bases=["Exception"])))

    assert (RemoteError, f"{name}: touch /mark") == (type(error), str(error))
