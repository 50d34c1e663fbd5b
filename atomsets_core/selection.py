"""features="auto": what a model should see and how it should pool, chosen by inner validation.

The candidates are trained on inner folds of the training rows alone, rows of one formula together, and compared by
their error on the rows left out. Whatever is held out of the training as a whole plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.compositions import Compositions
from atomsets_core.parents import load_parent
from atomsets_core.structures import Structures

STRUCTURE_CANDIDATES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("megnet:V0+V1+V2+V3", {}),
    ("chgnet:site", {}),
    ("megnet:V0+V1+V2+V3,chgnet:site", {}),
    ("chgnet:site,sevennet:s1", {"pooling": ("mean", "max", "min"), "activation": "silu"}),
)

COMPOSITION_CANDIDATES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("megnet:V0,amount", {}),
    ("megnet:V0,amount", {"alpha": 0.0}),
    ("magpie,amount", {}),
    ("mat2vec,amount", {}),
    ("mat2vec,amount", {"alpha": 0.0}),
)


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        features: the specification.
        parameters: of the estimator, to set.
        report: what was tried, best first: features, parameters and error of each candidate.
    """

    features: str
    parameters: dict[str, Any] = field(default_factory=dict)
    report: list[dict[str, Any]] = field(default_factory=list)


def choose(
    inputs: Structures | Compositions,
    y: npt.NDArray[Any],
    task: str,
    seed: int,
    *,
    candidates: Sequence[tuple[str, dict[str, Any]]] | None = None,
    rows: int = 1000,
    folds: int = 3,
    members: int = 3,
    epochs: int = 40,
) -> Choice:
    """The candidate with the lowest error on inner folds.

    Args:
        inputs: n structures or compositions.
        y: (n,) or (n, targets) values on the scale the model works on (NaN where one is missing), or (n,) classes.
        task: "regression", compared by mean absolute error in standard deviations of each target, or "classification",
            by log loss.
        seed: of the inner folds and the members.
        candidates: specifications with parameters; by default a short list for the kind of input.
        rows: at most so many random rows are used.
        folds: inner folds.
        members: networks a candidate, all of them on each fold.
        epochs: of each.

    Raises:
        ValueError: no candidate can be used, or the task is unknown.
    """
    if task not in ("regression", "classification"):
        raise ValueError(f"no task {task!r}; there are regression and classification")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(inputs))[:rows])
    inputs, y = inputs.take(chosen), np.asarray(y)[chosen]
    listed = candidates or (COMPOSITION_CANDIDATES if isinstance(inputs, Compositions) else STRUCTURE_CANDIDATES)
    common = {"members": members, "folds": 0, "epochs": epochs, "seed": seed}
    report: list[dict[str, Any]] = []
    for features, parameters in listed:
        try:
            error = _error(inputs, y, task, features, {**common, **parameters}, folds)
        except (FileNotFoundError, ValueError) as reason:  # a package that isn't installed, an element not covered
            report.append({"features": features, "parameters": parameters, "error": None, "reason": str(reason)})
            continue
        report.append({"features": features, "parameters": parameters, "error": error, "reason": ""})
    report.sort(key=lambda row: np.inf if row["error"] is None else row["error"])
    best = report[0]
    if best["error"] is None:
        raise ValueError(f"no candidate can be used: {best['features']}: {best['reason']}")
    return Choice(best["features"], best["parameters"], report)


def _error(
    inputs: Structures | Compositions,
    y: npt.NDArray[Any],
    task: str,
    features: str,
    parameters: dict[str, Any],
    folds: int,
) -> float:
    """Mean error of a candidate on the inner folds."""
    # The estimators call `choose`; here they are used, and so imported late.
    from sklearn.metrics import log_loss

    from atomsets_core.classifiers import AtomSetsClassifier
    from atomsets_core.ensembles import group_folds
    from atomsets_core.estimators import AtomSetsRegressor
    from atomsets_core.specification import parse_features

    spec = parse_features(features)
    for name in spec.parents:
        load_parent(name)
    computed = spec.featurize(inputs)
    if computed.refused:
        raise ValueError(f"{computed.refused[0].material_id}: {computed.refused[0].reason}")
    fold = group_folds(computed.formula, folds, parameters["seed"])
    if task == "classification":
        classifier = AtomSetsClassifier(features, **parameters)
        errors, labels = [], np.unique(y)
        for k in range(int(fold.max()) + 1):
            model = classifier.fit(computed[fold != k], y[fold != k])
            probability = np.full((int((fold == k).sum()), len(labels)), 1e-6)
            probability[:, np.searchsorted(labels, model.classes_)] += model.predict_proba(computed[fold == k])
            probability /= probability.sum(axis=1, keepdims=True)
            errors.append(log_loss(y[fold == k], probability, labels=labels))
        return float(np.mean(errors))
    predicted = np.full(y.shape, np.nan)
    for k in range(int(fold.max()) + 1):
        regressor = AtomSetsRegressor(features, **parameters).fit(computed[fold != k], y[fold != k])
        predicted[fold == k] = regressor.predict(computed[fold == k])
    scale = np.nanstd(y, axis=0)
    return float(np.nanmean(np.abs(y - predicted) / np.where(scale > 0, scale, 1.0)))
