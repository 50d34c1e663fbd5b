"""Half a million candidates through predict and rank: time, and the memory of every process beside that of 50,000.

python benchmarks/load.py --scratch DIR

The candidates are the embedded 3,938 structures again and again, each time in a cell larger by a hundred-thousandth, so
that all of them are different structures with identifiers and shards of their own; the features are those of the first
time, written under the hash of each. So nothing is featurised in the measured runs but the training set, and everything
else is what a campaign does: it pulls, selects, verifies shards, predicts, ranks and reports.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import campaign_memory
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import RESULTS, keep

from atomsets_core.features import shard_key, write_shard
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_flla
from atomsets_core.storage import Store
from atomsets_core.structures import Structures

SHARD = 1024


def main() -> None:
    """Make the candidates and their features where they are missing, then run the campaigns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for candidates and features, some 3 GB")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--out", type=Path, default=RESULTS / "load.json")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    n_rows = max(options.sizes)
    options.structures, options.features, options.seed = options.scratch / f"{n_rows}.parquet", str(options.scratch), 0
    if not options.structures.exists():
        make(options.structures, Store(options.scratch), n_rows)
    result: dict[str, Any] = {"runs": {}}
    for size in sorted(options.sizes):
        row = campaign_memory.run(options, size, n_rows)
        row["command"] = "python benchmarks/load.py --scratch DIR"
        result["runs"][str(size)] = row
        keep(options.out, result)
        print(json.dumps({"candidates": size, **{name: row[name] for name in ("seconds", "stages", "peak_mb")}}))


def make(target: Path, store: Store, n: int) -> None:
    """Write n candidates and the shards of their features; the file comes last."""
    pulled = load_flla()
    parent = load_parent("megnet")
    print(f"features of {len(pulled.structures):,} structures", file=sys.stderr, flush=True)
    features = parent.featurize(pulled.structures, parent.default_levels)
    # Those the parent refuses are left out: every candidate is to be ranked.
    row_of = {h: row for row, h in enumerate(pulled.structures.hashes)}
    rows = np.array([row_of[h] for h in features.structure_hash])
    base, hull = pulled.structures.take(rows), pulled.columns["e_above_hull"].to_numpy()[rows]
    temporary = target.with_suffix(".tmp")
    writer: pq.ParquetWriter | None = None
    for start in range(0, n, SHARD):
        numbers = np.arange(start, min(start + SHARD, n))
        copy, own = numbers // len(base), numbers % len(base)
        part = larger(base.take(own), 1.0 + 1e-5 * copy, [f"c{i}" for i in numbers])
        table = part.to_arrow().append_column("e_above_hull", pa.array(hull[own]))
        writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
        writer.write_table(table)
        repeated = replace(features[own], material_id=part.hashes, structure_hash=part.hashes, flagged={}, refused=())
        key = shard_key([str(h) for h in part.hashes], features.digest, parent.default_levels)
        write_shard(store, "megnet", key, repeated, parent.default_levels)
    if writer is not None:
        writer.close()
    temporary.replace(target)


def larger(structures: Structures, factor: np.ndarray, names: list[str]) -> Structures:
    """The structures in larger cells and under other identifiers."""
    ids = np.array(names, dtype=object)
    return replace(structures, material_id=ids, lattice=structures.lattice * factor[:, None, None])


if __name__ == "__main__":
    main()
