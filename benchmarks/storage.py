"""How fast feature shards are written and read, beside the rates of the disk itself, measured in the same run.

python benchmarks/storage.py [--structures FILE.parquet] [--folder DISK]

Shards of 1,024 structures, V0 to V3. The disk's rates are those of a file with the same number of random bytes, written
in one piece and flushed (fsync), and read again after its pages were dropped from the cache. Rates are in bytes on the
disk; `features` are the float32 numbers that come out of them.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from machine import RESULTS, describe, keep, pick, read_structures
from speed_page import write_page

from atomsets_core.features import encodings, read_shard, shard_key, to_arrow, write_shard
from atomsets_core.parents import Features, load_parent
from atomsets_core.sources import load_flla
from atomsets_core.storage import Store

LEVELS = ("V0", "V1", "V2", "V3")
OUT = RESULTS / "storage.json"

CODECS: dict[str, dict[str, Any]] = {
    "plain": {"compression": "none", "use_dictionary": False},
    "zstd 3": {"compression": "zstd", "compression_level": 3, "use_dictionary": False},
    "byte stream split, zstd 1": {"compression": "zstd", "compression_level": 1, "use_dictionary": False},
    "byte stream split, zstd 3 (ours)": {"compression": "zstd", "compression_level": 3, "use_dictionary": False},
    "byte stream split, zstd 9": {"compression": "zstd", "compression_level": 9, "use_dictionary": False},
    "byte stream split, lz4": {"compression": "lz4", "use_dictionary": False},
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, help="Parquet with lattice, Z, frac; by default the embedded ones")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="on the disk that is measured")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    structures = read_structures(options.structures) if options.structures else load_flla().structures
    sample = pick(structures, 1024, rng)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    features = load_parent("megnet").featurize(sample, LEVELS)
    result = describe(
        f"python benchmarks/storage.py --shards {options.shards}"
        + (" --structures FILE" if options.structures else ""),
        ("pyarrow", "numpy"),
        seed=options.seed,
        structures=len(features),
        sites=int(features.n_atoms.sum()),
        feature_bytes=sum(values.nbytes for values in features.sites.values()),
    )
    result["codecs"] = codecs(features)
    keep(options.out, result)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result["shards"] = shards(Store(folder), features, options.shards, rng)
    keep(options.out, result)
    row = result["shards"]
    for what in ("write", "read"):
        print(
            f"{what}: shards {row[what]['mb_per_second']:.0f} MB/s, disk {row['disk'][what]:.0f} MB/s, "
            f"ratio {row[what]['over_disk']:.2f}; {row[what]['structures_per_second']:,.0f} structures/s"
        )
    for name, codec in result["codecs"].items():
        print(
            f"{name}: {codec['share']:.3f} of the features, {codec['write']:.0f} and {codec['read']:.0f} MB/s of them"
        )
    if options.out == OUT:
        write_page()


def codecs(features: Features) -> dict[str, Any]:
    """Size, and MB of features a second, of ways to write them, in memory."""
    table = to_arrow(features, "megnet")
    total = sum(values.nbytes for values in features.sites.values())
    found = {}
    for name, choice in CODECS.items():
        split = {"column_encoding": encodings(features)} if name.startswith("byte") else {}
        write, read, size = [], [], 0
        for _ in range(3):
            sink = io.BytesIO()
            start = time.perf_counter()
            pq.write_table(table, sink, **choice, **split)
            write.append(time.perf_counter() - start)
            size = len(sink.getvalue())
            start = time.perf_counter()
            pq.read_table(io.BytesIO(sink.getvalue()), use_threads=False)
            read.append(time.perf_counter() - start)
        found[name] = {"share": size / total, "write": total / min(write) / 1e6, "read": total / min(read) / 1e6}
    return found


def shards(store: Store, features: Features, n: int, rng: np.random.Generator) -> dict[str, Any]:
    """Rates of whole shards, checksums, flushes and manifest included, and of the disk in between."""
    disk: dict[str, list[float]] = {"write": [], "read": []}
    own: dict[str, list[float]] = {"write": [], "read": []}
    size = 0
    for number in range(n):
        key = shard_key([str(number)], features.digest, LEVELS)
        start = time.perf_counter()
        entry = write_shard(store, "megnet", key, features, LEVELS)
        own["write"].append(time.perf_counter() - start)
        size = entry.size
        path = store.local(entry.file)
        dropped = drop_from_cache(path)
        start = time.perf_counter()
        read_shard(store, entry)
        own["read"].append(time.perf_counter() - start)
        raw = Path(store.root) / f"raw-{number}"
        data = rng.bytes(size)
        disk["write"].append(timed(lambda raw=raw, data=data: write_flushed(raw, data)))  # type: ignore[misc]
        drop_from_cache(raw)
        disk["read"].append(timed(raw.read_bytes))
        print(f"shard {number + 1} of {n}", file=sys.stderr, flush=True)
    mb = size / 1e6
    rates = {what: mb / statistics.median(seconds) for what, seconds in disk.items()}
    return {
        "bytes": size,
        "bytes_per_structure": size / len(features),
        "cache_dropped": dropped,
        "disk": rates,
        **{
            what: {
                "mb_per_second": mb / statistics.median(seconds),
                "over_disk": mb / statistics.median(seconds) / rates[what],
                "structures_per_second": len(features) / statistics.median(seconds),
            }
            for what, seconds in own.items()
        },
    }


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_flushed(path: Path, data: bytes) -> None:
    """Write a file as a shard is written: to the end of it, and onto the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def drop_from_cache(path: Path) -> bool:
    """Ask the system to forget a file's pages, so that reading reads the disk; whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return True


if __name__ == "__main__":
    main()
