"""The Dask client that tasks send their work to."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributed import Client, LocalCluster

Result = TypeVar("Result")

# Importing distributed has set its loggers to INFO, which tells of every connection.
logging.getLogger("distributed").setLevel(logging.WARNING)


@dataclass
class _Connection:
    """How to reach the cluster; it is reached when the first work comes."""

    address: str | None
    workers: int | None
    memory_per_worker: str
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: Client | None = None

    def client(self) -> Client:
        with self.lock:
            if self.opened is None:
                self.opened = self._open()
            return self.opened

    def _open(self) -> Client:
        # Not as context managers: entering sets a context variable of the task that happens to come first.
        if self.address:
            client = Client(self.address, timeout="30s", set_as_default=False)
            self.stack.callback(client.close)
            return client
        cluster = LocalCluster(
            n_workers=self.workers or len(os.sched_getaffinity(0)),
            threads_per_worker=1,
            processes=True,
            memory_limit=self.memory_per_worker,
            dashboard_address=None,
        )
        self.stack.callback(cluster.close)
        client = Client(cluster, set_as_default=False)
        self.stack.callback(client.close)
        return client


_connection: _Connection | None = None


@contextlib.contextmanager
def connect(address: str | None, workers: int | None, memory_per_worker: str = "auto") -> Iterator[None]:
    """Make a cluster the one that `run` uses: a running scheduler's, or processes started here when work comes.

    Local workers are processes with one thread each, also inside numpy and torch: two of them on two cores do more
    than one with two threads, and one that dies takes only its own shard with it.
    """
    global _connection
    _connection = _Connection(address, workers, memory_per_worker)
    try:
        with _connection.stack:
            yield
            # Workers that take their time to leave are no news.
            logging.getLogger("distributed").setLevel(logging.ERROR)
    finally:
        _connection = None
        logging.getLogger("distributed").setLevel(logging.WARNING)


def run(function: Callable[..., Result], *args: Any, heavy: bool = False, priority: int = 0) -> Result:
    """Call a function on a worker and wait for its result.

    Args:
        function: importable by the workers.
        args: its arguments.
        heavy: network work: goes to workers that offer the resource "GPU" where the cluster has any.
        priority: higher goes first.

    Raises:
        RuntimeError: outside `connect`.
    """
    if _connection is None:
        raise RuntimeError("no cluster: call this inside tasks.cluster.connect")
    client = _connection.client()
    resources = {"GPU": 1} if heavy and _offers_gpu(client) else None
    future = client.submit(function, *args, pure=False, resources=resources, priority=priority)
    result: Result = future.result()
    return result


def _offers_gpu(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker.get("resources", {}).get("GPU", 0) >= 1 for worker in workers)
