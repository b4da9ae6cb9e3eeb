"""Celery, with results kept in Redis."""

import os

from celery import Celery

_PORT = os.environ["BENCH_PORT"]
app = Celery("bench", broker=f"redis://127.0.0.1:{_PORT}/0", backend=f"redis://127.0.0.1:{_PORT}/1")
app.conf.update(worker_prefetch_multiplier=64, worker_hijack_root_logger=False)


@app.task
def noop(value):
    return value
