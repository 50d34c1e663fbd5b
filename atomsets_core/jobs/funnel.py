"""A funnel: all candidates are ranked by cheap features, and the best part of them by dear ones.

How much is cut is not guessed: in simulated discoveries both rankings are asked of the same hidden values.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from atomsets_core.campaigns import FUNNEL, RANKING
from atomsets_core.discovery import (
    MEAN,
    UCB,
    Rows,
    acquisition,
    agreement,
    campaign_heads,
    correlation_of,
    design_of,
    share_needed,
)
from atomsets_core.features import AnyStore
from atomsets_core.jobs.rank import Table
from atomsets_core.jobs.train import read_labelled
from atomsets_core.sources import Catalogue
from atomsets_core.storage import Store, seal, with_units
from atomsets_core.structures import IntArray
from atomsets_core.transforms import transform_target

CHECKED = (0.95, 0.99)
"""Shares of what the dear ranking would find that are told of."""


@dataclass(frozen=True)
class Depth:
    """How much of the cheap ranking is looked at closely.

    Attributes:
        keep: share of the dear ranking's first that the part must hold.
        first: how many are the first.
        share: of the candidates, where the campaign says it; None: as the simulated discoveries tell.
        most: candidates that the budget allows; None without one.
    """

    keep: float
    first: int
    share: float | None = None
    most: int | None = None


def simulate_funnel(
    store: Store,
    cheap: AnyStore,
    dear: AnyStore,
    parameters: tuple[Mapping[str, Any], Mapping[str, Any]],
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Ask a cheap and a dear model of the same hidden values; their scores of the pool are written as JSON.

    Args:
        store: of the campaign.
        cheap: features of the labelled structures that all candidates get.
        dear: those that a part of the candidates gets.
        parameters: of the cheap and of the dear model.
        options: see `simulate_seed`; of its heads the first is asked.
        seed: of the holdout and of the models.
        name: of the file: "cheap", "dear", "n_hidden", see `discovery.agreement`.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    table, values = read_labelled(store)
    hashes, head = table["structure_hash"].to_pylist(), options["heads"][0]
    target = transform_target(values, parameters[1]["transform"])
    design = design_of(options)
    goal = "minimize" if options["goal"] == "minimize" else "maximize"
    scores: list[list[list[float]]] = []
    hidden = 0
    for features, told in zip((cheap, dear), parameters, strict=True):
        rows = Rows(features.find(hashes).load())
        split = design.holdout(target, rows.formula, seed)
        hidden = int(split.hidden.sum())
        fitted = campaign_heads(told, [head])[head].fit(rows[split.train], target[split.train], seed)
        found = fitted(rows[split.pool])
        kinds = (MEAN.name, UCB.name)
        every = [
            acquisition(found.mean, found.std, goal=goal, kind=kind, kappa=options["kappa"], best=0.0) for kind in kinds
        ]
        scores.append([score.tolist() for score in every])
    store.write_json(name, {"cheap": scores[0][0], "dear": scores[1], "n_hidden": hidden, "seed": seed})
    seal(store, name)
    return {"seconds": time.perf_counter() - started}


def narrow(
    store: Store,
    predictions: Sequence[str],
    candidates: Catalogue,
    wish: Mapping[str, Any],
    unit: str,
    depth: Depth,
    runs: Sequence[Mapping[str, Any]],
    sample: Sequence[str],
    sampled_by: Mapping[str, Any],
) -> tuple[IntArray, dict[str, Any]]:
    """Cut the cheap ranking; every candidate, and whether it goes on, is written to funnel.parquet.

    Args:
        store: of the campaign.
        predictions: names of the cheap model's prediction files.
        candidates: all of them.
        wish: goal, target and window of `acquisition`, on the scale of the model.
        unit: of the target.
        depth: how much is looked at closely.
        runs: of `simulate_funnel`.
        sample: names of the dear model's prediction files, for some candidates drawn at random.
        sampled_by: goal, target, window, kind, kappa and best of `acquisition` for these.

    Returns:
        (k,) positions of the candidates that go on, ascending; and JSON: "n" (candidates with a cheap prediction),
        "kept", "share", "why" (what decided: "keep", "share", "budget", or "all"), "shares" (share of the top that is
        held -> share of the ranking that is needed), "in_discovery" (the same as it was on the hidden values, with
        their "correlation"), "sampled" (how many candidates told of both rankings, with their "correlation"), "assumed"
        (the correlation that was counted with), "first".
    """
    table = Table(store, candidates, predictions)
    n = len(table)
    mean, std = table.numbers["mean"], table.numbers["std_scale"]
    table.sort(acquisition(mean, std, kind=MEAN.name, best=0.0, **wish))
    told: dict[str, Any] = {"n": n, "first": depth.first, "keep": depth.keep}
    place = np.empty(n, dtype=np.int64)
    place[table.order] = np.arange(1, n + 1)
    known = Table(store, candidates, sample)
    cheap = dict(zip(table.hashes, -place, strict=True))
    mean, std = known.numbers["mean"], known.numbers["std_scale"]
    dear = acquisition(mean, std, **sampled_by)
    rows = [row for row, h in enumerate(known.hashes) if h in cheap]
    at, least = correlation_of([cheap[known.hashes[row]] for row in rows], dear[rows])
    told |= {"sampled": {"n": len(rows), "correlation": at, "assumed": least}}
    found = {kept: agreement(runs, kept) for kept in dict.fromkeys((*CHECKED, depth.keep))} if runs else {}
    # Hidden values tell of what is better than all that is known, the sample of what the candidates are like.
    assumed = {kept: min(least, found[kept].assumed) if runs else least for kept in (*CHECKED, depth.keep)}
    top = min(0.5, depth.first / max(n, 1))
    needed = {kept: share_needed(rho, top, kept) for kept, rho in assumed.items()}
    told |= {"shares": {f"{kept:g}": needed[kept] for kept in CHECKED}, "assumed": assumed[depth.keep]}
    if runs:
        told |= {
            "in_discovery": {f"{kept:g}": found[kept].share for kept in CHECKED},
            "top_in_discovery": found[depth.keep].top,
            "correlation": found[depth.keep].found,
        }
    share, why = (needed[depth.keep], "keep") if depth.share is None else (depth.share, "share")
    kept = min(n, max(math.ceil(share * n), min(n, depth.first)))
    if depth.most is not None and depth.most < kept:
        kept, why = max(1, depth.most), "budget"
    if kept == n:
        why = "all"
    lines = table.lines
    columns = {
        "place": place,
        "material_id": pa.array(lines.material_id),
        "structure_hash": pa.array(lines.hashes),
        "formula": pa.array(lines.formulas),
        "predicted": table.numbers["predicted"],
        "std": table.numbers["std"],
        "stage": np.where(place <= kept, "refined", "not refined").astype(object),
    }
    written = pa.table(columns).sort_by("place")
    units = {"place": "from 1", "predicted": unit, "std": unit}
    store.write_table(FUNNEL, with_units(written, units))
    seal(store, FUNNEL)
    candidates.forget()
    return np.sort(table.rows[:kept]), {**told, "kept": kept, "share": kept / max(n, 1), "why": why}


def deepest(store: Store, first: int) -> dict[str, Any]:
    """How far down the cheap ranking the first of the final one were found.

    Returns:
        "first" (how many were looked up), "deepest" and "median" (their places in the cheap ranking).
    """
    leaders = store.read_table(RANKING, columns=["structure_hash"])["structure_hash"].to_pylist()[:first]
    table = store.read_table(FUNNEL, columns=["structure_hash", "place"])
    place = dict(zip(table["structure_hash"].to_pylist(), table["place"].to_pylist(), strict=True))
    found = [place[h] for h in leaders if h in place]
    return {
        "first": len(found),
        "deepest": max(found, default=0),
        "median": float(np.median(found)) if found else 0.0,
    }
