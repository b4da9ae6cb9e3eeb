"""The Lua scripts, put together as the server takes them.

From Redis 7 on they are one library of functions, which the server builds once and whose parts they share; before,
scripts, which it builds anew in each call (measured: 67 of 90 us of an empty call, see ADR 0008).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

#: What all scripts begin with, in order, and the frame that calls what is their own.
_SHARED = (
    "base",
    "items",
    "machine",
    "runs",
    "output",
    "workers",
    "ledger",
    "turns",
    "clients",
    "leases",
    "lone",
    "end",
)
#: What each script does is told at the head of its file. `submit` alone may be refused for want of memory.
NAMES = ("submit", "client", "worker", "tick")
#: What a script begins with that is its own.
_OWN = "local operations = {}\n"

ReadPart = Callable[[str], str]


class Script(NamedTuple):
    """One script as the server knows it."""

    name: str
    library: str  #: that it is in; empty: it is a script
    load: tuple[str, ...]  #: the command that makes it known, and maybe others with it
    call: tuple[str, ...]  #: how a call begins; then come the number of keys, the keys and the arguments


def read_part(name: str) -> str:
    """A file of lua/."""
    return files(__package__).joinpath("lua", f"{name}.lua").read_text()


@functools.cache
def functions(read: ReadPart = read_part) -> dict[str, Script]:
    """The scripts as functions of one library. Several versions of it may live in one server."""
    shared = "".join(map(read, _SHARED))
    body = shared
    for name in NAMES:
        flags = "" if name == "submit" else "'allow-oom'"
        body += (
            f"do\n{_OWN}{read(name)}redis.register_function{{function_name='nbqueue_{name}@', "
            f"callback=function(keys, argv) return main(operations, keys, argv) end, flags={{{flags}}}}}\nend\n"
        )
    library = f"nbqueue_{_digest(body)[:12]}"
    load = ("FUNCTION", "LOAD", "REPLACE", f"#!lua name={library}\n" + body.replace("@'", f"_{_digest(body)[:12]}'"))
    return {name: Script(name, library, load, ("FCALL", f"nbqueue_{name}_{_digest(body)[:12]}")) for name in NAMES}


@functools.cache
def plain_scripts(read: ReadPart = read_part, *, knows_flags: bool) -> dict[str, Script]:
    """The scripts for a server without functions; *knows_flags*: what finishes may run although memory is used up."""
    shared = "".join(map(read, _SHARED))
    found = {}
    for name in NAMES:
        flags = "" if name == "submit" else " flags=allow-oom"
        first = f"#!lua{flags}\n" * knows_flags
        text = f"{first}{shared}{_OWN}{read(name)}return main(operations, KEYS, ARGV)\n"
        found[name] = Script(name, "", ("SCRIPT", "LOAD", text), ("EVALSHA", _digest(text)))
    return found


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
