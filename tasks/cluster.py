"""The Dask client that tasks send their work to."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, LocalCluster

from atomsets_core.sources.chunks import WorkerLostError

Item = TypeVar("Item")
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


def connected() -> bool:
    """Whether this is called inside `connect`."""
    return _connection is not None


def run(
    function: Callable[..., Result], *args: Any, heavy: bool = False, priority: int = 0, limit: float | None = None
) -> Result:
    """Call a function on a worker and wait for its result.

    Args:
        function: importable by the workers.
        args: its arguments.
        heavy: network work: goes to workers that offer the resource "GPU" where the cluster has any.
        priority: higher goes first.
        limit: seconds after which the worker is restarted if it is at this work, and the work given up.

    Raises:
        RuntimeError: outside `connect`.
        WorkerLostError: with a limit: it was reached, or workers died of this work.
    """
    client = _client()
    resources = {"GPU": 1} if heavy and _offers_gpu(client) else None
    future = client.submit(function, *args, pure=False, resources=resources, priority=priority)
    if limit is None:
        unlimited: Result = future.result()
        return unlimited
    try:
        while True:
            try:
                result: Result = future.result(timeout=limit)
                return result
            except TimeoutError as error:
                if _stop(client, future):
                    raise WorkerLostError(f"took more than {limit:.0f} s") from error
    except KilledWorker as error:
        raise WorkerLostError("died, and so did those that tried again") from error


def fan_out(
    function: Callable[[Item], Result], items: Sequence[Item], limits: Sequence[float]
) -> Iterator[tuple[int, Result | WorkerLostError]]:
    """Call a function on each item on the workers; see `atomsets_core.sources.chunks.FanOut`."""

    def call(position: int) -> tuple[int, Result | WorkerLostError]:
        try:
            return position, run(function, items[position], limit=limits[position])
        except WorkerLostError as error:
            return position, error

    # No more at a time than there are workers, so that a limit counts work and not waiting.
    threads_of_workers = sum(_client().nthreads().values())
    with ThreadPoolExecutor(max(1, threads_of_workers)) as threads:
        for future in as_completed([threads.submit(call, position) for position in range(len(items))]):
            yield future.result()


def _client() -> Client:
    if _connection is None:
        raise RuntimeError("no cluster: call this inside tasks.cluster.connect")
    return _connection.client()


def _stop(client: Client, future: Future) -> bool:
    """Restart the worker that is at this work; False where it only waits for its turn, or has just come back."""
    if future.done():
        return False
    at_work = [worker for worker, keys in client.processing().items() if future.key in keys]
    try:
        if not client.sync(_call_stack, client, future.key, callback_timeout=10):
            return False
    except (TimeoutError, OSError):
        pass  # it doesn't even answer
    future.cancel()
    with contextlib.suppress(Exception):  # a worker without a nanny can't be restarted
        client.restart_workers(at_work, timeout=30, raise_for_error=False)
    return True


async def _call_stack(client: Client, key: str) -> Any:
    return await client.scheduler.call_stack(keys=[key])  # type: ignore[union-attr]


def _offers_gpu(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker.get("resources", {}).get("GPU", 0) >= 1 for worker in workers)
