"""summary.json: what was asked, what was done, how good it is, and what it was made with."""

from __future__ import annotations

import html
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from atomsets_core.campaigns import OUT_OF_FOLD, provenance_name
from atomsets_core.discovery import recipes
from atomsets_core.discovery import summarize as summarize_discovery
from atomsets_core.features import AnyStore
from atomsets_core.jobs import LEFT_OUT, Ranking, Selection
from atomsets_core.models import (
    CONFIG,
    mean_absolute_error,
    probability_scores,
    r_squared,
    root_mean_squared_error,
    spearman,
)
from atomsets_core.parents import about_parent, carrier_versions
from atomsets_core.report import called, discovery_header, discovery_rows, discovery_sentences, probability_of
from atomsets_core.storage import Store, prediction_units
from atomsets_core.structures import Refusal
from atomsets_core.transforms import find_transform, transform_target
from atomsets_flows.campaign import Campaign
from atomsets_flows.runs.headlines import headlines

PACKAGES = (
    "atomsets-screening",
    "torch",
    "prefect",
    "dask",
    "distributed",
    "pymatgen",
    "pyarrow",
    "scikit-learn",
)
"""Whose versions a summary names, besides the one that carries the parent's weights."""


def summarize_run(
    campaign: Campaign,
    store: Store,
    model: str,
    discoveries: Sequence[str],
    chosen: Selection,
    ranking: Ranking,
    refused: Sequence[tuple[str, Refusal]],
    *,
    features: AnyStore,
    done: Mapping[str, int],
    seconds: Mapping[str, float],
    started: float,
    choice: Mapping[str, Any],
    labelled: int,
    funnel: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The summary of a finished run, as JSON values; its settings are those that were used, choices made.

    `labelled` is the number of structures with a value and features, which the model may or may not have learned from.

    Raises:
        RuntimeError: pulled candidates are not the sum of ranked, filtered and failed ones, or likewise for training.
    """
    out_of_fold = store.read_table(f"{model}/{OUT_OF_FOLD}").to_pandas()
    config = store.read_json(f"{model}/{CONFIG}")
    runs = [store.read_json(name) for name in discoveries]
    return {
        "campaign": campaign.name,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings(campaign, choice),
        "choice": dict(choice),
        "target": campaign.training.target,
        "title": campaign.training.title,
        "symbol": campaign.training.symbol,
        "unit": campaign.unit,
        "transform": campaign.training.transform,
        **class_told(campaign, chosen),
        "units": units(campaign.unit, campaign.training.transform),
        "counts": count(done, chosen, ranking, refused, len(out_of_fold), labelled),
        "done": dict(done),
        "model": {
            "folder": model,
            "features": campaign.features.spec,
            "parent_digest": features.digest,
            "parents": {part.parent: part.digest for part in features.parts},
            **scores_of(campaign, out_of_fold),
            "coverage": campaign.model.coverage,
            "coverage_out_of_fold": config["state"]["coverage"][0],
            "domain_threshold": config["domain"]["threshold"],
        },
        **({} if funnel is None else {"funnel": dict(funnel)}),
        "intervals": {**ranking.intervals, "why_first": ranking.why_first},
        "discovery": {
            "files": list(discoveries),
            "n_hidden": runs[0]["n_hidden"],
            "n_pool": runs[0]["n_pool"],
            **({"what": [run["what"] for run in runs]} if "what" in runs[0] else {}),
            "n_train": [run["n_train"] for run in runs],
            "minutes": campaign.discovery.minutes,
            "left_out": sorted({name for run in runs for name in run.get("left_out", [])}),
            "heads": sorted(summarize_discovery(runs), key=lambda row: row["head"] != choice["head"]),
        }
        if runs
        else None,
        "materials": {"training": chosen.training.kind, "candidates": chosen.candidates.kind},
        "sources": {name: store.read_json(provenance_name(name)) for name in ("training", "candidates")},
        "overlap": " ".join(dict.fromkeys(about_parent(part.parent).overlap for part in features.parts)),
        "seconds": {**seconds, "total": round(time.perf_counter() - started, 3)},
        "versions": {
            "python": platform.python_version(),
            **{name: package_version(name) for name in PACKAGES},
            **carrier_versions([part.parent for part in features.parts]),
        },
        "machine": {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))},
    }


def units(unit: str, transform: str) -> dict[str, str]:
    """Units of the numbers of this file and of the columns of ranking.csv, which has no place for them."""
    scale = find_transform(transform).applied_to(unit)
    return {
        **prediction_units(unit, scale=scale),
        **dict.fromkeys(("mae", "rmse", "mae_outside", "mae_inside", "bias_outside"), scale),
        **dict.fromkeys(("mae_in_unit", "value_min", "value_max"), unit),
        "seconds": "s",
    }


def settings(campaign: Campaign, choice: Mapping[str, Any]) -> dict[str, Any]:
    """The campaign's settings with the chosen model and acquisition in place of what was left open."""
    raw = campaign.model_dump(mode="json")
    raw["objective"]["acquisition"] = choice["acquisition"]
    raw["model"]["rho"] = list(recipes(campaign.parameters, [choice["head"]])[choice["head"]]["rho"])
    raw["discovery"]["heads"] = campaign.heads
    return raw


def count(
    done: Mapping[str, int],
    chosen: Selection,
    ranking: Ranking,
    refused: Sequence[tuple[str, Refusal]],
    n_trained: int,
    labelled: int,
) -> dict[str, Any]:
    """What became of every entry that was pulled.

    Raises:
        RuntimeError: the parts don't add up.
    """
    filtered = dict(chosen.filtered)
    if ranking.n_dropped:
        filtered[LEFT_OUT[chosen.candidates.kind]] = ranking.n_dropped
    stages = {
        name: Counter(r.stage for dataset, r in refused if dataset == name) for name in ("training", "candidates")
    }
    training: dict[str, Any] = {
        "pulled": done["pulled_training"],
        "labelled": labelled,
        "learned_from": n_trained,
        "failed": sum(stages["training"].values()),
        "failed_by_stage": dict(stages["training"]),
    }
    candidates: dict[str, Any] = {
        "pulled": done["pulled_candidates"],
        "ranked": ranking.n_ranked,
        "filtered": sum(filtered.values()),
        "failed": sum(stages["candidates"].values()),
        "filtered_by_reason": filtered,
        "failed_by_stage": dict(stages["candidates"]),
        "in_domain": ranking.n_in_domain,
        "no_bulk": ranking.n_no_bulk,
        "shortlist": len(ranking.shortlist),
    }
    if training["pulled"] != training["labelled"] + training["failed"]:
        raise RuntimeError(f"the counts of the training data don't add up: {training}")
    if candidates["pulled"] != candidates["ranked"] + candidates["filtered"] + candidates["failed"]:
        raise RuntimeError(f"the counts of the candidates don't add up: {candidates}")
    return {"training": training, "candidates": candidates}


def model_scores(out_of_fold: pd.DataFrame, transform: str) -> dict[str, float]:
    """Errors of the out-of-fold predictions, on the model's scale and in the target's unit."""
    truth, predicted = out_of_fold["value"].to_numpy(), out_of_fold["predicted"].to_numpy()
    on_scale, mean = transform_target(truth, transform), out_of_fold["mean"].to_numpy()
    return {
        "mae": mean_absolute_error(on_scale, mean),
        "rmse": root_mean_squared_error(on_scale, mean),
        "r2": r_squared(on_scale, mean),
        "spearman": spearman(on_scale, mean),
        "mae_in_unit": mean_absolute_error(truth, predicted),
        "value_min": float(np.min(truth)),
        "value_max": float(np.max(truth)),
    }


def class_told(campaign: Campaign, chosen: Selection) -> dict[str, Any]:
    """What summary.json says of classes: the "wanted" one, and the "counts" of labelled rows; nothing for numbers."""
    if campaign.wanted is None:
        return {}
    return {"class": {"wanted": next(iter(chosen.classes)), "counts": dict(chosen.classes)}}


def scores_of(campaign: Campaign, out_of_fold: pd.DataFrame) -> dict[str, Any]:
    """Scores of the out-of-fold predictions of a campaign's model, see `model_scores` and `probability_scores`."""
    if campaign.wanted is not None:
        found = probability_scores(out_of_fold["value"].to_numpy(), out_of_fold["predicted"].to_numpy())
        return {**found, "value_min": 0.0, "value_max": 1.0}
    return model_scores(out_of_fold, campaign.training.transform)


def markdown(summary: Mapping[str, Any], more: Sequence[str] = ()) -> str:
    """The summary artifact, with more paragraphs below what came out, e.g. figures."""
    objective = summary["settings"]["objective"]["goal"]
    of_class = "class" in summary
    asked = (
        f"**{plain(probability_of(summary))}**"
        if of_class
        else f"{objective} **{plain(called(summary))}**" + (f" ({plain(summary['unit'])})" if summary["unit"] else "")
    )
    lines = [
        f"# {plain(summary['campaign'])}",
        asked,
        "",
        *(f"- {plain(line)}" for line in headlines(summary)),
        "",
        *(line for paragraph in more for line in (paragraph, "")),
    ]
    if summary["discovery"]:
        header = discovery_header(summary)
        lines += ["## Simulated discovery", "", f"| {' | '.join(map(plain, header))} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(plain(cell) for cell in row)} |" for row in discovery_rows(summary)]
        lines += [line for sentence in discovery_sentences(summary) for line in ("", plain(sentence))]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text that comes from data, such that Markdown and HTML show it as it is."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|!])", r"\\\1", text)


def package_version(name: str) -> str:
    """The version of an installed package, or a word that it isn't there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
