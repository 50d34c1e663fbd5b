"""How well a ranking by several properties at once would have found what is known: a search with hidden values.

Predictions are those of the models' held-out members. A share of the materials whose values are all known counts as
known from the start; the others are ranked as candidates are, and the first of them are looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.discovery.goals import COMBINATIONS, Goal, judge, known_of
from atomsets_core.discovery.pareto import hypervolume, non_dominated

FloatArray = npt.NDArray[np.float64]

FEWEST = 40
"""Materials of which all values are known, for such a search to say anything."""

KNOWN = 0.2
"""Share of the materials that counts as known."""

BUDGET = 0.1
"""Share of the others that is looked up."""

BLIND = 20
"""Random choices whose mean is shown."""


def search_together(
    goals: Sequence[Goal],
    values: Mapping[str, FloatArray],
    mean: Mapping[str, FloatArray],
    std: Mapping[str, FloatArray],
    seed: int,
) -> dict[str, Any] | None:
    """One search among materials of which everything is known.

    Args:
        goals: each of another property, on the scale of its model.
        values: property -> (n,) known values.
        mean: property -> (n,) predictions by members that had not seen the material.
        std: property -> (n,) their deviations.
        seed: which materials count as known.

    Returns:
        n_known, n_pool, budget, n_front (hidden materials on the front) and, by strategy, "gained" (volume the choice
        adds, as a share of what the whole pool adds; of goals without axes the share of the pool's feasible materials)
        and "found" (share of the front). Strategies are `COMBINATIONS`, "KEY alone" for each axis, and "random".
        None where materials are too few or nothing can be gained.
    """
    axes = [goal for goal in goals if not goal.is_limit]
    n = len(next(iter(values.values())))
    if n < FEWEST:
        return None
    order = np.random.default_rng(seed).permutation(n)
    seen, pool = np.sort(order[: round(KNOWN * n)]), np.sort(order[round(KNOWN * n) :])
    known = known_of(goals, {k: v[seen] for k, v in values.items()}, {k: v[seen] for k, v in values.items()})
    fit = np.ones(len(pool), dtype=bool)
    for goal in goals:
        if goal.is_limit:
            fit &= goal.met(values[goal.name][pool])
    points = (
        np.stack([goal.utility(values[goal.name][pool]) for goal in axes], axis=1) if axes else np.empty((len(pool), 0))
    )
    wanted = fit.copy()
    if len(axes) > 1:
        wanted[fit] = non_dominated(points[fit])
    elif axes and fit.any():
        wanted &= points[:, 0] >= np.sort(points[fit, 0])[-max(1, round(BUDGET * int(fit.sum())))]
    budget = max(1, round(BUDGET * len(pool)))
    before = hypervolume(known.points, known.floor) if axes else 0.0

    def gained(rows: npt.NDArray[np.int64]) -> float:
        rows = rows[fit[rows]]
        if not axes:
            return float(len(rows))
        return hypervolume(np.concatenate([known.points, points[rows]]), known.floor) - before

    most = gained(np.arange(len(pool)))
    if most <= 0 or not wanted.any():
        return None
    there = {k: v[pool] for k, v in mean.items()}
    width = {k: v[pool] for k, v in std.items()}

    def scores(rows: npt.NDArray[np.int64]) -> dict[str, float]:
        return {"gained": gained(rows) / most, "found": float(wanted[rows].sum() / wanted.sum())}

    found = {}
    ways = COMBINATIONS if len(axes) > 1 else ("hypervolume", "weights") if axes else COMBINATIONS[:1]
    for name in ways:
        score = judge(goals, there, width, known, name).score
        found[name] = scores(np.argsort(-score, kind="stable")[:budget])
    for goal in axes:
        best = np.argsort(-goal.utility(there[goal.name]), kind="stable")[:budget]
        found[f"{goal.name} alone"] = scores(best)
    random = np.random.default_rng(seed)
    blind = [scores(random.permutation(len(pool))[:budget]) for _ in range(BLIND)]
    found["random"] = {name: float(np.mean([row[name] for row in blind])) for name in ("gained", "found")}
    return {
        "n_known": len(seen), "n_pool": len(pool), "budget": budget, "n_front": int(wanted.sum()), "strategies": found,
    }  # fmt: skip


def summarize_together(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard error of each strategy over repeats: "strategy", "gained", "gained_error", "found", ..."""
    rows = []
    for name in runs[0]["strategies"]:
        row: dict[str, Any] = {"strategy": name}
        for score in ("gained", "found"):
            values = np.array([run["strategies"][name][score] for run in runs])
            row[score] = float(values.mean())
            row[f"{score}_error"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        rows.append(row)
    return rows


def best_combination(runs: Sequence[Mapping[str, Any]]) -> str:
    """The way to combine that gained most; another than the first must lead it by two standard errors."""
    first = COMBINATIONS[0]
    if not runs:
        return first
    best, lead = first, 0.0
    for name in COMBINATIONS[1:]:
        if name not in runs[0]["strategies"]:
            continue
        ahead = np.array([run["strategies"][name]["gained"] - run["strategies"][first]["gained"] for run in runs])
        error = float(ahead.std(ddof=1) / np.sqrt(len(ahead))) if len(ahead) > 1 else np.inf
        if ahead.mean() > max(lead, 2.0 * error):
            best, lead = name, float(ahead.mean())
    return best
