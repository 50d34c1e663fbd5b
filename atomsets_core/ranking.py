"""From predictions to a ranked list and a diverse shortlist."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

GOALS = ("maximize", "minimize", "target")
ACQUISITIONS = ("ucb", "mean", "ei")

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
) -> FloatArray:
    """(n,) scores, higher is better, on the scale the model works on.

    Args:
        mean: (n,) predictions.
        std: (n,) calibrated standard deviations.
        goal: "maximize", "minimize", or "target" for values near `target`.
        kind: "ucb": mean + kappa std (for minimize, -mean + kappa std); "mean": kappa 0; "ei": expected improvement
            over `best` (Jones et al., J. Glob. Optim. 13, 455 (1998)).
        kappa: weight of the uncertainty.
        best: best training value, needed by "ei".
        target: wanted value, needed by the goal "target"; the score is then minus the distance to it, reduced by
            kappa std for "ucb".

    Raises:
        ValueError: an unknown goal or kind, or a value it needs is missing.
    """
    if goal not in GOALS:
        raise ValueError(f"no goal {goal!r}; there are {', '.join(GOALS)}")
    if kind not in ACQUISITIONS:
        raise ValueError(f"no acquisition {kind!r}; there are {', '.join(ACQUISITIONS)}")
    if goal == "target":
        if target is None or kind == "ei":
            raise ValueError("the goal 'target' needs a target value and the acquisition 'ucb' or 'mean'")
        return -np.abs(mean - target) + (kappa if kind == "ucb" else 0.0) * std
    sign = 1.0 if goal == "maximize" else -1.0
    if kind == "ei":
        if best is None:
            raise ValueError("the acquisition 'ei' needs the best training value")
        gain = sign * (mean - best)
        z = gain / np.maximum(std, 1e-12)
        return gain * norm.cdf(z) + std * norm.pdf(z)
    return sign * mean + (kappa if kind == "ucb" else 0.0) * std


def diverse_shortlist(
    score: FloatArray, features: npt.NDArray[np.floating], groups: npt.NDArray[np.object_], size: int, spread: float
) -> npt.NDArray[np.int64]:
    """Row numbers of a shortlist: best score first, then the best trade of score against likeness to what is chosen.

    Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): the next row has the highest
    (1 - spread) x score + spread x distance to the nearest chosen one, both scaled to 0..1 over the rows offered. Of
    one group only the best-scored row is taken.

    Args:
        score: (n,) higher is better.
        features: (n, width) vectors in which likeness is measured.
        groups: (n,) labels such as reduced formulas.
        size: rows wanted; fewer come back when there are fewer groups.
        spread: 0 takes the best scores, 1 looks at likeness alone.
    """
    n = len(score)
    if not n or size < 1:
        return np.empty(0, dtype=np.int64)
    relevance = (score - score.min()) / (np.ptp(score) or 1.0)
    open_ = np.zeros(n, dtype=bool)
    seen: set[str] = set()
    for row in np.argsort(-score, kind="stable"):
        if str(groups[row]) not in seen:
            seen.add(str(groups[row]))
            open_[row] = True
    chosen = [int(np.argmax(np.where(open_, relevance, -np.inf)))]
    nearest = np.linalg.norm(features - features[chosen[0]], axis=1)
    scale = float(nearest.max()) or 1.0
    while len(chosen) < size:
        open_[chosen[-1]] = False
        if not open_.any():
            break
        value = (1.0 - spread) * relevance + spread * np.minimum(nearest / scale, 1.0)
        chosen.append(int(np.argmax(np.where(open_, value, -np.inf))))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.int64)
