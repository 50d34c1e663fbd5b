"""From a source to a trained model, in one process, without a campaign."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone

from atomsets_core import metrics
from atomsets_core.catalogue import Catalogue, read
from atomsets_core.classifiers import AtomSetsClassifier, class_scores
from atomsets_core.compositions import Compositions
from atomsets_core.discovery import (
    AtomSetsHead,
    CompositionForestHead,
    CompositionRidgeHead,
    Design,
    Head,
    Rows,
    answer,
    scored,
    summarize,
)
from atomsets_core.ensembles import AUTO, group_folds
from atomsets_core.estimators import AtomSetsRegressor, transform_targets
from atomsets_core.joined import AnyFeatures, join_stored
from atomsets_core.labels import usable_classes, usable_labels
from atomsets_core.saved_models import read_config
from atomsets_core.sources import Pulled, SourceError
from atomsets_core.specification import parse_features
from atomsets_core.storage import StorageError, Store
from atomsets_core.stored import SHARD_SIZE, featurize_into
from atomsets_core.structures import Refusal, Structures
from atomsets_core.training import Checkpoint, Progress, resolve_device

Model = AtomSetsRegressor | AtomSetsClassifier
KINDS: dict[str, type[AtomSetsRegressor] | type[AtomSetsClassifier]] = {
    kind.__name__: kind for kind in (AtomSetsRegressor, AtomSetsClassifier)
}
TASKS: dict[str, type[AtomSetsRegressor] | type[AtomSetsClassifier]] = {
    "regression": AtomSetsRegressor,
    "classification": AtomSetsClassifier,
}


@dataclass(frozen=True)
class Trained:
    """A model with what became of the data it was offered.

    Attributes:
        model: fitted.
        features: of the structures it was trained on.
        targets: names of the columns it learned.
        values: (n) their labels, in the unit of the target; (n, targets) where there are several.
        refused: every entry it could not use.
    """

    model: Model
    features: AnyFeatures
    targets: tuple[str, ...]
    values: npt.NDArray[Any]
    refused: list[Refusal]


def train_on(
    pulled: Pulled,
    target: str | Sequence[str],
    model: Model,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    store: Store | None = None,
    featurized: Callable[[int, int], None] | None = None,
) -> Trained:
    """Fit a model to columns of a source.

    Features lie in shards, of `store` or else of a temporary folder, so that those of all structures never have to fit
    into memory.

    Args:
        pulled: structures or compositions, and columns; see `open_source` for structures that stay in their file.
        target: column to learn, or several.
        model: unfitted.
        progress: called after each epoch.
        checkpoint: where to keep an unfinished training.
        store: feature store; features it lacks are made, a shard at a time, and stay there.
        featurized: called after each shard with the number of structures done and the number there was to do.

    Raises:
        SourceError: a column is missing or has no usable value, or the parent can take no structure.
        ValueError: too few values for the folds and intervals asked for.
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    usable, values, unlabelled = labels_of(pulled, names, model)
    structures, values = pulled.structures.take(np.flatnonzero(usable)), values[usable]
    if isinstance(structures, Catalogue) and (model.features == AUTO or len(structures) <= SHARD_SIZE):
        structures = structures.structures()
    # What is not chosen by trying depends on the kind of the input alone.
    shown = read(structures.take(np.arange(1))) if isinstance(structures, Catalogue) else structures
    spec = model.choose_features(shown, values[: len(shown)])
    with contextlib.ExitStack() as stack:
        if store is None and len(structures) > SHARD_SIZE and not isinstance(structures, Compositions):
            store = Store(stack.enter_context(tempfile.TemporaryDirectory(prefix="atomsets-")))
        features = featurize(structures, spec, store, featurized)
        if not len(features):
            reason = features.refused[0].reason
            raise SourceError(f"the parent can take none of the {len(structures)} structures: {reason}")
        row = {name: i for i, name in enumerate(structures.material_id)}
        kept = values[[row[name] for name in features.material_id]]
        model.fit(features, kept, progress=progress, checkpoint=checkpoint)
    return Trained(model, features, names, kept, [*pulled.refused, *unlabelled, *features.refused])


def labels_of(
    pulled: Pulled, targets: Sequence[str], model: Model
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any], list[Refusal]]:
    """Which rows can be learned from, the labels of all rows, and a refusal for each other row.

    Args:
        pulled: n rows.
        targets: columns; with several a row needs a value in one of them.
        model: whose transform or task says what is a label.

    Returns:
        (n,) bool; (n,) or (n, targets) labels, NaN where there is none; refusals.

    Raises:
        SourceError: a column that isn't there or holds nothing usable.
        ValueError: several targets for a classifier.
    """
    if isinstance(model, AtomSetsClassifier):
        if len(targets) > 1:
            raise ValueError(f"a classifier learns one column, not {len(targets)}: train one model for each")
        return usable_classes(pulled, targets[0])
    transforms = [model.transform] * len(targets) if isinstance(model.transform, str) else list(model.transform)
    found = [usable_labels(pulled, name, how) for name, how in zip(targets, transforms, strict=True)]
    columns = [
        np.where(
            usable, pd.to_numeric(pulled.columns[name], errors="coerce").to_numpy(np.float64, na_value=np.nan), np.nan
        )
        for name, (usable, _) in zip(targets, found, strict=True)
    ]
    if len(targets) == 1:
        return found[0][0], columns[0], found[0][1]
    usable = np.any([mask for mask, _ in found], axis=0)
    lost = set(pulled.structures.material_id[~usable])
    return usable, np.stack(columns, axis=1), [refusal for refusal in found[0][1] if refusal.material_id in lost]


def featurize(
    batch: Structures | Catalogue | Compositions,
    spec: str,
    store: Store | None = None,
    done: Callable[[int, int], None] | None = None,
) -> AnyFeatures:
    """Features of a batch at the levels of a specification such as "megnet:V0+V1", in memory or in a store.

    Those of compositions are small and quickly made: they are never stored.
    """
    parsed, device = parse_features(spec), str(resolve_device("auto"))
    if store is None or isinstance(batch, Compositions):
        return parsed.featurize(batch if isinstance(batch, Compositions) else read(batch), device)
    parts = {name: featurize_into(store, name, parsed.needed(name), batch, device, done) for name in parsed.parents}
    return next(iter(parts.values())) if len(parts) == 1 else join_stored(parts)


def load_model(store: Store, folder: str) -> Model:
    """A saved model of either kind.

    Raises:
        StorageError: the files are missing, damaged, of a newer format or of an unknown kind.
    """
    kind = read_config(store, folder).get("kind")
    if kind not in KINDS:
        raise StorageError(f"{store.url(folder)}: holds a model of the unknown kind {kind!r}")
    return KINDS[kind].load(store, folder)


def out_of_fold_scores(model: Model, values: npt.NDArray[Any], targets: Sequence[str] = ()) -> dict[str, Any]:
    """Scores of the out-of-fold predictions.

    Args:
        model: fitted with folds.
        values: (n) the labels it was fitted to.
        targets: names of the columns where there are several.

    Returns:
        For regression mae, rmse, r2 (on the model's scale), mae_in_unit, coverage; with several targets these of each
        by name, under "targets". For classification `class_scores`.

    Raises:
        ValueError: the model was trained without folds.
    """
    if model.oof_ is None:
        raise ValueError("a model trained without folds has no out-of-fold predictions")
    if isinstance(model, AtomSetsClassifier):
        return dict(model.scores_)
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
) -> dict[str, float]:
    there = np.isfinite(truth)
    return {
        "mae": metrics.mean_absolute_error(truth[there], mean[there]),
        "rmse": metrics.root_mean_squared_error(truth[there], mean[there]),
        "r2": metrics.r_squared(truth[there], mean[there]),
        "mae_in_unit": metrics.mean_absolute_error(values[there], predicted[there]),
        "coverage": float(coverage),
    }


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


def discovery_check(
    model: AtomSetsRegressor,
    features: AnyFeatures,
    values: npt.NDArray[np.float64],
    goal: str,
    seeds: int,
    quantile: float = 0.1,
    pool_share: float = 0.2,
) -> dict[str, Any]:
    """Simulated discovery: how the model does beyond the range it was trained in; see `discovery`.

    Returns:
        seeds, quantile, pool_share, goal, n_hidden, n_pool, and of each head its mean scores.
    """
    y = transform_targets(values, model.options_.transform)[:, 0]
    fresh = clone(model).set_params(features=str(model.spec_), **(model.choice_.parameters if model.choice_ else {}))
    heads: dict[str, Head] = {
        "AtomSets": AtomSetsHead(fresh.get_params()),
        "ridge, composition": CompositionRidgeHead(),
        "random forest, composition": CompositionForestHead(),
    }
    design, rows = Design(goal, quantile, pool_share), Rows(features)
    runs = [
        scored(
            {name: answer(head, rows, y, design, seed) for name, head in heads.items()},
            y,
            features.formula,
            design,
            seed,
        )
        for seed in range(seeds)
    ]
    options = {"goal": goal, "quantile": quantile, "pool_share": pool_share}
    table = [{name: value for name, value in row.items() if name != "hits"} for row in summarize(runs)]
    return {"seeds": seeds, **options, "n_hidden": runs[0]["n_hidden"], "n_pool": runs[0]["n_pool"], "heads": table}
