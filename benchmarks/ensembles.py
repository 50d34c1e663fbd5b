"""What an ensemble trained as one network costs, against one network and against its members one after another.

    python benchmarks/ensembles.py --out benchmarks/results/ensembles.json --write-docs

Embedded elastic data, the default recipe, the same loop for every row of the table. The rows take turns and each counts
with its fastest turn, so that a busy moment of the machine hits no row alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atomsets_core.models import AtomSetsNetwork, AtomSetsRegressor, TrainingData, TrainingOptions, apply, train
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_elastic

DOCS = Path(__file__).resolve().parent.parent / "docs" / "training.md"
LEVELS = ("V0", "V1", "V2", "V3")


def main() -> None:
    """Measure, store, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="No Pauling electronegativity")
    data, y = elastic()
    ways: dict[str, tuple[int, int]] = {
        "one network": (1, 1),
        f"ensemble of {options.members}, as one network": (options.members, 1),
        f"{options.members} networks, one after another": (1, options.members),
    }
    rows = measure(ways, data, y, options.turns)
    single = rows[0]["seconds"]
    for row in rows:
        row["times_one_network"] = row["seconds"] / single
    result = {
        "command": f"python benchmarks/ensembles.py --members {options.members} --turns {options.turns}",
        "data": f"embedded:elastic, log10 K_VRH, {len(data)} structures, {len(data.sites)} sites after merging",
        "recipe": recipe_options().__dict__,
        "seed": 0,
        "machine": f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}",
        "threads": options.threads,
        "versions": {package: version(package) for package in ("torch", "numpy")},
        "rows": rows,
    }
    print(table(rows))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.write_docs:
        block = f"{table(rows)}\n\n{result['machine']}, {options.threads} threads, `{result['command']}`.\n"
        text = DOCS.read_text()
        pattern = r"(?s)(<!-- ensembles -->\n).*?(<!-- end of ensembles -->)"
        DOCS.write_text(re.sub(pattern, lambda m: m[1] + block + m[2], text))


def elastic() -> tuple[TrainingData, np.ndarray]:
    """Features and log10 bulk moduli of the embedded elastic tensors."""
    source = load_elastic()
    features = load_parent("megnet").featurize(source.structures, LEVELS)
    values = dict(zip(source.structures.material_id, source.columns["K_VRH"], strict=True))
    data = TrainingData.gathered(
        features, lambda block: block.site_matrix(LEVELS), lambda block: block.structure_matrix(())
    )
    return data, np.log10([values[name] for name in features.material_id])[:, None]


def recipe_options() -> TrainingOptions:
    """The default recipe."""
    model = AtomSetsRegressor()
    return TrainingOptions(model.epochs, 64, model.learning_rate, model.weight_decay, model.loss, seed=0)


def measure(ways: dict[str, tuple[int, int]], data: TrainingData, y: np.ndarray, turns: int) -> list[dict[str, Any]]:
    """Fastest turn of each way: members of a network, and networks trained one after another."""
    model = AtomSetsRegressor()
    test = np.arange(len(data)) % 5 == 0
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    errors: dict[str, float] = {}
    for _ in range(turns):
        for name, (members, repeats) in ways.items():
            started, found = time.perf_counter(), []
            for repeat in range(repeats):
                torch.manual_seed(repeat)
                network = AtomSetsNetwork(members, data.sites.shape[1], phi=model.phi, rho=model.rho, pooling=("mean",))
                train(network, data, y, np.repeat(~test[None], members, axis=0), recipe_options())
                found.append(network)
            seconds[name].append(time.perf_counter() - started)
            predicted = np.concatenate([apply(network, data) for network in found]).mean(axis=0)
            errors[name] = float(np.abs(predicted - y)[test].mean())
    return [
        {"way": name, "seconds": min(seconds[name]), "turns": seconds[name], "test_error": errors[name]}
        for name in ways
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| trained | seconds | times one network | error on a held-out fifth, log10 GPa |", "|---|---|---|---|"]
    lines += [
        f"| {row['way']} | {row['seconds']:.2f} | {row['times_one_network']:.2f} | {row['test_error']:.4f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
