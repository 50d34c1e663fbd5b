"""Scores of predictions, intervals and rankings: pure functions over arrays.

Arrays are (n,) and finite unless said otherwise; a score that is not defined for the input (no hidden item, constant
values) is NaN, never 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

Array = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]


def mean_absolute_error(y: Array, predicted: Array) -> float:
    """Mean of |predicted - y|, in the unit of y."""
    return float(np.mean(np.abs(predicted - y))) if len(y) else float("nan")


def root_mean_squared_error(y: Array, predicted: Array) -> float:
    """Root of the mean of (predicted - y)^2, in the unit of y."""
    return float(np.sqrt(np.mean((predicted - y) ** 2))) if len(y) else float("nan")


def bias(y: Array, predicted: Array) -> float:
    """Mean of predicted - y: negative where values are underestimated."""
    return float(np.mean(predicted - y)) if len(y) else float("nan")


def r_squared(y: Array, predicted: Array) -> float:
    """1 - residual over total sum of squares."""
    total = float(np.sum((y - np.mean(y)) ** 2)) if len(y) else 0.0
    return 1.0 - float(np.sum((predicted - y) ** 2)) / total if total > 0 else float("nan")


def spearman(y: Array, predicted: Array) -> float:
    """Spearman's rank correlation."""
    if len(y) < 2 or np.ptp(y) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    # Pearson's correlation of the ranks, of which equal values share the mean.
    return float(np.corrcoef(rankdata(y), rankdata(predicted))[0, 1])


def coverage(y: Array, lower: Array, upper: Array) -> float:
    """Share of the values inside their interval."""
    return float(np.mean((y >= lower) & (y <= upper))) if len(y) else float("nan")


def hits(wanted: Mask, score: Array) -> npt.NDArray[np.int64]:
    """(n,) wanted items among the first 1, 2, ..., n when sorted by falling score; ties keep their order."""
    order = np.argsort(-score, kind="stable")
    return np.cumsum(wanted[order]).astype(np.int64)


def r_precision(wanted: Mask, score: Array) -> float:
    """Share of wanted items among the first k by score, k their number. Random ranking gives their prevalence."""
    k = int(wanted.sum())
    return float(hits(wanted, score)[k - 1] / k) if k else float("nan")


def enrichment(wanted: Mask, score: Array, k: int) -> float:
    """Wanted items among the first k by score, over those a random ranking would find there.

    Raises:
        ValueError: k is not in 1..n.
    """
    _check_budget(k, len(wanted))
    expected = k * float(np.mean(wanted))
    return float(hits(wanted, score)[k - 1] / expected) if expected > 0 else float("nan")


def precision_at(wanted: Mask, score: Array, k: int) -> float:
    """Share of the first k by score that are wanted.

    Raises:
        ValueError: k is not in 1..n.
    """
    _check_budget(k, len(wanted))
    return float(hits(wanted, score)[k - 1] / k)


def recall_at(wanted: Mask, score: Array, k: int) -> float:
    """Share of the wanted that are among the first k by score; NaN where nothing is wanted.

    Raises:
        ValueError: k is not in 1..n.
    """
    _check_budget(k, len(wanted))
    return float(hits(wanted, score)[k - 1] / wanted.sum()) if wanted.any() else float("nan")


def acceleration(y: Array, predicted: Array, threshold: float) -> float:
    """Discovery acceleration factor: wanted among what is predicted to be wanted, over wanted among all.

    As in Matbench Discovery (Riebesell et al., Nat. Mach. Intell. 7, 836 (2025)): a precision over the prevalence,
    which is counted from the labels as they are, never from rounded ones.

    Args:
        y: (n,) labels.
        predicted: (n,) predictions.
        threshold: values above it are wanted.

    Returns:
        NaN where nothing is wanted, or nothing is predicted to be.
    """
    wanted, selected = y > threshold, predicted > threshold
    if not wanted.any() or not selected.any():
        return float("nan")
    return float(wanted[selected].mean() / wanted.mean())


def random_hits(n_wanted: int, n: int) -> npt.NDArray[np.float64]:
    """(n,) wanted items that a random order finds on average among the first 1, 2, ..., n."""
    return np.arange(1, n + 1, dtype=np.float64) * (n_wanted / n)


def oracle_hits(n_wanted: int, n: int) -> npt.NDArray[np.float64]:
    """(n,) wanted items among the first 1, 2, ..., n when all of them come first."""
    return np.minimum(np.arange(1, n + 1), n_wanted).astype(np.float64)


def area_under_hits(wanted: Mask, score: Array) -> float:
    """Area under the curve of hits against budget: 0 for a random order on average, 1 for the oracle's.

    NaN where everything is wanted or nothing.
    """
    n, k = len(wanted), int(wanted.sum())
    if not 0 < k < n:
        return float("nan")
    # (area - random) / (oracle - random), negative where a ranking is worse than chance.
    base = random_hits(k, n).sum()
    return float((hits(wanted, score).sum() - base) / (oracle_hits(k, n).sum() - base))


def budget_for(found: npt.NDArray[np.integer[Any]], needed: float) -> float:
    """Smallest budget at which a curve of hits reaches so many; NaN where it never does.

    Args:
        found: (n,) hits among the first 1, 2, ..., n.
        needed: hits wanted, above 0.
    """
    # `needed` is often a share times a number, which may round to a little above the whole number it is.
    reached = np.flatnonzero(found >= needed - 1e-9)
    return float(reached[0] + 1) if len(reached) else float("nan")


def gaussian_coverage(y: Array, mean: Array, std: Array, coverage: float = 0.9) -> float:
    """Share of the values inside the central interval that a Gaussian gives this coverage."""
    # 1.645 standard deviations for 90 %.
    half = float(norm.ppf(0.5 + coverage / 2)) * std
    return float(np.mean(np.abs(y - mean) <= half)) if len(y) else float("nan")


def gaussian_width(std: Array, coverage: float = 0.9) -> float:
    """Median full width of the central intervals that Gaussians of these (n,) deviations give this coverage."""
    return 2.0 * float(norm.ppf(0.5 + coverage / 2)) * float(np.median(std)) if len(std) else float("nan")


def scatter_ratio(y: Array, mean: Array, std: Array) -> float:
    """Root mean square of (y - mean) / std: 1 where the deviations are right, above 1 where they are too small."""
    return float(np.sqrt(np.mean(((y - mean) / np.maximum(std, 1e-12)) ** 2))) if len(y) else float("nan")


def bootstrap_interval(
    values: Array | list[float], coverage: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean, resampling the values (one for each repeat); NaN for fewer than two.

    Args:
        values: (n,), entries that are NaN are left out.
        coverage: between 0 and 1.
        resamples: drawn with replacement.
        seed: of the draws.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    # Efron's percentile bootstrap; with a handful of repeats it is a little too narrow.
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


def _check_budget(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} is not between 1 and {n}")
