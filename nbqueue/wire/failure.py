"""Exceptions across processes: a plain record first, the true type when it survives the journey.

A record never needs the user's classes to be read, so there is no error about the error.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import msgspec

from nbqueue import errors
from nbqueue.errors import NBQueueError, ProtocolError, RemoteError
from nbqueue.wire.pickler import dumps
from nbqueue.wire.traces import FrameRecord, Sources, make_trace, take_frames, take_sources, theirs

#: A traceback's text is cut to its head and tail beyond this.
MAX_TEXT = 32_000
#: An exception that pickles to more than this travels as its record only.
MAX_PICKLE_BYTES = 1_000_000
#: Causes of causes, and exceptions of groups, up to so many in all.
MAX_EXCEPTIONS = 50


class Raised(msgspec.Struct, frozen=True, array_like=True):
    """One exception of a chain, as plain data."""

    type_name: str
    message: str
    pickled: bytes | None = None
    bases: list[str] = []  #: names of the types that it is of, its own first
    notes: list[str] = []
    frames: list[FrameRecord] = []
    cause: Raised | None = None
    context: Raised | None = None
    suppresses_context: bool = False
    members: list[Raised] = []  #: of an exception group


class FailureRecord(msgspec.Struct, frozen=True, array_like=True):
    """All about an exception, as plain data."""

    raised: Raised
    traceback: str = ""
    item_repr: str = ""
    where: str = ""  #: e.g. "worker laptop, attempt 2"
    sources: Sources = {}  #: lines for readers who do not have the files

    @property
    def type_name(self) -> str:
        """Qualified name of its type."""
        return self.raised.type_name

    @property
    def message(self) -> str:
        """What ``str()`` said of it."""
        return self.raised.message


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FailureRecord).decode


# -- in the slot -------------------------------------------------------------------------------------------------------


def pack_failure(error: BaseException, *, item_repr: str = "", where: str = "", with_pickles: bool = True) -> bytes:
    """The record of *error* as bytes; never raises.

    Args:
        error: As caught in the slot; frames of ours above those of the user are left out.
        item_repr: Short form of the item that it failed on.
        where: On which worker.
        with_pickles: Exceptions travel pickled as well, if they come back as what they are; to find out, these pickles
            are read here.
    """
    raised = _Recorder(with_pickles=with_pickles).record(error)
    record = FailureRecord(
        raised=raised,
        traceback=_printable(_traceback_text(error)),
        item_repr=_printable(item_repr),
        where=where,
        sources=_sources_of(raised),
    )
    return _encode(record)


class _Recorder:
    """Takes an exception apart, with those that it is chained to, each once."""

    def __init__(self, *, with_pickles: bool) -> None:
        self._seen: set[int] = set()
        self._with_pickles = with_pickles

    def record(self, error: BaseException) -> Raised:
        self._seen.add(id(error))
        context = None if error.__suppress_context__ else error.__context__
        is_group = isinstance(error, BaseExceptionGroup)
        return Raised(
            type_name=_printable(type_name(error)),
            message=_printable(_safe_str(error)),
            pickled=_pickle_if_it_survives(error) if self._with_pickles else None,
            bases=[_printable(kind.__qualname__) for kind in type(error).__mro__[:-1]],
            notes=_notes(error),
            frames=_safe_frames(error),
            cause=self._chained(error.__cause__),
            context=self._chained(context),
            suppresses_context=error.__suppress_context__,
            members=[self.record(member) for member in _members(error) if self._has_room()] if is_group else [],
        )

    def _chained(self, error: BaseException | None) -> Raised | None:
        if error is None or id(error) in self._seen or not self._has_room():
            return None
        return self.record(error)

    def _has_room(self) -> bool:
        return len(self._seen) < MAX_EXCEPTIONS


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", None)
    return [_printable(note) for note in notes if isinstance(note, str)] if isinstance(notes, list | tuple) else []


def _safe_frames(error: BaseException) -> list[FrameRecord]:
    try:
        return [_printable_frame(frame) for frame in take_frames(theirs(error.__traceback__))]
    except Exception:  # a frame that lies about itself
        return []


def _printable_frame(frame: FrameRecord) -> FrameRecord:
    return msgspec.structs.replace(frame, filename=_utf8(frame.filename), file=frame.file and _utf8(frame.file))


def _sources_of(raised: Raised) -> Sources:
    frames = [frame for each in _all_of(raised) for frame in each.frames]
    try:
        sources = take_sources(frames)
    except Exception:  # a loader that raises when it is asked for its source
        return {}
    return {name: {number: _utf8(line) for number, line in lines.items()} for name, lines in sources.items()}


def _all_of(raised: Raised) -> Iterator[Raised]:
    yield raised
    for other in (raised.cause, raised.context, *raised.members):
        if other is not None:
            yield from _all_of(other)


def _pickle_if_it_survives(error: BaseException) -> bytes | None:
    """The pickle that comes back as the same error; None when none does.

    Pickle calls the class with what it has handed to `Exception`. If it wants other arguments, that fails, or makes
    another message: then the error is remade without calling it.
    """
    second_best = None
    for form in (error, _AsItIs(error)):
        pickled, again = _there_and_back(form)
        if pickled is None or len(pickled) > MAX_PICKLE_BYTES or type(again) is not type(error):
            continue
        if _safe_str(again) == _safe_str(error):
            return pickled
        second_best = second_best or pickled  # it may say where in memory something is
    return second_best


def _there_and_back(value: object) -> tuple[bytes | None, Any]:
    """A pickle, and what comes out of it; None when it cannot be made or read."""
    try:
        pickled = dumps(value)
        return pickled, pickle.loads(pickled)
    except Exception:
        return None, None


class _AsItIs:
    """Pickles to an exception with its arguments and attributes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        return _remade, (type(self._error), self._error.args, vars(self._error))


def _remade(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


def _traceback_text(error: BaseException) -> str:
    trace = theirs(error.__traceback__)
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # an exception that cannot even be printed
        return "".join(traceback.format_tb(trace)) + type_name(error)


def _safe_str(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"<its __str__ raised {type_name(problem)}>"


# -- where it is read --------------------------------------------------------------------------------------------------


def unpack_failure(data: bytes) -> FailureRecord:
    """The record that `pack_failure` made."""
    return _decode(data)


def without_pickles(data: bytes) -> bytes:
    """The record as one from which nothing is unpickled.

    Raises:
        ProtocolError: It is no record.
    """
    try:
        record = _decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolError(f"not the record of a failure: {error}") from None
    return _encode(msgspec.structs.replace(record, raised=_stripped(record.raised)))


def _stripped(raised: Raised) -> Raised:
    return msgspec.structs.replace(
        raised,
        pickled=None,
        cause=raised.cause and _stripped(raised.cause),
        context=raised.context and _stripped(raised.context),
        members=[_stripped(member) for member in raised.members],
    )


def rebuild(record: FailureRecord, *, note: str = "") -> BaseException:
    """The exception to raise here: of the user's own type where possible, else a `RemoteError`.

    It has the frames of the worker as its traceback, its causes, and its notes, with *note* as one more.
    """
    error = _rebuild(record.raised, record)
    if note:
        error.add_note(f"nbqueue: {note}")
    return error


def _rebuild(raised: Raised, record: FailureRecord) -> BaseException:
    made = (_group(raised, record), _unpickle(raised), _ours(raised))
    error = next((each for each in made if each is not None), None)  # it may count as false
    if error is None or not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration):
        error = _remote_error(raised, record)  # the last ones would end, silently, whatever asks for the result
    if raised.notes and not getattr(error, "__notes__", None):
        for note in raised.notes:
            error.add_note(note)
    if raised.cause is not None:
        error.__cause__ = _rebuild(raised.cause, record)
    if raised.context is not None:
        error.__context__ = _rebuild(raised.context, record)
    error.__suppress_context__ = raised.suppresses_context
    return error.with_traceback(_safe_trace(raised, record))


def _group(raised: Raised, record: FailureRecord) -> BaseException | None:
    """An exception group of rebuilt exceptions; None when it is none, or of a kind of its own."""
    if not raised.members or raised.bases[0] not in ("ExceptionGroup", "BaseExceptionGroup"):
        return None
    text = raised.message.rpartition(" (")[0]
    return BaseExceptionGroup(text, [_rebuild(member, record) for member in raised.members])


def _ours(raised: Raised) -> NBQueueError | None:
    """One of our own errors, for which its name and message are enough."""
    module, _, name = raised.type_name.rpartition(".")
    kind = getattr(errors, name, None) if module == errors.__name__ else None
    is_ours = isinstance(kind, type) and issubclass(kind, NBQueueError) and not issubclass(kind, RemoteError)
    return kind(raised.message) if is_ours and kind is not None else None


def _remote_error(raised: Raised, record: FailureRecord) -> BaseException:
    return RemoteError.of_kind(raised.bases, raised.type_name, raised.message, record.traceback)


def _safe_trace(raised: Raised, record: FailureRecord) -> TracebackType | None:
    try:
        return make_trace(raised.frames, record.sources)
    except Exception:  # a frame of another Python that has no counterpart here
        return None


def type_name(error: BaseException) -> str:
    """The qualified name of the error's type; builtins without their module."""
    kind = type(error)
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    return module + kind.__qualname__


def first_line(record: FailureRecord) -> str:
    """``"ValueError: Input X contains NaN."``, one line."""
    message = record.message.strip().partition("\n")[0]
    return f"{record.type_name}: {message}" if message else record.type_name


def safe_repr(value: object, limit: int = 120) -> str:
    """``repr(value)`` cut to *limit* characters; never raises."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__}, whose repr raised {type_name(error)}>"
    return text if len(text) <= limit else f"{text[: limit - 2]} …"


def _unpickle(raised: Raised) -> BaseException | None:
    if raised.pickled is None:
        return None
    try:
        error = pickle.loads(raised.pickled)
    except Exception:
        return None  # its class is not importable here, or does not like its own arguments
    return error if isinstance(error, BaseException) else None


def _printable(text: str) -> str:
    """The text, cut, and with what is no Unicode (names of files, say) spelt out."""
    return _utf8(_clip(text))


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _clip(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n… {len(text) - MAX_TEXT} characters left out …\n{text[-half:]}"
