"""What a campaign costs, from a small piece of its work done on this machine: features, training, predicting."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atomsets_core.discovery import LINEAR, OWN, Rows, answer, campaign_heads, design_of
from atomsets_core.features import parse_features
from atomsets_core.jobs import Price, prices
from atomsets_core.models import regressor_of
from atomsets_core.sources import Pulled, pull
from atomsets_core.transforms import transform_target
from atomsets_flows.campaign.sections import Campaign

FEWEST, PIECE = 24, 200
"""Structures that are featurised and learned from to measure a rate: as many as `SECONDS` allow."""

SECONDS = 8.0
"""That the features of such a piece may take."""

SAMPLE = 8
"""Structures that each parent is priced on."""

FEW, MORE = 2, 6
"""Epochs of the trainings that are timed: what the second takes longer is the cost of the epochs between."""

SQUARED = "Gaussian process"
"""Heads with this in their name take four times as long for twice the rows; the others twice as long."""


@dataclass(frozen=True)
class Shown:
    """What was read of a source.

    Attributes:
        pulled: all of it, or the first blocks.
        n: entries that the source holds.
        whole: whether that is all.
    """

    pulled: Pulled
    n: int
    whole: bool


@dataclass(frozen=True)
class Cost:
    """What a piece of the work took.

    Attributes:
        rate: structures featurised a second by one worker.
        training: seconds of the training of the model.
        discovery: seconds of one simulated discovery.
        predict: seconds a candidate takes.
        priced: specification -> what each of its parents takes.
        spec: the specification that these are of.
    """

    rate: float
    training: float
    discovery: float
    predict: float
    priced: dict[str, list[Price]] = field(default_factory=dict)
    spec: str = ""

    def share(self, parent: str) -> float:
        """Share of a parent in the time that features take."""
        parts = self.priced[self.spec]
        return sum(part.seconds for part in parts if part.parent == parent) / sum(part.seconds for part in parts)


def measure(
    campaign: Campaign,
    training: Shown | None,
    values: npt.NDArray[np.float64] | None,
    candidates: Shown | None,
    specs: tuple[str, ...],
    rows: int,
) -> Cost:
    """Featurise and learn from a piece of the data on one thread, as a worker has it.

    Args:
        campaign: what is asked.
        training: what was read of it; without any the embedded elastic data stand for it.
        values: of its rows, NaN where there is none.
        candidates: what was read of them.
        specs: specifications of features that may be used; learning is measured with the dearest that may be chosen.
        rows: that the model will learn from.
    """
    generator = np.random.default_rng(0)
    if training is None or values is None or not np.isfinite(values).any():
        known = pull("embedded:elastic")
        values, source = generator.lognormal(size=len(known.structures)), known.structures
        if campaign.wanted is not None:
            values = (values > 1.0).astype(np.float64)
    else:
        source = training.pulled.structures
    labelled = np.flatnonzero(np.isfinite(values))
    with _one_thread():
        few = source.take(np.sort(generator.permutation(labelled)[:SAMPLE]))
        priced = prices(few, specs)
        n = rows + (candidates.n if candidates else 0)
        spec = dearest(priced, n, campaign.features.cpu_hours)
        each = sum(part.seconds for part in priced[spec])
        piece = int(np.clip(SECONDS / max(each, 1e-9), FEWEST, PIECE))
        if campaign.wanted is None:
            chosen = np.sort(generator.permutation(labelled)[:piece])
        else:  # of a rare class none might be among so few
            kinds = [generator.permutation(labelled[values[labelled] == kind])[: piece // 2] for kind in (0.0, 1.0)]
            chosen = np.sort(np.concatenate(kinds))
        parsed = parse_features(spec)
        start = time.perf_counter()
        found = parsed.featurize(source.take(chosen))
        rate = len(chosen) / (time.perf_counter() - start)
        if candidates is not None:
            offered = candidates.pulled.structures
            some = offered.take(np.sort(generator.permutation(len(offered))[:piece]))
            start = time.perf_counter()
            parsed.featurize(some)
            slower = len(some) / (time.perf_counter() - start)
            n_offered = candidates.n
            rate = (n_offered + rows) / (n_offered / slower + rows / rate)
        of_name = dict(zip(source.material_id, values, strict=True))
        labels = np.array([of_name[name] for name in found.material_id])
        options = {**campaign.parameters, "features": spec}
        return replace(_learning(campaign, options, found, labels, rows, rate), priced=priced, spec=spec)


def dearest(priced: dict[str, list[Price]], n: int, cpu_hours: float) -> str:
    """The specification that takes longest of those within bounds for n structures, or else the cheapest."""
    hours = {text: sum(part.seconds for part in parts) * n / 3600 for text, parts in priced.items()}
    within = [text for text in hours if hours[text] <= cpu_hours]
    return max(within, key=lambda text: hours[text]) if within else min(hours, key=lambda text: hours[text])


def _learning(
    campaign: Campaign, options: dict[str, Any], found: Any, labels: npt.NDArray[np.float64], rows: int, rate: float
) -> Cost:
    """What training, simulated discovery and predicting cost, from a piece of each."""
    regressor_of({**options, "epochs": 1}).fit(found, labels)
    took = []
    for epochs in (FEW, MORE):
        start = time.perf_counter()
        model = regressor_of({**options, "epochs": epochs}).fit(found, labels)
        took.append(time.perf_counter() - start)
    epoch = max(0.0, (took[1] - took[0]) / (MORE - FEW))
    more = rows / len(found)
    network = more * (max(0.0, took[0] - FEW * epoch) + epoch * options["epochs"])
    start = time.perf_counter()
    model.predict_distribution(found)
    predict = (time.perf_counter() - start) / len(found)
    wanted, asked = campaign.discovery, campaign.objective.goal
    if not wanted.seeds or asked in ("target", "window"):
        return Cost(rate, network, 0.0, predict)
    goal = asked if asked in ("minimize", "class") else "maximize"
    design = design_of({"goal": goal, "quantile": wanted.quantile, "pool_share": wanted.pool_share})
    heads = campaign_heads({**options, "epochs": 1}, campaign.heads)
    target, seen = transform_target(labels, campaign.training.transform), Rows(found)
    spent = 0.0
    try:
        for name, head in heads.items():
            took_head = answer(head, seen, target, design, 0)["seconds"]
            if name in (OWN, LINEAR):
                spent += network * (1 - wanted.quantile) * (1 - wanted.pool_share)
            else:
                spent += took_head * (more**2 if SQUARED in name else more)
    except ValueError:  # too few labels to hide some: a run goes on without
        spent = 0.0
    allowed = 60.0 * wanted.minutes / wanted.seeds
    return Cost(rate, network, min(spent, max(allowed, network)), predict)


@contextmanager
def _one_thread():  # type: ignore[no-untyped-def]
    """As many threads as a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
