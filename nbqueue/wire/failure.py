"""Exceptions across processes: a plain record first, the true type when it survives the journey.

A record never needs the user's classes to be read, so there is no error about the error.
"""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType

import cloudpickle
import msgspec

from nbqueue.errors import RemoteError

#: A traceback's text is cut to its head and tail beyond this.
MAX_TEXT = 32_000
#: An exception that pickles to more than this travels as its record only.
MAX_PICKLE_BYTES = 1_000_000


class FailureRecord(msgspec.Struct, frozen=True, array_like=True):
    """All about an exception, as plain data."""

    type_name: str
    message: str
    traceback: str
    pickled: bytes | None = None
    item_repr: str = ""
    where: str = ""  #: e.g. "worker laptop, attempt 2"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FailureRecord).decode


def pack_failure(error: BaseException, *, item_repr: str = "", where: str = "", skip_frames: int = 0) -> bytes:
    """The record of *error* as bytes; never raises.

    Args:
        error: As caught in the slot.
        item_repr: Short form of the item that it failed on.
        where: On which worker.
        skip_frames: Outermost frames that are ours, not the user's.
    """
    record = FailureRecord(
        type_name=_printable(type_name(error)),
        message=_printable(_safe_str(error)),
        traceback=_printable(_traceback_text(error, skip_frames)),
        pickled=_pickle_if_it_survives(error),
        item_repr=_printable(item_repr),
        where=where,
    )
    return _encode(record)


def unpack_failure(data: bytes) -> FailureRecord:
    """The record that `pack_failure` made."""
    return _decode(data)


def rebuild(record: FailureRecord, *, note: str = "") -> BaseException:
    """The exception to raise here: of the user's own type where possible, else `RemoteError`.

    Its notes hold the traceback from the worker, so that every way of printing it shows them.
    """
    error = _unpickle(record)
    if error is None:
        error = RemoteError(record.type_name, record.message, record.traceback)
    remote = "\n".join(f"    {line}" for line in record.traceback.rstrip().splitlines())
    error.add_note(f"\nOn the worker:\n{remote}")
    if note:
        error.add_note(f"nbqueue: {note}")
    return error


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


def _unpickle(record: FailureRecord) -> BaseException | None:
    if record.pickled is None:
        return None
    try:
        error = pickle.loads(record.pickled)
    except Exception:
        return None  # its class is not importable here, or does not like its own arguments
    return error if isinstance(error, BaseException) else None


def _pickle_if_it_survives(error: BaseException) -> bytes | None:
    try:
        pickled: bytes = cloudpickle.dumps(error, protocol=5)
        if len(pickled) > MAX_PICKLE_BYTES or type(pickle.loads(pickled)) is not type(error):
            return None
    except Exception:
        return None
    return pickled


def _traceback_text(error: BaseException, skip_frames: int) -> str:
    trace = _skip(error.__traceback__, skip_frames)
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # a __str__ that raises in a chained exception, say
        return "".join(traceback.format_tb(trace)) + type_name(error)


def _skip(trace: TracebackType | None, frames: int) -> TracebackType | None:
    for _ in range(frames):
        if trace is None or trace.tb_next is None:
            break
        trace = trace.tb_next
    return trace


def _safe_str(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"<its __str__ raised {type_name(problem)}>"


def _printable(text: str) -> str:
    """The text, cut, and with what is no Unicode (names of files, say) spelt out."""
    return _clip(text).encode(errors="backslashreplace").decode()


def _clip(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n… {len(text) - MAX_TEXT} characters left out …\n{text[-half:]}"
