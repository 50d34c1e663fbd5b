"""One simulated discovery of a campaign, from its labelled structures to a file of scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from atomsets_core.discovery import Design, Rows, answer, campaign_heads, scored
from atomsets_core.features import gather_features
from atomsets_core.jobs.train import read_labelled
from atomsets_core.storage import Store, seal
from atomsets_core.transforms import transform_target


def simulate_seed(
    store_url: str,
    feature_url: str,
    parent: str,
    digest: str,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """One simulated discovery on the labelled structures with every head of a campaign, its scores written as JSON.

    Args:
        store_url: of the campaign.
        feature_url: of the features.
        parent: see `gather_features`.
        digest: of the parent; with its name it says which folder holds the shards.
        parameters: of the campaign's model.
        options: goal, quantile and pool_share of the `Design`, and kappa of the acquisition ucb.
        seed: of the holdout and of the heads.
        name: of the file.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    store = Store(store_url)
    table, values = read_labelled(store)
    levels = parameters["features"].partition(":")[2].split("+")
    features = gather_features(Store(feature_url), parent, digest, levels, table["structure_hash"].to_pylist())
    target = transform_target(values, parameters["transform"])
    design = Design(options["goal"], options["quantile"], options["pool_share"])
    rows = Rows(features)
    answers = {head: answer(fit, rows, target, design, seed) for head, fit in campaign_heads(parameters).items()}
    found = scored(answers, target, features.formula, design, seed, kappa=options["kappa"])
    store.write_json(name, {**found, "seconds": {head: part["seconds"] for head, part in answers.items()}})
    seal(store, name)
    return {"seconds": time.perf_counter() - started}
