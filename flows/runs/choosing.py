"""Which features a campaign uses, where it leaves that open, and what features cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from atomsets_core.campaigns import choice_name, queue_name
from atomsets_core.features import open_features, write_queue
from atomsets_core.jobs import Choosing
from atomsets_core.sources import Catalogue
from atomsets_core.storage import sound
from atomsets_flows.runs.progress import note
from atomsets_tasks import choose_features, price_features

if TYPE_CHECKING:
    from atomsets_flows.runs.screen import CampaignRun

PRICED = 16
"""Structures that features are priced on."""


def choose(run: CampaignRun, labelled: Catalogue, values: np.ndarray, candidates: Catalogue | None) -> Choosing:
    """Decide which features are used, once for the campaign as it is defined; what they were chosen from.

    Every repeat of the simulated discovery chooses too, on what it may learn from, so all labelled structures get
    all features.
    """
    name, before = choice_name(run.champions.definition), len(run.refused)
    decided = run.store.read_json(name) if sound(run.store, name) else None
    materials = [labelled]
    if candidates is not None and run.campaign.funnel is None:  # whose own budget says how many candidates get them
        materials.append(candidates)
    priced = decided["priced"] if decided else price(run, materials)
    specs = tuple(text for text, price in priced.items() if price["chosen_from"])
    run.features = open_features(run.shards, *specs)
    run.featurize_training(labelled, values)
    del run.refused[before:]  # what is chosen in the end may do without their features
    options, model = run.campaign.features, run.campaign.model
    choosing = Choosing(run.features, specs, model.left_open)
    if decided is None:
        task = choose_features.submit(run.store, choosing, run.campaign.parameters, priced, name)
        run.wait("choose features", [task])
        decided = run.store.read_json(name)
    note(f"features: {decided['features']}, chosen from {len(specs)}")
    run.campaign = run.campaign.model_copy(
        update={
            "features": options.model_copy(update={"specification": decided["features"]}),
            "model": model.with_choice(decided["parameters"]),
        }
    )
    run.features = open_features(run.shards, decided["features"])
    return choosing


def price(run: CampaignRun, materials: Sequence[Catalogue]) -> dict[str, dict[str, Any]]:
    """What these materials cost by each specification that may be chosen, and whether that is within bounds.

    Returns:
        Specification -> "seconds" of processor time and "bytes" a structure, "cpu_hours" and "gigabytes" of all,
        "chosen_from"; the cheapest is always chosen from.
    """
    found, n = measured(run, materials, run.specs), sum(map(len, materials))
    cheapest = min(found, key=lambda text: found[text]["seconds"])
    most, told = run.campaign.features.cpu_hours, {}
    for text, price in found.items():
        hours, size = price["seconds"] * n / 3600, price["bytes"] * n / 1e9
        told[text] = {
            **price, "cpu_hours": hours, "gigabytes": size, "chosen_from": hours <= most or text == cheapest
        }  # fmt: skip
        if not told[text]["chosen_from"]:
            note(
                f"features {text} are left out: {n:,} structures take about {hours:.3g} CPU hours and {size:.2g} "
                f"GB, and features.cpu_hours is {most:g}"
            )
    return told


def measured(run: CampaignRun, materials: Sequence[Catalogue], specs: Sequence[str]) -> dict[str, dict[str, float]]:
    """What a material costs by each specification, see `jobs.price_features`, on a few of each kind given."""
    queue, n = queue_name("sample"), sum(map(len, materials))
    shares = [max(1, round(PRICED * len(part) / n)) for part in materials]
    sample = [
        part.take(np.unique(np.linspace(0, len(part) - 1, share).astype(np.int64))).structures()
        for part, share in zip(materials, shares, strict=True)
        if part.kind == materials[0].kind  # crystals that are ranked by formulas count as their formulas
    ]
    write_queue(run.store, queue, [type(sample[0]).concat(sample)])
    task = price_features.submit(run.store, queue, specs)
    run.wait("price features", [task])
    run.store.remove(queue)
    return task.result()
