"""Every error that nbqueue raises, in one tree.

```
NBQueueError
├── RemoteError            the task raised something that cannot be rebuilt here
├── TaskRevoked            revoked before it could finish   (also a CancelledError)
├── TaskExpired            not started within its `expires`
├── SoftTimeLimitExceeded  it ran longer than its `soft_time_limit`; raised inside the task, which may clean up
├── TimeLimitExceeded      it ran longer than its `time_limit`; its process was ended
├── MemoryLimitExceeded    it held more than its `memory` limit; its process was ended
├── NestingLimitExceeded   tasks inside tasks, too deep or too many waiting at a time
├── ProcessLimitExceeded   it started more processes than one task may have; all were ended
├── WorkerLost             it killed its process more often than `max_lost` allows
├── UnknownTask            the broker knows no such run (it was forgotten, or another hub had it)
├── NotSerializable        a function, argument or result cannot be pickled, or is nothing that JSON has
├── NotRegistered          the worker has no task of this name, or may not run it
├── ContentDisallowed      it is packed with what is not accepted here; refused unread
├── EnvironmentMismatch    the two ends cannot work together (Python or protocol version)
├── QueueFull              the broker refuses more work for now
├── NoWorkers              workers could not be started
├── BrokerUnavailable      the broker cannot be reached, or died
│   └── UnsafeConnectionFile   others could read or replace the connection file
├── KeyFileError           the sealing key is missing, damaged, or open to others
├── SealBroken             bytes without the seal of our key, or out of their place
└── ProtocolError          bytes that are no message of ours
```

Warnings, for what is odd but goes on: `EnvironmentWarning` (a worker's packages differ from those here) and
`WaitingWarning` (nobody who is connected could run what is waited for).

`nbqueue.TimeoutError` is the builtin one.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError


class NBQueueError(Exception):
    """Base class of all errors of nbqueue."""


class RemoteError(NBQueueError):
    """The task raised an exception that cannot be rebuilt in this process.

    Attributes:
        type_name: Qualified name of the original type, e.g. ``"mylib.BadInput"``.
        message: What ``str()`` of the original said.
        remote_traceback: The traceback as text, formatted on the worker.
    """

    def __init__(self, type_name: str, message: str, remote_traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.remote_traceback = remote_traceback

    @classmethod
    def of_kind(cls, bases: Sequence[str], type_name: str, message: str, remote_traceback: str) -> RemoteError:
        """One that is caught by ``except ValueError`` as well if the original is a `ValueError`, and so on.

        Args:
            bases: Names of the original's types, its own first.
            type_name: See above, as the rest.
            message: What the original said.
            remote_traceback: As text.
        """
        kind = next(filter(None, map(_both, bases)), cls)
        return kind(type_name, message, remote_traceback)

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Callable[..., RemoteError], tuple[list[str], str, str, str]]:
        bases = [kind.__name__ for kind in type(self).__mro__]
        return RemoteError.of_kind, (bases, self.type_name, self.message, self.remote_traceback)


#: They would end, silently, whatever asks for the result.
_NEVER_RAISED = frozenset({"StopIteration", "StopAsyncIteration"})


@functools.cache
def _both(name: str) -> type[RemoteError] | None:
    """`RemoteError` and the builtin exception called *name* in one; None if there is no such, or they cannot be one."""
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type) or not issubclass(kind, Exception) or kind is Exception or name in _NEVER_RAISED:
        return None
    try:
        made = type("RemoteError", (RemoteError, kind), {"__module__": __name__, "__doc__": RemoteError.__doc__})
        made("", "")
    except TypeError:  # it wants arguments of its own
        return None
    return made


class TaskRevoked(NBQueueError, CancelledError):
    """The task was revoked before it could finish."""


class TaskExpired(NBQueueError):
    """The task was not started within its ``expires``."""


class SoftTimeLimitExceeded(NBQueueError):
    """The task has run for longer than its ``soft_time_limit``.

    Raised inside of the task, so that it can clean up.
    """


class TimeLimitExceeded(NBQueueError):
    """The task ran for longer than its ``time_limit``, and its process was ended."""


class MemoryLimitExceeded(NBQueueError):
    """The task held more than its ``memory`` limit, and its process was ended."""


class NestingLimitExceeded(NBQueueError):
    """Tasks were submitted inside tasks, too deep or too many of them waiting."""


class ProcessLimitExceeded(NBQueueError):
    """The task had more processes than one task may have, and all were ended."""


class WorkerLost(NBQueueError):
    """The process that ran the task died, more often than ``max_lost`` allows."""


class UnknownTask(NBQueueError, LookupError):
    """The broker knows no task of this id."""


class NotSerializable(NBQueueError, TypeError):
    """A function, an argument or a result cannot be pickled, or sent as JSON.

    Attributes:
        path: From the outside in, to the part that is to blame: ``score() → global 'client' (Redis) → ._lock (lock)``.
        variable: The name by which the user knows what holds that part: ``client``.
        line: Where the function uses that name; None when there is no such line.
        hint: What can be done about it.
    """

    def __init__(
        self, message: str, *, path: str = "", variable: str = "", line: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message)
        self.path = path
        self.variable = variable
        self.line = line
        self.hint = hint


class NotRegistered(NBQueueError, LookupError):
    """The worker has no task of this name, or may not run it."""


class ContentDisallowed(NBQueueError):
    """A task or a result is packed with what is not accepted here (`accept=`).

    It was refused unread.
    """


class EnvironmentMismatch(NBQueueError):
    """The two ends run versions that cannot work together."""


class QueueFull(NBQueueError):
    """The broker holds as much waiting work as it may; nothing was accepted."""


class NoWorkers(NBQueueError):
    """Workers could not be started."""


class BrokerUnavailable(NBQueueError, ConnectionError):
    """The broker cannot be reached, or it died and took its runs with it."""


class UnsafeConnectionFile(BrokerUnavailable):
    """The connection file, or its folder, is open to other users."""


class KeyFileError(NBQueueError):
    """The sealing key is missing, damaged, or open to other users."""


class SealBroken(NBQueueError):
    """Bytes from a broker do not carry the seal of our key for their place.

    They were refused unread.
    """


class ProtocolError(NBQueueError):
    """Bytes that are no message of this protocol, or of another version of it."""


class EnvironmentWarning(UserWarning):
    """A package that a task imports is older, newer or missing on a worker."""


class WaitingWarning(UserWarning):
    """Nobody who is connected could run what is waited for."""
