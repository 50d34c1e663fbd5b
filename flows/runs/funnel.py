"""The funnel of a campaign: rank all candidates by cheap features, and go on with the best part of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from prefect import get_run_logger

from atomsets_core.campaigns import FUNNEL, digest, discovery_name
from atomsets_core.features import AnyStore, open_features
from atomsets_core.jobs import Depth, Selection, deepest, narrow
from atomsets_core.storage import Store, sound, unseal
from atomsets_core.transforms import find_transform, transform_target
from atomsets_flows.runs.champions import InUse
from atomsets_flows.runs.choosing import measured
from atomsets_flows.runs.learning import Learning
from atomsets_flows.runs.progress import note
from atomsets_tasks import simulate_funnel

if TYPE_CHECKING:
    from atomsets_flows.runs.screen import CampaignRun

FIRST = "cheap features"
"""Beginning of the reason for which a candidate is not looked at closely."""


SAMPLE = 200
"""Candidates, drawn at random, that tell how well both rankings agree on such."""


def cheap_features(run: CampaignRun) -> AnyStore | None:
    """The features that all candidates get; None without a funnel."""
    funnel = run.campaign.funnel
    return None if funnel is None else open_features(run.shards, funnel.features)


def narrow_candidates(
    run: CampaignRun, chosen: Selection, learning: Learning, model: InUse, best: float
) -> tuple[Selection, dict[str, Any]]:
    """The candidates that the cheap ranking leaves, and what it was cut by.

    What is left out stands in funnel.parquet with its place, and counts as filtered.

    Args:
        run: whose cluster is there, and whose labelled structures have both kinds of features.
        chosen: what is ranked.
        learning: from the labels, by the dear features.
        model: that predicts by the dear features.
        best: label, in the unit of the target.

    Returns:
        The selection with fewer candidates, and JSON: see `jobs.narrow`.
    """
    funnel, cheap, campaign = run.campaign.funnel, cheap_features(run), run.campaign
    assert funnel is not None  # noqa: S101  # the caller asked
    assert cheap is not None  # noqa: S101
    options = campaign.features.model_copy(update={"parent": "", "levels": [], "specification": funnel.features})
    shallow = replace(
        learning,
        campaign=campaign.model_copy(update={"features": options}),
        features=cheap,
        choosing=None,
        discoveries=[],
        wait=lambda stage, futures: run.wait(f"{stage} cheaply", futures),
    )
    names = _discoveries(run, shallow, learning)
    offered = run.featurize("candidates", chosen.candidates, cheap)
    folder = shallow.train({"head": campaign.heads[0]})
    predictions = run.predict(folder, offered.pieces, cheap)
    sample = _sample(run, chosen, model)
    unseal(run.store, FUNNEL)
    objective, scale = campaign.objective, find_transform(campaign.training.transform)
    wish = {
        "goal": "maximize" if campaign.wanted is not None else objective.goal,
        "target": None if objective.number is None else float(transform_target([objective.number], scale.name)[0]),
        "window": None if objective.window is None else tuple(transform_target(objective.window, scale.name)),
    }
    depth = Depth(funnel.keep, funnel.first, funnel.share, _most(run, chosen))
    by = {
        **wish, "kind": model.choice["acquisition"], "kappa": objective.kappa,
        "best": float(transform_target([best], scale.name)[0]),
    }  # fmt: skip
    runs = [run.store.read_json(name) for name in names]
    rows, told = narrow(run.store, predictions, chosen.candidates, wish, campaign.unit, depth, runs, sample, by)
    told |= {"features": funnel.features, "model": folder, "files": names}
    left = told["n"] - len(rows)
    reason = f"{FIRST} rank it below the first {len(rows):,} of {told['n']:,}"
    filtered = {**chosen.filtered, **({reason: left} if left else {})}
    get_run_logger().info("%d of %d candidates are looked at closely", len(rows), told["n"])
    return replace(chosen, candidates=chosen.candidates.take(rows), filtered=filtered), told


def _discoveries(run: CampaignRun, shallow: Learning, learning: Learning) -> list[str]:
    """Names of the repeats in which both rankings were asked of the same hidden values; made where they are missing."""
    if run.campaign.objective.goal in ("target", "window") or not learning.discoveries:
        return []
    head = run.campaign.heads[0]
    options = {**learning.options, "heads": [head]}
    plain = (shallow.parameters, learning.parameters)
    key = digest(learning.data, [shallow.features.digest, learning.features.digest], plain, options)[:16]
    names = [discovery_name(key, seed) for seed in range(run.campaign.discovery.seeds)]
    shared = (run.store, shallow.features, learning.features, plain, options)
    futures = [
        simulate_funnel.submit(*shared, seed, name) for seed, name in enumerate(names) if not sound(run.store, name)
    ]
    run.wait("simulate funnel", futures)
    return names


def _sample(run: CampaignRun, chosen: Selection, model: InUse) -> list[str]:
    """Names of the files with the dear model's predictions for some candidates, drawn at random."""
    before, n = len(run.refused), len(chosen.candidates)
    rows = np.sort(np.random.default_rng(0).permutation(n)[:SAMPLE])
    drawn = run.featurize("candidates", chosen.candidates.take(rows))
    del run.refused[before:]  # they count where they are ranked, if they are
    return run.predict(model.folder, drawn.pieces)


def _most(run: CampaignRun, chosen: Selection) -> int | None:
    """Candidates whose dear features the budget allows; None without one."""
    assert run.campaign.funnel is not None  # noqa: S101
    hours = run.campaign.funnel.cpu_hours
    if hours is None:
        return None
    seconds = measured(run, [chosen.candidates], [run.campaign.features.spec])[run.campaign.features.spec]["seconds"]
    most = math.floor(3600 * hours / max(seconds, 1e-9))
    note(f"funnel.cpu_hours = {hours:g} allows {most:,} candidates at {seconds:.3g} s each, measured here")
    return most


def close_look(store: Store, told: Mapping[str, Any]) -> dict[str, Any]:
    """What the cut was and where the first of the final ranking stood before it, for summary.json."""
    return {**told, "found": deepest(store, int(told["first"]))}
