"""Which head and acquisition a campaign uses: those that did best where the answer is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atomsets_core.discovery.acquisition import KINDS
from atomsets_core.discovery.heads import (
    AtomSetsHead,
    CompositionForestHead,
    CompositionRidgeHead,
    GaussianProcessHead,
    Head,
    RidgeHead,
)
from atomsets_core.discovery.simulate import pick

OWN = "AtomSets"
LINEAR = "AtomSets, linear readout"


def recipes(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The AtomSets models a campaign chooses between: as it describes them, and with a linear readout.

    The linear readout has no hidden layer after pooling: its prediction is a mean of what the sites contribute. Inside
    the training range that is a little worse, beyond it often better.

    Args:
        parameters: of `AtomSetsRegressor`.
    """
    return {OWN: dict(parameters), LINEAR: {**parameters, "rho": []}}


def campaign_heads(parameters: Mapping[str, Any]) -> dict[str, Head]:
    """The heads of a campaign's simulated discovery: its recipes, and what they must beat on the same features."""
    spec = str(parameters["features"])
    return {
        **{name: AtomSetsHead(recipe) for name, recipe in recipes(parameters).items()},
        "Gaussian process": GaussianProcessHead(spec),
        "ridge": RidgeHead(spec),
        "ridge, composition": CompositionRidgeHead(),
        "random forest, composition": CompositionForestHead(),
    }


def choose(
    runs: Sequence[Mapping[str, Any]], heads: Sequence[str], kinds: Sequence[str] = KINDS
) -> dict[str, Any] | None:
    """The head and acquisition to use, from means over the repeats; see `simulate.pick`.

    Args:
        runs: of `simulate.scored`.
        heads: that may be chosen, the preferred first.
        kinds: acquisitions that may be chosen, the preferred first.

    Returns:
        JSON: "head", "acquisition", "r_precision" (by that acquisition), "prevalence", "chance" (what blind picking
        stays below 39 times in 40), "better_than_random", and "compared": head -> acquisition -> mean R-precision. None
        without runs.
    """
    if not runs:
        return None
    table = {
        name: {kind: float(np.mean([run["heads"][name]["acquisition"][kind] for run in runs])) for kind in kinds}
        for name in heads
    }
    errors = {name: float(np.mean([run["heads"][name]["mae_outside"] for run in runs])) for name in heads}
    head, kind = pick(table, errors, runs[0]["n_hidden"])
    return {"head": head, "acquisition": kind, "compared": table, **verdict(runs, table[head][kind])}


def verdict(runs: Sequence[Mapping[str, Any]], r_precision: float) -> dict[str, Any]:
    """Whether an R-precision is better than chance.

    Blind picking finds a hypergeometric number of the hidden. Repeats hide the same rows, so they are counted as one.
    """
    hidden, pool = runs[0]["n_hidden"], runs[0]["n_pool"]
    prevalence = hidden / pool
    deviation = np.sqrt(prevalence * (1 - prevalence) / hidden * (pool - hidden) / max(pool - 1, 1))
    chance = float(min(prevalence + 1.96 * deviation, 1.0))
    return {
        "r_precision": r_precision,
        "prevalence": prevalence,
        "chance": chance,
        "better_than_random": bool(r_precision > chance),
    }
