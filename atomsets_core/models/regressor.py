"""AtomSets regression with scikit-learn's API: an ensemble of set networks with calibrated intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin

from atomsets_core.models.ensemble import AtomSetsEnsemble
from atomsets_core.models.folds import group_folds, kept_together
from atomsets_core.models.networks.checkpoints import Checkpoint, Progress
from atomsets_core.models.trust import Calibrator, calibrate, crossed_coverage, faded, rows_needed
from atomsets_core.transforms import NONE, FloatArray, listed_transforms, transform_targets

RECIPE_VERSION = 3
"""Raised when the same data, parameters and seed give another model; stored results of older recipes are made again."""


@dataclass(frozen=True)
class Prediction:
    """Predictions for n structures; with several targets the arrays marked * are (n, targets).

    Attributes:
        value: (n,)* in the unit of the target; on a scale other than that of the values the median.
        lower: (n,)* lower end of the interval, unit of the target.
        upper: (n,)* upper end of the interval, unit of the target.
        mean: (n,)* on the scale the model works on, see `transforms`.
        std: (n,)* calibrated standard deviation on that scale.
        error: (n,)* the same in the unit of the target, to first order: std times the slope of the unit there, e.g.
            ln(10) x value x std of decades.
        distance: (n,) to the nearest training structures in feature space.
        in_domain: (n,) bool, whether the distance is within the model's domain.
    """

    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    mean: FloatArray
    std: FloatArray
    error: FloatArray
    distance: FloatArray
    in_domain: npt.NDArray[np.bool_]

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Name in files -> (n,)* values: all in the unit of the target but for mean and std_scale."""
        return {
            "predicted": self.value,
            "std": self.error,
            "lower": self.lower,
            "upper": self.upper,
            "mean": self.mean,
            "std_scale": self.std,
            "distance": self.distance,
            "in_domain": self.in_domain,
        }


class AtomSetsRegressor(RegressorMixin, AtomSetsEnsemble):
    """Regression with an ensemble of AtomSets networks on frozen features of pretrained networks.

    Inputs are structures, compositions or formulas (see `specification.as_batch`), or their features. The members are
    spread over `folds`: each leaves one fold of the training rows out (rows of one reduced formula stay together), so
    that every row has predictions from members that never saw it, scalers included. These out-of-fold predictions
    calibrate the intervals and are kept in `oof_`.

    Args:
        features: parents and levels, e.g. "megnet:V0+V1+V2+V3,chgnet:site" (see `specification`); None takes what suits
            the kind of input; "auto" chooses by inner validation (see `recipe`).
        phi: widths of the layers on each site.
        rho: widths of the layers after pooling.
        pooling: any of mean, set2set, attention, sum, max, min, std, joined; by default mean for the sites of crystals,
            mean and max for the elements of compositions.
        alpha: exponent of the site weights in the mean and std; below 1 the minor elements of a composition count more.
        activation: "relu" or "silu".
        set2set_steps: attention steps of the pooling "set2set".
        set2set_hidden: units of the pooling "set2set".
        heads: of the pooling "attention".
        dropout: share of the hidden units left out at random in training.
        members: networks in the ensemble.
        folds: parts the training rows are cut into; 0 trains every member on all rows and gives no intervals.
        epochs: passes over the training rows.
        batch_size: structures a step; "auto" follows the number of rows, see `training.automatic_batch_size`.
        learning_rate: at the top of the schedule.
        weight_decay: decoupled (AdamW).
        loss: "absolute" or "squared" error on the standardised target.
        patience: epochs without improvement after which training stops; None trains to the end. What is watched is a
            part of the rows a member may see, never the fold it leaves out.
        validation_share: of the formulas a member may see, watched with `patience`.
        mixed_precision: bfloat16 products, for GPUs.
        transform: one of `transforms.TRANSFORMS`, applied to the target before anything else; with several targets
            also one each.
        coverage: of the intervals.
        auto_limits: of features="auto", see `recipe.choose`.
        seed: of folds, initial weights and order.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        oof_: out-of-fold `Prediction` of the training rows (distances leave the row itself out); None if folds is 0.
        calibrators_: of the intervals, one a target; None if folds is 0.
        coverage_: share of training values inside their out-of-fold interval, each fold calibrated on the others; with
            several targets (targets,).
        n_targets_: None for labels (n,), else the number of columns.
        groups_: groups of members that left out the same fold; the spread within a group measures the uncertainty.
        spec_: what the model sees; more are listed in `AtomSetsEnsemble`.
    """

    task = "regression"

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
        loss: str = "absolute",
        patience: int | None = None,
        validation_share: float = 0.1,
        mixed_precision: bool = False,
        transform: str | Sequence[str] = NONE.name,
        coverage: float = 0.9,
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
        self.loss = loss
        self.patience = patience
        self.validation_share = validation_share
        self.mixed_precision = mixed_precision
        self.transform = transform
        self.coverage = coverage
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
        fold: npt.ArrayLike | None = None,
    ) -> Self:
        """Train on structures, compositions or their features, and their values.

        Args:
            X: n structures, formulas or compositions, or features with the levels of `features`.
            y: (n,) values in the unit of the target, or (n, targets) with NaN where one is missing.
            sample_weight: (n,) weights of the rows in the loss; intervals are calibrated on all rows alike.
            progress: called after each epoch.
            checkpoint: where to keep an unfinished training; one that was cut off goes on and ends the same.
            fold: (n,) fold of each row, instead of `folds` random ones, so that models can be compared on the same
                ones; rows of one formula belong in one fold.

        Raises:
            ValueError: labels that are not finite or that the transform doesn't accept, lengths that differ, too few
                rows, structures the parent can't take, folds that are no numbers from 0.
        """
        target = transform_targets(y, self.transform)
        features = self._prepare(X, self._for_choice(np.asarray(y)), len(target))
        if isinstance(self.options_.transform, str) and self.options_.transform != self.transform:
            target = transform_targets(y, self.options_.transform)
        self.n_targets_: int | None = None if np.ndim(y) == 1 else target.shape[1]
        if fold is None:
            self.fold_ = self._cut(features.formula, target)
        else:
            self.fold_ = given_folds(fold, len(target))
        if self.fold_.max() >= 0:
            self._warn_of_few(target)
        data = self._data(features)
        weights = row_weights(sample_weight, len(target))
        seen, distance = self._train(data, target, kept_together(features.formula), weights, progress, checkpoint)
        self.groups_ = max(1, int(self.fold_.max()) + 1)
        self.calibrators_: list[Calibrator] | None = None
        self.oof_: Prediction | None = None
        self.coverage_: Any = float("nan") if self.n_targets_ is None else np.full(target.shape[1], np.nan)
        if self.fold_.max() >= 0:
            self._calibrate(self._unseen(data, seen), target, distance)
        return self

    def _cut(self, formulas: npt.NDArray[np.object_], target: FloatArray) -> npt.NDArray[np.int64]:  # noqa: ARG002
        """(n,) fold of each row, whatever its (n, targets) values."""
        return group_folds(formulas, self.options_.folds, self.options_.seed)

    def _for_choice(self, y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        target = transform_targets(y, self.transform)
        return target[:, 0] if np.ndim(y) == 1 else target

    def predict(self, X: Any, return_std: bool = False) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Predictions in the unit of the target; with `return_std` also their standard deviations in that unit.

        (n,) where the model was trained on one target given as (n,), else (n, targets). On a scale other
        than that of the values the prediction is the median, and the standard deviation is to first order that on the
        scale times the slope there, e.g. ln(10) x median x deviation in decades.
        """
        result = self.predict_distribution(X)
        if not return_std:
            return result.value
        return result.value, result.error

    def predict_distribution(self, X: Any) -> Prediction:
        """Predictions with intervals and domain flags.

        Raises:
            NotFittedError: before `fit`.
            ValueError: features of another parent than the model was trained on.
        """
        members, distance = self._apply(X)
        return self._prediction(members.mean(axis=0), _spreads(members, self.groups_), distance)

    def predict_left_out(self, X: Any, fold: npt.ArrayLike) -> Prediction:
        """Predictions for rows in given folds, each by the members that left its fold out, as in `oof_`.

        That is what a model says of rows that it learned from, and of others in the same folds, on equal terms. The
        distances of rows it learned from count these themselves, unlike those of `oof_`.

        Args:
            X: n structures, or their features.
            fold: (n,) from 0; one that no member left out, because it held no row, is predicted by all.

        Raises:
            NotFittedError: before `fit`.
            ValueError: a model without folds, lengths that differ, or folds that are no numbers from 0.
        """
        members, distance = self._apply(X)
        folds = given_folds(fold, len(distance))
        if self.calibrators_ is None:
            raise ValueError("a model trained without folds left nothing out")
        mean, spread = members.mean(axis=0), _spreads(members, self.groups_).mean(axis=0)
        for k in range(self.groups_):
            rows, own = folds == k, members[k :: self.groups_]
            mean[rows] = own[:, rows].mean(axis=0)
            spread[rows] = own[:, rows].std(axis=0, ddof=1) if len(own) > 1 else 0.0
        return self._prediction(mean, spread[None], distance)

    def _warn_of_few(self, target: FloatArray) -> None:
        """Before the work is done: are there enough labels of each target for its intervals?"""
        needed = rows_needed(self.options_.coverage)
        for column, n in enumerate(np.isfinite(target).sum(axis=0)):
            if n < needed:
                which = "" if self.n_targets_ is None else f" of target {column}"
                warnings.warn(
                    f"{n} labels{which} are too few for intervals of {self.options_.coverage:.0%}: {needed} are "
                    "needed. There will be none; a lower coverage needs fewer",
                    stacklevel=3,
                )

    def _calibrate(self, unseen: FloatArray, target: FloatArray, distance: FloatArray) -> None:
        """Out-of-fold predictions, the intervals fitted to them, and the honest coverage of those.

        Args:
            unseen: (members, n, targets) predictions, NaN from members that saw the row.
            target: (n, targets), NaN where one is missing.
            distance: (n,) to the other training rows.
        """
        mean = np.nanmean(unseen, axis=0)
        several = np.isfinite(unseen[:, :, 0]).sum(axis=0).min() > 1
        spread = np.nanstd(unseen, axis=0, ddof=1) if several else np.zeros_like(target)
        # A row is left out by the members of one fold, so its spread is that of a few; predictions do likewise.
        remoteness = self.domain_.remoteness(distance)
        coverage, calibrators, covered = self.options_.coverage, [], []
        for column in range(target.shape[1]):
            rows = np.isfinite(target[:, column])
            y, fold = target[rows, column], self.fold_[rows]
            centre, limit = float(y.mean()), float(y.std())
            # A row that is far fades to what the members that judge it knew: the mean of the other folds.
            mean[:, column] = faded(mean[:, column], remoteness, means_of_others(target[:, column], self.fold_))
            known = (y - mean[rows, column], spread[rows, column])
            if len(y) < rows_needed(coverage):
                calibrators.append(_without_intervals(known[0], coverage, centre, limit))
                covered.append(float("nan"))
                continue
            calibrators.append(calibrate(*known, coverage, remoteness[rows], centre, limit))
            covered.append(crossed_coverage(*known, fold, coverage, remoteness[rows], centre, limit))
        self.calibrators_ = calibrators
        self.coverage_ = covered[0] if self.n_targets_ is None else np.array(covered)
        self.oof_ = self._prediction(mean, spread[None], distance, fade=False)

    def _prediction(
        self, mean: FloatArray, spreads: FloatArray, distance: FloatArray, *, fade: bool = True
    ) -> Prediction:
        """From (n, targets) means of all members and (groups, n, targets) spreads within each group of them.

        Args:
            mean: of the members.
            spreads: within each group.
            distance: (n,) to the training structures.
            fade: False for means that have been faded.
        """
        std, half = spreads.mean(axis=0), np.full_like(mean, np.nan)
        remoteness = self.domain_.remoteness(distance)
        if self.calibrators_ is not None:
            columns = list(enumerate(self.calibrators_))
            if fade:
                mean = np.stack([c.believed(mean[:, k], remoteness) for k, c in columns], axis=1)
            std = np.stack([np.mean([c.std(s[:, k], remoteness) for s in spreads], axis=0) for k, c in columns], axis=1)
            half = std * np.array([calibrator.quantile for calibrator in self.calibrators_])
        value, lower, upper = (self._inverse(x) for x in (mean, mean - half, mean + half))
        scales = listed_transforms(self.options_.transform, value.shape[1])
        error = np.stack([std[:, k] * scale.slope(value[:, k]) for k, scale in enumerate(scales)], axis=1)
        if self.n_targets_ is None:
            value, lower, upper, mean, std, error = (x[:, 0] for x in (value, lower, upper, mean, std, error))
        return Prediction(value, lower, upper, mean, std, error, distance, remoteness <= 1.0)

    def _inverse(self, x: FloatArray) -> FloatArray:
        scales = listed_transforms(self.options_.transform, x.shape[1])
        return np.stack([scale.inverse(x[:, k]) for k, scale in enumerate(scales)], axis=1)

    def _state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        coverage = [float(x) if np.isfinite(x) else None for x in np.atleast_1d(self.coverage_)]
        calibrators = [_finite(asdict(c)) for c in self.calibrators_] if self.calibrators_ is not None else None
        state = {"targets": self.n_targets_, "groups": self.groups_, "calibrators": calibrators, "coverage": coverage}
        return state, {}

    def _restore(self, state: Mapping[str, Any], _arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.n_targets_, self.groups_ = state["targets"], state["groups"]
        raw = state["calibrators"]
        self.calibrators_ = None if raw is None else [Calibrator(**_numbers(calibrator)) for calibrator in raw]
        coverage = np.array([np.nan if x is None else x for x in state["coverage"]])
        self.coverage_ = float(coverage[0]) if self.n_targets_ is None else coverage
        self.oof_ = None


def means_of_others(target: FloatArray, fold: npt.NDArray[np.int64]) -> FloatArray:
    """(n,) mean of the (n,) known targets outside each row's fold, of all where there are none outside."""
    known = np.isfinite(target)
    values = np.where(known, target, 0.0)
    sums, counts = np.bincount(fold, values), np.bincount(fold, known)
    others = counts.sum() - counts
    means = np.where(others > 0, (sums.sum() - sums) / np.maximum(others, 1), sums.sum() / counts.sum())
    return means[fold]


def _without_intervals(residual: FloatArray, coverage: float, centre: float, limit: float) -> Calibrator:
    """A calibrator of too few rows: how far off they are together is all that is known."""
    error = float(np.sqrt(np.mean(residual**2)))
    return Calibrator(min(error, limit), 0.0, 0.0, float("nan"), coverage, centre, limit)


def _finite(calibrator: dict[str, float]) -> dict[str, float | None]:
    """As JSON has it: no number that isn't one."""
    return {name: value if np.isfinite(value) else None for name, value in calibrator.items()}


def _numbers(saved: Mapping[str, float | None]) -> dict[str, float]:
    """What `_finite` saved."""
    missing = {"limit": float("inf")}
    return {name: missing.get(name, float("nan")) if value is None else value for name, value in saved.items()}


def row_weights(sample_weight: npt.ArrayLike | None, n: int) -> FloatArray:
    """(n,) weights of the rows, 1 each without.

    Raises:
        ValueError: lengths that differ, a weight below 0 or not finite, or none above 0.
    """
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has shape {weights.shape}, ({n},) is needed")
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise ValueError("sample_weight must be finite, not below 0, and not 0 everywhere")
    return weights


def given_folds(fold: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """(n,) folds that were given, checked.

    Raises:
        ValueError: lengths that differ, or folds that are no numbers from 0.
    """
    folds = np.asarray(fold)
    if folds.shape != (n,):
        raise ValueError(f"fold has shape {folds.shape}, ({n},) is needed")
    if folds.dtype.kind not in "iu" or (n and folds.min() < 0):
        raise ValueError("fold must be whole numbers from 0")
    return folds.astype(np.int64)


def _spreads(members: npt.NDArray[np.float64], groups: int) -> FloatArray:
    """(groups, n, targets) standard deviations of (members, n, targets) within each group.

    A group are the members that leave out the same fold: as many as judged each row when the intervals were calibrated.
    The spread of all members is systematically larger than that of two, and would make the intervals too wide.
    """
    parts = [members[k::groups] for k in range(groups)]
    return np.stack([p.std(axis=0, ddof=1) if len(p) > 1 else np.zeros(p.shape[1:]) for p in parts])
