"""A descriptor that is readable while it rings, for what a selector cannot see by itself."""

from __future__ import annotations

import contextlib
import os


class Bell:
    """A pipe with at most one byte in it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._rings = False

    def fileno(self) -> int:
        """Readable while the bell rings."""
        return self._reader

    def ring(self) -> None:
        """Ring until `silence`."""
        if not self._rings:
            self._rings = True
            os.write(self._writer, b"!")

    def silence(self) -> None:
        """Stop ringing."""
        if self._rings:
            self._rings = False
            os.read(self._reader, 1)

    def close(self) -> None:
        """Free the descriptors; may be called twice."""
        with contextlib.suppress(OSError):
            os.close(self._reader)
            os.close(self._writer)
