"""Run slow functions of a notebook on other processes.

```python
import nbqueue
squares = nbqueue.map(slow_function, items)  # returns at once; a card with a bar and a Cancel button appears
squares.get()  # the list
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nbqueue._version import __version__

if TYPE_CHECKING:
    from builtins import TimeoutError

    from nbqueue import errors
    from nbqueue._api import (
        App,
        Task,
        attach,
        check,
        connect,
        control,
        current_task,
        env_diff,
        get_task_logger,
        imap,
        imap_unordered,
        inspect,
        invite,
        map,
        options,
        purge,
        revoke,
        send_task,
        starmap,
        start_workers,
        submit,
        task,
    )
    from nbqueue.client.map_result import ItemError, MapResult
    from nbqueue.client.result import AsyncResult
    from nbqueue.client.revoking import RevokeReport
    from nbqueue.client.several import as_completed, wait
    from nbqueue.client.task import Signature
    from nbqueue.errors import (
        BrokerUnavailable,
        ContentDisallowed,
        EnvironmentMismatch,
        EnvironmentWarning,
        KeyFileError,
        MemoryLimitExceeded,
        NBQueueError,
        NestingLimitExceeded,
        NotRegistered,
        NotSerializable,
        NoWorkers,
        ProcessLimitExceeded,
        ProtocolError,
        QueueFull,
        RemoteError,
        SealBroken,
        SoftTimeLimitExceeded,
        TaskExpired,
        TaskRevoked,
        TimeLimitExceeded,
        UnknownTask,
        UnsafeConnectionFile,
        WaitingWarning,
        WorkerLost,
    )

__all__ = [
    "App",
    "AsyncResult",
    "BrokerUnavailable",
    "ContentDisallowed",
    "EnvironmentMismatch",
    "EnvironmentWarning",
    "ItemError",
    "KeyFileError",
    "MapResult",
    "MemoryLimitExceeded",
    "NBQueueError",
    "NestingLimitExceeded",
    "NoWorkers",
    "NotRegistered",
    "NotSerializable",
    "ProcessLimitExceeded",
    "ProtocolError",
    "QueueFull",
    "RemoteError",
    "RevokeReport",
    "SealBroken",
    "Signature",
    "SoftTimeLimitExceeded",
    "Task",
    "TaskExpired",
    "TaskRevoked",
    "TimeLimitExceeded",
    "TimeoutError",
    "UnknownTask",
    "UnsafeConnectionFile",
    "WaitingWarning",
    "WorkerLost",
    "__version__",
    "as_completed",
    "attach",
    "check",
    "connect",
    "control",
    "current_task",
    "env_diff",
    "errors",
    "get_task_logger",
    "imap",
    "imap_unordered",
    "inspect",
    "invite",
    "map",
    "options",
    "purge",
    "revoke",
    "send_task",
    "starmap",
    "start_workers",
    "submit",
    "task",
    "wait",
]

#: Where the public names live. They are loaded on first use: the hub, supervisors and zygotes are processes of this
#: package too, and must start in milliseconds.
_MODULES = {
    "nbqueue._api": (
        *("App", "Task", "attach", "check", "connect", "control", "current_task", "env_diff", "get_task_logger"),
        *("imap", "imap_unordered", "inspect", "invite", "map", "options", "purge", "revoke", "starmap"),
        *("send_task", "start_workers", "submit", "task"),
    ),
    "nbqueue.client.map_result": ("ItemError", "MapResult"),
    "nbqueue.client.result": ("AsyncResult",),
    "nbqueue.client.revoking": ("RevokeReport",),
    "nbqueue.client.several": ("as_completed", "wait"),
    "nbqueue.client.task": ("Signature",),
    "builtins": ("TimeoutError",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("nbqueue.errors")
    if name not in __all__:
        raise AttributeError(f"module 'nbqueue' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "nbqueue.errors")), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext nbqueue``: the magics ``%%remote``, ``%remote`` and ``%nbq``."""
    from nbqueue._api import default_app
    from nbqueue.notebook.magics import register

    register(shell, default_app)


def __dir__() -> list[str]:
    return __all__
