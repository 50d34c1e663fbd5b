"""AtomSets against the graph network itself: MEGNet from scratch and fine-tuned, on the embedded bulk and shear moduli.

python benchmarks/graph_network.py --out benchmarks/results/graph_network.json
python benchmarks/graph_network.py --write-docs benchmarks/results/graph_network.json [--parent PARENT_DIR/parent.json]

The second form measures nothing and writes the tables of docs/graph-network.md again. All models see the same five
folds, in which rows of one reduced formula stay together, and one thread; a test fold is only predicted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atomsets_core.models import AtomSetsRegressor, GraphSet, MEGNetRegressor, build_graphs, formula_groups
from atomsets_core.parents import CUTOFF, load_parent
from atomsets_core.sources import load_elastic
from atomsets_core.structures import Structures

PAGE = Path(__file__).resolve().parents[1] / "docs" / "graph-network.md"

FEATURES = "megnet:V0+V1+V2+V3"


MODELS: dict[str, Any] = {
    "mean of the training rows": None,
    "AtomSets, 10 networks": AtomSetsRegressor(FEATURES, transform="log10"),
    "AtomSets, 1 network": AtomSetsRegressor(FEATURES, transform="log10", members=1, folds=0),
    "MEGNet from scratch": MEGNetRegressor(transform="log10"),
    "MEGNet fine-tuned": MEGNetRegressor("megnet", transform="log10", epochs=30),
    "MEGNet fine-tuned, 5 networks": MEGNetRegressor("megnet", transform="log10", epochs=30, members=5),
    "MEGNet fine-tuned, two blocks frozen": MEGNetRegressor("megnet", transform="log10", epochs=30, frozen_blocks=2),
}
"""Unfitted; what is not said is the default of the class."""


def main() -> None:
    """Measure, or write the page from what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the result goes")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--targets", default="K_VRH", help="columns of the embedded elastic data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parent", type=Path, help="parent.json of a parent trained on mp2018, for the page")
    parser.add_argument("--write-docs", type=Path, metavar="RESULT", help="only write the tables of the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.write_docs:
        result = json.loads(options.write_docs.read_text())
        if options.parent:
            result["parent"] = parent_result(json.loads(options.parent.read_text()))
            options.write_docs.write_text(json.dumps(result, indent=1) + "\n")
        write_page(result)
        return
    result = measure(options)
    text = json.dumps(result, indent=1) + "\n"
    if not options.out:
        print(text)
        return
    if options.out.exists() and "parent" in (before := json.loads(options.out.read_text())):
        result["parent"] = before["parent"]
        text = json.dumps(result, indent=1) + "\n"
    options.out.write_text(text)
    write_page(result)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as the JSON that is stored."""
    data = load_elastic()
    structures = data.structures
    started = time.perf_counter()
    graphs = build_graphs(structures, CUTOFF)
    build_seconds = time.perf_counter() - started
    whole = build_graphs(structures, CUTOFF, resolution=0, merge=False)
    fold = grouped_folds(structures.formulas, options.folds, options.seed)
    return {
        "command": f"python benchmarks/graph_network.py --folds {options.folds} --targets {options.targets}",
        "date": time.strftime("%Y-%m-%d"),
        "seed": options.seed,
        "threads": 1,
        "load_before": os.getloadavg()[0],
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "numba", "numpy", "scikit-learn")},
        "structures": len(structures),
        "folds": options.folds,
        "graphs": {
            "seconds": build_seconds,
            "bonds": int(graphs.n_bonds.sum()),
            "bonds_without_merging": int(whole.n_bonds.sum()),
        },
        "epoch_seconds_per_1000": epoch_seconds(graphs, data.columns["K_VRH"].to_numpy(), whole),
        "targets": {
            target: compare(structures, graphs, data.columns[target].to_numpy(dtype=np.float64), fold)
            for target in options.targets.split(",")
        },
    }


def grouped_folds(formulas: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each row; rows of one formula in one fold."""
    group = formula_groups(formulas)
    return (np.random.default_rng(seed).permutation(int(group.max()) + 1) % folds)[group]


def compare(structures: Structures, graphs: GraphSet, y: np.ndarray, fold: np.ndarray) -> dict[str, Any]:
    """Errors (log10 GPa) and seconds of every model."""
    out: dict[str, Any] = {}
    for name, model in MODELS.items():
        errors, wall, processor_time = [], 0.0, 0.0
        for k in range(int(fold.max()) + 1):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            began, used = time.perf_counter(), time.process_time()
            predicted = predict(model, structures, graphs, y, train, test)
            wall += time.perf_counter() - began
            processor_time += time.process_time() - used
            errors.append(np.abs(predicted - np.log10(y[test])))
        per_fold = [float(e.mean()) for e in errors]
        out[name] = {
            "mae": float(np.concatenate(errors).mean()),
            "mae_of_folds": per_fold,
            "seconds_per_fold": wall / len(per_fold),
            "processor_seconds_per_fold": processor_time / len(per_fold),
            "parameters": parameters_of(model),
        }
        print(f"{name}: {out[name]['mae']:.4f}, {processor_time / len(per_fold):.1f} s a fold", file=sys.stderr)
    return out


def predict(
    model: Any, structures: Structures, graphs: GraphSet, y: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """(len(test),) log10 of the predicted values of the test rows, featurisation included in the time."""
    if model is None:
        return np.full(len(test), np.log10(y[train]).mean())
    if isinstance(model, MEGNetRegressor):
        return np.log10(model.fit(graphs.take(train), y[train]).predict(graphs.take(test)))
    features = load_parent("megnet").featurize(structures, ["V0", "V1", "V2", "V3"])
    return np.log10(model.fit(features[train], y[train]).predict(features[test]))


def parameters_of(model: Any) -> dict[str, Any]:
    """What differs from the defaults of the class."""
    if model is None:
        return {}
    usual = type(model)().get_params()
    return {name: value for name, value in model.get_params().items() if value != usual[name]}


def epoch_seconds(graphs: GraphSet, y: np.ndarray, whole: GraphSet) -> dict[str, float]:
    """Processor seconds of one epoch over 1,000 structures, from the second on, with and without merging."""
    out = {}
    for name, one in (("merged", graphs), ("not merged", whole)):
        times = [time.process_time()]
        model = MEGNetRegressor(transform="log10", epochs=3, validation_fraction=0)
        model.fit(one, y, progress=lambda *_, times=times: times.append(time.process_time()))  # type: ignore[misc]
        out[name] = min(np.diff(times)[1:]) * 1000 / len(one)
    return out


def processor() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def parent_result(card: dict[str, Any]) -> dict[str, Any]:
    """What the page says of a trained parent."""
    keys = ("digest", "target", "n_train", "n_validation", "n_test", "n_refused", "cutoff", "split", "seconds", "seed")
    recipe = {name: card["recipe"][name] for name in ("epochs", "batch_size", "learning_rate", "loss", "resolution")}
    kept = {key: card[key] for key in keys}
    return {**kept, "recipe": recipe, "metrics": card["metrics"], "history": card["history"]}


def write_page(result: dict[str, Any]) -> None:
    """Put the tables into docs/graph-network.md."""
    lines = []
    for target, rows in result["targets"].items():
        lines += [
            f"{target}, log10 GPa, {result['structures']} structures, {result['folds']} folds grouped by formula:",
            "",
            "| model | mean absolute error | of the folds | processor seconds a fold |",
            "|---|---|---|---|",
        ]
        for name, row in rows.items():
            folds = f"{min(row['mae_of_folds']):.4f} to {max(row['mae_of_folds']):.4f}"
            lines.append(f"| {name} | {row['mae']:.4f} | {folds} | {row['processor_seconds_per_fold']:.1f} |")
        lines.append("")
    graphs, epoch = result["graphs"], result["epoch_seconds_per_1000"]
    lines += [
        f"One thread of {result['processor']}, torch {result['versions']['torch']}, seed {result['seed']}, "
        f"{result['date']}: `{result['command']}`. The time of AtomSets includes the features.",
        "",
        f"Merging leaves {graphs['bonds']:,} of {graphs['bonds_without_merging']:,} bonds; an epoch over 1,000 of "
        f"these structures takes {epoch['merged']:.2f} processor seconds, without merging {epoch['not merged']:.2f}.",
    ]
    replace("comparison", lines)
    if "parent" in result:
        replace("parent", parent_lines(result["parent"]))


def parent_lines(parent: dict[str, Any]) -> list[str]:
    """The table of a trained parent."""
    recipe, metrics = parent["recipe"], parent["metrics"]
    lines = [
        f"{parent['n_train']:,} structures to learn from, {recipe['epochs']} epochs, cutoff {parent['cutoff']:g} Å, "
        f"distances to {recipe['resolution']:g} Å, {parent['seconds'] / 60:.0f} minutes of one thread on a machine "
        "with other work:",
        "",
        "| part | structures | mean absolute error, eV/atom | the training mean |",
        "|---|---|---|---|",
    ]
    for part, row in metrics.items():
        lines.append(f"| {part} | {row['n']:,} | {row['mae']:.4f} | {row['mae_of_mean']:.3f} |")
    return lines


def replace(name: str, lines: list[str]) -> None:
    """Put lines between the two marks of a name in the page."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = PAGE.read_text()
    before, after = text.split(start)[0], text.split(end)[1]
    PAGE.write_text(before + start + "\n" + "\n".join(lines) + "\n" + end + after)


if __name__ == "__main__":
    main()
