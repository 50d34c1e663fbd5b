"""Work on the cluster: sent to its workers through a Dask client, and a shard made there whatever its structures do.

What kills its worker, hangs or breaks the parent is found by halving: the shard is cut in half, and the halves again,
until what fails is a single structure, which is then refused with the reason. Everything beside it lies in smaller
shards with keys of their own, the same ones whenever it happens again.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker

from atomsets_core.features import FeatureStore, counts_of, read_queued
from atomsets_core.jobs import featurize_shard, refuse_structure, try_parent
from atomsets_core.sources import WorkerLostError
from atomsets_core.storage import StorageError, Store
from atomsets_tasks.clusters import Running, start_local
from atomsets_tasks.retries import PASSING

Item = TypeVar("Item")

Result = TypeVar("Result")

Start = Callable[[], Any]
"""Starts a cluster, or gives the address of a running scheduler."""

LOOK_EVERY = 5.0
"""Seconds between two looks at where a piece of work with a limit is."""

GIVE_UP = 45.0
"""Seconds after the first vain try to reach a scheduler after which no other is made: every task would wait anew."""

LONG_WITHOUT = 60.0
"""Seconds without any worker after which it is said why that is; then again after ten times as long."""

Tell = Callable[[str], None]
"""Is told, in a sentence, what the user of a cluster should know."""

SHORTEST = 1 / 8
"""Share of the time limit that the smallest part of a shard still gets."""

COUNTED = ("rows", "refused", "sites", "bonds", "used")

# Importing distributed has set its loggers to INFO, which tells of every connection.
logging.getLogger("distributed").setLevel(logging.WARNING)


class SchedulerLostError(RuntimeError):
    """Nobody answers at the scheduler's address; trying once more is no use."""


class OverdueError(WorkerLostError):
    """A piece of work that ran longer than it may; its worker was restarted."""


@dataclass
class _Connection:
    """How to reach the cluster; it is reached when the first work comes."""

    start: Start
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: Client | None = None
    cluster: Any = None
    failed: float | None = None

    def client(self) -> Client:
        with self.lock:
            if self.opened is None:
                self.opened = self._open()
            return self.opened

    def _reach(self, running: Running) -> Client:
        """A client of a running scheduler.

        Raises:
            OSError: nobody answers there, which may be different in a moment.
            SchedulerLostError: nobody has answered for a while.
        """
        address = running.address
        lost = f"no Dask scheduler answers at {address}: see whether it runs; what is finished is kept"
        if self.failed is not None and time.monotonic() - self.failed > GIVE_UP:
            raise SchedulerLostError(lost)
        started = time.monotonic()
        try:
            return Client(address, timeout="30s", set_as_default=False, security=running.security)
        except OSError as error:
            self.failed = started if self.failed is None else self.failed
            raise ConnectionError(lost) from error

    def _open(self) -> Client:
        # Not as context managers: entering sets a context variable of the task that happens to come first.
        cluster = self.start()
        if isinstance(cluster, str | Running):
            client = self._reach(Running(cluster) if isinstance(cluster, str) else cluster)
        else:
            self.stack.callback(cluster.close)
            client, self.cluster = Client(cluster, set_as_default=False), cluster
        self.stack.callback(client.close)
        return client


_connection: _Connection | None = None


@contextlib.contextmanager
def connect(start: Start | None = None, tell: Tell | None = None) -> Iterator[None]:
    """Make a cluster the one that `run` uses; it is started when work comes.

    Args:
        start: gives it, see `atomsets_tasks.clusters`; by default one process on each core.
        tell: is told why jobs don't start; called in a thread, in the context of this call.
    """
    global _connection
    _connection = _Connection(start or (lambda: start_local(None, "auto")))
    over = threading.Event()
    watch = contextvars.copy_context()
    args = (_watch_queue, _connection, over, tell or logging.getLogger(__name__).warning)
    threading.Thread(target=watch.run, args=args, daemon=True).start()
    try:
        with _connection.stack:
            _connection.stack.callback(over.set)  # before the cluster closes
            yield
            # Workers that take their time to leave are no news.
            logging.getLogger("distributed").setLevel(logging.ERROR)
    finally:
        _connection = None
        logging.getLogger("distributed").setLevel(logging.WARNING)


def _watch_queue(connection: _Connection, over: threading.Event, tell: Tell) -> None:
    """Submit anew what ended in a cluster of jobs, and say why none starts, until `over`."""
    since, patience = time.monotonic(), LONG_WITHOUT
    while not over.wait(min(LOOK_EVERY, LONG_WITHOUT / 4)):
        cluster, client = connection.cluster, connection.opened
        if client is None or not hasattr(cluster, "why_waiting"):
            since = time.monotonic()
            continue
        try:
            if len(client.scheduler_info(n_workers=-1)["workers"]):
                since, patience = time.monotonic(), LONG_WITHOUT
            elif time.monotonic() - since > patience:
                tell(cluster.why_waiting(time.monotonic() - since))
                patience += 10 * LONG_WITHOUT
            # Adaptive clusters count a job that was cancelled as there.
            cluster.scale(len(cluster.worker_spec))
        except Exception as error:
            logging.getLogger(__name__).debug("the queue could not be looked at: %s", error)


def connected() -> bool:
    """Whether this is called inside `connect`."""
    return _connection is not None


def run(
    function: Callable[..., Result],
    *args: Any,
    heavy: bool = False,
    priority: int = 0,
    limit: float | None = None,
) -> Result:
    """Call a function on a worker and wait for its result.

    Args:
        function: importable by the workers.
        args: its arguments.
        heavy: network work: goes to workers that offer the resource "GPU" where the cluster has any.
        priority: higher goes first.
        limit: seconds it may run on a worker; the time it waits for one doesn't count.

    Raises:
        RuntimeError: outside `connect`.
        OverdueError: it ran longer than `limit`. Its worker has been restarted, since nothing else stops a function.
        KilledWorker: workers died on it, as often as the scheduler allows.
    """
    client = _client()
    resources = {"GPU": 1} if heavy and _offers_gpu(client) else None
    future = client.submit(function, *args, pure=False, resources=resources, priority=priority)
    if limit is not None:
        _wait_within(client, future, limit)
    result: Result = future.result()
    return result


def fan_out(
    function: Callable[[Item], Result], items: Sequence[Item], limits: Sequence[float]
) -> Iterator[tuple[int, Result | WorkerLostError]]:
    """Call a function on each item on the workers; see `atomsets_core.sources.files.parallel.FanOut`."""

    def call(position: int) -> tuple[int, Result | WorkerLostError]:
        try:
            return position, run(function, items[position], limit=limits[position])
        except KilledWorker:
            return position, WorkerLostError("died, and so did those that tried again")
        except WorkerLostError as error:
            return position, error

    # No more at a time than there are workers, so that a limit counts work and not waiting.
    threads_of_workers = sum(_client().nthreads().values())
    with ThreadPoolExecutor(max(1, threads_of_workers)) as threads:
        for future in as_completed([threads.submit(call, position) for position in range(len(items))]):
            yield future.result()


def on_every_worker(function: Callable[..., Any], *args: Any) -> None:
    """Call a function on every worker there is now, to load what all later work needs."""
    _client().run(function, *args)


def workers() -> dict[str, dict[str, Any]]:
    """What the scheduler knows of each worker, by address."""
    found: dict[str, dict[str, Any]] = _client().scheduler_info(n_workers=-1)["workers"]
    return found


def _client() -> Client:
    if _connection is None:
        raise RuntimeError("no cluster: call this inside atomsets_tasks.client.connect")
    return _connection.client()


def _wait_within(client: Client, future: Future, limit: float) -> None:
    """Return when the work is done, however it ended."""
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    worker, since = "", 0.0
    while not ended.wait(min(LOOK_EVERY, limit / 4)):
        now = time.monotonic()
        where = next((address for address, keys in client.processing().items() if future.key in keys), "")
        if where != worker:
            worker, since = where, now
        elif worker and now - since > limit:
            # Cancelled first, so that nobody starts it again.
            future.cancel()
            client.restart_workers([worker], timeout=60, raise_for_error=False)
            raise OverdueError(f"took more than {limit:g} s")


def _offers_gpu(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker.get("resources", {}).get("GPU", 0) >= 1 for worker in workers)


@dataclass(frozen=True)
class ShardJob:
    """A shard to be made; see `atomsets_core.jobs.structures.featurize_shard`.

    Attributes:
        limit: seconds a worker may take; None for no limit.
    """

    store: Store
    queue: str
    group: int
    features: FeatureStore
    key: str
    limit: float | None = None

    @property
    def arguments(self) -> tuple[Store, str, int, FeatureStore]:
        """The first ones of `featurize_shard` and `refuse_structure`."""
        return self.store, self.queue, self.group, self.features


def make_shard(job: ShardJob) -> dict[str, Any]:
    """Make a shard on the cluster, in parts if it can't be made whole.

    Returns:
        rows, refused, sites, bonds, used (seconds of processor time), seconds; `workers`, the peak memory in MB of each
        worker process that had a part in it; `poison`, reason -> number of structures left out for it.

    Raises:
        StorageError: nothing can be written, which cutting doesn't mend.
        ConnectionError: or another of the faults that may be gone a moment later.
        Exception: whatever the parent fails with on rock salt too.
    """
    started = time.perf_counter()
    making = _Making(job)
    failure = making.attempt(job.key, None, job.limit)
    if isinstance(failure, OverdueError):
        # It may have been the machine: another one gets a chance.
        failure = making.attempt(job.key, None, job.limit)
    if failure:
        # Workers that can't do rock salt either are at fault themselves.
        limit = None if job.limit is None else max(job.limit, 60.0)
        run(try_parent, job.features.parent, job.features.levels, heavy=True, priority=1, limit=limit)
        hashes = read_queued(job.store, job.queue, job.group).hashes
        making.divide([str(h) for h in hashes], 0, len(hashes), job.limit, failure)
    return {
        **{name: making.total[name] for name in COUNTED},
        "workers": making.workers,
        "poison": dict(making.poison),
        "seconds": time.perf_counter() - started,
    }


@dataclass
class _Making:
    """A shard on its way."""

    job: ShardJob
    total: Counter[str] = field(default_factory=Counter)
    workers: dict[str, float] = field(default_factory=dict)
    poison: Counter[str] = field(default_factory=Counter)

    def attempt(self, key: str, rows: tuple[int, int] | None, limit: float | None) -> Exception | None:
        """Make the shard or a part of it; why it can't be made, where that may be a structure's fault."""
        try:
            arguments = (*self.job.arguments, key, *([] if rows is None else [rows]))
            done = run(featurize_shard, *arguments, heavy=True, limit=limit)
        except (KilledWorker, OverdueError) as error:
            return error
        except (StorageError, SchedulerLostError, *PASSING):
            raise
        except Exception as error:
            return error
        self.add(done)
        process = f"{done['host']}:{done['pid']}"
        self.workers[process] = max(self.workers.get(process, 0.0), done["peak_mb"])
        return None

    def divide(self, hashes: Sequence[str], low: int, high: int, limit: float | None, failure: Exception) -> None:
        """Make rows low to high (exclusive), which failed together, in halves."""
        job = self.job
        if high - low == 1:
            reason = _reason(failure)
            key = job.features.shard_key(hashes[low:high])
            self.add(refuse_structure(*job.arguments, key, low, reason))
            self.poison[reason] += 1
            return
        if limit is not None and job.limit is not None:
            limit = max(limit / 2, job.limit * SHORTEST)
        middle = (low + high) // 2
        for rows in ((low, middle), (middle, high)):
            key = job.features.shard_key(hashes[slice(*rows)])
            entry = job.features.entry(key)
            if entry is not None:
                self.add(counts_of(entry))
                continue
            again = self.attempt(key, rows, limit)
            if again:
                self.divide(hashes, *rows, limit, again)

    def add(self, done: Mapping[str, Any]) -> None:
        """Count what is done."""
        for name in COUNTED:
            self.total[name] += done.get(name, 0)


def _reason(failure: Exception) -> str:
    if isinstance(failure, KilledWorker):
        return "its worker died on it each time: out of memory, or a fault in compiled code"
    if isinstance(failure, OverdueError):
        return f"the parent did not finish with it: {failure}"
    return f"the parent failed on it: {type(failure).__name__}: {failure}"
