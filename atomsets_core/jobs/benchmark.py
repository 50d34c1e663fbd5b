"""One fold of a benchmark task: a model trained on the training part, scored once on the test part.

Everything that looks at labels (scaling, choice of levels, stacking, number of epochs) happens in the fit, which is
given the training part alone. Features of frozen parents don't depend on labels and are made once for all folds.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from atomsets_core.features import AnyFeatures, FeatureStore, featurize_into, join_stored, parse_features
from atomsets_core.models import (
    BATCH_SIZE,
    AtomSetsNetwork,
    AutoAtomSets,
    TrainingOptions,
    apply,
    candidates_for,
    composition_statistics,
    gathered,
    held_out,
    mean_absolute_error,
    random_forest,
    root_mean_squared_error,
    train,
)
from atomsets_core.parents import carrier_versions, load_composition, load_parent
from atomsets_core.sources import Dataset, Task, load_dataset
from atomsets_core.storage import Store
from atomsets_core.structures import Structures, as_compositions
from atomsets_core.transforms import LOG10, NONE

FloatArray = npt.NDArray[np.float64]

FEWEST_ALONE, MOST_ALONE = 30, 1000
"""Passes over the data of a network that is by itself; ensembles of the recipe do with fewer."""

STEPS_ALONE = 10_000
"""Gradient steps of such a network, within these passes."""

PASSES_GRAPH, STEPS_GRAPH, BATCH_GRAPH = 50, (5000, 10_000), 32
"""Passes of the graph network from scratch, within these steps; a step costs many times more."""

PACKAGES = ("torch", "numpy", "scikit-learn", "pymatgen")
"""Whose versions a result names, besides those that carry the weights of its parents."""


@dataclass(frozen=True)
class Variant:
    """A model that can be benchmarked.

    Attributes:
        name: on the command line.
        title: in tables.
        features: specifications of the features that have to be made; of each those for the kind of inputs are taken.
        only_structures: needs coordinates.
        only_values: can't do classes.
        versions: of what it does with compositions and with structures, raised when it gives other predictions for the
            same data and seed; results of another are not added to.
    """

    name: str
    title: str
    features: tuple[str, ...] = ()
    only_structures: bool = False
    only_values: bool = False
    versions: tuple[int, int] = (1, 1)

    def fits(self, task: Task) -> bool:
        """Whether it can be run on a task."""
        return not (self.only_structures and task.compositions) and not (self.only_values and task.classes)

    def version(self, task: Task) -> int:
        """The one that a task is done with."""
        return self.versions[0 if task.compositions else 1]


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("auto", "default recipe: AtomSets chosen inside the fold, stacked with trees", versions=(2, 3)),
        Variant("auto-networks", "the networks of the default recipe alone", versions=(2, 3)),
        Variant("AtomSets-V0", "AtomSets-V0, one network", ("megnet:V0",)),
        *(
            Variant(f"AtomSets-{level}", f"AtomSets-{level}, one network", (f"megnet:{level}",), only_structures=True)
            for level in ("V1", "V2", "V3")
        ),
        *(
            Variant(f"MLP-{level}", f"MLP-{level}, one network", (f"megnet:{level}",), only_structures=True)
            for level in ("v", "f2", "f1")
        ),
        Variant("random-forest", "random forest on composition statistics"),
        # It needs no features; but a structure that the parent refuses has no graph for it either.
        Variant(
            "megnet-scratch",
            "MEGNet trained from scratch",
            ("megnet:V1",),
            only_structures=True,
            only_values=True,
            versions=(1, 2),
        ),
    )
}


def specifications(variant: str, task: Task, n: int) -> tuple[str, ...]:
    """Specifications of the features a variant needs of a task's n structures; compositions need no store."""
    if task.compositions:
        return ()
    return candidates_for(n, compositions=False) if variant.startswith("auto") else VARIANTS[variant].features


def prepare(name: str, data: str, features: FeatureStore, start: int, stop: int) -> dict[str, float]:
    """Put features of some of a task's structures into the store, where they are missing.

    Args:
        name: of the task.
        data: folder of its file.
        features: where they are to be.
        start: first structure.
        stop: the one after the last.

    Returns:
        "rows" that the parent can take, and "cpu_seconds" that it took.
    """
    cpu = time.process_time()
    structures = load_dataset(name, Path(data)).take(np.arange(start, stop))
    if not isinstance(structures, Structures):
        raise TypeError(f"{name} has no structures")
    found = featurize_into(features, structures)
    return {"rows": len(found), "cpu_seconds": time.process_time() - cpu}


def lacking(dataset: Dataset, features: FeatureStore) -> npt.NDArray[np.bool_]:
    """(n,) structures of a task that nobody has given to this parent yet."""
    assert isinstance(dataset.inputs, Structures)  # noqa: S101
    return features.locate([str(h) for h in dataset.inputs.hashes]).missing


def run_fold(
    name: str, data: str, store_url: str, variant: str, fold: int, seed: int, limit: int | None = None
) -> dict[str, Any]:
    """Train a variant on the training part of a fold and score it on the test part.

    Args:
        name: of the task.
        data: folder of its file.
        store_url: features made by `prepare`.
        variant: one of `VARIANTS`.
        fold: which.
        seed: of everything random.
        limit: train on so many rows of the training part, for learning curves; a smaller limit takes some of the rows
            of a larger one.

    Returns:
        JSON: scores, predictions by official identifier, parameters, times; see `docs/accuracy.md`.
    """
    started, cpu = time.perf_counter(), time.process_time()
    dataset = load_dataset(name, Path(data))
    train_rows, test_rows = dataset.folds[fold]
    if limit is not None and limit < len(train_rows):
        train_rows = np.sort(np.random.default_rng(seed).permutation(train_rows)[:limit])
    inputs = _Inputs.load(dataset, store_url, variant)
    fitted = _fit(variant, dataset, inputs, train_rows, seed)
    predicted = _with_fallback(fitted, dataset, inputs, train_rows, test_rows, seed)
    truth, new = dataset.y[test_rows], unseen(variant, dataset, test_rows)
    return {
        "fold": fold,
        "n_train": len(train_rows),
        "n_test": len(test_rows),
        "n_test_official": len(dataset.test_ids[fold]),
        "n_fallback": int((~inputs.present[test_rows]).sum()),
        "scores": score(dataset.task, truth, predicted),
        "n_unseen": int(new.sum()),
        "scores_unseen": score(dataset.task, truth[new], predicted[new]) if len(np.unique(truth[new])) > 1 else {},
        "parameters": fitted.parameters,
        "report": fitted.report,
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "hardware": hardware(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
            **carrier_versions(inputs.parents),
        },
        "predictions": dict(zip(dataset.ids[test_rows].tolist(), predicted.tolist(), strict=True)),
    }


def unseen(variant: str, dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(rows,) whether the parent of compositions, if used, was trained on no crystal of the composition.

    What it was trained on, a computed gap say, is not the label, but may be close to it.
    """
    if not (dataset.task.compositions and variant.startswith("auto")):
        return np.zeros(len(rows), dtype=bool)
    return ~load_composition().has_seen(as_compositions(_formulas(dataset)).take(rows))


def hardware() -> dict[str, Any]:
    """Where it ran."""
    return {"machine": platform.machine(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}


def score(task: Task, y: FloatArray, predicted: FloatArray) -> dict[str, float]:
    """Scores of predictions: of values, or of the probability of class 1.

    "rocauc_of_labels" is what the package matbench 0.6 calls rocauc: it turns probabilities into labels at 0.5 before
    it scores them, so that published entries and this number can be compared; it equals the balanced accuracy.
    """
    if not task.classes:
        return {
            "mae": mean_absolute_error(y, predicted),
            "rmse": root_mean_squared_error(y, predicted),
            "max_error": float(np.abs(y - predicted).max()),
        }
    truth, labels = y > 0.5, predicted > 0.5
    return {
        "rocauc": float(roc_auc_score(truth, predicted)),
        "rocauc_of_labels": float(roc_auc_score(truth, labels)),
        "accuracy": float(accuracy_score(truth, labels)),
        "f1": float(f1_score(truth, labels)),
    }


@dataclass(frozen=True)
class _Inputs:
    """What models see of a task.

    Attributes:
        features: of the rows that every parent can take, or None for variants that need none.
        row: (n,) row of each of the task's rows in `features`, -1 where a parent refused.
        parents: names of those that gave the features.
    """

    features: AnyFeatures | None
    row: npt.NDArray[np.int64]
    parents: tuple[str, ...] = ()

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the row has features."""
        return self.row >= 0

    def take(self, rows: npt.NDArray[np.int64]) -> AnyFeatures:
        """Features of those rows that have them."""
        if self.features is None:
            raise ValueError("this variant works without features")
        found = self.row[rows]
        return self.features[found[found >= 0]]

    @classmethod
    def load(cls, dataset: Dataset, store_url: str, variant: str) -> _Inputs:
        """From the store, or at once for compositions."""
        every = np.arange(len(dataset))
        if dataset.task.compositions:
            auto = variant.startswith("auto")
            names = candidates_for(len(dataset), compositions=True) if auto else VARIANTS[variant].features
            if not names:
                return cls(None, every)
            names, batch = available(names)[0], as_compositions(_formulas(dataset))
            # The levels of all candidates together.
            spec = parse_features(union(names))
            made = spec.featurize(batch)
            if made.refused or len(made) != len(dataset):
                raise ValueError(f"{dataset.task.name}: {made.refused[0].reason}")
            return cls(made, every, spec.parents)
        names = available(specifications(variant, dataset.task, len(dataset)))[0]
        if not names:
            return cls(None, every)
        spec, store, parts = parse_features(union(names)), Store(store_url), {}
        assert isinstance(dataset.inputs, Structures)  # noqa: S101
        for parent in spec.parents:
            parts[parent] = featurize_into(FeatureStore.of(store, parent, spec.needed(parent)), dataset.inputs)
        # They stay in their shards: those of a large task are many times the memory of a fold that reads them.
        features: AnyFeatures = next(iter(parts.values())) if len(parts) == 1 else join_stored(parts)
        position = {name: row for row, name in enumerate(features.material_id)}
        return cls(features, np.array([position.get(name, -1) for name in dataset.ids], dtype=np.int64), spec.parents)


def available(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The specifications whose parents are installed, and why the others can't be used."""
    usable, missing = [], {}
    for name in names:
        try:
            for parent in parse_features(name).parents:
                load_parent(parent)
        except FileNotFoundError as error:
            missing[name] = str(error)
            continue
        usable.append(name)
    return tuple(usable), missing


def union(names: Sequence[str]) -> str:
    """One specification with the levels of several."""
    levels: dict[str, dict[str, None]] = {}
    for name in names:
        spec = parse_features(name)
        for parent in spec.parents:
            levels.setdefault(parent, {}).update(dict.fromkeys(spec.needed(parent)))
    return ",".join(f"{parent}:{'+'.join(of_parent)}" for parent, of_parent in levels.items())


@dataclass(frozen=True)
class _Fitted:
    """A trained variant: rows of the task -> predictions, and what can be said about it."""

    predict: Callable[[npt.NDArray[np.int64]], FloatArray]
    parameters: dict[str, Any]
    report: dict[str, Any]


def _fit(variant: str, dataset: Dataset, inputs: _Inputs, rows: npt.NDArray[np.int64], seed: int) -> _Fitted:
    """Train a variant on these rows; nothing else of `dataset.y` is read."""
    rows = rows[inputs.present[rows]]
    y = dataset.y[rows]
    if variant in ("auto", "auto-networks"):
        model = AutoAtomSets(
            "classification" if dataset.task.classes else "regression", heads=variant == "auto", seed=seed
        )
        model.fit(inputs.take(rows), y)
        predict = (lambda r: model.predict_proba(inputs.take(r))[:, 1]) if dataset.task.classes else (
            lambda r: model.predict(inputs.take(r))
        )  # fmt: skip
        report = {"choice": model.choice_.report, "weights": model.weights_, "errors_out_of_fold": model.errors_}
        return _Fitted(predict, {"features": model.choice_.features, **_plain(model.choice_.parameters)}, report)
    if variant == "random-forest":
        return _forest(dataset, rows, seed)
    if variant == "megnet-scratch":
        return _megnet(dataset, rows, seed)
    return _one_network(VARIANTS[variant].features[0], dataset, inputs, rows, seed)


def _one_network(features: str, dataset: Dataset, inputs: _Inputs, rows: npt.NDArray[np.int64], seed: int) -> _Fitted:
    """A network of the publication's sizes on one level: 64-64 on each site, mean, 64-64 after it, relu.

    As there, a tenth of the training rows chooses the epoch.
    """
    spec, classes = parse_features(features), dataset.task.classes
    features_of, target = inputs.take(rows), dataset.y[rows][:, None]
    data, held = gathered(features_of, spec), held_out(features_of.formula, 0.1, seed)[None]
    torch.manual_seed(seed)
    network = AtomSetsNetwork(1, data.sites.shape[1], data.structure.shape[1])
    loss = "logistic" if classes else "absolute"
    epochs = int(np.clip(STEPS_ALONE * BATCH_SIZE / len(rows), FEWEST_ALONE, MOST_ALONE))
    options = TrainingOptions(epochs, BATCH_SIZE, 1e-3, 0.0, loss, seed, patience=epochs)
    train(network, data, target, ~held, options, validation=held)

    def predict(wanted: npt.NDArray[np.int64]) -> FloatArray:
        output = apply(network, gathered(inputs.take(wanted), spec))[0, :, 0]
        return 1.0 / (1.0 + np.exp(-output)) if classes else output

    return _Fitted(predict, {"features": features, **asdict(options)}, {})


def _forest(dataset: Dataset, rows: npt.NDArray[np.int64], seed: int) -> _Fitted:
    """Random forest on statistics of the composition."""
    table = composition_statistics(_formulas(dataset))
    if dataset.task.classes:
        classifier = RandomForestClassifier(n_estimators=300, max_features=1 / 3, random_state=seed, n_jobs=1)
        classifier.fit(table[rows], dataset.y[rows] > 0.5)
        return _Fitted(lambda r: classifier.predict_proba(table[r])[:, 1], {"trees": 300}, {})
    regressor = random_forest(seed)
    regressor.fit(table[rows], dataset.y[rows])
    return _Fitted(lambda r: regressor.predict(table[r]), {"trees": 300}, {})


def _megnet(dataset: Dataset, rows: npt.NDArray[np.int64], seed: int) -> _Fitted:
    """The graph network itself, every weight trained on the fold; a tenth of its rows chooses the epoch."""
    # Imported here: nothing else needs the graph networks.
    from atomsets_core.models import MEGNetRegressor

    scale = LOG10 if LOG10.accepts(dataset.y[rows]).all() else NONE
    steps = np.clip(PASSES_GRAPH * len(rows) / BATCH_GRAPH, *STEPS_GRAPH)
    epochs = int(np.clip(steps * BATCH_GRAPH / len(rows), 1, MOST_ALONE))
    model = MEGNetRegressor(epochs=epochs, batch_size=BATCH_GRAPH, transform=scale.name, seed=seed)
    structures = dataset.inputs
    if not isinstance(structures, Structures):
        raise ValueError(f"{dataset.task.name} has no structures")
    model.fit(structures.take(rows), dataset.y[rows])
    return _Fitted(lambda r: np.asarray(model.predict(structures.take(r))), _plain(model.get_params()), {})


def _with_fallback(
    fitted: _Fitted,
    dataset: Dataset,
    inputs: _Inputs,
    train_rows: npt.NDArray[np.int64],
    test_rows: npt.NDArray[np.int64],
    seed: int,
) -> FloatArray:
    """Predictions for all test rows; those that a parent refuses are predicted from the composition by trees."""
    present = inputs.present[test_rows]
    predicted = np.empty(len(test_rows))
    predicted[present] = fitted.predict(test_rows[present])
    if not present.all():
        table = composition_statistics(_formulas(dataset))
        if dataset.task.classes:
            trees = ExtraTreesClassifier(200, random_state=seed).fit(table[train_rows], dataset.y[train_rows] > 0.5)
            predicted[~present] = trees.predict_proba(table[test_rows[~present]])[:, 1]
        else:
            trees = ExtraTreesRegressor(200, random_state=seed).fit(table[train_rows], dataset.y[train_rows])
            predicted[~present] = trees.predict(table[test_rows[~present]])
    return predicted


def _formulas(dataset: Dataset) -> list[str]:
    if isinstance(dataset.inputs, Structures):
        return [str(formula) for formula in dataset.inputs.formulas]
    return [str(formula) for formula in dataset.inputs]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
