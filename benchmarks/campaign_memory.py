"""Peak memory of a whole campaign over 15,000 and over all candidates of a file: every process of the run.

python benchmarks/campaign_memory.py --structures FILE.parquet [--features STORE]

The embedded bulk moduli are learned, without simulated discovery, and the candidates ranked. --features names a store
that `atomsets featurize` has filled, so that the run has only to pull, select, predict and rank; without it features
are made in the run. Each run is `atomsets screen` in processes of its own; every 0.2 s the memory of each is looked up.
Times are those of the fastest run of a size, peaks the largest of all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from machine import RESULTS, describe, id_column, keep
from speed_page import write_page

OUT = RESULTS / "campaign_memory.json"


def main() -> None:
    """Run the campaigns that the result doesn't hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, required=True, help="Parquet with lattice, Z, frac")
    parser.add_argument("--features", help="store that holds their features already")
    parser.add_argument("--sizes", type=int, nargs="+", default=[15_000, 0], help="0 for the whole file")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each size; the largest peaks are kept")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    n_rows = pq.ParquetFile(options.structures).metadata.num_rows
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"runs": {}}
    for size in options.sizes:
        n = min(size or n_rows, n_rows)
        if str(n) in result["runs"] and not options.again:
            continue
        print(f"{n:,} candidates", file=sys.stderr, flush=True)
        rows = [run(options, n, n_rows) for _ in range(options.repeats)]
        peaks = {name: [row["peak_mb"].get(name, 0) for row in rows] for name in rows[0]["peak_mb"]}
        result["runs"][str(n)] = {
            **min(rows, key=lambda row: row["seconds"]),
            "peak_mb": {name: max(values) for name, values in peaks.items()},
            "peaks_mb": peaks,
        }
        keep(options.out, result)
    for n, row in result["runs"].items():
        print(f"{int(n):,} candidates: {row['seconds']:.0f} s, peak MB {row['peak_mb']}")
    if options.out == OUT:
        write_page()


def run(options: argparse.Namespace, n: int, n_rows: int) -> dict[str, Any]:
    """One campaign, watched."""
    about = describe(
        f"python benchmarks/campaign_memory.py --structures FILE --sizes {n if n < n_rows else 0}"
        + (" --features STORE" if options.features else ""),
        ("torch", "pandas", "pyarrow", "prefect", "distributed"),
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        source, column = options.structures, id_column(options.structures)
        if n < n_rows:
            rows = np.sort(np.random.default_rng(options.seed).choice(n_rows, n, replace=False))
            source = Path(folder) / "sample.parquet"
            pq.write_table(pq.read_table(options.structures).take(rows), source)
        campaign = Path(folder) / "campaign.toml"
        campaign.write_text(text(source.resolve(), column, options.features and str(Path(options.features).resolve())))
        command = [
            sys.executable,
            "-m",
            "atomsets_flows.cli",
            "screen",
            str(campaign),
            "--out",
            f"{folder}/out",
            "--json",
        ]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks = watch(process)
        output = process.communicate()[0]
        if process.returncode:
            raise SystemExit(f"the campaign over {n} candidates failed")
        summary = json.loads(output.splitlines()[-1])
    return {
        **about,
        "seconds": time.perf_counter() - started,
        "stages": summary["seconds"],
        "counts": summary["counts"]["candidates"],
        "peak_mb": peaks,
    }


def text(source: Path, column: str, features: str | None) -> str:
    """The campaign file."""
    store = f"store = {json.dumps(features)}\n" if features else ""
    named = f"id_column = {json.dumps(column)}\n" if column else ""
    return (
        'name = "memory"\n[training]\nsource = "embedded:elastic"\ntarget = "K_VRH"\nunit = "GPa"\n'
        'transform = "log10"\n'
        f"[candidates]\nsource = {json.dumps(str(source))}\n{named}exclude_seen = false\n"
        f"[features]\n{store}shard_size = 1024\n[discovery]\nseeds = 0\n"
    )


def watch(process: subprocess.Popen[str]) -> dict[str, int]:
    """Largest resident memory, MB, of the command, of the largest worker and of the temporary Prefect server."""
    peaks: dict[str, float] = {}
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for member in family:
            try:
                line = " ".join(member.cmdline())
                name = "command with scheduler" if member.pid == process.pid else "largest worker"
                if "uvicorn" in line or "prefect.server" in line:
                    name = "Prefect server"
                elif "resource_tracker" in line:
                    continue
                peaks[name] = max(peaks.get(name, 0.0), member.memory_info().rss / 1e6)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        time.sleep(0.2)
    return {name: round(peak) for name, peak in peaks.items()}


if __name__ == "__main__":
    main()
