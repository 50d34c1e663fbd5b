"""Searches by several properties at once on the embedded elastic data: how much of the Pareto front a tenth finds.

Of 1,179 crystals with a bulk and a shear modulus 30 % of the formulas are known; a model of each property learns from
these alone, and the others are ranked by all ways there are. Wanted are a high K, a high G and a low ratio G/K (Pugh,
Philos. Mag. 45, 823 (1954): ductile), by twos and all together.

    python benchmarks/several_properties.py --out benchmarks/results/several_properties.json --write-docs
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe, keep

from atomsets_core.discovery import Goal, hypervolume, judge, known_of, non_dominated
from atomsets_core.models import AtomSetsRegressor
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_elastic

KNOWN, BUDGET, BLIND = 0.3, 0.1, 50

QUESTIONS = {
    "high K, high G": [Goal("K", "maximize"), Goal("G", "maximize")],
    "high K, low G/K": [Goal("K", "maximize"), Goal("ratio", "minimize")],
    "high G, low G/K": [Goal("G", "maximize"), Goal("ratio", "minimize")],
    "all three": [Goal("K", "maximize"), Goal("G", "maximize"), Goal("ratio", "minimize")],
    "high G, G/K below 0.57 with 50 %": [
        Goal("G", "maximize"), Goal("ratio", "below", value=float(np.log10(0.57)), at_least=0.5),
    ],
}  # fmt: skip

DOCS = Path(__file__).parents[1] / "docs" / "discovery.md"
MARKS = ("<!-- several properties -->", "<!-- end of several properties -->")


def one_seed(seed: int, features, values: dict, formulas: np.ndarray) -> dict:
    """Scores of every way to rank, for each question."""
    random = np.random.default_rng(seed)
    names = np.unique(formulas)
    learned = np.isin(formulas, names[random.permutation(len(names))[: round(KNOWN * len(names))]])
    pool = np.flatnonzero(~learned)
    mean, std = {}, {}
    for name, y in values.items():
        model = AtomSetsRegressor("megnet:V0+V1+V2+V3", seed=seed, device="cpu")
        model.fit(features[np.flatnonzero(learned)], y[learned])
        found = model.predict_distribution(features[pool])
        mean[name], std[name] = found.mean, found.std
    budget, out = round(BUDGET * len(pool)), {}
    for question, goals in QUESTIONS.items():
        labels = {name: y[learned] for name, y in values.items()}
        known = known_of(goals, labels, labels)
        axes = [goal for goal in goals if not goal.is_limit]
        fit = np.ones(len(pool), dtype=bool)
        for goal in goals:
            if goal.is_limit:
                fit &= goal.met(values[goal.name][pool])
        points = np.stack([goal.utility(values[goal.name][pool]) for goal in axes], axis=1)
        wanted = fit.copy()
        if len(axes) > 1:
            wanted[fit] = non_dominated(points[fit])
        else:
            wanted &= points[:, 0] >= np.sort(points[fit, 0])[-round(BUDGET * int(fit.sum()))]
        before = hypervolume(known.points, known.floor)

        def scores(rows, fit=fit, points=points, known=known, before=before, wanted=wanted):
            good = rows[fit[rows]]
            whole = hypervolume(np.concatenate([known.points, points[fit]]), known.floor) - before
            added = hypervolume(np.concatenate([known.points, points[good]]), known.floor) - before
            return [added / whole if whole > 0 else np.nan, wanted[rows].sum() / wanted.sum()]

        ways = ("hypervolume", "front", "weights") if len(axes) > 1 else ("hypervolume", "weights")
        row = {
            way: scores(np.argsort(-judge(goals, mean, std, known, way).score, kind="stable")[:budget]) for way in ways
        }
        for goal in axes:
            row[f"{goal.name} alone"] = scores(np.argsort(-goal.utility(mean[goal.name]), kind="stable")[:budget])
        row["random"] = np.mean([scores(random.permutation(len(pool))[:budget]) for _ in range(BLIND)], axis=0).tolist()
        out[question] = {name: [float(v) for v in pair] for name, pair in row.items()}
    return {"n_known": int(learned.sum()), "n_pool": len(pool), "budget": budget, "questions": out}


def table(found: dict) -> str:
    """The page's table: volume gained and front found, mean and standard error over the seeds."""
    lines = ["| wanted | ranked by | volume gained | front found |", "|---|---|---|---|"]
    for question in QUESTIONS:
        runs = [run["questions"][question] for run in found["runs"]]
        for way in runs[0]:
            cells = []
            for k in (0, 1):
                values = np.array([run[way][k] for run in runs])
                values = values[np.isfinite(values)]
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
                cells.append(f"{values.mean():.0%} ± {error:.0%}" if len(values) > 1 else "none")
            lines.append(f"| {question} | {way} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or read what was measured; print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write-docs", action="store_true", help="also into docs/discovery.md")
    parser.add_argument("--stored", action="store_true", help="from what is kept in --out")
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.stored else measure(asked.seeds, asked.out)
    print(table(found))
    if asked.write_docs:
        text = DOCS.read_text()
        start, end = (text.index(mark) for mark in MARKS)
        DOCS.write_text(f"{text[: start + len(MARKS[0])]}\n\n{table(found)}\n\n{text[end:]}")


def measure(seeds: int, out: Path) -> dict:
    """Run the seeds and keep the figures."""
    torch.set_num_threads(1)
    pulled = load_elastic()
    k, g = (pulled.columns[name].to_numpy(dtype=np.float64) for name in ("K_VRH", "G_VRH"))
    rows = np.flatnonzero((k > 0) & (g > 0))
    structures = pulled.structures.take(rows)
    features = load_parent("megnet").featurize(structures, ["V0", "V1", "V2", "V3"])
    values = {"K": np.log10(k[rows]), "G": np.log10(g[rows]), "ratio": np.log10(g[rows] / k[rows])}
    formulas, started = np.asarray(structures.formulas, dtype=str), time.process_time()
    runs = [one_seed(seed, features, values, formulas) for seed in range(seeds)]
    command = f"python benchmarks/several_properties.py --seeds {seeds}"
    about = describe(command, ("torch", "numpy"), cpu_seconds=round(time.process_time() - started))
    found = {**about, "runs": runs}
    keep(out, found)
    return found


if __name__ == "__main__":
    main()
