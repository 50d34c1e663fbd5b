"""One simulated discovery of a campaign, from its labelled structures to a file of scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from atomsets_core.discovery import Design, Rows, answer, campaign_heads, scored
from atomsets_core.features import FeatureStore
from atomsets_core.jobs.train import read_labelled
from atomsets_core.storage import Store, seal
from atomsets_core.transforms import transform_target


def simulate_seed(
    store: Store,
    features: FeatureStore,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """One simulated discovery on the labelled structures with every head of a campaign, its scores written as JSON.

    Args:
        store: of the campaign.
        features: of the labelled structures.
        parameters: of the campaign's model.
        options: goal, quantile and pool_share of the `Design`, and kappa of the acquisition ucb.
        seed: of the holdout and of the heads.
        name: of the file.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    table, values = read_labelled(store)
    found = features.find(table["structure_hash"].to_pylist()).load()
    target = transform_target(values, parameters["transform"])
    design = Design(options["goal"], options["quantile"], options["pool_share"])
    rows = Rows(found)
    answers = {head: answer(fit, rows, target, design, seed) for head, fit in campaign_heads(parameters).items()}
    scores = scored(answers, target, found.formula, design, seed, kappa=options["kappa"])
    store.write_json(name, {**scores, "seconds": {head: part["seconds"] for head, part in answers.items()}})
    seal(store, name)
    return {"seconds": time.perf_counter() - started}
