"""The Lua scripts, put together for a server's version."""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files

#: Parts that every script begins with, in order; then comes its own, then the frame.
_PARTS = ("base", "items", "machine", "runs", "workers", "turns", "clients", "leases")
_FRAME = "end"
#: What each script does is told at the head of its file. `submit` alone may be refused for want of memory.
NAMES = ("submit", "client", "worker", "tick")


class Script:
    """One script as the server knows it."""

    __slots__ = ("digest", "name", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@functools.cache
def scripts(*, knows_flags: bool) -> dict[str, Script]:
    """All scripts by name.

    Args:
        knows_flags: Redis 7 or later, where what finishes or frees may run although memory is used up.
    """
    parts = {name: files(__package__).joinpath("lua", f"{name}.lua").read_text() for name in (*_PARTS, *NAMES, _FRAME)}
    return {name: Script(name, _source(parts, name, knows_flags=knows_flags)) for name in NAMES}


def _source(parts: dict[str, str], name: str, *, knows_flags: bool) -> str:
    body = "".join(parts[part] for part in (*_PARTS, name, _FRAME))
    if not knows_flags:
        return body
    return f"#!lua{'' if name == 'submit' else ' flags=allow-oom'}\n{body}"
