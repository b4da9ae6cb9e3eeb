"""Whether two processes can read each other's pickles, and which differences of their packages are worth a word."""

from __future__ import annotations

from collections.abc import Mapping

from nbqueue.core.exchange import Versions


def why_unreadable(theirs: Versions, mine: Versions, *, there: str, here: str) -> str:
    """What keeps one side from reading the other's pickles; empty if nothing does.

    As "Python 3.11 on the worker, 3.12 in the notebook", with *there* and *here* for the two places.

    Python's minor version decides the byte code of functions, cloudpickle's major version how they are packed. What is
    not known is not held against anybody.
    """
    if theirs.python and mine.python and theirs.python != mine.python:
        return f"Python {theirs.python} {there}, {mine.python} {here}"
    if theirs.cloudpickle and mine.cloudpickle and _parts(theirs.cloudpickle)[0] != _parts(mine.cloudpickle)[0]:
        return f"cloudpickle {theirs.cloudpickle} {there}, {mine.cloudpickle} {here}"
    return ""


def is_notable(theirs: str | None, mine: str | None) -> bool:
    """Whether a package's versions differ in their first two parts, or one side lacks it."""
    if theirs is None or mine is None:
        return theirs != mine
    return _parts(theirs)[:2] != _parts(mine)[:2]


def differing(theirs: Mapping[str, str], mine: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Packages whose versions are not the same: what is there, and what is here; None: nothing."""
    names = sorted(theirs.keys() | mine.keys())
    return {name: (theirs.get(name), mine.get(name)) for name in names if theirs.get(name) != mine.get(name)}


def _parts(version: str) -> list[str]:
    return version.split("+", maxsplit=1)[0].split(".")
