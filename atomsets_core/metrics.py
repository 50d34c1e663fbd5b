"""Scores of predictions, intervals and rankings: pure functions over arrays.

Arrays are (n,) and finite unless said otherwise; a score that is not defined for the input (no hidden item, constant
values) is NaN, never 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

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
    if not 1 <= k <= len(wanted):
        raise ValueError(f"k = {k} is not between 1 and {len(wanted)}")
    expected = k * float(np.mean(wanted))
    return float(hits(wanted, score)[k - 1] / expected) if expected > 0 else float("nan")
