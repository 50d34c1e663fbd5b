"""Any head as a regressor: learners on plain vectors, alone or averaged with AtomSets, with the face of AtomSets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from atomsets_core.features import AnyFeatures
from atomsets_core.models.baselines import composition_statistics
from atomsets_core.models.networks.checkpoints import Checkpoint, Progress
from atomsets_core.models.networks.training_data import apply
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.models.vectors.inputs import COMPOSITION, FEATURES, Vectors, composition_vectors, pooled_features
from atomsets_core.models.vectors.learners import (
    HEADS,
    LEARNERS,
    NETWORKS,
    RIDGE,
    Fitted,
    Learner,
    find_head,
)

FloatArray = npt.NDArray[np.float64]


class HeadRegressor(AtomSetsRegressor):
    """Regression with another head than AtomSets on the same features, used, calibrated and saved in the same way.

    Each fold has a learner of its own that leaves it out, so that every training row is predicted by one that never saw
    its formula. These predictions calibrate the intervals, as those of the networks do in `AtomSetsRegressor`. What is
    predicted is the mean over the folds. A learner knows its own deviation, and speaks as two members for it: one below
    its mean and one above, so far apart that their standard deviation is that deviation.

    Args:
        features: as of `AtomSetsRegressor`; distances to the training structures are measured in them, also for a head
            that looks at the composition alone.
        head: one of `learners.HEADS`.
        options: of `AtomSetsRegressor`; what describes networks and their training counts for heads that hold some.

    Attributes:
        learners_: name of a learner -> one for each fold, in their order.
        network_: the networks, for heads that hold some.
        oof_: and others are listed in `AtomSetsRegressor`.
    """

    learners: ClassVar[Mapping[str, Learner]] = LEARNERS
    every_head: ClassVar[Mapping[str, tuple[str, ...]]] = HEADS

    def __init__(self, features: str | None = None, *, head: str = RIDGE, **options: Any) -> None:
        super().__init__(features, **options)
        self.head = head

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """Those of `AtomSetsRegressor`, and the head: the signature above doesn't list them for scikit-learn."""
        names: list[str] = AtomSetsRegressor._get_param_names()
        return sorted([*names, "head"])

    def fit(
        self,
        X: Any,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
        fold: npt.ArrayLike | None = None,
        fitted: Sequence[AtomSetsRegressor] = (),
    ) -> Self:
        """Learn from structures, compositions or their features, and their values; see `AtomSetsRegressor.fit`.

        Args:
            X: n structures, formulas or compositions, or features with the levels of `features`.
            y: (n,) values in the unit of the target.
            sample_weight: (n,) weights; learners take none but equal ones.
            progress: called after each epoch of networks.
            checkpoint: where to keep an unfinished training of networks.
            fold: (n,) fold of each row.
            fitted: models that learned from the same rows: what they hold of this head isn't trained again.

        Raises:
            ValueError: several targets, rows of different weights, an unknown head, or as `AtomSetsRegressor.fit`.
        """
        find_head(self.head, self.every_head)
        self._fitted = tuple(fitted)
        try:
            return super().fit(X, y, sample_weight, progress, checkpoint, fold)
        finally:
            del self._fitted

    def _data(self, features: AnyFeatures) -> Vectors:  # type: ignore[override]  # has what its users here need
        parts = self._parts
        inputs = {self.learners[part].inputs for part in parts if part in self.learners}
        sets = super()._data(features) if NETWORKS in parts else None
        return Vectors(
            pooled_features(self.spec_, features) if sets is None else sets.pooled(),
            composition_vectors(features) if COMPOSITION in inputs else None,
            sets,
        )

    def pooled(self, X: Any) -> npt.NDArray[np.float32]:
        """(n, width) the plain vectors in which `domain_` measures distances, read block by block."""
        features = self._features(X)
        out = np.empty((len(features), len(self.domain_.mean)), np.float32)
        for rows, block in features.blocks():
            out[rows] = pooled_features(self.spec_, block)
        return out

    def _learn(
        self,
        data: Vectors,  # type: ignore[override]
        y: FloatArray,
        groups: npt.NDArray[np.int64],
        row_weights: FloatArray,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> npt.NDArray[np.bool_]:
        """Fit every part, each fold left out once; (2 folds, n) which rows the members have seen."""
        if y.shape[1] > 1:
            raise ValueError(f"the head {self.head!r} learns one target, not {y.shape[1]}: train one model for each")
        if (row_weights != row_weights[0]).any():
            raise ValueError(f"the head {self.head!r} takes rows of equal weight alone")
        folds = max(1, int(self.fold_.max()) + 1)
        parts, self.losses_ = self._parts, []
        self.learners_: dict[str, tuple[Fitted, ...]] = {}
        if NETWORKS in parts:
            ready = next((model for model in self._fitted if self._holds_networks(model)), None)
            if ready is not None:
                self.network_, self.losses_ = ready.network_, ready.losses_
            elif data.sets is not None:
                super()._learn(data.sets, y, groups, row_weights, progress, checkpoint)
        for part in parts:
            if part in self.learners:
                self.learners_[part] = self._known(part) or self._fit_learners(part, data, y[:, 0], folds)
        return self.fold_[None, :] != (np.arange(2 * folds) % folds)[:, None]

    def _fit_learners(self, part: str, data: Vectors, y: FloatArray, folds: int) -> tuple[Fitted, ...]:
        learner, fitted = self.learners[part], []
        x = data.of(learner.inputs)
        for k in range(folds):
            rows = self.fold_ != k
            fitted.append(learner.fit(x[rows], y[rows], self.options_.seed + k, folds))
        return tuple(fitted)

    def _alike(self, model: AtomSetsRegressor) -> bool:
        """Whether another model learned from rows in the same folds, and sees the same of them."""
        same = (model.n_train_, model.digest_, str(model.spec_)) == (self.n_train_, self.digest_, str(self.spec_))
        return same and np.array_equal(model.fold_, self.fold_) and model.options_.seed == self.options_.seed

    def _holds_networks(self, model: AtomSetsRegressor) -> bool:
        if isinstance(model, HeadRegressor) or not self._alike(model):
            return False
        own = self.get_params(deep=False)
        return all(own[name] == value for name, value in model.get_params(deep=False).items())

    def _known(self, part: str) -> tuple[Fitted, ...]:
        """The learners of a part that another model has trained already."""
        for model in self._fitted:
            if isinstance(model, HeadRegressor) and self._alike(model) and part in model.learners_:
                return model.learners_[part]
        return ()

    def _outputs(self, data: Vectors) -> FloatArray:  # type: ignore[override]
        """(2 folds, n, 1) what the model of each fold says, less and plus its deviation over the root of two."""
        networks = None if data.sets is None else apply(self.network_, data.sets)[:, :, 0]
        return _as_members([self._said(data, k, networks) for k in range(self._folds)])

    def _unseen(self, data: Vectors, seen: npt.NDArray[np.bool_]) -> FloatArray:  # type: ignore[override]
        """(2 folds, n, 1) the same for rows that a member has not seen, NaN elsewhere."""
        networks, said = None if data.sets is None else apply(self.network_, data.sets)[:, :, 0], []
        for k in range(self._folds):
            rows, out = np.flatnonzero(~seen[k]), np.full((2, seen.shape[1]), np.nan)
            if len(rows):
                out[:, rows] = self._said(data.take(rows), k, None if networks is None else networks[:, rows])
            said.append((out[0], out[1]))
        return _as_members(said)

    @property
    def _parts(self) -> tuple[str, ...]:
        return find_head(self.options_.head, self.every_head)

    @property
    def _folds(self) -> int:
        return len(next(iter(self.learners_.values())))

    @property
    def _sizes(self) -> tuple[int, int]:
        return 2 * self._folds, 1

    def _said(self, data: Vectors, fold: int, networks: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """(n,) means and deviations of the parts that left a fold out; of several, those of their mixture.

        Args:
            data: vectors of n structures.
            fold: that was left out.
            networks: (members, n) what all networks say of them, where there are some.
        """
        found = [
            learners[fold].predict(data.of(self.learners[part].inputs)) for part, learners in self.learners_.items()
        ]
        if networks is not None:
            members = networks[fold :: self._folds]
            spread = members.std(axis=0, ddof=1) if len(members) > 1 else np.zeros(members.shape[1])
            found.append((members.mean(axis=0), spread))
        means = np.stack([mean for mean, _ in found])
        within = np.stack([deviation for _, deviation in found]) ** 2
        return means.mean(axis=0), np.sqrt(within.mean(axis=0) + means.var(axis=0))

    def _check_weights(self, features: AnyFeatures) -> None:
        """Means and deviations over sites are the same thing for fractions; networks may pool otherwise."""
        if NETWORKS in self._parts:
            super()._check_weights(features)

    def _state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        state, arrays = super()._state()
        for part, learners in self.learners_.items():
            for fold, learner in enumerate(learners):
                arrays |= {f"{part}.{fold}.{name}": array for name, array in learner.arrays().items()}
        return state, arrays

    def _restore(self, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(state, {})
        parts, folds = self._parts, int(state["groups"])
        if (NETWORKS in parts) != hasattr(self, "network_"):
            raise ValueError(f"the networks of the head {self.options_.head!r} are not what it holds")
        if folds < 1:
            raise ValueError("there is no learner")
        self.learners_ = {}
        widths = {FEATURES: len(self.domain_.mean), COMPOSITION: composition_statistics([]).shape[1]}
        for part in parts:
            if part not in self.learners:
                continue
            learners = []
            for fold in range(folds):
                start = f"{part}.{fold}."
                own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
                learners.append(self.learners[part].read(own, widths[self.learners[part].inputs]))
            self.learners_[part] = tuple(learners)


def _as_members(said: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """(2 folds, n, 1): standard deviation and mean of members k and folds + k are those that fold k said."""
    mean, deviation = (np.stack(part) for part in zip(*said, strict=True))
    # Of two values m - a and m + a the standard deviation, with one degree of freedom, is a times the root of two.
    apart = deviation / np.sqrt(2.0)
    return np.concatenate([mean - apart, mean + apart])[:, :, None]
