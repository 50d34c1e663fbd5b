"""One simulated discovery of a campaign, from its labelled structures to a file of scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from atomsets_core.discovery import Rows, answer, campaign_heads, design_of, scored_by
from atomsets_core.features import AnyStore
from atomsets_core.jobs.choose import Choosing, chosen
from atomsets_core.jobs.train import read_labelled
from atomsets_core.storage import Store, seal
from atomsets_core.transforms import transform_target


def simulate_seed(
    store: Store,
    features: AnyStore,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int,
    name: str,
    choosing: Choosing | None = None,
) -> dict[str, Any]:
    """One simulated discovery on the labelled structures with every head of a campaign, its scores written as JSON.

    The cheapest head comes first, and none is begun once the time is used up, but for the preferred one, which is tried
    whatever it takes.

    Args:
        store: of the campaign.
        features: of the labelled structures.
        parameters: of the campaign's model.
        options: goal, quantile and pool_share of the design (see `design_of`), kappa of the acquisition ucb, heads
            (that take part, the preferred first) and minutes (that this repeat may take).
        seed: of the holdout and of the heads.
        name: of the file.
        choosing: where the campaign chooses its features: so does every repeat, on what it may learn from alone.

    Returns:
        seconds, and left_out: heads there was no time for.
    """
    started = time.perf_counter()
    table, values = read_labelled(store)
    hashes = table["structure_hash"].to_pylist()
    design, told = design_of(options), {}
    if choosing is None:
        found = features.find(hashes).load()
    else:
        kept = choosing.features.locate(hashes).found
        values = values[kept]
        found = choosing.features.find([h for h, there in zip(hashes, kept, strict=True) if there]).load()
        train = design.holdout(values, found.formula, seed).train
        choice = chosen(found[train], values[train], choosing, {**parameters, "seed": seed})
        parameters = {**parameters, **choice["parameters"], "features": choice["features"]}
        told = {"features": choice["features"]}
    target = transform_target(values, parameters["transform"])
    rows = Rows(found)
    answers: dict[str, dict[str, Any]] = {}
    left_out = []
    for head, unfitted in campaign_heads(parameters, options["heads"]).items():
        late = time.perf_counter() - started > 60 * options["minutes"]
        if late and head != options["heads"][0]:
            left_out.append(head)
        else:
            answers[head] = answer(unfitted, rows, target, design, seed)
    scores = scored_by(design, answers, target, found.formula, seed, options["kappa"])
    seconds = {head: part["seconds"] for head, part in answers.items()}
    store.write_json(name, {**scores, **told, "seconds": seconds, "left_out": left_out})
    seal(store, name)
    return {"seconds": time.perf_counter() - started, "left_out": left_out}
