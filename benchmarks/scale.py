"""Time, memory and error of `atomsets train` as the rows grow, features read from one store of shards.

    python benchmarks/scale.py --data mp2018_megnet_eform_gap.parquet --target e_form --unit eV/atom \
        --store features --out benchmarks/results/scale.json --write-docs

The command line itself is run, a process for every number of rows, with defaults. The first run makes the features that
the store lacks; its time is kept apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

DOCS = Path(__file__).resolve().parent.parent / "docs" / "training.md"


def main() -> None:
    """Measure, store, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet with structures and the target.")
    parser.add_argument("--target", required=True)
    parser.add_argument("--unit", default="")
    parser.add_argument("--store", required=True, help="Feature store; what it lacks is made.")
    parser.add_argument("--rows", type=int, nargs="*", default=[2_000, 10_000], help="Beside all rows.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    table = pq.read_table(options.data)
    order = np.random.default_rng(0).permutation(len(table))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for n in [*sorted({min(n, len(table)) for n in options.rows} - {len(table)}), len(table)]:
            part = Path(folder) / f"{n}.parquet"
            pq.write_table(table.take(np.sort(order[:n])), part)
            rows.append(train(part, n, options, Path(folder) / str(n)))
            print(markdown(rows[-1:]), flush=True)
    command = f"python benchmarks/scale.py --data {options.data.name} --target {options.target} --unit {options.unit}"
    result = {
        "command": f"{command} --store STORE",
        "data": options.data.name,
        "unit": options.unit,
        "seed": 0,
        "machine": f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {package: version(package) for package in ("torch", "numpy", "scikit-learn")},
        "rows": rows,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.write_docs:
        block = f"{HEAD}\n{markdown(rows)}\n\n{result['machine']}; `{result['command']}`.\n"
        text = DOCS.read_text()
        DOCS.write_text(
            re.sub(r"(?s)(<!-- scale -->\n).*?(<!-- end of scale -->)", lambda m: m[1] + block + m[2], text)
        )


def train(part: Path, n: int, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run the command line on one file; scores, seconds and peak memory of its process."""
    features = time.perf_counter()
    command = [sys.executable, "-m", "atomsets_flows.cli", "train", str(part), "--target", options.target, "--json"]
    command += ["--unit", options.unit, "--store", options.store]
    # Once to make what the store lacks, without a training to speak of: the features alone.
    made = subprocess.run([sys.executable, "-c", MAKE, str(part), options.store], check=True, capture_output=True)
    features = time.perf_counter() - features
    done = subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, text=True)
    scores = json.loads(done.stdout.splitlines()[-1])
    scores.pop("out")  # a temporary folder
    return {"rows": n, "seconds_for_missing_features": features, "shards_made": int(made.stdout), **scores}


MAKE = """
import sys
from atomsets_core.parents import load_parent
from atomsets_core.sources import pull
from atomsets_core.storage import Store
from atomsets_core.features import FeatureStore, featurize_into
made = []
where = FeatureStore.of(Store(sys.argv[2]), "megnet", load_parent("megnet").default_levels)
featurize_into(where, pull(sys.argv[1]).structures, progress=lambda *_: made.append(1))
print(len(made))
"""

HEAD = """\
| rows learned from | seconds | peak memory, GB | out-of-fold error | R² | inside their 90 % interval |
|---|---|---|---|---|---|"""


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows of the table."""
    return "\n".join(
        f"| {row['n_train']:,} | {row['seconds']:.0f} | {row['peak_memory_mb'] / 1000:.2f} | {row['mae']:.4f} "
        f"| {row['r2']:.3f} | {row['coverage']:.1%} |"
        for row in rows
    )


if __name__ == "__main__":
    main()
