"""Whether this process is the kernel of a notebook; imports nothing to find out."""

from __future__ import annotations

import sys
from typing import Any


def kernel_shell() -> Any:
    """The shell of the IPython kernel that this process is, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None
