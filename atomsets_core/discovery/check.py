"""Simulated discovery with one model against baselines, as `atomsets train` reports it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from atomsets_core.discovery.heads import AtomSetsHead, CompositionForestHead, CompositionRidgeHead, Head, Rows
from atomsets_core.discovery.simulate import Design, answer, scored, summarize
from atomsets_core.features import AnyFeatures
from atomsets_core.models import (
    AtomSetsRegressor,
)
from atomsets_core.transforms import transform_targets


def discovery_check(
    model: AtomSetsRegressor,
    features: AnyFeatures,
    values: npt.NDArray[np.float64],
    goal: str,
    seeds: int,
    quantile: float = 0.1,
    pool_share: float = 0.2,
) -> dict[str, Any]:
    """Simulated discovery: how the model does beyond the range it was trained in; see `discovery`.

    Returns:
        seeds, quantile, pool_share, goal, n_hidden, n_pool, and of each head its mean scores.
    """
    y = transform_targets(values, model.options_.transform)[:, 0]
    fresh = clone(model).set_params(features=str(model.spec_), **(model.choice_.parameters if model.choice_ else {}))
    heads: dict[str, Head] = {
        "AtomSets": AtomSetsHead(fresh.get_params()),
        "ridge, composition": CompositionRidgeHead(),
        "random forest, composition": CompositionForestHead(),
    }
    design, rows = Design(goal, quantile, pool_share), Rows(features)
    runs = [
        scored(
            {name: answer(head, rows, y, design, seed) for name, head in heads.items()},
            y,
            features.formula,
            design,
            seed,
        )
        for seed in range(seeds)
    ]
    options = {"goal": goal, "quantile": quantile, "pool_share": pool_share}
    table = [{name: value for name, value in row.items() if name != "hits"} for row in summarize(runs)]
    return {"seeds": seeds, **options, "n_hidden": runs[0]["n_hidden"], "n_pool": runs[0]["n_pool"], "heads": table}
