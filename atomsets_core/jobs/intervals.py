"""Intervals of candidates: of rows weighed by how candidate-like they are, and beyond the best known value.

A model's own intervals hold for what its training rows were drawn from. Here they are made to hold for the candidates
of a campaign, by its held-out predictions and its simulated discoveries; see `models.transfer` for the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.campaigns import OUT_OF_FOLD
from atomsets_core.features import FeatureStore
from atomsets_core.models import CandidateTrust, likeness, read_config, trust_candidates
from atomsets_core.storage import Store
from atomsets_core.transforms import Transform

FloatArray = npt.NDArray[np.float64]

SAMPLE = 2000
"""Rows of each kind that are told apart at most: more would change the weights little and take minutes."""

SHARDS = 64
"""Shards that the sample of the candidates is read from at most."""


@dataclass(frozen=True)
class Beyond:
    """What the simulated discoveries say of values beyond the best known one.

    Attributes:
        sign: +1 where high values are wanted, -1 where low ones are.
        best: best training value, on the scale of the model.
        reach: how far above the prediction such a value may lie, on that scale, see `models.reach_beyond`.
    """

    sign: float
    best: float
    reach: float


def trust_in_candidates(
    store: Store, folder: str, features: FeatureStore, hashes: Sequence[str], transform: Transform
) -> CandidateTrust | None:
    """How the intervals of a campaign's model fare on its candidates; None where it has none.

    Args:
        store: of the campaign.
        folder: of the model; its held-out predictions are there.
        features: of training structures and candidates.
        hashes: (n,) structure hashes of the candidates that have features.
        transform: of the target.
    """
    coverage = float(read_config(store, folder)["options"]["coverage"])
    columns = ["structure_hash", "value", "mean", "std_scale", "upper"]
    known = store.read_table(f"{folder}/{OUT_OF_FOLD}", columns)
    value, mean, std, upper = (known[name].to_numpy().astype(np.float64) for name in columns[1:])
    half = transform.forward(upper) - mean
    usable = np.flatnonzero(np.isfinite(half) & np.isfinite(std))
    if not len(usable) or not len(hashes):
        return None
    random = np.random.default_rng(0)
    rows = np.sort(random.permutation(usable)[:SAMPLE])
    training = known["structure_hash"].take(rows).to_pylist()
    sampled = sample_candidates(features, hashes, random)
    known_rows, of_candidates = (features.find(part).load().pooled(features.levels) for part in (training, sampled))
    weights = likeness(known_rows, of_candidates)
    residual = transform.forward(value[rows]) - mean[rows]
    return trust_candidates(residual, std[rows], half[rows], weights, coverage, len(sampled))


def sample_candidates(features: FeatureStore, hashes: Sequence[str], random: np.random.Generator) -> list[str]:
    """At most `SAMPLE` of the candidates, from at most `SHARDS` of the shards they lie in."""
    located = features.locate(np.array(hashes, dtype=object))
    found = np.flatnonzero(located.found)
    shards = np.unique(located.shard[found])
    if len(shards) > SHARDS:
        found = found[np.isin(located.shard[found], random.permutation(shards)[:SHARDS])]
    return [str(hashes[row]) for row in np.sort(random.permutation(found)[:SAMPLE])]


def believed(
    numbers: dict[str, FloatArray],
    transform: Transform,
    trust: CandidateTrust | None,
    limit: float,
    beyond: Beyond | None,
) -> dict[str, FloatArray]:
    """Predictions with intervals that are meant for candidates.

    An end of an interval that reaches beyond the best known value was calibrated on no row that was there: it goes at
    least as far as the simulated discoveries found necessary.

    Args:
        numbers: "mean" and "std_scale" on the scale of the model, "predicted", "std", "lower" and "upper" in the unit
            of the target, each (n,), as a model gives them.
        transform: of the target.
        trust: of `trust_in_candidates`; without it the intervals stay as they are.
        limit: the deviation of the training values on the scale: no candidate is more uncertain.
        beyond: without it nothing is known of values beyond the best.

    Returns:
        The same, and "beyond": (n,) the value, in the unit of the target, that a candidate stays on this side of if it
        is better than everything known; NaN where that isn't known.
    """
    mean, std = numbers["mean"], numbers["std_scale"]
    low, high = (transform.forward(numbers[name]) for name in ("lower", "upper"))
    if trust is not None:
        half = (high - mean) * trust.factor
        low, high = mean - half, mean + half
        if trust.enough:
            std = np.minimum(std * trust.error_factor, np.maximum(limit, 0.0))
    end = np.full(len(mean), np.nan)
    if beyond is not None and np.isfinite(beyond.reach):
        end = mean + beyond.sign * beyond.reach
        if beyond.sign > 0:
            high = np.where(high >= beyond.best, np.maximum(high, end), high)
        else:
            low = np.where(low <= beyond.best, np.minimum(low, end), low)
    return {
        **numbers,
        "std_scale": std,
        "std": std * transform.slope(numbers["predicted"]),
        "lower": np.asarray(transform.inverse(low)),
        "upper": np.asarray(transform.inverse(high)),
        "beyond": np.asarray(transform.inverse(end)),
    }


def told(trust: CandidateTrust | None, beyond: Beyond | None) -> dict[str, Any]:
    """Both, as summary.json has them."""
    return {
        "candidates": None if trust is None else {**asdict(trust), "factor": trust.factor if trust.enough else None},
        "beyond": None if beyond is None or not np.isfinite(beyond.reach) else {"reach": beyond.reach},
    }


def target_deviation(store: Store, folder: str) -> float:
    """Standard deviation of the training values on the scale of the model; infinite in models that don't keep it."""
    calibrators = read_config(store, folder)["state"]["calibrators"] or [{}]
    limit = calibrators[0].get("limit")
    return float("inf") if limit is None else float(limit)
