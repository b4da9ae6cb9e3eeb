"""taskiq, with streams and results kept in Redis."""

import os

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

_URL = f"redis://127.0.0.1:{os.environ['BENCH_PORT']}/4"
broker = RedisStreamBroker(url=_URL).with_result_backend(RedisAsyncResultBackend(redis_url=_URL, result_ex_time=600))


@broker.task
async def noop(value: int) -> int:
    return value
