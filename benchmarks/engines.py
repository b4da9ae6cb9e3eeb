"""The engines under measurement: nbqueue and its peers, behind one interface.

Each library is imported inside `start`, because the time of that import is part of what is measured;
importing this module must stay free of all of them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

WORKERS = 2
CHUNK_ITEMS = 1000

Function = Callable[..., Any]


class Engine(ABC):
    """One library with two local workers; used by one process, once."""

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    #: Items of the map without a chunk size; fewer where 100,000 would take minutes.
    plain_items: ClassVar[int] = 100_000

    @classmethod
    def missing(cls) -> list[str]:
        """Top-level modules this engine needs and this interpreter lacks."""
        return [module for module in cls.requires if importlib.util.find_spec(module) is None]

    @abstractmethod
    def start(self) -> None:
        """Import the library and ask for two workers."""

    @abstractmethod
    def submit(self, fn: Function, *args: Any) -> Any:
        """Submit one task and return the engine's own handle."""

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for the handles and return their results, order kept."""
        return [handle.result() for handle in handles]

    @abstractmethod
    def map(self, fn: Function, items: range) -> list[Any]:
        """Map many small items: the engine's own chunks, else 1000 items a task by hand."""

    def map_plain(self, fn: Function, items: range) -> list[Any]:
        """Map with no chunk size given anywhere."""
        return self.map(fn, items)

    @abstractmethod
    def stop(self) -> None:
        """End the workers and whatever else was started."""


@runtime_checkable
class Streaming(Protocol):
    """An engine whose map hands out results one by one, in order."""

    def stream(self, fn: Function, items: range) -> Iterator[Any]:
        """Iterate over the results of one map without keeping them."""
        ...


class NBQueue(Engine):
    """The embedded hub; the runner gives every process a runtime directory of its own."""

    name = "nbqueue"
    requires = ("nbqueue",)

    def start(self) -> None:
        import nbqueue

        self._app = nbqueue.connect(workers=WORKERS)

    def submit(self, fn: Function, *args: Any) -> Any:
        return self._app.submit(fn, *args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def map(self, fn: Function, items: range) -> list[Any]:
        results: list[Any] = self._app.map(fn, items, progress=False).get()
        return results

    def stream(self, fn: Function, items: range) -> Iterator[Any]:
        return iter(self._app.map(fn, items, progress=False))

    def stop(self) -> None:
        import subprocess

        subprocess.run([sys.executable, "-m", "nbqueue", "stop"], check=True, timeout=30)


class MultiprocessingPool(Engine):
    """`multiprocessing.Pool` with the platform's default start method."""

    name = "mp"

    def start(self) -> None:
        import multiprocessing

        self._pool = multiprocessing.Pool(WORKERS)

    def submit(self, fn: Function, *args: Any) -> Any:
        return self._pool.apply_async(fn, args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def map(self, fn: Function, items: range) -> list[Any]:
        return self._pool.map(fn, items)

    def stream(self, fn: Function, items: range) -> Iterator[Any]:
        return self._pool.imap(fn, items, chunksize=CHUNK_ITEMS)

    def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()


class ConcurrentFutures(Engine):
    """`concurrent.futures.ProcessPoolExecutor` with the platform's default start method."""

    name = "cf"

    def start(self) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self._executor = ProcessPoolExecutor(WORKERS)

    def submit(self, fn: Function, *args: Any) -> Any:
        return self._executor.submit(fn, *args)

    def map(self, fn: Function, items: range) -> list[Any]:
        return list(self._executor.map(fn, items, chunksize=CHUNK_ITEMS))

    def map_plain(self, fn: Function, items: range) -> list[Any]:
        return list(self._executor.map(fn, items))

    def stream(self, fn: Function, items: range) -> Iterator[Any]:
        return self._executor.map(fn, items, chunksize=CHUNK_ITEMS)

    def stop(self) -> None:
        self._executor.shutdown(cancel_futures=True)


class Loky(Engine):
    """loky's reusable executor for tasks, joblib (which runs on loky) for maps."""

    name = "loky"
    requires = ("loky", "joblib")

    def start(self) -> None:
        from loky import get_reusable_executor

        self._executor = get_reusable_executor(WORKERS)

    def submit(self, fn: Function, *args: Any) -> Any:
        return self._executor.submit(fn, *args)

    def map(self, fn: Function, items: range) -> list[Any]:
        from joblib import Parallel, delayed

        results: list[Any] = Parallel(n_jobs=WORKERS)(delayed(fn)(item) for item in items)
        return results

    def stop(self) -> None:
        # joblib's own copy of loky is left to its exit handler.
        self._executor.shutdown(kill_workers=True)


class Mpire(Engine):
    """mpire's pool, kept alive between calls."""

    name = "mpire"
    requires = ("mpire",)

    def start(self) -> None:
        from mpire import WorkerPool

        self._pool = WorkerPool(n_jobs=WORKERS, keep_alive=True)

    def submit(self, fn: Function, *args: Any) -> Any:
        return self._pool.apply_async(fn, args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def map(self, fn: Function, items: range) -> list[Any]:
        results: list[Any] = self._pool.map(fn, items)
        return results

    def stop(self) -> None:
        self._pool.terminate()


class IPyParallel(Engine):
    """A local ipyparallel cluster and its load-balanced view."""

    name = "ipyparallel"
    requires = ("ipyparallel",)
    plain_items = 2_000

    def start(self) -> None:
        import logging

        import ipyparallel

        self._cluster = ipyparallel.Cluster(n=WORKERS, log_level=logging.ERROR)
        client = self._cluster.start_and_connect_sync(activate=False)
        client[:].use_cloudpickle()  # without it, closures over arrays cannot be sent
        self._view = client.load_balanced_view()

    def submit(self, fn: Function, *args: Any) -> Any:
        return self._view.apply_async(fn, *args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]

    def map(self, fn: Function, items: range) -> list[Any]:
        return list(self._view.map_sync(fn, items, chunksize=CHUNK_ITEMS))

    def map_plain(self, fn: Function, items: range) -> list[Any]:
        return list(self._view.map_sync(fn, items))

    def stop(self) -> None:
        self._cluster.stop_cluster_sync()


class Dask(Engine):
    """A `distributed` local cluster: two worker processes with one thread each."""

    name = "dask"
    requires = ("distributed",)
    plain_items = 5_000

    def start(self) -> None:
        import logging

        from distributed import Client

        self._client = Client(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        )

    def submit(self, fn: Function, *args: Any) -> Any:
        return self._client.submit(fn, *args, pure=False)  # pure: equal calls would run once

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        results: list[Any] = self._client.gather(list(handles))
        return results

    def map(self, fn: Function, items: range) -> list[Any]:
        return _joined(self.gather([self.submit(_call_each, fn, chunk) for chunk in _chunks(items)]))

    def map_plain(self, fn: Function, items: range) -> list[Any]:
        return self.gather(self._client.map(fn, items, pure=False))

    def stop(self) -> None:
        self._client.shutdown()


class Ray(Engine):
    """A local Ray with two CPUs and no dashboard."""

    name = "ray"
    requires = ("ray",)
    plain_items = 10_000

    def start(self) -> None:
        import logging

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        self._ray = ray
        self._remote: dict[Function, Any] = {}
        ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)

    def submit(self, fn: Function, *args: Any) -> Any:
        remote = self._remote.get(fn)
        if remote is None:
            remote = self._remote[fn] = self._ray.remote(fn)
        return remote.remote(*args)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        results: list[Any] = self._ray.get(list(handles))
        return results

    def map(self, fn: Function, items: range) -> list[Any]:
        return _joined(self.gather([self.submit(_call_each, fn, chunk) for chunk in _chunks(items)]))

    def map_plain(self, fn: Function, items: range) -> list[Any]:
        return self.gather([self.submit(fn, item) for item in items])

    def stop(self) -> None:
        self._ray.shutdown()


def _call_each(fn: Function, items: Iterable[Any]) -> list[Any]:
    return [fn(item) for item in items]


def _chunks(items: range) -> list[range]:
    return [items[first : first + CHUNK_ITEMS] for first in range(0, len(items), CHUNK_ITEMS)]


def _joined(chunks: Iterable[list[Any]]) -> list[Any]:
    return [result for chunk in chunks for result in chunk]


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine
    for engine in (NBQueue, MultiprocessingPool, ConcurrentFutures, Loky, Mpire, IPyParallel, Dask, Ray)
}
