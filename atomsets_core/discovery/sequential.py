"""Sequential discovery: choose a batch, learn its values, train again, choose the next.

What a campaign of calculations would do, played on data whose values are known: how many calculations does it take to
find what is wanted, and how many would blind picking take?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from atomsets_core.discovery.acquisition import (
    ACQUISITIONS,
    UCB,
    Objective,
    acquisition,
    choose_batch,
    pareto_fronts,
    pareto_order,
    weighted_utility,
)
from atomsets_core.discovery.heads import Head, Rows
from atomsets_core.models import bootstrap_interval, budget_for

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STARTS = ("low", "random")


@dataclass(frozen=True)
class Search:
    """Rules of a sequential discovery.

    Attributes:
        objectives: property -> what is wanted of it.
        weights: property -> weight in the sum of utilities; 1 each where none are given.
        pareto: look for the Pareto front of the properties instead of the highest weighted sum.
        share: of all rows that count as wanted, the best ones (see `Objective.wanted`).
        start: "low": the first rows are drawn from the worse half; "random": from all that aren't wanted.
        n_start: rows known at the start.
        batch: rows chosen at a time.
        rounds: batches.
        kind: acquisition, see `ACQUISITIONS`; "random" picks blindly.
        kappa: of the acquisition.
        diversity: within a batch, see `choose_batch`.
    """

    objectives: Mapping[str, Objective] = field(default_factory=lambda: {"y": Objective()})
    weights: Mapping[str, float] = field(default_factory=dict)
    pareto: bool = False
    share: float = 0.01
    start: str = "low"
    n_start: int = 100
    batch: int = 25
    rounds: int = 20
    kind: str = UCB.name
    kappa: float = 1.0
    diversity: str = "none"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"no start {self.start!r}; there are {', '.join(STARTS)}")

    @property
    def name(self) -> str:
        """As in tables, e.g. "ucb, k-centre"."""
        return self.kind if self.diversity == "none" else f"{self.kind}, {self.diversity}"

    def weight(self, name: str) -> float:
        """Weight of a property; 1 where none is given."""
        return self.weights.get(name, 1.0)

    def utility(self, values: Mapping[str, FloatArray]) -> FloatArray:
        """(n,) how good rows are, from the true values of every property."""
        utilities = {name: objective.utility(values[name]) for name, objective in self.objectives.items()}
        if self.pareto:
            return pareto_order(np.stack(list(utilities.values()), axis=1))
        if len(utilities) == 1:
            return next(iter(utilities.values()))
        scales = {name: float(values[name].std()) for name in utilities}
        return weighted_utility(utilities, {name: self.weight(name) for name in utilities}, scales)

    def wanted(self, values: Mapping[str, FloatArray], allowed: Mask) -> Mask:
        """(n,) the rows to be found, among those allowed."""
        rows = np.flatnonzero(allowed)
        some = {name: values[name][rows] for name in self.objectives}
        if self.pareto:
            utilities = np.stack([o.utility(some[name]) for name, o in self.objectives.items()], axis=1)
            found = pareto_fronts(utilities) == 0
        elif len(self.objectives) == 1:
            name, objective = next(iter(self.objectives.items()))
            found = objective.wanted(some[name], self.share)
        else:
            found = Objective().wanted(self.utility(some), self.share)
        result = np.zeros(len(allowed), dtype=bool)
        result[rows] = found
        return result


def search(
    head: Head,
    rows: Rows,
    values: Mapping[str, FloatArray],
    rules: Search,
    seed: int,
    *,
    vectors: npt.NDArray[np.floating],
    allowed: Mask | None = None,
) -> dict[str, Any]:
    """Play one sequential discovery.

    Args:
        head: trained anew for each batch, on the rows known by then and nothing else.
        rows: n structures.
        values: property -> (n,) true values; of a row they are looked at when it has been chosen, and in the end.
        rules: what is wanted, how the search starts, chooses and ends.
        seed: of the start, of the head and of draws.
        vectors: (n, width) in which rows are alike or not, for diverse batches.
        allowed: (n,) bool, rows that meet the constraints; others are neither chosen nor wanted.

    Returns:
        JSON: n_pool, n_wanted, "found": wanted rows among the first 1, 2, ... chosen, "best": the best true utility
        so far after each batch.

    Raises:
        ValueError: nothing is wanted, or too few rows to start from.
    """
    n = len(rows)
    open_ = np.ones(n, dtype=bool) if allowed is None else allowed.copy()
    wanted = rules.wanted(values, open_)
    if not wanted.any():
        raise ValueError("nothing to search for: no allowed row meets the objective")
    utility = rules.utility(values)
    known = _start(utility, open_ & ~wanted, rules, seed)
    open_[known] = False
    n_pool = int(open_.sum())
    leading = _leading(vectors)
    random = np.random.default_rng([seed, 1])
    chosen: list[int] = []
    best: list[float] = []
    for round_ in range(rules.rounds):
        pool = np.flatnonzero(open_)
        if not len(pool):
            break
        if rules.kind == "random":
            score = random.random(len(pool))
        else:
            score = _scores(head, rows, values, rules, known, pool, [seed, round_], random)
        batch = pool[choose_batch(score, leading[pool], rules.batch, rules.diversity)]
        chosen.extend(int(row) for row in batch)
        open_[batch] = False
        known = np.concatenate([known, batch])
        best.append(float(utility[known].max()))
    return {
        "seed": seed,
        "search": rules.name,
        "n_start": rules.n_start,
        "n_pool": n_pool,
        "n_wanted": int(wanted.sum()),
        "found": np.cumsum(wanted[chosen]).tolist(),
        "best": best,
    }


def _start(utility: FloatArray, open_: Mask, rules: Search, seed: int) -> IntArray:
    rows = np.flatnonzero(open_)
    if rules.start == "low":
        rows = rows[utility[rows] <= np.median(utility[rows])]
    if len(rows) < rules.n_start:
        raise ValueError(f"{len(rows)} rows are too few to start from {rules.n_start}")
    return np.sort(np.random.default_rng([seed, 0]).permutation(rows)[: rules.n_start])


def _scores(
    head: Head,
    rows: Rows,
    values: Mapping[str, FloatArray],
    rules: Search,
    known: IntArray,
    pool: IntArray,
    seeds: list[int],
    random: np.random.Generator,
) -> FloatArray:
    """(len(pool),) acquisition scores from a head trained on the known rows; several properties are joined."""
    scores, scales = {}, {}
    for name, objective in rules.objectives.items():
        y = values[name][known]
        estimate = head.fit(rows[known], y, seeds[0] * 1000 + seeds[1])(rows[pool])
        best = float(y.min() if objective.goal == "minimize" else y.max())
        window = None if objective.low is None or objective.high is None else (objective.low, objective.high)
        scores[name] = acquisition(
            estimate.mean,
            estimate.std,
            goal=objective.goal,
            kind=rules.kind,
            kappa=rules.kappa,
            best=best,
            target=objective.value,
            window=window,
            random=random,
        )
        # Pure numbers have a scale of their own; other scores are in the unit of the property.
        scales[name] = 1.0 if ACQUISITIONS[rules.kind].unitless else float(y.std())
    if rules.pareto:
        return pareto_order(np.stack(list(scores.values()), axis=1))
    if len(scores) == 1:
        return next(iter(scores.values()))
    return weighted_utility(scores, {name: rules.weight(name) for name in scores}, scales)


def _leading(vectors: npt.NDArray[np.floating]) -> FloatArray:
    """(n, up to 20) principal components of standardised columns; labels play no part in them."""
    scale = vectors.std(axis=0, dtype=np.float64)
    standardised = (vectors - vectors.mean(axis=0, dtype=np.float64)) / np.where(scale > 1e-6, scale, 1.0)
    result: FloatArray = PCA(n_components=min(20, *standardised.shape), svd_solver="full").fit_transform(standardised)
    return result


def random_budget(n_wanted: int, n_pool: int, share: float) -> float:
    """Mean number of blind picks from a pool until this share of the wanted is found.

    The j-th of k wanted rows stands on average at place j (n + 1) / (k + 1) of a random order.
    """
    needed = int(np.ceil(share * n_wanted - 1e-9))
    return needed * (n_pool + 1) / (n_wanted + 1)


def summarize_searches(runs: list[dict[str, Any]], share: float = 0.5) -> list[dict[str, Any]]:
    """One row for each kind of search: the budget that finds a share of the wanted, against blind picking.

    Args:
        runs: of `search`, of several kinds and seeds.
        share: of the wanted.

    Returns:
        For each kind: "reached" of how many seeds, "budget" and "multiple" (budget over that of blind picking) with
        their bootstrap intervals, over the seeds that reached it; None where none did. "curve": mean wanted rows found.
    """
    rows = []
    for name in dict.fromkeys(run["search"] for run in runs):
        own = [run for run in runs if run["search"] == name]
        budgets, multiples = [], []
        for run in own:
            budget = budget_for(np.array(run["found"]), np.ceil(share * run["n_wanted"] - 1e-9))
            budgets.append(budget)
            multiples.append(budget / random_budget(run["n_wanted"], run["n_pool"], share))
        reached = np.isfinite(budgets)
        length = min(len(run["found"]) for run in own)
        rows.append(
            {
                "search": name,
                "seeds": len(own),
                "reached": int(reached.sum()),
                "budget": _mean(budgets),
                "budget_interval": _interval(budgets),
                "multiple": _mean(multiples),
                "multiple_interval": _interval(multiples),
                "curve": np.mean([run["found"][:length] for run in own], axis=0).tolist(),
            }
        )
    return rows


def _mean(values: list[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def _interval(values: list[float]) -> list[float] | None:
    low, high = bootstrap_interval(values)
    return [low, high] if np.isfinite(low) else None
