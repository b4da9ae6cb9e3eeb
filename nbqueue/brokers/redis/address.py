"""Which server an address means: one host, a unix socket, a Sentinel group or a cluster."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

#: Schemes of one server, with TLS or without.
_PLAIN = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_DEFAULT_PORT = 6379
_SENTINEL_PORT = 26379
_OPTIONS = frozenset({"namespace", "tls", "eviction", "db", "ca"})


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed address."""

    kind: str  #: "server", "unix", "sentinel" or "cluster"
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""  #: of a unix socket
    service: str = ""  #: what the Sentinels call the master
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca: str | None = None  #: file with the certificate that signed the server's
    namespace: str = "default"  #: brokers of different namespaces do not know each other
    eviction: str = "refuse"  #: "allow": use a server that may throw work away

    @property
    def prefix(self) -> str:
        """What all keys begin with; the braces keep them in one slot of a cluster."""
        return f"nbq:{{{self.namespace}}}:"

    @property
    def credentials(self) -> dict[str, Any]:
        """Arguments for a connection of redis-py."""
        return {"username": self.username, "password": self.password}

    def __str__(self) -> str:
        """Without the password."""
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.kind} {where}" if self.kind != "server" else where


def parse(url: str) -> Address:
    """The address that *url* means.

    Args:
        url: ``redis://user:password@host:port/db``, ``rediss://`` for TLS, ``unix:///path/to/socket``,
            ``redis+sentinel://host:port,host:port/service/db``, ``redis+cluster://host:port,host:port``; each may
            end in ``?namespace=team``.

    Raises:
        ValueError: It cannot be understood; says why, never with the password.
    """
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise ValueError(f"the broker's address has unknown options {unknown}: it may have {sorted(_OPTIONS)}")
    login, _, places = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    common: dict[str, Any] = {
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "tls": _PLAIN.get(parts.scheme, False) or options.get("tls") == "true",
        "ca": options.get("ca"),
        "namespace": options.get("namespace", "default"),
        "eviction": options.get("eviction", "refuse"),
    }
    path = [part for part in parts.path.split("/") if part]
    if parts.scheme in _PLAIN:
        db = _number(options.get("db", path[0] if path else "0"), "database")
        return Address(kind="server", hosts=_hosts(places or "localhost", _DEFAULT_PORT), db=db, **common)
    if parts.scheme in ("unix", "redis+unix"):
        return Address(kind="unix", path=unquote(parts.path), db=_number(options.get("db", "0"), "database"), **common)
    if parts.scheme == "redis+sentinel":
        db = _number(path[1] if len(path) > 1 else "0", "database")
        service = path[0] if path else "mymaster"
        return Address(kind="sentinel", hosts=_hosts(places, _SENTINEL_PORT), service=service, db=db, **common)
    if parts.scheme == "redis+cluster":
        return Address(kind="cluster", hosts=_hosts(places, _DEFAULT_PORT), **common)
    raise ValueError(f"unknown scheme {parts.scheme!r}")


def _hosts(places: str, default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for place in places.split(","):
        parts = urlsplit(f"//{place}")  # knows [::1]:6379, too
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f"the broker's address has a bad port in {place!r}") from None
        if not parts.hostname:
            raise ValueError("the broker's address has no host")
        found.append((parts.hostname, port or default_port))
    return tuple(found)


def _number(text: str, what: str) -> int:
    if not text.isdigit():
        raise ValueError(f"the broker's address has a bad {what}: {text!r}")
    return int(text)
