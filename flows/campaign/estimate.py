"""What a campaign would do and how long it may take, from a small piece of it done on this machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from atomsets_core.campaigns import FEATURES
from atomsets_core.discovery import LINEAR, OWN
from atomsets_core.features import FeatureStore
from atomsets_core.models import AtomSetsRegressor
from atomsets_core.parents import load_parent
from atomsets_core.sources import MATERIALS_PROJECT, Pulled, pull
from atomsets_core.storage import Store
from atomsets_flows.campaign.sections import Campaign, Candidates, Training

PIECE = 200
"""Structures that are featurised and learned from to measure a rate."""

EPOCHS = 3


@dataclass(frozen=True)
class Estimate:
    """A campaign that isn't run.

    Attributes:
        pulled: data set -> entries of its source; None where only the source itself can tell.
        missing: structures without features, filters not counted; None likewise.
        labelled: rows with a value.
        rate: structures featurised a second by one worker, measured.
        workers: that share the work.
        featurize: seconds that features may take; None where the number of structures is unknown.
        train: seconds that training and simulated discovery may take.
        trainings: how many trainings that are.
    """

    pulled: dict[str, int | None]
    missing: int | None
    labelled: int | None
    rate: float
    workers: int
    featurize: float | None
    train: float
    trainings: int


def estimate(campaign: Campaign, out: str) -> Estimate:
    """Read both sources (a database isn't asked), and measure rates on a piece of the training data.

    Raises:
        SourceError: a source can't be read.
    """
    shards = Store(campaign.features.store or Store(out).url(FEATURES))
    features = FeatureStore.of(shards, campaign.features.parent, campaign.features.chosen)
    sources = {"training": _read(campaign.training), "candidates": _read(campaign.candidates)}
    known = [found.structures.hashes for found in sources.values() if found is not None]
    missing = None
    if len(known) == len(sources):
        hashes = pd.unique(np.concatenate(known))
        missing = int(features.locate(hashes).missing.sum())
    piece = next((found for found in sources.values() if found is not None), None) or pull("embedded:elastic")
    rate, seconds = measure(campaign, piece, features.levels)
    training = sources["training"]
    labelled = None
    if training is not None and campaign.training.target in training.columns:
        labelled = int(pd.to_numeric(training.columns[campaign.training.target], errors="coerce").notna().sum())
    rows = labelled or PIECE
    # The others take little beside those that train networks.
    heads = len({OWN, LINEAR}.intersection(campaign.discovery.heads))
    seeds = 0 if campaign.objective.goal in ("target", "window") else campaign.discovery.seeds
    workers = campaign.cluster.workers or len(os.sched_getaffinity(0))
    discovery = seeds * heads * (1 - campaign.discovery.quantile) * (1 - campaign.discovery.pool_share)
    return Estimate(
        pulled={name: None if found is None else found.n_seen for name, found in sources.items()},
        missing=missing,
        labelled=labelled,
        rate=rate,
        workers=workers,
        featurize=None if missing is None else missing / rate / workers,
        train=seconds * rows * (1 + discovery / min(workers, max(1, seeds))),
        trainings=1 + seeds * heads,
    )


def measure(campaign: Campaign, piece: Pulled, levels: tuple[str, ...]) -> tuple[float, float]:
    """Structures featurised a second, and seconds a training takes for each row, from a piece of the data."""
    parent = load_parent(campaign.features.parent)
    few = piece.structures.take(np.arange(min(PIECE, len(piece.structures))))
    parent.featurize(few.take(np.arange(min(8, len(few)))), levels)  # compiles, loads
    start = time.perf_counter()
    found = parent.featurize(few, levels)
    rate = len(few) / (time.perf_counter() - start)
    options: dict[str, Any] = campaign.model.model_dump()
    epochs = options["epochs"]
    model = AtomSetsRegressor(**{**options, "features": campaign.features.spec, "epochs": EPOCHS})
    start = time.perf_counter()
    model.fit(found, np.random.default_rng(0).normal(size=len(found)))
    return rate, (time.perf_counter() - start) / len(found) * epochs / EPOCHS


def _read(section: Training | Candidates) -> Pulled | None:
    """A source that lies on this machine; None for a database."""
    if section.source == MATERIALS_PROJECT or "optimade:" in section.source:
        return None
    return pull(section.source, labels=section.labels, id_column=section.id_column, **section.pull_options())


def told(found: Estimate, duration: Any) -> list[str]:
    """The estimate in sentences."""
    lines = []
    for name, n in found.pulled.items():
        lines.append(f"{name}: {f'{n:,} entries' if n is not None else 'a database, which is not asked in a dry run'}")
    if found.labelled is not None:
        lines.append(f"{found.labelled:,} of the training entries have a value")
    if found.missing is None:
        lines.append(f"features: {found.rate:,.0f} structures/s on each of {found.workers} workers, measured here")
    else:
        lines.append(
            f"features: {found.missing:,} structures have none yet (before filters); at {found.rate:,.0f} a second on "
            f"each of {found.workers} workers, measured here, at most {duration(found.featurize or 0.0)}"
        )
    lines.append(f"training: {found.trainings} trainings, about {duration(found.train)} unless they are stored already")
    lines.append("nothing was written; starting workers and a server takes some seconds more")
    return lines
