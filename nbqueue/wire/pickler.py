"""cloudpickle, with what it leaves out: ``__slots__`` of classes, and the file names of functions.

Without its slots an instance made on a worker has a ``__dict__``, and cannot be unpickled where the class has none.
Without their file names functions of a cell have no source lines in a traceback.
"""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Callable
from typing import Any

import cloudpickle

__all__ = ["Pickler", "dumps"]

#: Where, among the arguments that remake a class, its first namespace is.
_NAMESPACE = 3
#: Stands for every file name since cloudpickle 3.1.3.
_NO_FILE = "<dynamic-code>"


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # published without types
    """Pickles functions and classes of notebooks and scripts by value."""

    def reducer_override(self, obj: Any) -> Any:
        """How *obj* is taken apart; see `pickle.Pickler.reducer_override`."""
        if isinstance(obj, types.CodeType):
            return self._reduce_code(obj)
        reduced = super().reducer_override(obj)
        if not isinstance(obj, type) or "__slots__" not in vars(obj) or not isinstance(reduced, tuple):
            return reduced
        make, arguments, *rest = reduced
        if len(arguments) <= _NAMESPACE or not isinstance(arguments[_NAMESPACE], dict):
            return reduced  # an Enum, say, which is made otherwise
        namespace = {**arguments[_NAMESPACE], "__slots__": obj.__slots__}  # type: ignore[attr-defined]  # seen above
        return make, (*arguments[:_NAMESPACE], namespace, *arguments[_NAMESPACE + 1 :]), *rest

    def _reduce_code(self, code: types.CodeType) -> tuple[Any, ...]:
        make, arguments = self.dispatch_table[types.CodeType](code)
        return make, tuple(code.co_filename if argument == _NO_FILE else argument for argument in arguments)


def dumps(value: Any, *, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """The value as a pickle of protocol 5; see `pickle.dumps`."""
    with io.BytesIO() as file:
        Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()
