"""Features of a whole source, without a campaign: shards made by Dask workers, no Prefect in between.

A shard is a second of work; a Prefect task for each, with a server beside it, would take a good part of two cores and
add nothing that the manifest doesn't do. Structures are read, cut into shards and handed out block by block, so that
memory doesn't grow with the source. The cut depends on the source alone: a run that was killed makes the same shards.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from atomsets_core.campaigns import FAILURES, SUMMARY
from atomsets_core.features import FeatureStore, Intake, ShardEntry, damaged_shards, discard, write_queue
from atomsets_core.jobs import try_parent
from atomsets_core.parents import load_parent, split_levels
from atomsets_core.sources import ledger_table, read_blocks
from atomsets_core.storage import Store, peak_mb
from atomsets_core.structures import Refusal, Structures
from atomsets_flows.campaign import Cluster
from atomsets_tasks import DELAYS, PASSING, ShardJob, connect, make_shard, on_every_worker
from atomsets_tasks import workers as workers_there

IN_FLIGHT = 32
"""Shards that wait for the cluster at the same time, at least."""

Progress = Callable[[int, int], None]
"""Is told structures done and entries of the source."""


def featurize(
    source: str,
    out: str,
    parent: str = "megnet",
    levels: Sequence[str] = (),
    *,
    where: Cluster | None = None,
    shard_size: int = 1024,
    id_column: str = "material_id",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the features of a source that a store doesn't hold yet.

    Args:
        source: see `atomsets_core.sources.pull.pull`; a Parquet file with lattice, Z and frac is read block by block.
        out: folder or URL of the feature store, which a campaign can name as `features.store`.
        parent: network.
        levels: of it; by default those it is best with.
        where: the work runs.
        shard_size: structures in a shard.
        id_column: of identifiers.
        progress: told of every shard.

    Returns:
        The content of summary.json: `seen` entries are `featurized` + `refused` + `duplicates`.

    Raises:
        SourceError: the source can't be read.
        StorageError: the store can't be written, or another run is at work in it.
        RuntimeError: entries are unaccounted for.
    """
    store, network = Store(out), load_parent(parent)
    with store.lock():
        features = FeatureStore.of(store, parent, tuple(levels) or network.default_levels)
        split_levels(network, features.levels)
        run = _Run(features, where or Cluster())  # type: ignore[call-arg]
        return run.featurize(source, shard_size, id_column, progress or (lambda *_: None))


@dataclass
class _Run:
    """One run: what its steps share."""

    features: FeatureStore
    where: Cluster
    started: float = field(default_factory=time.perf_counter)
    made: Counter[str] = field(default_factory=Counter)
    poison: Counter[str] = field(default_factory=Counter)
    workers: dict[str, float] = field(default_factory=dict)
    ready: float = 0.0
    ended: float = 0.0

    @property
    def store(self) -> Store:
        """Everything is written into it."""
        return self.features.store

    def featurize(self, source: str, size: int, id_column: str, progress: Progress) -> dict[str, Any]:
        n_seen, blocks = read_blocks(source, id_column)
        intake = Intake(size)
        covered, kept = self.covered()
        # What a killed run left waiting is queued again below, under the same names.
        for name in self.store.names("queue"):
            self.store.remove(name)
        with connect(self.where.start):
            self.make_missing(intake.shards(blocks), covered, lambda done: progress(done, n_seen))
        return self.account(source, n_seen, intake, kept)

    def covered(self) -> tuple[set[bytes], int]:
        """Content hashes, 16 bytes each, that sound shards hold or refuse, and how many shards those are."""
        known: set[bytes] = set()
        entries = list(self.features.entries())
        damaged = damaged_shards(self.store, entries)
        for entry, _ in damaged:
            discard(self.store, entry)
        gone = {entry.key for entry, _ in damaged}
        for entry in entries:
            if entry.key not in gone:
                known.update(bytes.fromhex(h) for h in (*entry.hashes, *entry.refused))
        return known, len(entries) - len(gone)

    def make_missing(self, groups: Any, covered: set[bytes], tell: Callable[[int], None]) -> None:
        """Hand out shard after shard, no more at a time than keeps the workers busy; raises the first failure."""
        pool: ThreadPoolExecutor | None = None
        room, done = IN_FLIGHT, 0
        waiting: dict[Future[dict[str, Any]], int] = {}

        def collect(when: str) -> None:
            nonlocal done
            for future in wait(waiting, return_when=when).done:
                self.count(future.result())
                done += waiting.pop(future)
                tell(done)

        try:
            for group in groups:
                if all(bytes.fromhex(h) in covered for h in group.hashes):
                    done += len(group)
                    tell(done)
                    continue
                if pool is None:
                    room = max(IN_FLIGHT, 2 * self.get_ready())
                    pool = ThreadPoolExecutor(room)
                waiting[pool.submit(_make_patiently, self.job(group))] = len(group)
                if len(waiting) >= room:
                    collect(FIRST_COMPLETED)
            while waiting:
                collect(FIRST_COMPLETED)
        finally:
            if pool:
                # What still runs ends with the client that it waits for.
                pool.shutdown(wait=False, cancel_futures=True)

    def get_ready(self) -> int:
        """Start the cluster and load the parent on its workers; their number."""
        on_every_worker(try_parent, self.features.parent, self.features.levels)
        self.ready = time.perf_counter()
        return self.where.workers or len(workers_there())

    def job(self, group: Structures) -> ShardJob:
        """Queue a shard: a file of its structures, which goes when the shard is there."""
        key = self.features.shard_key(list(group.hashes))
        queue = f"queue/{key}.parquet"
        write_queue(self.store, queue, [group])
        return ShardJob(self.store, queue, 0, self.features, key, self.where.shard_timeout)

    def count(self, done: dict[str, Any]) -> None:
        """Add what a shard came to."""
        self.ended = time.perf_counter()
        self.made["shards"] += 1
        for name in ("rows", "refused", "sites", "bonds", "used"):
            self.made[name] += done[name]
        self.poison.update(done["poison"])
        for process, peak in done["workers"].items():
            self.workers[process] = max(self.workers.get(process, 0.0), peak)

    def account(self, source: str, n_seen: int, intake: Intake, kept: int) -> dict[str, Any]:
        """What became of every entry, written beside the shards.

        Raises:
            RuntimeError: the parts are not the whole.
        """
        entries = list(self.features.entries())
        total, reasons = self._of_this_source(entries, intake.content)
        index = intake.index()
        refused = [("structures", refusal) for refusal in intake.refused]
        chosen = index.filter(pc.is_in(index["structure_hash"], value_set=pa.array(list(reasons), pa.string())))
        for row in chosen.filter(pc.invert(chosen["duplicate"])).to_pylist():
            name, h = row["material_id"], row["structure_hash"]
            refused.append(("structures", Refusal(name, "featurize", reasons[h], h)))
        self.store.write_table("structures.parquet", index)
        self.store.write_table(FAILURES, ledger_table(refused))
        lines = "".join(f"{entry.key} {entry.sha256}\n" for entry in entries)
        working = self.ended - self.ready
        seconds = {
            "start": max(self.ready - self.started, 0.0),
            "work": working,
            "total": time.perf_counter() - self.started,
        }
        summary = {
            "source": source,
            "parent": self.features.parent,
            "digest": self.features.digest,
            "levels": list(self.features.levels),
            "seen": n_seen,
            "featurized": total["rows"],
            "refused": len(refused),
            "duplicates": intake.duplicates,
            "poison": dict(self.poison),
            "sites": total["sites"],
            "bonds": total["bonds"],
            "shards": len(entries),
            "shards_made": self.made["shards"],
            "shards_kept": kept,
            "bytes": sum(entry.size for entry in entries),
            "manifest_sha256": hashlib.sha256(lines.encode()).hexdigest(),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "structures_per_second": round(self.made["rows"] / working, 1) if self.made["rows"] else None,
            "worker_seconds_used": round(self.made["used"], 3),
            "peak_memory_mb": {
                "command with scheduler": round(peak_mb()),
                **{f"worker {name}": round(peak) for name, peak in sorted(self.workers.items())},
            },
        }
        if n_seen != intake.seen or n_seen != total["rows"] + len(refused) + intake.duplicates:
            raise RuntimeError(f"the counts don't add up: {summary}")
        self.store.write_json(SUMMARY, summary)
        return summary

    def _of_this_source(
        self, entries: Sequence[ShardEntry], content: set[bytes]
    ) -> tuple[Counter[str], dict[str, str]]:
        """Rows, and sites and bonds of the shards they are in; structure hash -> reason of the refused."""
        left, total, reasons = set(content), Counter[str](), {}
        for entry in entries:
            mine = {h for h in map(bytes.fromhex, entry.hashes) if h in left}
            left -= mine
            if mine:
                total.update(rows=len(mine), sites=entry.sites, bonds=entry.bonds)
        for entry in entries:
            for h, reason in entry.refused.items():
                if bytes.fromhex(h) in left:
                    left.discard(bytes.fromhex(h))
                    reasons[h] = reason
        return total, reasons


def _make_patiently(job: ShardJob) -> dict[str, Any]:
    """Make a shard; a fault of the network or of a machine is waited out a few times."""
    for delay in (*DELAYS, None):
        try:
            done = make_shard(job)
        except PASSING:
            if delay is None:
                raise
            time.sleep(delay)
        else:
            job.store.remove(job.queue)
            return done
    raise AssertionError("the last try returns or raises")
