"""Acquisition functions: from a predicted mean and deviation to the score that candidates are ranked by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from atomsets_core.discovery.objectives import Objective

ACQUISITIONS = ("ucb", "mean", "ei", "probability", "thompson")

FloatArray = npt.NDArray[np.float64]


def acquisition(
    mean: FloatArray,
    std: FloatArray,
    *,
    goal: str = "maximize",
    kind: str = "ucb",
    kappa: float = 1.0,
    best: float | None = None,
    target: float | None = None,
    window: tuple[float, float] | None = None,
    random: np.random.Generator | None = None,
) -> FloatArray:
    """(n,) scores, higher is better, on the scale the model works on.

    Args:
        mean: (n,) predictions.
        std: (n,) calibrated standard deviations.
        goal: one of `objectives.GOALS`.
        kind: "mean": the utility of the prediction (greedy); "ucb": that plus kappa std; "ei": expected improvement
            over `best` (Jones et al., J. Glob. Optim. 13, 455 (1998)), or over the threshold of the goal exceed;
            "probability": of being better than `best` (Kushner, J. Basic Eng. 86, 97 (1964)), above the threshold or
            within the window; "thompson": the utility of a value drawn for each row by itself.
        kappa: weight of the uncertainty.
        best: best training value, needed by "ei" and "probability" for maximize and minimize.
        target: wanted value of the goal target, threshold of the goal exceed.
        window: ends of the goal window.
        random: draws for "thompson".

    Raises:
        ValueError: an unknown goal or kind, one that doesn't go with the other, or a value it needs is missing.
    """
    if kind not in ACQUISITIONS:
        raise ValueError(f"no acquisition {kind!r}; there are {', '.join(ACQUISITIONS)}")
    low, high = window or (None, None)
    objective = Objective(goal, target, low, high)
    if kind == "thompson":
        if random is None:
            raise ValueError("the acquisition 'thompson' needs a random generator")
        return objective.utility(mean + std * random.normal(size=len(mean)))
    if kind in ("mean", "ucb"):
        # Far below a threshold, or within a window, the prediction itself still tells good from better.
        utility = mean - _needed(target) if goal == "exceed" else objective.utility(mean)
        return utility + (kappa if kind == "ucb" else 0.0) * std
    spread = np.maximum(std, 1e-12)
    if goal == "window":
        if kind == "ei":
            raise ValueError("the goal 'window' takes the acquisition mean, ucb, probability or thompson")
        # P(low < y < high); its improvement over the best training value has no meaning, hence no "ei".
        return norm.cdf((_needed(high) - mean) / spread) - norm.cdf((_needed(low) - mean) / spread)
    if goal == "target":
        raise ValueError("the goal 'target' takes the acquisition ucb, mean or thompson")
    reference = target if goal == "exceed" else best
    if reference is None:
        raise ValueError(f"the acquisition {kind!r} needs the best training value")
    gain = (mean - reference) * (-1.0 if goal == "minimize" else 1.0)
    if kind == "probability":
        return norm.cdf(gain / spread)
    # E max(y - reference, 0) for y ~ N(mean, std^2): with z = gain / std, gain Phi(z) + std phi(z).
    return gain * norm.cdf(gain / spread) + std * norm.pdf(gain / spread)


def _needed(value: float | None) -> float:
    if value is None:
        raise ValueError("the goal needs its value")
    return value
