"""Which features a campaign uses where it leaves that open, what they cost, and the funnel from cheap to dear ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from prefect import get_run_logger
from prefect.futures import PrefectFuture

from atomsets_core.campaigns import FUNNEL, choice_name, digest, discovery_name, queue_name
from atomsets_core.features import AnyStore, Piece, Together, open_features, write_queue
from atomsets_core.jobs import Choosing, Depth, Selection, deepest, narrow
from atomsets_core.sources import Catalogue
from atomsets_core.storage import Store, sound, unseal
from atomsets_core.structures import Refusal
from atomsets_core.transforms import find_transform, transform_target
from atomsets_flows.campaign import Campaign
from atomsets_flows.runs.champions import Champions, InUse
from atomsets_flows.runs.learning import Learning
from atomsets_flows.runs.progress import note
from atomsets_tasks import choose_features, price_features, simulate_funnel


class Run(Protocol):
    """What is needed of the run of a campaign, see `screen.CampaignRun`."""

    campaign: Campaign
    store: Store
    shards: Store
    specs: tuple[str, ...]
    features: AnyStore
    champions: Champions
    refused: list[tuple[str, Refusal]]

    def wait(self, stage: str, futures: list[PrefectFuture], tolerate: bool = False) -> Any:
        """Wait for tasks."""

    def featurize(self, dataset: str, structures: Catalogue, features: AnyStore | None = None) -> Together:
        """Make the shards that are missing."""

    def featurize_training(self, labelled: Catalogue, values: np.ndarray) -> Any:
        """Features of the labelled structures."""

    def predict(self, model: str, pieces: Sequence[Piece], features: AnyStore | None = None) -> list[str]:
        """Apply a model."""


PRICED = 16
"""Structures that features are priced on."""


def choose(run: Run, labelled: Catalogue, values: np.ndarray, candidates: Catalogue | None) -> Choosing:
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


def price(run: Run, materials: Sequence[Catalogue]) -> dict[str, dict[str, Any]]:
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


def measured(run: Run, materials: Sequence[Catalogue], specs: Sequence[str]) -> dict[str, dict[str, float]]:
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


FIRST = "cheap features"
"""Beginning of the reason for which a candidate is not looked at closely."""


SAMPLE = 200
"""Candidates, drawn at random, that tell how well both rankings agree on such."""


def cheap_features(run: Run) -> AnyStore | None:
    """The features that all candidates get; None without a funnel."""
    funnel = run.campaign.funnel
    return None if funnel is None else open_features(run.shards, funnel.features)


def narrow_candidates(
    run: Run, chosen: Selection, learning: Learning, model: InUse, best: float
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


def _discoveries(run: Run, shallow: Learning, learning: Learning) -> list[str]:
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


def _sample(run: Run, chosen: Selection, model: InUse) -> list[str]:
    """Names of the files with the dear model's predictions for some candidates, drawn at random."""
    before, n = len(run.refused), len(chosen.candidates)
    rows = np.sort(np.random.default_rng(0).permutation(n)[:SAMPLE])
    drawn = run.featurize("candidates", chosen.candidates.take(rows))
    del run.refused[before:]  # they count where they are ranked, if they are
    return run.predict(model.folder, drawn.pieces)


def _most(run: Run, chosen: Selection) -> int | None:
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
