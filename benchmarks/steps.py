"""Error on a held-out fold against the number and size of steps, for the rule behind batch_size="auto".

    python benchmarks/steps.py --data mp2018_megnet_eform_gap.parquet --target e_form --store features \
        --rows 51149 --choices 60,64 60,320 30,320 30,64 --out benchmarks/results/steps-51149.json

Two members of the default network, whole formulas held out, features from a store that has them. A choice is passes
over the data and structures a step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from atomsets_core.features import FeatureStore, featurize_into
from atomsets_core.models import (
    AtomSetsNetwork,
    AtomSetsRegressor,
    TrainingData,
    TrainingOptions,
    apply,
    group_folds,
    train,
)
from atomsets_core.sources import pull
from atomsets_core.storage import Store

LEVELS = ("V0", "V1", "V2", "V3")


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--choices", nargs="+", required=True, help="passes,structures a step")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pulled = pull(str(options.data))
    chosen = np.sort(np.random.default_rng(0).permutation(len(pulled.structures))[: options.rows])
    where = FeatureStore.of(Store(options.store), "megnet", LEVELS)
    stored = featurize_into(where, pulled.structures.take(chosen))
    values = dict(zip(pulled.structures.material_id, pulled.columns[options.target], strict=True))
    y = np.array([values[name] for name in stored.material_id], dtype=np.float64)[:, None]
    data = TrainingData.gathered(
        stored, lambda block: block.site_matrix(LEVELS), lambda block: block.structure_matrix(())
    )
    test = group_folds(stored.formula, 5, 0) == 0
    rows = []
    print("| passes | structures a step | steps | seconds | error |\n|---|---|---|---|---|")
    for choice in options.choices:
        epochs, size = (int(number) for number in choice.split(","))
        rows.append(one(data, y, test, epochs, size))
        row = rows[-1]
        print(f"| {epochs} | {size} | {row['steps']:,} | {row['seconds']:.0f} | {row['error']:.4f} |", flush=True)
    result = {
        "command": "python benchmarks/steps.py "
        f"--data {options.data.name} --target {options.target} --store STORE --rows {options.rows} "
        f"--choices {' '.join(options.choices)}",
        "n_train": int((~test).sum()),
        "n_test": int(test.sum()),
        "seed": 0,
        "machine": f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}",
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("torch", "numpy")},
        "rows": rows,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def one(data: TrainingData, y: np.ndarray, test: np.ndarray, epochs: int, size: int) -> dict[str, float]:
    """Train two members on the rows outside the test fold; the error of their mean inside."""
    model, started = AtomSetsRegressor(), time.perf_counter()
    torch.manual_seed(0)
    network = AtomSetsNetwork(2, data.sites.shape[1], phi=model.phi, rho=model.rho, pooling=model.pooling)
    how = TrainingOptions(epochs, size, model.learning_rate, model.weight_decay, model.loss, seed=0)
    train(network, data, y, np.repeat(~test[None], 2, axis=0), how)
    seconds = time.perf_counter() - started
    predicted = apply(network, data).mean(axis=0)
    return {
        "epochs": epochs,
        "batch_size": size,
        "steps": epochs * -(-int((~test).sum()) // size),
        "seconds": seconds,
        "error": float(np.abs(predicted - y)[test].mean()),
    }


if __name__ == "__main__":
    main()
