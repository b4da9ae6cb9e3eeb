"""What redis-py and the server call an error, in our words; the only place where they are translated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis

from nbqueue.errors import BrokerUnavailable

#: Errors of a server that is not the right one any more, or not yet: look again who is.
_ELSEWHERE = (
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "MOVED",
    "ASK",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "UNBLOCKED",
    "NOREPLICAS",
    "BUSY",
    "MISCONF",
)


@contextlib.contextmanager
def translate_redis_errors(where: object) -> Iterator[None]:
    """Raise `BrokerUnavailable`, in one sentence, for whatever goes wrong in speaking to the server *where*."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise BrokerUnavailable(
            f"Redis at {where} refused the login or a command ({error}): check the user and password in the address"
        ) from error
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(f"Redis at {where} cannot be reached: {str(error) or type(error).__name__}") from error


def is_elsewhere(text: str) -> bool:
    """Whether an error reply means that another server is to be asked, or this one later; scripts wrap it in words."""
    return text.startswith(_ELSEWHERE) or any(f"-{word} " in text for word in _ELSEWHERE)


def describe(error: Exception) -> str:
    """One sentence for an error that the server replied to a script."""
    text = str(error)
    if text.startswith(("NOPERM", "NOAUTH", "WRONGPASS")):
        return f"Redis refused a command of nbqueue ({text}): check the user's rights"
    return f"a script failed in Redis, please report it: {text}"
