"""Scores of a trained model on rows it has not seen: out of fold, and held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from atomsets_core.features import AnyFeatures
from atomsets_core.models import metrics
from atomsets_core.models.classifier import AtomSetsClassifier, class_scores
from atomsets_core.models.folds import group_folds
from atomsets_core.models.probabilities import probability_scores
from atomsets_core.models.trained import Model
from atomsets_core.models.vectors.probability import ClassProbability
from atomsets_core.transforms import transform_targets


def out_of_fold_scores(model: Model, values: npt.NDArray[Any], targets: Sequence[str] = ()) -> dict[str, Any]:
    """Scores of the out-of-fold predictions.

    Args:
        model: fitted with folds.
        values: (n) the labels it was fitted to.
        targets: names of the columns where there are several.

    Returns:
        For regression mae, rmse, r2 (on the model's scale), mae_in_unit, coverage; with several targets these of each
        by name, under "targets"; None for one that isn't defined: r2 of equal labels, coverage where labels are too
        few. For classification `class_scores`, for the probability of a class `probability_scores`.

    Raises:
        ValueError: the model was trained without folds.
    """
    if model.oof_ is None:
        raise ValueError("a model trained without folds has no out-of-fold predictions")
    if isinstance(model, AtomSetsClassifier):
        return dict(model.scores_)
    if isinstance(model, ClassProbability):
        return probability_scores(values, model.oof_.value)
    out = model.oof_
    truth = transform_targets(values, model.options_.transform)
    columns = [
        _regression_scores(t, m, u, v, c)
        for t, m, u, v, c in zip(
            truth.T,
            _columns(out.mean),
            _columns(values),
            _columns(out.value),
            np.atleast_1d(model.coverage_),
            strict=True,
        )
    ]
    return columns[0] if model.n_targets_ is None else {"targets": dict(zip(targets, columns, strict=True))}


def _columns(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(targets, n) of (n,) or (n, targets)."""
    return np.atleast_2d(array.T)


def _regression_scores(
    truth: npt.NDArray[np.float64],
    mean: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    predicted: npt.NDArray[np.float64],
    coverage: float,
) -> dict[str, float | None]:
    there = np.isfinite(truth)
    scores = {
        "mae": metrics.mean_absolute_error(truth[there], mean[there]),
        "rmse": metrics.root_mean_squared_error(truth[there], mean[there]),
        "r2": metrics.r_squared(truth[there], mean[there]),
        "mae_in_unit": metrics.mean_absolute_error(values[there], predicted[there]),
        "coverage": float(coverage),
    }
    return {name: score if np.isfinite(score) else None for name, score in scores.items()}


def held_out_check(
    model: Model, features: AnyFeatures, values: npt.NDArray[Any], share: float, seed: int = 0
) -> dict[str, Any]:
    """Train on a part, and score the rest, which nothing of the training has touched.

    Args:
        model: whose parameters are used; it is not changed.
        features: of n structures.
        values: (n,) labels, of one target.
        share: of the formulas held out, at random.
        seed: of that choice.

    Returns:
        share, n_train, n_test, in_domain (share of the held-out rows) and for regression coverage, coverage_in_domain,
        width (mean, on the model's scale), mae, r2 (likewise), mae_in_unit; for classification `class_scores`.

    Raises:
        ValueError: a share that leaves a part empty, or several targets.
    """
    if values.ndim != 1:
        raise ValueError("the check on held-out rows is for one target")
    parts = round(1 / share) if 0 < share < 1 else 0
    fold = group_folds(features.formula, parts, seed) if parts > 1 else np.full(len(values), -1)
    test = np.flatnonzero(fold == 0)
    if not len(test) or len(test) == len(values):
        raise ValueError(f"a share of {share} of {len(values)} rows can't be held out")
    train = np.setdiff1d(np.arange(len(values)), test)
    fresh = clone(model).set_params(features=str(model.spec_)) if hasattr(model, "spec_") else clone(model)
    result = fresh.fit(features[train], values[train]).predict_distribution(features[test])
    scores: dict[str, Any] = {
        "share": share,
        "n_train": len(train),
        "n_test": len(test),
        "in_domain": float(np.mean(result.in_domain)),
    }
    if isinstance(fresh, AtomSetsClassifier):
        known = np.isin(values[test], fresh.classes_)
        label = np.searchsorted(fresh.classes_, values[test][known])
        return {**scores, **class_scores(result.probability[known], label)}
    truth = transform_targets(values[test], fresh.options_.transform)[:, 0]
    inside = (values[test] >= result.lower) & (values[test] <= result.upper)
    low, high = (transform_targets(x, fresh.options_.transform)[:, 0] for x in (result.lower, result.upper))
    return {
        **scores,
        **_regression_scores(truth, result.mean, values[test], result.value, float(np.mean(inside))),
        "coverage_in_domain": float(np.mean(inside[result.in_domain])) if result.in_domain.any() else None,
        "asked_coverage": fresh.options_.coverage,
        "width": float(np.mean(high - low)),
    }
