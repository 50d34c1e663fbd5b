"""Rows of one reduced formula stay together: which rows those are, and the folds and parts that keep to it.

Polymorphs of a formula resemble each other in almost every property, so a row whose formula a model has seen says
little of what the model does with new ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def formula_groups(formulas: npt.NDArray[np.object_] | Sequence[str]) -> IntArray:
    """(n,) number of each row's group, from 0 in the order of the formulas' names; one formula is one group."""
    _, group = np.unique(np.asarray(formulas).astype(str), return_inverse=True)
    return group.astype(np.int64)


def kept_together(formulas: npt.NDArray[np.object_] | Sequence[str]) -> IntArray:
    """(n,) number of each row's group: its formula, or the row itself where all rows have one formula.

    Polymorphs of one formula, or one formula under many conditions, are all that such a set can tell apart.
    """
    group = formula_groups(formulas)
    return group if len(group) and group.max() else np.arange(len(group))


def group_folds(formulas: npt.NDArray[np.object_], folds: int, seed: int) -> IntArray:
    """(n,) fold of each row, rows of one formula in one fold, folds of equal size as far as that allows; -1 without.

    Where all rows have one formula, each row is a group, see `kept_together`.

    Not scikit-learn's `GroupKFold`: with `shuffle=True` it gives folds the same number of groups instead of rows, and
    without it the seed has no say. Models and rankings of one seed rest on these folds.
    """
    group = kept_together(formulas)
    counts = np.bincount(group)
    folds = min(folds, len(counts))
    if folds < 2:
        return np.full(len(group), -1, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order], kind="stable")]
    of_group, filled = np.empty(len(counts), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    for one in order:
        of_group[one] = filled.argmin()
        filled[of_group[one]] += counts[one]
    return of_group[group]


def stratified_folds(label: IntArray, formulas: npt.NDArray[np.object_], folds: int, seed: int) -> IntArray:
    """(n,) fold of each row, rows of one formula in one fold, classes shared evenly; -1 without.

    Args:
        label: (n,) number of each row's class, from 0.
        formulas: (n,) reduced formulas.
        folds: as many as there are formulas of the rarest class at most.
        seed: of the order.

    Raises:
        ValueError: a class whose rows all have one formula.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # folds are asked for in commands that start without it

    group = formula_groups(formulas)
    folds = min(folds, int(group.max()) + 1)
    fold = np.full(len(label), -1, dtype=np.int64)
    if folds < 2:
        return fold
    rarest = min(len(np.unique(group[label == k])) for k in range(label.max() + 1))
    if rarest < 2:
        raise ValueError(
            "a class has rows of one formula alone: without them it can't be learned; leave it out, or folds=0"
        )
    splitter = StratifiedGroupKFold(min(folds, rarest), shuffle=True, random_state=seed)
    for k, (_, test) in enumerate(splitter.split(np.zeros(len(label)), label, group)):
        fold[test] = k
    return fold


def held_out(formulas: npt.NDArray[np.object_], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """(n,) bool: whole formulas at random, as long as their rows are fewer than the share."""
    return drawn(formulas, math.ceil(share * len(formulas)) - 1, np.random.default_rng(seed + 1))


def drawn(formulas: npt.NDArray[np.object_], rows: float, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """(n,) bool: whole formulas in random order, as long as they have no more than so many rows together.

    At least one formula is drawn, and never all of several.
    """
    group = formula_groups(formulas)
    counts = np.bincount(group)
    order = random.permutation(len(counts))
    most = int(np.searchsorted(counts[order].cumsum(), rows, side="right"))
    return np.isin(group, order[: max(1, min(most, len(counts) - 1))])
