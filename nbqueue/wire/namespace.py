"""The names of a notebook, packed together: what they share stays shared, and functions find their globals again.

A function that cloudpickle restores has a namespace of its own. Here the functions of a notebook get that of the cell
that they are unpacked for, and on the way back that of the notebook: whoever assigns to a global then changes what they
see, as in one process.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from nbqueue.wire.blobs import Buffer
from nbqueue.wire.pickler import Pickler

_target: ContextVar[dict[str, Any] | None] = ContextVar("nbqueue_namespace", default=None)


def _namespace() -> dict[str, Any]:
    """Where functions that are being unpacked now shall look for their globals."""
    target = _target.get()
    return {} if target is None else target


class _Here:
    """Stands for the namespace in a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _namespace, ()


class PackedNames:
    """Names and their values as bytes, which travel uncopied when they are large."""

    def __init__(self, parts: list[Buffer]) -> None:
        self.parts = parts

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        parts = map(pickle.PickleBuffer, self.parts) if protocol >= 5 else map(bytes, self.parts)
        return PackedNames, (list(parts),)

    @property
    def size_bytes(self) -> int:
        """How much it is."""
        return sum(len(part) for part in self.parts)


def pack_names(values: Mapping[str, Any], namespace: dict[str, Any]) -> PackedNames:
    """Pack names; functions of *namespace* are to live in the namespace that they are unpacked into.

    Raises:
        Exception: Whatever pickling raises; `unpackable` says which names are to blame.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    pickler = Pickler(file, protocol=5, buffer_callback=buffers.append)
    pickler.globals_ref[id(namespace)] = _Here()
    pickler.dump(dict(values))
    return PackedNames([file.getbuffer(), *(buffer.raw() for buffer in buffers)])


def unpackable(values: Mapping[str, Any], namespace: dict[str, Any]) -> dict[str, Exception]:
    """The names that cannot be packed, and why."""
    errors = {}
    for name, value in values.items():
        try:
            pack_names({name: value}, namespace)
        except Exception as error:
            errors[name] = error
    return errors


def unpack_names(packed: PackedNames, into: dict[str, Any]) -> dict[str, Any]:
    """Unpack names into a namespace.

    Returns:
        The names that were packed. What their functions brought along is in *into*, too, unless it had that name.
    """
    before = dict(into)
    with _unpacking_into(into):
        values: dict[str, Any] = pickle.loads(packed.parts[0], buffers=packed.parts[1:])
    into.update(before)
    into.update(values)
    return values


@contextlib.contextmanager
def _unpacking_into(namespace: dict[str, Any]) -> Iterator[None]:
    token = _target.set(namespace)
    try:
        yield
    finally:
        _target.reset(token)
