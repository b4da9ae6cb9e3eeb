"""Values as JSON text: what can be read without running any code.

What comes back is what was sent: what JSON would silently turn into something else is refused, with the place where it
is. Two things only change: tuples become lists, and numbers that are subclasses of int and float become these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbqueue.errors import NotSerializable

_HINT = "send texts, numbers, booleans, None, and lists and dicts (with texts as keys) of these"


class AsJson:
    """A value that is to be packed as JSON."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def to_json(value: Any) -> bytes:
    """The value as JSON.

    Raises:
        NotSerializable: A part of it is nothing that JSON has; says which.
    """
    import json  # not every process needs it, and all wait for their start

    check_json(value)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError as error:  # an integer of thousands of digits, or half a character
        raise _refusal("", f"JSON cannot hold it ({error})") from None


def check_json(value: Any, name: str = "") -> None:
    """Raise `NotSerializable` for a value that JSON does not have as it is; *name* is what the user calls it."""
    try:
        for path, what in _strange_parts(value, name):
            raise _refusal(path, what)
    except RecursionError:
        raise _refusal(name, "it contains itself, or is nested too deeply") from None


def from_json(data: bytes | memoryview) -> Any:
    """The value that `to_json` made text of. Runs no code that the text names.

    Raises:
        ValueError: It is no JSON.
    """
    import json

    return json.loads(bytes(data))


#: Most parts are of these, which need no closer look.
_SCALARS = frozenset({type(None), bool, int, float, str})


def _strange_parts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Parts that JSON does not have, or would change."""
    match value:
        case None | bool() | int() | float() | str():
            return
        case list() | tuple():
            for index, part in enumerate(value):
                if type(part) not in _SCALARS:
                    yield from _strange_parts(part, f"{path}[{index}]")
        case dict():
            for key, part in value.items():
                if not isinstance(key, str):
                    yield path, f"it is a dict with the key {key!r}, which JSON would turn into a text"
                if type(part) not in _SCALARS:
                    yield from _strange_parts(part, f"{path}[{key!r}]")
        case _:
            yield path, f"it is of type {type(value).__name__}, which JSON does not have"


def _refusal(path: str, what: str) -> NotSerializable:
    place = f"{path}: " if path else ""
    return NotSerializable(f"{place}{what}: {_HINT}", path=path, hint=_HINT)
