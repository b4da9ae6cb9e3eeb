"""The Lua scripts, put together as the server takes them.

From Redis 7 on they are function libraries, which the server builds once; before, scripts, which it builds anew in each
call (measured: 67 of 90 us of an empty call, see ADR 0008).
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from typing import NamedTuple

#: Parts that every script begins with, in order; then comes its own, then the frame.
_PARTS = ("base", "items", "machine", "runs", "output", "workers", "ledger", "turns", "clients", "leases")
_FRAME = "end"
#: What each script does is told at the head of its file. `submit` alone may be refused for want of memory.
NAMES = ("submit", "client", "worker", "tick")


class Script(NamedTuple):
    """One script as the server knows it."""

    name: str
    load: tuple[str, ...]  #: the command that makes it known
    call: tuple[str, ...]  #: how a call begins; then come the number of keys, the keys and the arguments


def source(name: str) -> str:
    """All of one script but its last line, which depends on the server."""
    parts = [*_PARTS, name, _FRAME]
    return "".join(files(__package__).joinpath("lua", f"{part}.lua").read_text() for part in parts)


@functools.cache
def functions() -> dict[str, Script]:
    """The scripts as function libraries. Several versions of them may live in one server."""
    return {name: as_function(name, source(name)) for name in NAMES}


@functools.cache
def plain_scripts(*, knows_flags: bool) -> dict[str, Script]:
    """The scripts for a server without functions; *knows_flags*: what finishes may run although memory is used up."""
    return {name: as_script(name, source(name), knows_flags=knows_flags) for name in NAMES}


def as_function(name: str, text: str) -> Script:
    """The library of one script."""
    flags = "" if name == "submit" else "'allow-oom'"
    library = f"nbqueue_{name}_{_digest(text)[:12]}"
    registration = f"redis.register_function{{function_name='{library}', callback=main, flags={{{flags}}}}}\n"
    return Script(
        name, ("FUNCTION", "LOAD", "REPLACE", f"#!lua name={library}\n{text}{registration}"), ("FCALL", library)
    )


def as_script(name: str, text: str, *, knows_flags: bool) -> Script:
    """The script itself."""
    flags = "" if name == "submit" else " flags=allow-oom"
    body = f"#!lua{flags}\n" * knows_flags + text + "return main(KEYS, ARGV)\n"
    return Script(name, ("SCRIPT", "LOAD", body), ("EVALSHA", _digest(body)))


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
