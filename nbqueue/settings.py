"""Configuration: an argument beats an environment variable, which beats the default.

| variable | meaning | default |
|---|---|---|
| `NBQUEUE_URL` | which broker | `embedded` |
| `NBQUEUE_RUNTIME_DIR` | private folder for sockets, logs and connection files | the user's runtime folder |
| `NBQUEUE_HUB_NAME` | which hub of this user | one per Python environment |
| `NBQUEUE_WORKERS` | local slots that the embedded broker starts | usable cores |
| `NBQUEUE_IDLE_TIMEOUT` | seconds after which an unused hub ends itself and its workers | 1800 |
| `NBQUEUE_WORKER_PYTHON` | interpreter of local workers | this one |
| `NBQUEUE_MEMORY_LIMIT` | memory of all slots of a worker together, e.g. `8G` | none |
| `NBQUEUE_MAX_TASKS_PER_CHILD` | items after which a slot gets a fresh process; 0: never | 0 |
| `NBQUEUE_SUBMIT_TIMEOUT` | seconds to wait for room in a full queue before `QueueFull` | 60 |
| `NBQUEUE_KEY_FILE` | file with the key for this broker | the user's, made on first use |
| `NBQUEUE_ENCRYPT` | 1: hide tasks and results from whoever can read the broker | 0 |
| `NBQUEUE_ACCEPT` | what tasks (a worker) and results (a client) may be packed with | `cloudpickle,json` |
| `NBQUEUE_IMPORT` | modules whose tasks a worker runs by their names | none |
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from nbqueue.core.serializers import SERIALIZERS, Serializer


class Secret(str):
    """A text that is never shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How this process finds or starts its broker."""

    url: str
    runtime_dir: Path
    hub_name: str
    workers: int
    idle_timeout_s: float
    worker_python: str
    submit_timeout_s: float
    memory_limit_bytes: int = 0  #: 0: none
    max_tasks_per_child: int = 0  #: 0: no end
    key_file: Path | None = None  #: with the sealing key, or the keys for a hub on another machine; None: the usual one
    token: Secret = Secret()
    encrypt: bool = False
    accept: tuple[Serializer, ...] = SERIALIZERS
    imports: tuple[str, ...] = ()

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
        """Settings from *arguments* (None: not given), the environment, and the defaults, in this order.

        Raises:
            ValueError: A value is not of its kind; names the variable.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {
            "url": "embedded",
            "runtime_dir": default_runtime_dir(),
            "hub_name": default_hub_name(),
            "workers": usable_cores(),
            "idle_timeout_s": 1800.0,
            "worker_python": sys.executable,
            "submit_timeout_s": 60.0,
        }
        for name, variable in _VARIABLES.items():
            if environment.get(variable):
                values[name] = _convert(variable, environment[variable], cls.__annotations__[name])
        values.update({name: value for name, value in arguments.items() if value is not None})
        values["encrypt"] = bool(int(values.get("encrypt", 0)))
        if "token" in values:
            values["token"] = Secret(values["token"])
        if values.get("key_file") is not None:
            values["key_file"] = Path(values["key_file"]).expanduser()
        values["accept"] = parse_accept("accept", values.get("accept", SERIALIZERS))
        values["runtime_dir"] = Path(values["runtime_dir"])
        for name in ("workers", "idle_timeout_s", "submit_timeout_s"):
            if not (math.isfinite(values[name]) and values[name] >= 0):
                raise ValueError(f"{name} ({_VARIABLES[name]}) must be 0 or more, not {values[name]}")
        return cls(**values)


_VARIABLES = {
    "url": "NBQUEUE_URL",
    "runtime_dir": "NBQUEUE_RUNTIME_DIR",
    "hub_name": "NBQUEUE_HUB_NAME",
    "workers": "NBQUEUE_WORKERS",
    "idle_timeout_s": "NBQUEUE_IDLE_TIMEOUT",
    "worker_python": "NBQUEUE_WORKER_PYTHON",
    "submit_timeout_s": "NBQUEUE_SUBMIT_TIMEOUT",
    "memory_limit_bytes": "NBQUEUE_MEMORY_LIMIT",
    "max_tasks_per_child": "NBQUEUE_MAX_TASKS_PER_CHILD",
    "key_file": "NBQUEUE_KEY_FILE",
    "encrypt": "NBQUEUE_ENCRYPT",
    "accept": "NBQUEUE_ACCEPT",
    "imports": "NBQUEUE_IMPORT",
}
_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "Path": Path,
    "Path | None": Path,
    "int": int,
    "float": float,
    "bool": int,
    "tuple[str, ...]": lambda text: tuple(name for part in text.split(",") if (name := part.strip())),
}


def parse_size(name: str, value: object) -> int:
    """A number of bytes, given as such or like "512M" or "4G" (powers of 1024).

    Raises:
        ValueError: It is neither; *name* says what it is for.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(value), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if isinstance(value, bool) or size < 1:
        raise ValueError(f'{name} must be a number of bytes above 0, or like "512M" or "4G", not {value!r}')
    return size


def parse_accept(name: str, value: object) -> tuple[Serializer, ...]:
    """What is to be accepted, given as names or as one text with commas between them.

    Raises:
        ValueError: These are no serializers, or none; *name* says what it is for.
    """
    listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(listed, Collection) or not listed or not all(part in SERIALIZERS for part in listed):
        raise ValueError(f'{name} must be "cloudpickle", "json" or both, not {value!r}')
    return tuple(serializer for serializer in SERIALIZERS if serializer in listed)


def _convert(variable: str, text: str, kind: str) -> Any:
    if variable == _VARIABLES["memory_limit_bytes"]:
        return parse_size(variable, text)
    if variable == _VARIABLES["accept"]:
        return parse_accept(variable, text)
    try:
        return _CONVERTERS[kind](text)
    except ValueError:
        raise ValueError(f"{variable}={text!r} is not a number") from None


def shown_url(url: str) -> str:
    """The address of a broker without its password, for people and logs."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    return f"{scheme}{slashes}{user.partition(':')[0]}{':***' if ':' in user else ''}{at}{tail}"


@functools.lru_cache(maxsize=16)  # asked with every call
def is_on_this_machine(url: str) -> bool:
    """Whether the address is one that only this machine can mean."""
    if url == "embedded" or "unix" in url.partition("://")[0]:
        return True
    import ipaddress  # for addresses only, which most do not have
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_runtime_dir() -> Path:
    """The user's runtime folder for nbqueue: short, local, and gone after a reboot."""
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.path.isdir(session):
        return Path(session, "nbqueue")
    return Path(tempfile.gettempdir(), f"nbqueue-{os.getuid()}")


def default_hub_name() -> str:
    """One hub per Python environment, since functions pickled in one need not run in another."""
    environment = f"{sys.prefix}|{sys.version_info.major}.{sys.version_info.minor}"
    return f"default-{hashlib.blake2b(environment.encode(), digest_size=4).hexdigest()}"


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
