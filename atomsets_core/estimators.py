"""AtomSets with scikit-learn's API: an ensemble of set networks on a parent's features, with calibrated intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError

from atomsets_core.batches import TrainingData
from atomsets_core.calibration import Calibrator, Domain, calibrate, crossed_coverage, fit_domain
from atomsets_core.features import Features
from atomsets_core.sets import AtomSetsNetwork
from atomsets_core.specification import as_batch, parse_features
from atomsets_core.storage import StorageError, Store
from atomsets_core.stored import StoredFeatures
from atomsets_core.training import Checkpoint, Progress, TrainingOptions, apply, resolve_device, train

FORMAT_VERSION = 1
"""Of the files of a saved model."""

RECIPE_VERSION = 2
"""Raised when the same data, parameters and seed give another model; stored results of older recipes are made again."""

TRANSFORMS = ("none", "log10")

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predictions for n structures.

    Attributes:
        value: (n,) in the unit of the target; with log10 the median.
        lower: (n,) lower end of the interval, unit of the target.
        upper: (n,) upper end of the interval, unit of the target.
        mean: (n,) on the scale the model works on (log10 of the target where the transform says so).
        std: (n,) calibrated standard deviation on that scale.
        distance: (n,) to the nearest training structures in feature space.
        in_domain: (n,) bool, whether the distance is within the model's domain.
    """

    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    mean: FloatArray
    std: FloatArray
    distance: FloatArray
    in_domain: npt.NDArray[np.bool_]


def transform_target(y: npt.ArrayLike, transform: str) -> FloatArray:
    """(n,) targets on the scale the model works on.

    Raises:
        ValueError: an unknown transform; a NaN, infinite or, under log10, not positive value (its position is named).
    """
    if transform not in TRANSFORMS:
        raise ValueError(f"no transform {transform!r}; there are {', '.join(TRANSFORMS)}")
    y = np.asarray(y, dtype=np.float64)
    bad = ~np.isfinite(y) if transform == "none" else ~(np.isfinite(y) & (y > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"label {first} is {y[first]}: labels must be finite{' and positive' if transform != 'none' else ''}"
        )
    return np.log10(y) if transform == "log10" else y


class AtomSetsRegressor(RegressorMixin, BaseEstimator):
    """Regression with an ensemble of AtomSets networks on frozen features of a pretrained graph network.

    The members are spread over `folds`: each leaves one fold of the training rows out (rows of one reduced formula stay
    together), so that every row has predictions from members that never saw it, scalers included. These out-of-fold
    predictions calibrate the intervals and are kept in `oof_`.

    Args:
        features: parents and levels, e.g. "megnet:V0+V1+V2+V3,chgnet:site"; see `specification`. Site levels are
            concatenated a site, structure levels are joined after pooling.
        phi: widths of the layers on each site.
        rho: widths of the layers after pooling.
        pooling: any of mean, set2set, attention, sum, max, min, std, joined.
        alpha: exponent of the site weights in the mean and std; below 1 the minor elements of a composition count more.
        activation: "relu" or "silu".
        members: networks in the ensemble.
        folds: parts the training rows are cut into; 0 trains every member on all rows and gives no intervals.
        epochs: passes over the training rows.
        batch_size: structures a step.
        learning_rate: at the top of the schedule.
        weight_decay: decoupled (AdamW).
        loss: "absolute" or "squared" error on the standardised target.
        transform: "none" or "log10", applied to the target before anything else.
        coverage: of the intervals.
        seed: of folds, initial weights and order.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        network_: the fitted members.
        oof_: out-of-fold `Prediction` of the training rows (distances leave the row itself out); None if folds is 0.
        fold_: (n_train,) fold of each training row, -1 if folds is 0.
        calibrator_: of the intervals; None if folds is 0.
        coverage_: share of training rows inside their out-of-fold interval, each fold calibrated on the others.
        domain_: applicability domain.
        digest_: of the parent whose features it was trained on.
        losses_: mean training loss of each epoch.
        n_train_: training rows.
    """

    def __init__(
        self,
        features: str = "megnet:V0+V1+V2+V3",
        *,
        phi: Sequence[int] = (128,),
        rho: Sequence[int] = (128,),
        pooling: Sequence[str] = ("mean",),
        alpha: float = 1.0,
        activation: str = "relu",
        members: int = 10,
        folds: int = 5,
        epochs: int = 60,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        loss: str = "absolute",
        transform: str = "none",
        coverage: float = 0.9,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.features = features
        self.phi = phi
        self.rho = rho
        self.pooling = pooling
        self.alpha = alpha
        self.activation = activation
        self.members = members
        self.folds = folds
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.loss = loss
        self.transform = transform
        self.coverage = coverage
        self.seed = seed
        self.device = device

    def fit(
        self,
        X: Any,
        y: npt.ArrayLike,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Train on structures, compositions or their features, and their values.

        Args:
            X: n structures, formulas or compositions (see `as_batch`), or features with the levels of `self.features`.
            y: (n,) values in the unit of the target.
            progress: called after each epoch.
            checkpoint: where to keep an unfinished training; one that was cut off goes on and ends the same.

        Raises:
            ValueError: labels that are not finite (or positive under log10), lengths that differ, too few rows,
                structures the parent can't take.
        """
        features = self._features(X)
        target = transform_target(y, self.transform)
        if len(target) != len(features):
            raise ValueError(f"{len(features)} structures and {len(target)} labels")
        if len(target) < 5:
            raise ValueError(f"{len(target)} labelled structures are too few to learn from; at least 5 are needed")
        self.n_train_ = len(target)
        self.digest_ = parse_features(self.features).digest(features)
        self.fold_ = _folds(features.formula, self.folds, self.seed)
        n_folds = int(self.fold_.max()) + 1
        used = np.ones((self.members, len(target)), dtype=bool)
        if n_folds:
            if self.members < n_folds:
                raise ValueError(f"{n_folds} folds need at least as many members; there are {self.members}")
            used = self.fold_[None, :] != (np.arange(self.members) % n_folds)[:, None]
        data = self._data(features)
        torch.manual_seed(self.seed)
        self.network_ = self._network(data.sites.shape[1], data.structure.shape[1]).to(resolve_device(self.device))
        options = TrainingOptions(
            self.epochs, self.batch_size, self.learning_rate, self.weight_decay, self.loss, self.seed
        )
        self.losses_ = train(
            self.network_, data, target[:, None], used, options, progress=progress, checkpoint=checkpoint
        )
        self.domain_ = fit_domain(data.pooled())
        self.calibrator_: Calibrator | None = None
        self.oof_: Prediction | None = None
        self.coverage_ = float("nan")
        if n_folds:
            self._calibrate(data, target, used)
        return self

    def predict(self, X: Any, return_std: bool = False) -> FloatArray | tuple[FloatArray, FloatArray]:
        """(n,) predictions in the unit of the target; with `return_std` also their standard deviations in that unit.

        With log10 the prediction is the median and the standard deviation is to first order,
        ln(10) x median x deviation in decades.
        """
        result = self.predict_distribution(X)
        if not return_std:
            return result.value
        return result.value, result.std * (np.log(10.0) * result.value if self.transform == "log10" else 1.0)

    def predict_distribution(self, X: Any) -> Prediction:
        """Predictions with intervals and domain flags.

        Raises:
            NotFittedError: before `fit`.
            ValueError: features of another parent than the model was trained on.
        """
        if not hasattr(self, "network_"):
            raise NotFittedError("fit the regressor before predicting")
        features = self._features(X)
        digest = parse_features(self.features).digest(features)
        if digest != self.digest_:
            raise ValueError(
                f"the model was trained on features of parent digest {self.digest_}, these come from {digest}"
            )
        mean, spread, distance = (np.empty(len(features)) for _ in range(3))
        for rows, block in features.blocks():
            data = self._data(block)
            members = apply(self.network_, data)[:, :, 0]
            mean[rows], spread[rows] = members.mean(axis=0), _spread(members)
            distance[rows] = self.domain_.distance(data.pooled())
        return self._prediction(mean, spread, distance)

    def _calibrate(self, data: TrainingData, target: FloatArray, used: npt.NDArray) -> None:
        """Out-of-fold predictions, the intervals fitted to them, and the honest coverage of those."""
        members = apply(self.network_, data)[:, :, 0]
        unseen = np.where(~used, members, np.nan)
        mean = np.nanmean(unseen, axis=0)
        spread = np.nanstd(unseen, axis=0, ddof=1) if (~used).sum(axis=0).min() > 1 else np.zeros(len(target))
        residual = target - mean
        distance = self.domain_.distance_within()
        remoteness = distance / self.domain_.threshold
        self.calibrator_ = calibrate(residual, spread, self.coverage, remoteness)
        self.coverage_ = crossed_coverage(residual, spread, self.fold_, self.coverage, remoteness)
        self.oof_ = self._prediction(mean, spread, distance)

    def _prediction(self, mean: FloatArray, spread: FloatArray, distance: FloatArray) -> Prediction:
        if self.calibrator_ is None:
            std, half = spread, np.full(len(mean), np.nan)
        else:
            remoteness = distance / self.domain_.threshold
            std = self.calibrator_.std(spread, remoteness)
            half = self.calibrator_.half_width(spread, remoteness)
        value, lower, upper = (self._inverse(x) for x in (mean, mean - half, mean + half))
        return Prediction(value, lower, upper, mean, std, distance, distance <= self.domain_.threshold)

    def _inverse(self, x: FloatArray) -> FloatArray:
        return 10.0**x if self.transform == "log10" else x

    def _features(self, X: Any) -> Features | StoredFeatures:
        batch = as_batch(X)
        if isinstance(batch, Features | StoredFeatures):
            return batch
        features = parse_features(self.features).featurize(batch)
        if features.refused:
            raise ValueError(f"structure {features.refused[0].material_id}: {features.refused[0].reason}")
        return features

    def _data(self, features: Features | StoredFeatures) -> TrainingData:
        return TrainingData.gathered(features, parse_features(self.features), merge=self.alpha == 1)

    def _network(self, site_width: int, structure_width: int) -> AtomSetsNetwork:
        return AtomSetsNetwork(
            self.members,
            site_width,
            structure_width,
            phi=self.phi,
            rho=self.rho,
            pooling=self.pooling,
            alpha=self.alpha,
            activation=self.activation,
        )

    def save(self, store: Store, folder: str, about: dict[str, Any] | None = None) -> None:
        """Write model.safetensors and then model.json into a folder of a store.

        Args:
            store: where.
            folder: within the store.
            about: anything to keep beside it (target, unit, data), JSON.

        Raises:
            StorageError: it can't be written.
        """
        domain = asdict(self.domain_)
        arrays = {f"network.{name}": value.cpu().contiguous() for name, value in self.network_.state_dict().items()}
        for name in ("mean", "scale", "components", "reference"):
            arrays[f"domain.{name}"] = torch.from_numpy(np.ascontiguousarray(domain.pop(name)))
        config = {
            "format_version": FORMAT_VERSION,
            "kind": type(self).__name__,
            "parameters": {name: _plain(value) for name, value in self.get_params().items()},
            "parent_digest": self.digest_,
            "site_width": int(self.network_.site_input.mean.shape[2]),
            "structure_width": int(self.network_.structure_input.mean.shape[2]),
            "calibrator": asdict(self.calibrator_) if self.calibrator_ else None,
            "coverage_out_of_fold": self.coverage_ if np.isfinite(self.coverage_) else None,
            "domain": domain,
            "n_train": self.n_train_,
            "about": about or {},
        }
        store.write(f"{folder}/model.safetensors", safetensors.torch.save(arrays))
        store.write_json(f"{folder}/model.json", config)

    @classmethod
    def load(cls, store: Store, folder: str) -> Self:
        """A saved model, ready to predict.

        Raises:
            StorageError: the files are missing, damaged, or of a newer format; the message says which.
        """
        config = store.read_json(f"{folder}/model.json")
        where = store.url(folder)
        version = config.get("format_version")
        if version != FORMAT_VERSION:
            raise StorageError(
                f"{where}: model format {version!r} can't be read by this version, which knows {FORMAT_VERSION}"
            )
        try:
            arrays = safetensors.torch.load(store.read(f"{folder}/model.safetensors"))
            model = cls(**config["parameters"])
            model.network_ = model._network(config["site_width"], config["structure_width"])
            model.network_.load_state_dict(
                {name.removeprefix("network."): a for name, a in arrays.items() if name.startswith("network.")}
            )
            mean, scale, components, reference = (
                arrays[f"domain.{name}"].numpy() for name in ("mean", "scale", "components", "reference")
            )
            model.domain_ = Domain(mean, scale, components, reference, **config["domain"])
            model.calibrator_ = Calibrator(**config["calibrator"]) if config["calibrator"] else None
            coverage = config["coverage_out_of_fold"]
            model.digest_, model.n_train_ = config["parent_digest"], config["n_train"]
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
            raise StorageError(f"{where}: the model is damaged ({error}); train it again") from error
        model.coverage_ = float("nan") if coverage is None else coverage
        model.oof_, model.losses_, model.fold_ = None, [], np.empty(0, dtype=np.int64)
        model.network_.to(resolve_device(model.device)).eval()
        return model


def _spread(members: FloatArray) -> FloatArray:
    return members.std(axis=0, ddof=1) if len(members) > 1 else np.zeros(members.shape[1])


def _folds(groups: npt.NDArray[np.object_], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """(n,) fold of each row, rows of one group in one fold, folds of equal size as far as that allows; -1 without."""
    names, inverse, counts = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    folds = min(folds, len(names))
    if folds < 2:
        return np.full(len(groups), -1, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    of_group, filled = np.empty(len(names), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    for group in order:
        of_group[group] = filled.argmin()
        filled[of_group[group]] += counts[group]
    return of_group[inverse]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
