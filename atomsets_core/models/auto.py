"""The default recipe as one estimator: AtomSets on the features that `choose` picks, stacked with tree ensembles.

Set networks win where structure matters, trees on statistics of the composition where amounts of a few elements decide
(steels). Which it is, is learned: every learner predicts each training row from models that never saw its formula, and
the mixture that is best on these predictions is applied to new rows. Its weights are not negative and add up to one, so
with few rows it can't do worse than a mean of learners (Breiman, Mach. Learn. 24, 49 (1996)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from pymatgen.core import Composition
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, vstack
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold

from atomsets_core.features import AnyFeatures, FeatureSpec, as_batch, in_memory, parse_features
from atomsets_core.models.baselines import composition_statistics
from atomsets_core.models.folds import formula_groups
from atomsets_core.models.networks.checkpoints import Progress
from atomsets_core.models.networks.set_network import AtomSetsNetwork
from atomsets_core.models.networks.training import TrainingOptions, train
from atomsets_core.models.networks.training_data import apply
from atomsets_core.models.recipe import (
    BATCH_SIZE,
    LEARNING_RATE,
    TRIED,
    WEIGHT_DECAY,
    Choice,
    choose,
    gathered,
    network_for,
)
from atomsets_core.parents import Features, resolve_device
from atomsets_core.transforms import find_transform, transform_target

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

NARROW = 8
"""Levels of at most so many columns mean something by themselves (amounts, stiffness) and are shown to the trees."""

FLOOR_SHARE = 0.01
"""When so many training values are the smallest one (a gap of 0), nothing below it is predicted."""

MANY = 20_000
"""Training rows above which the ensemble has fewer members."""

NETWORKS = "AtomSets"


class AutoAtomSets(BaseEstimator):
    """Regression or classification with nothing to set.

    Args:
        task: "regression" or "classification".
        features: "auto", or a specification that is not to be chosen.
        members: networks in the ensemble, a multiple of `folds`; None for one a fold.
        folds: parts the training rows are cut into; rows of one formula stay together. None for ten, and for five of
            more than 20,000 rows, where a network has enough to see and takes long.
        heads: whether tree ensembles are stacked with the networks.
        seed: of everything.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        choice_: what `choose` picked, with its report.
        weights_: learner -> weight in the mixture.
        errors_: learner -> out-of-fold error (mean absolute error, or log loss), "mixture" among them.
        classes_: of a classification, ascending.
    """

    def __init__(
        self,
        task: str = "regression",
        *,
        features: str = "auto",
        members: int | None = None,
        folds: int | None = None,
        heads: bool = True,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.task = task
        self.features = features
        self.members = members
        self.folds = folds
        self.heads = heads
        self.seed = seed
        self.device = device

    def fit(self, X: Any, y: npt.ArrayLike, progress: Progress | None = None) -> Self:
        """Choose, train and stack.

        Args:
            X: n structures, compositions or formulas, or their features.
            y: (n,) values, or classes.
            progress: called after each epoch of the networks.

        Raises:
            ValueError: see `choose`; rows that a parent can't take.
        """
        batch, y = as_batch(X), np.asarray(y)
        limits: dict[str, Any] = {} if self.features == "auto" else {"candidates": [self.features]}
        self.choice_: Choice = choose(batch, y, self.task, self.seed, transforms=TRIED, **limits)
        self.spec_: FeatureSpec = parse_features(self.choice_.features)
        features = self._features(batch)
        target = self._prepare(y)
        folds = self.folds or (10 if len(features) <= MANY else 5)
        groups = formula_groups(features.formula)
        # not `group_folds`: what this recipe is known to reach was measured with these folds
        cut = GroupKFold(min(folds, int(groups.max()) + 1), shuffle=True, random_state=self.seed)
        splits = list(cut.split(groups, groups=groups))
        learned = {NETWORKS: self._fit_networks(features, target, splits, progress)}
        if self.heads:
            learned |= self._fit_heads(features, target, splits)
        truth = self._inverse(target)
        self.weights_, self.errors_ = _mix(learned, truth, classes=self.task == "classification")
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """(n,) values in the unit of the target, or classes."""
        mixture = self._mixture(X)
        if self.task == "classification":
            chosen: npt.NDArray[Any] = self.classes_[mixture.argmax(axis=1)]
            return chosen
        return mixture[:, 0]

    def predict_proba(self, X: Any) -> FloatArray:
        """(n, classes) probabilities, in the order of `classes_`.

        Raises:
            ValueError: of a regression.
        """
        if self.task != "classification":
            raise ValueError("a regression has no probabilities")
        return self._mixture(X)

    def _mixture(self, X: Any) -> FloatArray:
        if not hasattr(self, "weights_"):
            raise NotFittedError("fit the model before predicting")
        features = self._features(as_batch(X))
        data = gathered(features, self.spec_)
        predicted = {NETWORKS: self._inverse(self._link(apply(self.network_, data)).mean(axis=0))}
        if self.heads:
            columns = head_tables(features, self.spec_)
            for name, models in self.heads_.items():
                for reading, each in _readings(name, models, columns[HEADS[name].table]).items():
                    predicted[reading] = self._inverse(np.mean(each, axis=0))
        return np.sum([weight * predicted[name] for name, weight in self.weights_.items()], axis=0)

    def _prepare(self, y: npt.NDArray[Any]) -> FloatArray:
        """(n, outputs): the scaled target, or one column a class."""
        if self.task == "classification":
            self.classes_ = np.unique(y)
            return (y[:, None] == self.classes_).astype(np.float64)
        self.transform_ = self.choice_.parameters["transform"]
        values = y.astype(np.float64)
        self.floor_ = values.min() if np.mean(values == values.min()) >= FLOOR_SHARE else -np.inf
        return transform_target(values, self.transform_)[:, None]

    def _inverse(self, outputs: FloatArray) -> FloatArray:
        """From the scale of the learners to the unit of the target; probabilities stay as they are."""
        if self.task == "classification":
            return outputs
        return np.maximum(find_transform(self.transform_).inverse(outputs), self.floor_)

    def _link(self, outputs: FloatArray) -> FloatArray:
        if self.task != "classification":
            return outputs
        exp = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return exp / exp.sum(axis=-1, keepdims=True)

    def _features(self, batch: Any) -> AnyFeatures:
        if isinstance(batch, AnyFeatures):
            return batch
        features = self.spec_.featurize(batch)
        if features.refused:
            raise ValueError(f"{features.refused[0].material_id}: {features.refused[0].reason}")
        return features

    def _fit_networks(
        self, features: AnyFeatures, target: FloatArray, splits: list[Any], progress: Progress | None
    ) -> FloatArray:
        """Train the ensemble; (n, outputs) out-of-fold predictions in the unit of the target."""
        data = gathered(features, self.spec_)
        members = self.members or len(splits)
        used = np.ones((members, len(target)), dtype=bool)
        for member in range(members):
            used[member, splits[member % len(splits)][1]] = False
        torch.manual_seed(self.seed)
        self.network_ = AtomSetsNetwork(
            members, data.sites.shape[1], data.structure.shape[1], outputs=target.shape[1], **network_for(self.task)
        ).to(resolve_device(self.device))
        loss = "cross_entropy" if self.task == "classification" else "absolute"
        options = TrainingOptions(
            self.choice_.parameters["epochs"], BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, loss, self.seed
        )
        train(self.network_, data, target, used, options, progress=progress)
        outputs = self._link(apply(self.network_, data))
        unseen = (~used)[:, :, None]
        return self._inverse((outputs * unseen).sum(axis=0) / unseen.sum(axis=0))

    def _fit_heads(self, features: AnyFeatures, target: FloatArray, splits: list[Any]) -> dict[str, FloatArray]:
        """Train every head on every fold; learner -> (n, outputs) out-of-fold predictions."""
        columns = head_tables(features, self.spec_)
        labels = target.argmax(axis=1) if self.task == "classification" else target[:, 0]
        self.heads_: dict[str, list[Any]] = {}
        learned: dict[str, FloatArray] = {}
        for name, head in HEADS.items():
            table = columns[head.table]
            self.heads_[name] = []
            for rows, unseen in splits:
                model = (head.classifier if self.task == "classification" else head.regressor)(self.seed)
                self.heads_[name].append(model.fit(table[rows], labels[rows]))
                for reading, (values,) in _readings(name, [model], table[unseen]).items():
                    learned.setdefault(reading, np.empty_like(target))[unseen] = values
        return {reading: self._inverse(values) for reading, values in learned.items()}


@dataclass(frozen=True)
class Head:
    """A learner beside the networks.

    Attributes:
        table: key of `head_tables`.
        regressor: seed -> unfitted model.
        classifier: seed -> unfitted model.
    """

    table: str
    regressor: Callable[[int], Any]
    classifier: Callable[[int], Any]


HEADS = {
    "trees on amounts": Head(
        "amounts",
        lambda seed: ExtraTreesRegressor(100, max_features=0.5, random_state=seed),
        lambda seed: ExtraTreesClassifier(100, max_features=0.5, random_state=seed),
    ),
    "trees": Head(
        "everything",
        lambda seed: ExtraTreesRegressor(60, max_features=0.2, random_state=seed),
        lambda seed: ExtraTreesClassifier(100, max_features=0.3, random_state=seed),
    ),
    "boosting": Head(
        "everything",
        lambda seed: HistGradientBoostingRegressor(
            max_iter=150, learning_rate=0.08, max_features=0.2, early_stopping=False, random_state=seed
        ),
        lambda seed: HistGradientBoostingClassifier(
            max_iter=120, learning_rate=0.1, max_features=0.2, early_stopping=False, random_state=seed
        ),
    ),
}


def head_tables(features: AnyFeatures, spec: FeatureSpec) -> dict[str, Float32Array]:
    """What the heads see.

    Returns:
        "amounts": (n, 103) atomic fraction of each element. "everything": these, statistics of the composition (see
        `baselines`), the narrow structure levels, and mean, deviation and extremes of the narrow site levels.
    """
    amounts = np.zeros((len(features), 119), dtype=np.float32)
    for row, formula in enumerate(features.formula):
        for element, part in Composition(formula).fractional_composition.items():
            amounts[row, element.Z] = part
    statistics = composition_statistics(list(features.formula)).astype(np.float32)
    everything = np.concatenate([amounts, statistics, _narrow_levels(features, spec)], axis=1)
    return {"amounts": amounts, "everything": everything}


def _narrow_levels(features: AnyFeatures, spec: FeatureSpec) -> Float32Array:
    """(n, width): levels of few columns, of sites what they come to in each structure; block by block."""
    levels = [(parent, level) for parent in spec.parents for level in spec.needed(parent)]

    def columns(block: Features) -> Float32Array:
        parts = [np.empty((len(block), 0), dtype=np.float32)]
        for parent, level in levels:
            key = f"{parent}:{level}" if block.parents else level
            if key in block.structure and block.structure[key].shape[1] <= NARROW:
                parts.append(block.structure[key])
            elif key in block.sites and (block.sites[key].shape[1] <= NARROW or parent in TABULATED):
                parts += [*block.moments(block.sites[key]), *block.extremes(block.sites[key])]
        return np.concatenate(parts, axis=1)

    found = np.empty((len(features), columns(in_memory(features[:1])).shape[1]), dtype=np.float32)
    if found.shape[1]:
        for rows, block in features.blocks():
            found[rows] = columns(block)
    return found


TABULATED = ("magpie", "oliynyk")
"""Tables of measured properties of the elements, whose statistics mean something too."""


def _readings(name: str, models: Sequence[Any], table: Float32Array) -> dict[str, list[FloatArray]]:
    """Reading -> (n, outputs) values or probabilities of each model.

    Trees that are grown to single rows are samples of what the target may be. Their mean has the least squared error,
    their median the least absolute one, which is another matter where many values are the same: of a material that is
    more likely a metal than not, the median says that its gap is 0. Which of them counts is left to the mixture.
    """
    if hasattr(models[0], "predict_proba"):
        return {name: [np.asarray(model.predict_proba(table), dtype=np.float64) for model in models]}
    if not hasattr(models[0], "estimators_"):
        return {name: [np.asarray(model.predict(table), dtype=np.float64)[:, None] for model in models]}
    each = [np.stack([tree.predict(table) for tree in model.estimators_]) for model in models]
    return {
        name: [trees.mean(axis=0)[:, None] for trees in each],
        f"{name}, median": [np.median(trees, axis=0)[:, None] for trees in each],
    }


def _mix(
    learned: dict[str, FloatArray], truth: FloatArray, *, classes: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Weights of the learners, none negative, that are best on their out-of-fold predictions; and the errors."""
    names = list(learned)
    if classes:
        each = np.column_stack([(learned[name] * truth).sum(axis=1) for name in names])
        weights = _mixture_weights(np.clip(each, 1e-6, 1.0))
        error = {
            name: float(-np.log(np.clip(column, 1e-6, 1.0)).mean()) for name, column in zip(names, each.T, strict=True)
        }
        error["mixture"] = float(-np.log(np.clip(each @ weights, 1e-6, 1.0)).mean())
    else:
        each = np.column_stack([learned[name][:, 0] for name in names])
        weights = _least_deviation_weights(each, truth[:, 0])
        error = {name: float(np.abs(column - truth[:, 0]).mean()) for name, column in zip(names, each.T, strict=True)}
        error["mixture"] = float(np.abs(each @ weights - truth[:, 0]).mean())
    return dict(zip(names, weights.tolist(), strict=True)), error


def _mixture_weights(likelihood: FloatArray, steps: int = 500) -> FloatArray:
    """(k,): largest mean log likelihood of a mixture of k learners, by expectation maximisation."""
    weights = np.full(likelihood.shape[1], 1.0 / likelihood.shape[1])
    for _ in range(steps):
        weights = weights * (likelihood / (likelihood @ weights)[:, None]).mean(axis=0)
    return weights


def _least_deviation_weights(predicted: FloatArray, truth: FloatArray) -> FloatArray:
    """(k,): smallest mean absolute error, as a linear programme over the weights and the errors of the rows."""
    n, k = predicted.shape
    if k == 1:
        return np.ones(1)
    scale = float(np.abs(truth).mean()) or 1.0
    values, aim = csr_array(predicted / scale), truth / scale
    bounds = vstack([hstack([values, -eye_array(n)]), hstack([-values, -eye_array(n)])], format="csr")
    solved = linprog(
        np.concatenate([np.zeros(k), np.ones(n) / n]),
        A_ub=bounds,
        b_ub=np.concatenate([aim, -aim]),
        A_eq=csr_array(np.concatenate([np.ones(k), np.zeros(n)])[None]),
        b_eq=[1.0],
        method="highs",
    )
    if not solved.success:
        return np.full(k, 1.0 / k)
    return np.asarray(solved.x[:k] / solved.x[:k].sum())
