"""The functions of a broker's runs: their bodies as long as a run needs them, what was learnt of them for longer."""

from __future__ import annotations

from collections import OrderedDict

from nbqueue.core.chunking import ChunkSizer

#: Learnt chunk sizes are kept for this many functions.
SIZERS_KEPT = 512


class _Function:
    __slots__ = ("body", "runs")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.runs = 0


class Functions:
    """Functions by their digests."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Function] = {}
        self._sizers: OrderedDict[bytes, ChunkSizer] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def use(self, digest: bytes, body: bytes | None) -> bool:
        """One more run needs it; False when it is not known and came without its body."""
        function = self._known.get(digest)
        if function is None:
            if body is None:
                return False
            function = self._known[digest] = _Function(body)
        function.runs += 1
        return True

    def release(self, digest: bytes) -> bool:
        """One run less needs it; True when none does, and it is forgotten."""
        function = self._known[digest]
        function.runs -= 1
        if function.runs:
            return False
        del self._known[digest]
        return True

    def body(self, digest: bytes) -> bytes:
        """The packed function."""
        return self._known[digest].body

    def sizer(self, digest: bytes) -> ChunkSizer:
        """How many of its items make a chunk."""
        sizer = self._sizers.get(digest)
        if sizer is None:
            sizer = self._sizers[digest] = ChunkSizer()
            if len(self._sizers) > SIZERS_KEPT:
                self._sizers.popitem(last=False)
        return sizer
