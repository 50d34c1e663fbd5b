"""Make a shard whatever its structures do: what kills its worker, hangs or breaks the parent is found by halving.

The shard is cut in half, and the halves again, until what fails is a single structure, which is then refused with the
reason. Everything beside it lies in smaller shards with keys of their own, the same ones whenever it happens again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import KilledWorker

from atomsets_core.features import FeatureStore, counts_of, read_queued
from atomsets_core.jobs import featurize_shard, refuse_structure, try_parent
from atomsets_core.storage import StorageError, Store
from atomsets_tasks import client
from atomsets_tasks.client import OverdueError, SchedulerLostError
from atomsets_tasks.retries import PASSING

SHORTEST = 1 / 8
"""Share of the time limit that the smallest part of a shard still gets."""

COUNTED = ("rows", "refused", "sites", "bonds", "used")


@dataclass(frozen=True)
class ShardJob:
    """A shard to be made; see `atomsets_core.jobs.featurize.featurize_shard`.

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
        client.run(try_parent, job.features.parent, job.features.levels, heavy=True, priority=1, limit=limit)
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
            done = client.run(featurize_shard, *arguments, heavy=True, limit=limit)
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
