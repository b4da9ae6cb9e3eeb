"""What tasks display, on its way from a slot to the notebook."""

from __future__ import annotations

from typing import Any

from IPython.core.displaypub import DisplayPublisher

__all__ = ["SlotDisplayPublisher"]


class SlotDisplayPublisher(DisplayPublisher):  # type: ignore[misc]  # published without types
    """Collects displays for the cell's own end, until the slot's output capture takes them."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: Any = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        """Send one display."""

    def clear_output(self, wait: bool = False) -> None:
        """Send the wish to clear the output."""
