"""How far down a cheap ranking a dear one must look, so that it loses next to nothing of what it would find.

Both rankings are asked of the same hidden values. How well their places agree there says, for a Gaussian copula, which
share of the cheap ranking holds what the dear one has at its top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

FloatArray = npt.NDArray[np.float64]

SURE = 1.645
"""Standard errors by which the agreement is taken to be worse than it was found: one side of 95 %."""

FEWEST = 8
"""Materials that a correlation is told of at least."""

STEPS = 2001
"""Points of the integral over the top of the dear ranking."""


@dataclass(frozen=True)
class Agreement:
    """How well two rankings agree.

    Attributes:
        found: correlation of normal scores, mean over the repeats.
        assumed: a lower one that is counted with, for what chance may have added and for tops that agree less.
        share: of the cheap ranking that held, in the repeats, the share asked for of the top of the dear one.
        top: share of the pool that this top was.
    """

    found: float
    assumed: float
    share: float
    top: float


def agreement(runs: Sequence[Mapping[str, Any]], kept: float) -> Agreement:
    """How well a cheap and a dear ranking agree on pools with hidden values.

    Args:
        runs: of the repeats: "cheap" (n_pool scores), "dear" (one list of n_pool scores or several, of which the one
            that agrees least counts), "n_hidden", which is how many of the dear ranking count as its top.
        kept: share of that top which is to be held.

    Raises:
        ValueError: there is no repeat.
    """
    if not runs:
        raise ValueError("how well two rankings agree is told by a simulated discovery at least")
    at, places = [], []
    for run in runs:
        cheap = _normal_scores(run["cheap"])
        every = [np.asarray(scores, dtype=np.float64) for scores in run["dear"]]
        together = [float(np.corrcoef(cheap, _normal_scores(scores))[0, 1]) for scores in every]
        worst = int(np.argmin(together))
        at.append(together[worst])
        leaders = np.argsort(-every[worst], kind="stable")[: run["n_hidden"]]
        places.append(rankdata(-np.asarray(run["cheap"]), method="max")[leaders] / len(cheap))
    n_pool = min(len(run["cheap"]) for run in runs)
    found = float(np.tanh(np.mean(np.arctanh(np.clip(at, -0.9999, 0.9999)))))
    lower = _less(found, n_pool)
    top = float(np.mean([run["n_hidden"] / len(run["cheap"]) for run in runs]))
    share = float(np.quantile(np.concatenate(places), kept, method="higher"))
    # Where the tops agree less than a copula has it, the copula is taken that agrees with them.
    return Agreement(found, min(lower, _matching(top, kept, share)), share, top)


def correlation_of(cheap: Any, dear: Any) -> tuple[float, float]:
    """Correlation of the normal scores of two rankings of the same n materials, and the least it may well be.

    Args:
        cheap: (n,) scores.
        dear: (n,) scores.
    """
    if len(cheap) < FEWEST:
        return 0.0, 0.0
    found = float(np.corrcoef(_normal_scores(cheap), _normal_scores(dear))[0, 1])
    found = found if np.isfinite(found) else 0.0  # of equal scores
    return found, _less(found, len(cheap))


def _less(found: float, n: int) -> float:
    """A correlation of n pairs, worse by as much as chance may have added (Fisher's transformation)."""
    return max(0.0, float(np.tanh(np.arctanh(np.clip(found, -0.9999, 0.9999)) - SURE / np.sqrt(max(1, n - 3)))))


def share_needed(correlation: float, top: float, kept: float) -> float:
    """Share of a cheap ranking that holds a share `kept` of the first `top` of a dear one, by a Gaussian copula.

    With z and c the normal scores of a material in the dear and the cheap ranking, c is normal around rho z with
    variance 1 - rho². The share is P(c > t), where P(c > t | z > z_top) = kept.

    Args:
        correlation: rho, from 0 to 1.
        top: share of all that the top of the dear ranking is, between 0 and 1.
        kept: share of that top which is to be held.
    """
    if not 0 < top < 1 or not 0 < kept < 1:
        raise ValueError(f"top {top:g} and kept {kept:g} must lie between 0 and 1")
    rho = float(np.clip(correlation, 0.0, 1.0 - 1e-9))
    # quantiles of z in the top, each as probable
    z = norm.isf(top * (np.arange(STEPS) + 0.5) / STEPS)
    spread = np.sqrt(1 - rho**2)
    low, high = -12.0, 12.0
    for _ in range(80):
        middle = (low + high) / 2
        held = float(norm.sf((middle - rho * z) / spread).mean())
        low, high = (middle, high) if held > kept else (low, middle)
    return float(norm.sf((low + high) / 2))


def _matching(top: float, kept: float, share: float) -> float:
    """The correlation for which `share_needed` gives a share; 1 where even that needs more, 0 where less."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if share_needed(middle, top, kept) > share else (low, middle)
    return (low + high) / 2


def _normal_scores(scores: Any) -> FloatArray:
    """(n,) normal scores of the places; equal ones share theirs."""
    values = np.asarray(scores, dtype=np.float64)
    return norm.ppf((rankdata(values) - 0.5) / len(values))
