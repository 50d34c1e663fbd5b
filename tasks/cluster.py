"""The Dask client that tasks send their work to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from distributed import Client, LocalCluster

Result = TypeVar("Result")

_client: Client | None = None


@contextlib.contextmanager
def connect(address: str | None, workers: int | None, memory_per_worker: str = "auto") -> Iterator[Client]:
    """Make a client the one that `run` uses: of a running scheduler, or of processes started here.

    Local workers are processes with one thread each, also inside numpy and torch: two of them on two cores do more
    than one with two threads, and one that dies takes only its own shard with it.
    """
    global _client
    with contextlib.ExitStack() as stack:
        if address:
            client = stack.enter_context(Client(address, timeout="30s"))
        else:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers or len(os.sched_getaffinity(0)),
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=memory_per_worker,
                    dashboard_address=None,
                    silence_logs=40,
                )
            )
            client = stack.enter_context(Client(cluster))
        _client = client
        try:
            yield client
        finally:
            _client = None


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
    if _client is None:
        raise RuntimeError("no Dask client: call this inside tasks.cluster.connect")
    resources = {"GPU": 1} if heavy and _offers_gpu(_client) else None
    future = _client.submit(function, *args, pure=False, resources=resources, priority=priority)
    result: Result = future.result()
    return result


def _offers_gpu(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker.get("resources", {}).get("GPU", 0) >= 1 for worker in workers)
