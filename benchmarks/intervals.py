"""Do the intervals hold? Coverage on held-out tenths of real data, with the defaults of `AtomSetsRegressor`.

    python benchmarks/intervals.py --out benchmarks/results/intervals.json --write-docs

For each data set some tenths (whole formulas, at random) are held out one after the other; the ensemble is trained on
the other nine, intervals and all, and the held-out values inside their 90% interval are counted. Embedded data always;
the sets of --data, a folder with the Parquet and CSV files named below, as far as they are there. --write-docs puts the
table into docs/models.md. One thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atomsets_core.features import featurize
from atomsets_core.jobs import labels_of
from atomsets_core.models import AtomSetsRegressor, held_out_check
from atomsets_core.sources import pull

PACKAGES = ("torch", "numpy", "scikit-learn")
DOCS = Path(__file__).resolve().parent.parent / "docs" / "models.md"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@dataclass(frozen=True)
class DataSet:
    """One target: where it comes from, the column, its transform and unit."""

    name: str
    source: str
    target: str
    transform: str
    unit: str


DATA_SETS = (
    DataSet("elastic, bulk modulus", "embedded:elastic", "K_VRH", "log10", "GPa"),
    DataSet("elastic, shear modulus", "embedded:elastic", "G_VRH", "log10", "GPa"),
    DataSet("elastic, Poisson ratio", "embedded:elastic", "poisson_ratio", "none", ""),
    DataSet("phonons, last peak", "matbench_phonons.json.gz", "last phdos peak", "log10", "1/cm"),
    DataSet("dielectric, refractive index", "matminer_dielectric_constant.parquet", "n", "log10", ""),
    DataSet("experimental gap, composition", "matbench_composition/expt_gap.csv", "target", "none", "eV"),
    DataSet("steels, yield strength", "matbench_composition/steels_yield.csv", "target", "none", "MPa"),
)


def main() -> None:
    """Measure, store, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--tenths", type=int, default=3, help="held out one after the other, of each data set")
    parser.add_argument("--only", help="part of a data set's name")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rows = []
    for dataset in DATA_SETS:
        path = dataset.source if dataset.source.startswith("embedded:") else str(options.data / dataset.source)
        if (options.only and options.only not in dataset.name) or not (":" in path or Path(path).exists()):
            continue
        rows.append(measure(dataset, path, options.tenths))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "command": f"python benchmarks/intervals.py --tenths {options.tenths}"
        + (f" --only {options.only}" if options.only else ""),
        "coverage_asked": AtomSetsRegressor().coverage,
        "machine": {"system": platform.platform(), "processor": platform.processor(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            **{n: version(n) for n in ("torch", "numpy", "scikit-learn")},
        },
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.write_docs:
        write_docs(rows)


def measure(dataset: DataSet, path: str, tenths: int) -> dict[str, Any]:
    """Coverage, error and width on each tenth."""
    started = time.perf_counter()
    pulled = pull(path, compositions=True)
    model = AtomSetsRegressor(transform=dataset.transform)
    usable, values, _ = labels_of(pulled, [dataset.target], model)
    batch, values = pulled.structures.take(np.flatnonzero(usable)), values[usable]
    features = featurize(batch, model.choose_features(batch, values))
    model.set_params(features=model.choose_features(batch, values))
    row = {name: i for i, name in enumerate(batch.material_id)}
    kept = values[[row[name] for name in features.material_id]]
    checks = [held_out_check(model, features, kept, 0.1, seed) for seed in range(tenths)]
    n_test = sum(check["n_test"] for check in checks)
    return {
        "name": dataset.name,
        "unit": dataset.unit,
        "transform": dataset.transform,
        "rows": len(kept),
        "features": model.features,
        "coverage": [check["coverage"] for check in checks],
        "n_test": [check["n_test"] for check in checks],
        "coverage_mean": sum(check["coverage"] * check["n_test"] for check in checks) / n_test,
        "coverage_in_domain": [check["coverage_in_domain"] for check in checks],
        "in_domain": float(np.mean([check["in_domain"] for check in checks])),
        "mae": float(np.mean([check["mae"] for check in checks])),
        "width": float(np.mean([check["width"] for check in checks])),
        "seconds": round(time.perf_counter() - started, 1),
    }


def write_docs(rows: list[dict[str, Any]]) -> None:
    """The table, into docs/models.md."""
    lines = ["| data | rows | held out | inside their 90% interval, each tenth | together | mean error | mean width |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        scale = f"log10 {row['unit']}".strip() if row["transform"] == "log10" else row["unit"]
        each = ", ".join(f"{x:.1%}" for x in row["coverage"])
        held = " + ".join(map(str, row["n_test"]))
        errors = f"{row['mae']:.3g} {scale} | {row['width']:.3g} {scale}"
        lines.append(f"| {row['name']} | {row['rows']} | {held} | {each} | {row['coverage_mean']:.1%} | {errors} |")
    text = DOCS.read_text()
    block = "<!-- coverage -->\n" + "\n".join(lines) + "\n<!-- end of coverage -->"
    DOCS.write_text(re.sub(r"<!-- coverage -->.*<!-- end of coverage -->", lambda _: block, text, flags=re.S))


if __name__ == "__main__":
    main()
