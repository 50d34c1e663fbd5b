"""Simulated discovery: hide the best values, train on what remains, and see whether the model finds them.

The question a screening campaign asks is about materials better than any it was trained on. The check asks the same
question where the answer is known, with the campaign's own model and data, and nothing of the hidden part touches the
training: no scaler, no fold, no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core import metrics
from atomsets_core.baselines import composition_statistics, random_forest, ridge
from atomsets_core.estimators import AtomSetsRegressor
from atomsets_core.joined import AnyFeatures

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HEADS = ("AtomSets", "ridge, composition", "random forest, composition", "random", "oracle")


@dataclass(frozen=True)
class Holdout:
    """One simulated discovery.

    Attributes:
        train: row numbers to learn from.
        pool: row numbers to rank, in random order: a head that gives equal predictions must not gain from the order.
        hidden: (len(pool),) bool, the wanted rows of the pool.
    """

    train: IntArray
    pool: IntArray
    hidden: npt.NDArray[np.bool_]


def value_holdout(
    y: FloatArray,
    *,
    goal: str = "maximize",
    quantile: float = 0.1,
    pool_share: float = 0.2,
    seed: int = 0,
    groups: npt.NDArray[np.object_] | None = None,
) -> Holdout:
    """Hide the best share of the values; pool them with a random share of the rest.

    Args:
        y: (n,) values.
        goal: "maximize" hides the highest, "minimize" the lowest.
        quantile: share that is hidden.
        pool_share: share of the other rows that go into the pool, as what should not be picked.
        seed: of that choice.
        groups: (n,) labels such as reduced formulas; rows of the training part whose group is also in the pool are
            dropped from training, so that no polymorph gives the answer away.

    Returns:
        Disjoint training rows and pool; every training value is worse than every hidden one or equal to the boundary.

    Raises:
        ValueError: an unknown goal, or a share that leaves a part empty, also by the groups it shares with the pool.
    """
    if goal not in ("maximize", "minimize"):
        raise ValueError(f"a value holdout needs the goal maximize or minimize, not {goal!r}")
    n = len(y)
    k = round(quantile * n)
    order = np.argsort(-y if goal == "maximize" else y, kind="stable")
    random = np.random.default_rng(seed)
    rest = random.permutation(order[k:])
    n_seen = int(pool_share * len(rest))
    if k < 1 or n_seen < 1 or len(rest) - n_seen < 5:
        raise ValueError(f"{n} values are too few to hide {quantile:.0%} and pool {pool_share:.0%} of the rest")
    pool = random.permutation(np.concatenate([order[:k], rest[:n_seen]]))
    train = np.sort(rest[n_seen:])
    if groups is not None:
        train = train[~np.isin(groups[train].astype(str), groups[pool].astype(str))]
        if len(train) < 5:
            raise ValueError(f"{len(train)} rows are left to learn from when those of a group in the pool are dropped")
    return Holdout(train, pool, np.isin(pool, order[:k]))


def simulate(
    model: AtomSetsRegressor,
    features: AnyFeatures,
    y: FloatArray,
    *,
    goal: str,
    quantile: float,
    pool_share: float,
    seed: int,
) -> dict[str, Any]:
    """One simulated discovery with every head of `HEADS`.

    Args:
        model: unfitted; a copy with this seed is trained.
        features: of n structures.
        y: (n,) on the scale the model works on (log10 of the values where the transform says so).
        goal: see `value_holdout`, as the following.
        quantile: see there.
        pool_share: see there.
        seed: of the holdout and of the models.

    Returns:
        JSON: seed, sizes, and for each head its scores (None where one is not defined) and its hits among the first
        1, 2, ... of the pool.
    """
    split = value_holdout(y, goal=goal, quantile=quantile, pool_share=pool_share, seed=seed, groups=features.formula)
    sign = 1.0 if goal == "maximize" else -1.0
    heads = {}
    for name, predict in _heads(model, features, y, split, seed).items():
        predicted = predict()
        if name in ("random", "oracle"):
            heads[name] = _ranking_scores(split.hidden, sign * predicted)
        else:
            heads[name] = score(y[split.pool], predicted, split.hidden, sign)
    return {
        "seed": seed,
        "n_train": len(split.train),
        "n_pool": len(split.pool),
        "n_hidden": int(split.hidden.sum()),
        "boundary": float(y[split.train].max() if goal == "maximize" else y[split.train].min()),
        "heads": heads,
    }


def _heads(
    model: AtomSetsRegressor, features: AnyFeatures, y: FloatArray, split: Holdout, seed: int
) -> dict[str, Callable[[], FloatArray]]:
    train, pool = split.train, split.pool

    def atomsets() -> FloatArray:
        fresh = type(model)(**{**model.get_params(), "transform": "none", "seed": seed})
        return fresh.fit(features[train], y[train]).predict_distribution(features[pool]).mean

    statistics = composition_statistics(list(features.formula))

    def on_statistics(head: Any) -> FloatArray:
        return np.asarray(head.fit(statistics[train], y[train]).predict(statistics[pool]), dtype=np.float64)

    return {
        "AtomSets": atomsets,
        "ridge, composition": lambda: on_statistics(ridge()),
        "random forest, composition": lambda: on_statistics(random_forest(seed)),
        "random": lambda: np.random.default_rng(seed).random(len(pool)),
        "oracle": lambda: y[pool],
    }


def score(y: FloatArray, predicted: FloatArray, hidden: npt.NDArray[np.bool_], sign: float) -> dict[str, Any]:
    """Scores of one head on one pool; None where one is not defined, such as the correlation of one value.

    Args:
        y: (n,) true values of the pool.
        predicted: (n,) predictions for it.
        hidden: (n,) bool, the values outside the training range.
        sign: +1 where high values are wanted, -1 where low ones are.
    """
    scores = {
        "mae_outside": metrics.mean_absolute_error(y[hidden], predicted[hidden]),
        "mae_inside": metrics.mean_absolute_error(y[~hidden], predicted[~hidden]),
        "bias_outside": metrics.bias(y[hidden], predicted[hidden]),
        "spearman_outside": metrics.spearman(y[hidden], predicted[hidden]),
    }
    defined = {name: value if np.isfinite(value) else None for name, value in scores.items()}
    return {**_ranking_scores(hidden, sign * predicted), **defined}


def _ranking_scores(hidden: npt.NDArray[np.bool_], utility: FloatArray) -> dict[str, Any]:
    k = int(hidden.sum())
    return {
        "r_precision": metrics.r_precision(hidden, utility),
        "enrichment": metrics.enrichment(hidden, utility, k),
        "hits": metrics.hits(hidden, utility).tolist(),
    }


def summarize(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each head: the mean of every score over the seeds that define it, and the R-precision's error.

    None where no seed defines it; the error is the standard error of the mean.
    """
    rows = []
    for head in runs[0]["heads"]:
        scores = [run["heads"][head] for run in runs]
        row: dict[str, Any] = {"head": head}
        for name in ("r_precision", "enrichment", "mae_outside", "mae_inside", "bias_outside", "spearman_outside"):
            values = [s[name] for s in scores if s.get(name) is not None]
            row[name] = float(np.mean(values)) if values else None
        spread = [s["r_precision"] for s in scores]
        row["r_precision_se"] = float(np.std(spread, ddof=1) / np.sqrt(len(spread))) if len(spread) > 1 else None
        row["hits"] = np.mean([s["hits"] for s in scores], axis=0).tolist()
        rows.append(row)
    return rows
