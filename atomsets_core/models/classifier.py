"""AtomSets classification with scikit-learn's API: an ensemble of set networks with calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.utils import compute_class_weight

from atomsets_core.models.ensemble import AtomSetsEnsemble, out_of_fold
from atomsets_core.models.folds import kept_together, stratified_folds
from atomsets_core.models.networks.checkpoints import Checkpoint, Progress
from atomsets_core.models.networks.training_data import apply
from atomsets_core.models.probabilities import (
    ProbabilityCalibrator,
    calibration_error,
    crossed_probabilities,
    fit_probabilities,
)
from atomsets_core.models.regressor import row_weights

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassPrediction:
    """Predictions for n structures.

    Attributes:
        label: (n,) most probable class.
        probability: (n, classes) calibrated, columns in the order of `classes_`.
        distance: (n,) to the nearest training structures in feature space.
        in_domain: (n,) bool, whether the distance is within the model's domain.
    """

    label: npt.NDArray[Any]
    probability: FloatArray
    distance: FloatArray
    in_domain: npt.NDArray[np.bool_]


class AtomSetsClassifier(ClassifierMixin, AtomSetsEnsemble):
    """Classification into two or more classes with an ensemble of AtomSets networks.

    Inputs, folds and features as in `AtomSetsRegressor`. Folds are also stratified by class. The logits of members that
    never saw a row calibrate the probabilities, also where `class_weight` has shifted them.

    Args:
        features: see `AtomSetsRegressor`, as the following.
        phi: widths of the layers on each site.
        rho: widths of the layers after pooling.
        pooling: any of mean, set2set, attention, sum, max, min, std, joined; by default mean for the sites of crystals,
            mean and max for the elements of compositions.
        alpha: exponent of the site weights in the mean and std.
        activation: "relu" or "silu".
        set2set_steps: attention steps of the pooling "set2set".
        set2set_hidden: units of the pooling "set2set".
        heads: of the pooling "attention".
        dropout: share of the hidden units left out at random in training.
        members: networks in the ensemble.
        folds: parts the training rows are cut into; 0 trains every member on all rows and calibrates nothing.
        epochs: passes over the training rows.
        batch_size: structures a step; "auto" follows the number of rows, see `training.automatic_batch_size`.
        learning_rate: at the top of the schedule.
        weight_decay: decoupled (AdamW).
        patience: epochs without improvement after which training stops; None trains to the end.
        validation_share: of the formulas a member may see, watched with `patience`.
        mixed_precision: bfloat16 products, for GPUs.
        class_weight: None, "balanced", or class -> weight, of the rows in the loss.
        calibration: "temperature", "isotonic" or "none".
        auto_limits: of features="auto", see `recipe.choose`.
        seed: of folds, initial weights and order.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        classes_: (classes,) sorted labels; the order of columns.
        oof_: out-of-fold `ClassPrediction` of the training rows, each fold calibrated on the others; None if folds
            is 0.
        scores_: accuracy, roc_auc (one against the rest, mean over classes), log_loss and calibration_error of these.
        calibrator_: of the probabilities.
        spec_: what the model sees; more are listed in `AtomSetsEnsemble`.
    """

    task = "classification"

    def __init__(
        self,
        features: str | None = None,
        *,
        phi: Sequence[int] = (128,),
        rho: Sequence[int] = (128,),
        pooling: Sequence[str] | None = None,
        alpha: float = 1.0,
        activation: str = "relu",
        set2set_steps: int = 3,
        set2set_hidden: int = 16,
        heads: int = 4,
        dropout: float = 0.0,
        members: int = 10,
        folds: int = 5,
        epochs: int = 60,
        batch_size: int | str = "auto",
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        patience: int | None = None,
        validation_share: float = 0.1,
        mixed_precision: bool = False,
        class_weight: str | Mapping[Any, float] | None = None,
        calibration: str = "temperature",
        auto_limits: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.features = features
        self.phi = phi
        self.rho = rho
        self.pooling = pooling
        self.alpha = alpha
        self.activation = activation
        self.set2set_steps = set2set_steps
        self.set2set_hidden = set2set_hidden
        self.heads = heads
        self.dropout = dropout
        self.members = members
        self.folds = folds
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_share = validation_share
        self.mixed_precision = mixed_precision
        self.class_weight = class_weight
        self.calibration = calibration
        self.auto_limits = auto_limits
        self.seed = seed
        self.device = device

    def fit(
        self,
        X: Any,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Train on structures, compositions or their features, and their classes.

        Args:
            X: n structures, formulas or compositions, or features with the levels of `features`.
            y: (n,) classes: numbers, booleans or texts.
            sample_weight: (n,) weights of the rows in the loss, times `class_weight`.
            progress: called after each epoch.
            checkpoint: where to keep an unfinished training; one that was cut off goes on and ends the same.

        Raises:
            ValueError: fewer than two classes, missing labels, lengths that differ, too few rows, structures the parent
                can't take.
        """
        labels = _labels(y)
        self.classes_, label = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"all labels are {self.classes_[0]!r}: two classes are needed at least")
        features = self._prepare(X, labels, len(labels))
        self.options_.loss = "logistic" if len(self.classes_) == 2 else "cross_entropy"
        self.fold_ = stratified_folds(label, features.formula, self.options_.folds, self.options_.seed)
        target = label[:, None] if len(self.classes_) == 2 else np.eye(len(self.classes_))[label]
        weights = row_weights(sample_weight, len(labels)) * self._class_weights(label)
        data = self._data(features)
        seen, distance = self._train(
            data, target.astype(np.float64), kept_together(features.formula), weights, progress, checkpoint
        )
        self.calibrator_ = ProbabilityCalibrator("none")
        self.oof_: ClassPrediction | None = None
        self.scores_: dict[str, float] = {}
        if self.fold_.max() >= 0:
            raw = np.nanmean(out_of_fold(apply(self.network_, data), seen), axis=0)
            self._calibrate(raw, label, distance)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """(n,) most probable classes; of equal ones the first in `classes_`."""
        return self.predict_distribution(X).label

    def predict_proba(self, X: Any) -> FloatArray:
        """(n, classes) calibrated probabilities, columns in the order of `classes_`."""
        return self.predict_distribution(X).probability

    def decision_function(self, X: Any) -> FloatArray:
        """(n,) log odds of the second of two classes, or (n, classes) log probabilities."""
        logs = np.log(np.maximum(self.predict_proba(X), 1e-300))
        return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs

    def predict_distribution(self, X: Any) -> ClassPrediction:
        """Classes and probabilities with domain flags.

        Raises:
            NotFittedError: before `fit`.
            ValueError: features of another parent than the model was trained on.
        """
        members, distance = self._apply(X)
        return self._prediction(self.calibrator_.probability(_logits(members.mean(axis=0))), distance)

    def _prediction(self, probability: FloatArray, distance: FloatArray) -> ClassPrediction:
        label = self.classes_[probability.argmax(axis=1)]
        return ClassPrediction(label, probability, distance, self.domain_.remoteness(distance) <= 1.0)

    def _class_weights(self, label: IntArray) -> FloatArray:
        """(n,) weight of each row by its class."""
        wanted = self.options_.class_weight
        if wanted is None:
            return np.ones(len(label))
        if isinstance(wanted, Mapping):
            unknown = [name for name in wanted if name not in self.classes_]
            if unknown:
                raise ValueError(f"class_weight names {unknown[0]!r}, which is not among the labels")
            by_class = np.array([wanted.get(name, 1.0) for name in self.classes_.tolist()])
        else:
            by_class = compute_class_weight(wanted, classes=np.arange(len(self.classes_)), y=label)
        return by_class[label]

    def _calibrate(self, raw: FloatArray, label: IntArray, distance: FloatArray) -> None:
        """Fit the probabilities to (n, outputs) out-of-fold outputs, and score them crosswise."""
        logits, method = _logits(raw), self.options_.calibration
        self.calibrator_ = fit_probabilities(logits, label, method)
        probability = crossed_probabilities(logits, label, self.fold_, method)
        self.oof_ = self._prediction(probability, distance)
        self.scores_ = class_scores(probability, label)

    def _state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        calibrator = self.calibrator_
        arrays = {}
        for k, (x, y) in enumerate(calibrator.curves):
            arrays[f"curve{k}.x"], arrays[f"curve{k}.y"] = x, y
        state = {
            "classes": self.classes_.tolist(),
            "scores": self.scores_,
            "calibrator": {
                "method": calibrator.method,
                "temperature": calibrator.temperature,
                "bias": list(calibrator.bias),
            },
        }
        return state, arrays

    def _restore(self, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.classes_, self.scores_ = np.array(state["classes"]), dict(state["scores"])
        raw = dict(state["calibrator"])
        numbers = range(len(self.classes_)) if raw["method"] == "isotonic" else ()
        curves = tuple((arrays[f"curve{k}.x"], arrays[f"curve{k}.y"]) for k in numbers)
        self.calibrator_ = ProbabilityCalibrator(raw["method"], raw["temperature"], tuple(raw["bias"]), curves)
        self.oof_ = None


def class_scores(probability: FloatArray, label: IntArray) -> dict[str, float]:
    """Accuracy, ROC-AUC (one against the rest, mean over the classes that are there), log loss, calibration error.

    Args:
        probability: (n, classes).
        label: (n,) number of the true class.
    """
    present = [k for k in range(probability.shape[1]) if 0 < (label == k).sum() < len(label)]
    binary = present[-1:] if probability.shape[1] == 2 else present
    areas = [roc_auc_score(label == k, probability[:, k]) for k in binary]
    scores = {
        "accuracy": float(np.mean(probability.argmax(axis=1) == label)),
        "log_loss": float(log_loss(label, probability, labels=np.arange(probability.shape[1]))),
        "calibration_error": calibration_error(probability, label),
    }
    return {**scores, "roc_auc": float(np.mean(areas))} if areas else scores


def _labels(y: npt.ArrayLike) -> npt.NDArray[Any]:
    """(n,) labels, none of them missing."""
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"classes must be (n,), not of shape {values.shape}")
    missing = np.array([value is None or value != value for value in values.tolist()], dtype=bool)
    if missing.any():
        raise ValueError(f"label {int(np.flatnonzero(missing)[0])} is missing")
    if values.dtype == object:
        kinds = {type(value) for value in values.tolist()}
        if len(kinds) > 1:
            raise ValueError(f"labels are of several kinds: {', '.join(sorted(kind.__name__ for kind in kinds))}")
        values = np.array(values.tolist())
    return values


def _logits(raw: FloatArray) -> FloatArray:
    """(n, classes) from (n, outputs): one output is the log odds of the second of two classes."""
    return np.concatenate([np.zeros_like(raw), raw], axis=1) if raw.shape[1] == 1 else raw
