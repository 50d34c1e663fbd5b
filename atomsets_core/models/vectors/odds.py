"""What can be learned of a class on plain vectors: log odds that a row belongs to it, and the heads made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from atomsets_core.models.vectors.forest import Forest, grow_forest, read_forest
from atomsets_core.models.vectors.gaussian import Scaler
from atomsets_core.models.vectors.inputs import COMPOSITION, FEATURES
from atomsets_core.models.vectors.learners import (
    FOREST,
    MIXTURE,
    NETWORKS,
    OF_COMPOSITION,
    TREES,
    Arrays,
    Fitted,
    Learner,
)

FloatArray = npt.NDArray[np.float64]

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Inverse penalties of the logistic regression that are tried, on vectors of length 1 or so."""

LOGISTIC = "logistic regression"


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression.

    Attributes:
        scaler: of the columns.
        weights: (width,) on scaled columns.
        centre: log odds of the mean row.
    """

    scaler: Scaler
    weights: FloatArray
    centre: float

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) log odds for (n, width) rows, and (n,) zeros: it knows no deviation of its own."""
        odds = self.centre + self.scaler(x) @ self.weights
        return odds, np.zeros(len(x))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `read_logistic` takes: name -> (width,) or (1,) array."""
        return {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "weights": self.weights,
            "centre": np.array([self.centre]),
        }


def fit_logistic(x: FloatArray, y: FloatArray, seed: int = 0) -> Logistic:
    """Ridge-penalised logistic regression, its strength by the log loss of three parts, each left out once.

    Args:
        x: (n, width) rows.
        y: (n,) 1 for rows of the class, 0 for the others.
        seed: of the parts.
    """
    scaler, label = Scaler.of(x), y.round().astype(np.int64)
    fewest = int(min(label.sum(), len(label) - label.sum()))
    if not fewest:
        # Of one kind alone nothing is learned but how many there are; the half keeps the odds finite.
        return Logistic(scaler, np.zeros(x.shape[1]), float(logit((label.sum() + 0.5) / (len(label) + 1.0))))
    scaled = scaler(x)
    chosen = STRENGTHS[1]
    if fewest >= 3:
        parts = StratifiedKFold(3, shuffle=True, random_state=seed)
        told = [
            cross_val_score(_regression(c), scaled, label, cv=parts, scoring="neg_log_loss").mean() for c in STRENGTHS
        ]
        chosen = STRENGTHS[int(np.argmax(told))]
    fitted = _regression(chosen).fit(scaled, label)
    return Logistic(scaler, fitted.coef_[0].astype(np.float64), float(fitted.intercept_[0]))


def _regression(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=500)


def read_logistic(arrays: Arrays, width: int) -> Logistic:
    """The regression of `Logistic.arrays`.

    Raises:
        KeyError: an array is missing.
        ValueError: they are not of rows of this width, or not finite.
    """
    mean, scale, weights, centre = (arrays[name] for name in ("mean", "scale", "weights", "centre"))
    if any(array.shape != (width,) for array in (mean, scale, weights)) or centre.shape != (1,):
        raise ValueError("the arrays of a logistic regression are of another width")
    if not all(np.isfinite(array).all() for array in (mean, scale, weights, centre)) or not (scale > 0).all():
        raise ValueError("a logistic regression holds something that is not a number")
    return Logistic(Scaler(mean, scale), weights, float(centre[0]))


@dataclass(frozen=True)
class OddsForest:
    """A random forest of 0 and 1, whose trees vote.

    Attributes:
        forest: of the votes.
    """

    forest: Forest

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) log odds of the mean vote for (n, width) rows, and (n,) zeros."""
        votes, trees = self.forest.predict(x)[0], len(self.forest.roots)
        # A vote more on either side: no number of trees makes anything certain.
        return logit((np.clip(votes, 0.0, 1.0) * trees + 0.5) / (trees + 1.0)), np.zeros(len(x))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As `Forest.arrays`: name -> (n,) or (n_trees + 1,) array."""
        return self.forest.arrays()


def _logistic(x: FloatArray, y: FloatArray, seed: int, _folds: int) -> Fitted:
    return fit_logistic(x, y, seed)


def _composition_forest(x: FloatArray, y: FloatArray, seed: int, folds: int) -> Fitted:
    return OddsForest(grow_forest(x, y, trees=-(-TREES[COMPOSITION] // folds), seed=seed))


def _read_forest(arrays: Arrays, width: int) -> OddsForest:
    return OddsForest(read_forest(arrays, width))


ODDS: Mapping[str, Learner] = MappingProxyType(
    {
        LOGISTIC: Learner(FEATURES, _logistic, read_logistic),
        OF_COMPOSITION.format(LOGISTIC): Learner(COMPOSITION, _logistic, read_logistic),
        OF_COMPOSITION.format(FOREST): Learner(COMPOSITION, _composition_forest, _read_forest),
    }
)
"""Name -> learner of log odds. An entry here is all that another one takes."""

CLASS_HEADS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        NETWORKS: (NETWORKS,),
        **{name: (name,) for name in ODDS},
        MIXTURE: (NETWORKS, LOGISTIC, OF_COMPOSITION.format(LOGISTIC)),
    }
)
"""Name of a head of classes -> the parts whose mean log odds it is."""


def chances(odds: FloatArray) -> FloatArray:
    """(n,) probabilities of (n,) log odds."""
    found: FloatArray = expit(odds)
    return found
