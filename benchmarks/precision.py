"""What bfloat16 on the bonds does to features and to the error of a model trained on them.

python benchmarks/precision.py [--members 10] [--seeds 3]

Embedded bulk and shear moduli; out-of-fold errors of the default recipe on features in float32 and in bfloat16, the
same folds and seeds. Runs on a CPU, which rounds as an accelerator does: products of bfloat16 summed in float32,
the result rounded. Speed is another matter and is not measured here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, describe, keep
from speed_page import write_page

from atomsets_core.models import AtomSetsRegressor
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_elastic

LEVELS = ("V0", "V1", "V2", "V3")
PARENTS = {"float32": "megnet", "bf16": "megnet-bf16"}
OUT = RESULTS / "precision.json"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    elastic = load_elastic()
    features = {name: load_parent(parent).featurize(elastic.structures) for name, parent in PARENTS.items()}
    result = describe(
        f"python benchmarks/precision.py --members {options.members} --epochs {options.epochs} --seeds {options.seeds}",
        ("torch", "numpy"),
        structures=len(features["float32"]),
    )
    result["levels"] = {}
    for level, exact in {**features["float32"].sites, **features["float32"].structure}.items():
        other = {**features["bf16"].sites, **features["bf16"].structure}[level]
        error = np.abs(other - exact)
        result["levels"][level] = {
            "mean_error_over_std": float(error.mean() / exact.std()),
            "largest_error_over_std": float(error.max() / exact.std()),
        }
    result["models"] = {}
    for target in ("K_VRH", "G_VRH"):
        y = elastic.columns[target].to_numpy()
        usable = y > 0
        rows: dict[str, list[float]] = {name: [] for name in PARENTS}
        for seed in range(options.seeds):
            for name, parent in PARENTS.items():
                model = AtomSetsRegressor(
                    f"{parent}:{'+'.join(LEVELS)}",
                    members=options.members,
                    epochs=options.epochs,
                    transform="log10",
                    seed=seed,
                )
                model.fit(features[name][usable], y[usable])
                rows[name].append(_error(model, np.log10(y[usable])))
                print(f"{target}, seed {seed}, {name}: {rows[name][-1]:.5f}", file=sys.stderr, flush=True)
                result["models"][target] = {**rows, "unit": "log10 GPa, out of fold"}
                keep(options.out, result)
    for target, row in result["models"].items():
        exact, low = np.mean(row["float32"]), np.mean(row["bf16"])
        print(f"{target}: float32 {exact:.5f}, bf16 {low:.5f} log10 GPa ({low / exact - 1:+.2%})")
    if options.out == OUT:
        write_page()


def _error(model: Any, truth: np.ndarray) -> float:
    return float(np.abs(model.oof_.mean - truth).mean())


if __name__ == "__main__":
    main()
