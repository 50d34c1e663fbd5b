"""Intervals of candidates: from held-out rows weighed by how candidate-like they are, and beyond the best known value.

Intervals that hold for training rows need not hold for candidates: these hold other elements and other kinds of
crystals. Two corrections are made, neither of which needs a label of a candidate:

Rows count by how candidate-like they are. A classifier tells training rows from candidates by their pooled features;
its odds are the ratio of the two densities, and the quantile of the scores is taken with these weights (weighted
conformal prediction, Tibshirani et al., NeurIPS 2019).

Beyond the best training value no row was ever calibrated. There the simulated discoveries count, which hid the best
values of the training data from the model and asked for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from atomsets_core.features import AnyStore
from atomsets_core.models.saved_models import read_config
from atomsets_core.models.trust import rows_needed
from atomsets_core.storage import Store
from atomsets_core.transforms import Transform

FloatArray = npt.NDArray[np.float64]

STRONGEST = 20.0
"""Largest weight of a row: the ratio of densities where candidates are but training rows hardly are is a guess."""

ENOUGH = 30
"""Rows of each kind that a classifier is fitted to at least; with fewer all rows count alike."""

SAMPLE = 2000
"""Rows of each kind that are told apart at most: more would change the weights little and take minutes."""

SHARDS = 64
"""Shards that the sample of the candidates is read from at most."""


@dataclass(frozen=True)
class CandidateTrust:
    """How intervals that were calibrated on training rows fare on candidates.

    Attributes:
        coverage: share of candidates meant to fall inside.
        expected: share of them that the intervals as calibrated on training rows would hold, by the weights.
        effective_rows: (sum of weights)^2 / sum of squared weights, how many rows the calibration rests on.
        factor: of the half-widths, so that the share meant falls inside; NaN where the effective rows are too few.
        error_factor: of the standard deviations: root mean square of the weighted normalised residuals.
        rows: training rows that were weighed.
        candidates: candidates, or a sample of them, that they were told apart from.
    """

    coverage: float
    expected: float
    effective_rows: float
    factor: float
    error_factor: float
    rows: int
    candidates: int

    @property
    def enough(self) -> bool:
        """Whether the candidate-like rows are enough for intervals of this coverage."""
        return math.isfinite(self.factor)


def likeness(training: npt.NDArray[np.floating], candidates: npt.NDArray[np.floating], seed: int = 0) -> FloatArray:
    """(n,) how much more often candidates than training rows look like each training row, at most `STRONGEST`.

    Ratios of densities from the odds of a ridge-penalised logistic regression on standardised columns (Sugiyama et al.,
    Density Ratio Estimation in Machine Learning, 2012, ch. 4), each row judged by a regression that was fitted without
    it.

    Args:
        training: (n, width) pooled features.
        candidates: (m, width) pooled features.
        seed: of the parts for cross-fitting.
    """
    n, m = len(training), len(candidates)
    if min(n, m) < ENOUGH:
        return np.ones(n)
    x = np.concatenate([training, candidates]).astype(np.float64)
    of_candidate = np.concatenate([np.zeros(n, dtype=np.int64), np.ones(m, dtype=np.int64)])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    parts = StratifiedKFold(5, shuffle=True, random_state=seed)
    everywhere = cross_val_predict(classifier, x, of_candidate, cv=parts, method="predict_proba")[:, 1]
    share = everywhere[:n]
    share = np.clip(share, 1e-6, 1.0 - 1e-6)
    # Where the classifier does no better than to guess, it has learned accidents: the two kinds are drawn alike.
    if log_loss(of_candidate, everywhere) >= log_loss(of_candidate, np.full(n + m, m / (n + m))):
        return np.ones(n)
    # Bayes: p(x | candidate) / p(x | training) = odds x (n / m).
    return np.minimum(share / (1.0 - share) * (n / m), STRONGEST)


def trust_candidates(
    residual: FloatArray, std: FloatArray, half_width: FloatArray, weights: FloatArray, coverage: float, candidates: int
) -> CandidateTrust:
    """Weigh the scores of held-out rows.

    Args:
        residual: (n,) measured minus predicted, by members that had not seen the row.
        std: (n,) their standard deviations.
        half_width: (n,) of the intervals as calibrated on all rows alike.
        weights: (n,) of the rows, see `likeness`.
        coverage: share meant to fall inside.
        candidates: that the rows were weighed by.
    """
    # Residuals of nothing over widths of nothing are inside.
    width = np.where(half_width > 0, half_width, np.where(residual == 0, 1.0, np.finfo(float).tiny))
    ratio = np.abs(residual) / width
    total = float(weights.sum())
    effective = total**2 / float((weights**2).sum()) if total else 0.0
    expected = float(weights[ratio <= 1.0].sum() / total) if total else float("nan")
    score = residual / np.where(std > 0, std, np.where(residual == 0, 1.0, np.finfo(float).tiny))
    # Over what Gaussian scores would have, as the deviations were fitted.
    error = float(np.sqrt((weights * score**2).sum() / total)) if total else float("nan")
    factor = float("nan")
    if effective >= rows_needed(coverage):
        # The new score is one of effective + 1 that are exchangeable, as in `calibrate`.
        share = min(1.0, math.ceil((effective + 1.0) * coverage - 1e-9) / effective)
        order = np.argsort(ratio, kind="stable")
        reached = np.cumsum(weights[order]) / total
        factor = float(ratio[order][min(int(np.searchsorted(reached, share - 1e-12)), len(ratio) - 1)])
    return CandidateTrust(coverage, expected, effective, factor, error, len(residual), candidates)


def growth(excess: FloatArray, hidden: float, share: float) -> float:
    """How many times farther values beyond a training range lie than those hidden inside it.

    A simulated discovery hides the best part q of the training values. Where these end as values do by nature, with a
    tail, what is beyond them lies as far again. Where they were cut off, as by choosing what was measured, the hidden
    part has no tail, and what is beyond the cut lies farther. Of an exponential tail, which has no memory, a share p of
    the part q beyond a cut lies within ln(1 / (1 - p)) of it, and the same share of the best part q of what is on this
    side within ln((q + q (1 - q)) / (q + (1 - p) q (1 - q))); their ratio is 4.1 for a tenth and 90 %. Cut and whole
    tails are told apart by their shape, the ninth over the fifth decile of the excess: 2.1 and 3.3 for exponential
    ones. (Nine properties: 1.7 to 2.3 cut, 2.7 to 3.8 whole; the ratio of a cut one was 2.5 to 4.7.)

    Args:
        excess: (n,) hidden values beyond the best value that was trained on.
        hidden: q, share of the values that was hidden.
        share: p.

    Returns:
        1 for a whole tail, the ratio above for a cut one, and between them in between.
    """

    def inside(part: float) -> float:
        rest = hidden * (1 - hidden)
        return math.log((hidden + rest) / (hidden + (1 - part) * rest))

    middle = float(np.median(excess))
    if middle <= 0:
        return 1.0
    shape, cut, whole = float(np.quantile(excess, 0.9)) / middle, inside(0.9) / inside(0.5), math.log(10) / math.log(2)
    # From halfway between the two shapes on, a tail is taken for whole.
    cut_off = min(1.0, max(0.0, (0.5 * (cut + whole) - shape) / (0.5 * (whole - cut))))
    return 1.0 + cut_off * (math.log(1 / (1 - share)) / inside(share) - 1.0)


def reach_beyond(
    residual: FloatArray, excess: FloatArray, predicted: FloatArray, hidden: float, coverage: float
) -> float:
    """How far above its prediction a value may lie that is beyond the training range; on the scale of the model.

    The quantile of what hidden values were above their predictions, plus what values beyond the whole range are farther
    off than those hidden inside it (`growth`), as far as predictions don't follow them.

    Args:
        residual: (n,) hidden values minus predictions, positive where more of what is wanted was there.
        excess: (n,) hidden values beyond the best value that was trained on, in the wanted direction.
        predicted: (n,) predictions in the wanted direction.
        hidden: share of the values that was hidden.
        coverage: share of values beyond the range meant to stay below.

    Returns:
        NaN for fewer than two hidden values.
    """
    if len(residual) < 2:
        return float("nan")
    quantile, farthest = float(np.quantile(residual, coverage)), float(np.quantile(excess, coverage))
    followed, gap = 0.0, excess - excess.mean()
    if (gap @ gap) > 0:
        followed = float(np.clip((gap @ predicted) / (gap @ gap), 0.0, 1.0))
    return max(quantile, 0.0) + (growth(excess, hidden, coverage) - 1.0) * farthest * (1.0 - followed)


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
    store: Store, folder: str, held_out: str, features: AnyStore, hashes: Sequence[str], transform: Transform
) -> CandidateTrust | None:
    """How the intervals of a campaign's model fare on its candidates; None where it has none or it is of a class.

    Args:
        store: of the campaign.
        folder: of the model.
        held_out: name of the file in it with predictions for its training rows, each by members that had not seen it.
        features: of training structures and candidates.
        hashes: (n,) structure hashes of the candidates that have features.
        transform: of the target.
    """
    config = read_config(store, folder)
    if "class" in config["state"]:  # a label is 0 or 1: no interval of a probability holds it
        return None
    coverage = float(config["options"]["coverage"])
    columns = ["structure_hash", "value", "mean", "std_scale", "upper"]
    known = store.read_table(f"{folder}/{held_out}", columns)
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


def sample_candidates(features: AnyStore, hashes: Sequence[str], random: np.random.Generator) -> list[str]:
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


def trust_summary(trust: CandidateTrust | None, beyond: Beyond | None) -> dict[str, Any]:
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
