"""What can be learned on plain vectors: one entry of `LEARNERS` each, and the heads that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from atomsets_core.models.vectors.forest import grow_forest, read_forest
from atomsets_core.models.vectors.gaussian import (
    MOST_FOR_LIKELIHOOD,
    fit_gaussian_process,
    fit_ridge,
    read_gaussian_process,
    read_ridge,
)
from atomsets_core.models.vectors.inputs import COMPOSITION, FEATURES

FloatArray = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]

TREES = {FEATURES: 100, COMPOSITION: 300}
"""Trees of all forests of a model, by what they see: each fold has its share. Features have hundreds of columns,
and trees on them take as much longer."""


class Fitted(Protocol):
    """A learner that has learned."""

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) means and (n,) standard deviations for (n, width) rows."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that it is, for saving: name -> (n,) or (n, width) array, see that of each learner."""
        ...


@dataclass(frozen=True)
class Learner:
    """A way to learn from plain vectors.

    Attributes:
        inputs: which vectors it sees, see `inputs`.
        fit: (n, width) rows, (n,) values, seed and number of folds -> fitted.
        read: the arrays of a fitted one and the width of its rows -> the same.
    """

    inputs: str
    fit: Callable[[FloatArray, FloatArray, int, int], Fitted]
    read: Callable[[Arrays, int], Fitted]


def _ridge(x: FloatArray, y: FloatArray, _seed: int, _folds: int) -> Fitted:
    return fit_ridge(x, y)


def _gaussian_process(x: FloatArray, y: FloatArray, seed: int, folds: int) -> Fitted:
    # Half the rows take an eighth of the time, so that five folds take less than one process of all rows.
    rows = MOST_FOR_LIKELIHOOD if folds == 1 else MOST_FOR_LIKELIHOOD // 2
    return fit_gaussian_process(x, y, seed=seed, most_for_likelihood=rows)


def _forest(x: FloatArray, y: FloatArray, seed: int, folds: int) -> Fitted:
    return grow_forest(x, y, trees=-(-TREES[FEATURES] // folds), seed=seed)


def _composition_forest(x: FloatArray, y: FloatArray, seed: int, folds: int) -> Fitted:
    return grow_forest(x, y, trees=-(-TREES[COMPOSITION] // folds), seed=seed)


RIDGE, GAUSSIAN_PROCESS, FOREST = "ridge", "Gaussian process", "random forest"
OF_COMPOSITION = "{}, composition"

LEARNERS: Mapping[str, Learner] = MappingProxyType(
    {
        RIDGE: Learner(FEATURES, _ridge, read_ridge),
        GAUSSIAN_PROCESS: Learner(FEATURES, _gaussian_process, read_gaussian_process),
        FOREST: Learner(FEATURES, _forest, read_forest),
        OF_COMPOSITION.format(RIDGE): Learner(COMPOSITION, _ridge, read_ridge),
        OF_COMPOSITION.format(FOREST): Learner(COMPOSITION, _composition_forest, read_forest),
    }
)
"""Name -> learner. An entry here is all that another one takes."""

NETWORKS = "AtomSets"
"""Stands for an ensemble of AtomSets networks among the parts of a head."""

MIXTURE = "mixture"
"""The mean of what sees the sites, the pooled features and the formula alone: where one is lost, the others aren't."""

HEADS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{name: (name,) for name in LEARNERS},
        f"{NETWORKS} + {GAUSSIAN_PROCESS}": (NETWORKS, GAUSSIAN_PROCESS),
        MIXTURE: (NETWORKS, GAUSSIAN_PROCESS, OF_COMPOSITION.format(RIDGE)),
    }
)
"""Name of a head -> the parts whose mean it is."""


def find_head(name: str, heads: Mapping[str, tuple[str, ...]] = HEADS) -> tuple[str, ...]:
    """The parts of a head.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in heads:
        raise ValueError(f"no head {name!r}; there are {', '.join(heads)}")
    return heads[name]
