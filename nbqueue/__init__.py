"""Run slow functions of a notebook on other processes.

```python
import nbqueue
squares = nbqueue.map(slow_function, items)  # returns at once; a card with a bar and a Cancel button appears
squares.get()  # the list
```
"""

from __future__ import annotations

from builtins import TimeoutError

from nbqueue import errors
from nbqueue._api import (
    App,
    as_completed,
    connect,
    current_task,
    imap,
    imap_unordered,
    map,
    options,
    start_workers,
    starmap,
    submit,
    wait,
)
from nbqueue._version import __version__
from nbqueue.client.result import AsyncResult, ItemError, MapResult
from nbqueue.errors import (
    BrokerUnavailable,
    EnvironmentMismatch,
    NBQueueError,
    NotSerializable,
    NoWorkers,
    ProtocolError,
    QueueFull,
    RemoteError,
    TaskExpired,
    TaskRevoked,
    UnknownTask,
    UnsafeConnectionFile,
    WorkerLost,
)

__all__ = [
    "App",
    "AsyncResult",
    "BrokerUnavailable",
    "EnvironmentMismatch",
    "ItemError",
    "MapResult",
    "NBQueueError",
    "NoWorkers",
    "NotSerializable",
    "ProtocolError",
    "QueueFull",
    "RemoteError",
    "TaskExpired",
    "TaskRevoked",
    "TimeoutError",
    "UnknownTask",
    "UnsafeConnectionFile",
    "WorkerLost",
    "__version__",
    "as_completed",
    "connect",
    "current_task",
    "errors",
    "imap",
    "imap_unordered",
    "map",
    "options",
    "starmap",
    "start_workers",
    "submit",
    "wait",
]
