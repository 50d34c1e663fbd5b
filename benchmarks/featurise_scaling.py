"""`atomsets featurize` on 10,000, 40,000 and all structures of a file, with one and with two workers.

python benchmarks/featurise_scaling.py --structures FILE.parquet
python benchmarks/featurise_scaling.py --structures FILE.parquet --only 10000     # one size; the others are kept

Each run is the command itself in a process of its own, into an empty folder. After each the result is stored; a size
and number of workers that the result holds already is left out unless --again is given, so that the whole can be made
in several sittings. `work` is the time from the moment the workers have loaded the parent; `total` includes their
start. Peak memory is that of each process; the disk's own rates are measured in the same sitting by storage.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import RESULTS, describe, id_column, keep, limits
from speed_page import write_page

OUT = RESULTS / "featurise_scaling.json"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, required=True, help="Parquet with lattice, Z, frac")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 40_000, 0], help="0 for the whole file")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", type=int, help="one of the sizes alone")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--seed", type=int, default=0, help="of the random sample")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    n_rows = pq.ParquetFile(options.structures).metadata.num_rows
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"runs": {}}
    for size in [options.only] if options.only is not None else options.sizes:
        n = min(size or n_rows, n_rows)
        for workers in options.workers:
            key = f"{n}-{workers}"
            if key in result["runs"] and not options.again:
                print(f"{n:,} structures, {workers} worker(s): kept", file=sys.stderr)
                continue
            result["runs"][key] = run(options, n, n_rows, workers)
            result["ratios"] = ratios(result["runs"])
            keep(options.out, result)
            tell(result["runs"][key])
    for n, row in result["ratios"].items():
        print(f"{int(n):,} structures: two workers over one {row['work']:.2f}, with their start {row['total']:.2f}")
    if options.out == OUT:
        write_page()


def run(options: argparse.Namespace, n: int, n_rows: int, workers: int) -> dict[str, Any]:
    """One run of the command."""
    about = describe(
        f"python benchmarks/featurise_scaling.py --structures FILE --sizes {n if n < n_rows else 0} "
        f"--workers {workers}",
        ("torch", "numba", "numpy", "pyarrow", "distributed"),
        seed=options.seed,
    )
    about["limits"] = limits()
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        source, column = options.structures, id_column(options.structures)
        if n < n_rows:
            rows = np.sort(np.random.default_rng(options.seed).choice(n_rows, n, replace=False))
            source = Path(folder) / "sample.parquet"
            pq.write_table(pq.read_table(options.structures).take(rows), source)
        command = [
            sys.executable,
            "-m",
            "atomsets_flows.cli",
            "featurize",
            str(source),
            "--out",
            f"{folder}/features",
            "--json",
        ]
        command += ["--workers", str(workers), *(["--id-column", column] if column else [])]
        print(f"{n:,} structures, {workers} worker(s)", file=sys.stderr, flush=True)
        before = os.times()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        after = os.times()
        summary = json.loads(done.stdout.splitlines()[-1])
    used = after.children_user - before.children_user + after.children_system - before.children_system
    kept = ("seen", "featurized", "refused", "duplicates", "sites", "bonds", "bytes", "shards", "seconds",
            "structures_per_second", "worker_seconds_used", "peak_memory_mb", "manifest_sha256")  # fmt: skip
    return {
        **about,
        "workers": workers,
        **{name: summary[name] for name in kept},
        "processor_seconds_of_all_processes": round(used, 1),
        "us_per_bond_and_worker": summary["seconds"]["work"] * workers / summary["bonds"] * 1e6,
    }


def ratios(runs: dict[str, Any]) -> dict[str, Any]:
    """Two workers' throughput over one's, for each size that has both."""
    found = {}
    for key, one in runs.items():
        n, workers = key.split("-")
        two = runs.get(f"{n}-2")
        if workers == "1" and two:
            found[n] = {what: one["seconds"][what] / two["seconds"][what] for what in ("work", "total")}
    return found


def tell(row: dict[str, Any]) -> None:
    """Print one run."""
    print(
        f"{row['seen']:,} = {row['featurized']:,} + {row['refused']} refused + {row['duplicates']} duplicates, "
        f"{row['bonds']:,} bonds, {row['workers']} worker(s): {row['seconds']['total']:.0f} s "
        f"({row['seconds']['start']:.0f} s of it to start), {row['structures_per_second']:,.0f} structures/s, "
        f"{row['bytes'] / 1e9:.2f} GB, peak MB {row['peak_memory_mb']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
