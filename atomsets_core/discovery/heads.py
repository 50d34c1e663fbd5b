"""Models that are asked what they have never seen, behind one interface and on the same splits.

A head is told rows and their values, and nothing else: `fit(rows, y, seed)` gives a `Predict`, which takes other rows
and gives a mean and a standard deviation each. It never meets a value of the pool, so it can't use one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from atomsets_core.discovery.elements import element_sets
from atomsets_core.discovery.transduction import TransductionOptions, fit_transduction
from atomsets_core.features import AnyFeatures, parse_features
from atomsets_core.models import (
    AtomSetsRegressor,
    Calibrator,
    HeadRegressor,
    MEGNetRegressor,
    calibrate,
    composition_statistics,
    fit_gaussian_process,
    fit_ridge,
    pooled_features,
    random_forest,
    regressor_of,
)
from atomsets_core.structures import Structures
from atomsets_core.transforms import NONE

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

COMPOSITION = "composition"
"""In a specification of pooled features: statistics of the formula."""


@dataclass(frozen=True)
class Rows:
    """What a head may look at: structures and their features, no values.

    Attributes:
        features: of the n structures, from one parent or several.
        structures: the structures themselves, for networks that start from them; None where nobody needs them.
    """

    features: AnyFeatures
    structures: Structures | None = None

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: IntArray | Sequence[int]) -> Rows:
        """These rows, in this order."""
        return Rows(self.features[rows], None if self.structures is None else self.structures.take(rows))

    @property
    def formula(self) -> npt.NDArray[np.object_]:
        """(n,) reduced formulas."""
        return self.features.formula

    def pooled(self, spec: str) -> FloatArray:
        """(n, width) plain vectors: `pool` of a specification; `COMPOSITION` may be one of its parts."""
        parts = [part.strip() for part in spec.split(",")]
        of_parents = ",".join(part for part in parts if part != COMPOSITION)
        found = [pool(self.features, of_parents)] if of_parents else []
        return np.concatenate([*found, *([self.composition] if COMPOSITION in parts else [])], axis=1)

    @cached_property
    def composition(self) -> FloatArray:
        """(n, width) statistics of the formulas, see `baselines.composition_statistics`."""
        return composition_statistics([str(formula) for formula in self.formula])


def pool(features: AnyFeatures, spec: str) -> FloatArray:
    """(n, width) plain vectors of the levels of a specification: mean and deviation over the sites."""
    return pooled_features(parse_features(spec), features).astype(np.float64)


@dataclass(frozen=True)
class Estimate:
    """What a head says of n structures.

    Attributes:
        mean: (n,) predictions, on the scale the values were given in.
        std: (n,) how far off they may be; how honest that is, the simulated discovery measures.
        in_domain: (n,) whether they are like what the head learned from; None from heads that don't tell.
    """

    mean: FloatArray
    std: FloatArray
    in_domain: Mask | None = None


Predict = Callable[[Rows], Estimate]


class Head(Protocol):
    """A recipe for learning from rows."""

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Learn from n rows and their (n,) values; randomness comes from the seed alone."""
        ...


@dataclass(frozen=True)
class AtomSetsHead:
    """A model as a campaign uses it, with its calibrated deviations: AtomSets, or any other head.

    Attributes:
        parameters: of `models.regressor_of`.
        lent: models that learned from the same rows with the same seed, whose parts a mean of several takes; each new
            one is added. None where every model stands alone.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    lent: list[AtomSetsRegressor] | None = None

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Train the model; see `Head.fit`."""
        model = regressor_of({**self.parameters, "transform": NONE.name, "seed": seed})
        if isinstance(model, HeadRegressor):
            model.fit(rows.features, y, fitted=self.lent or ())
        else:
            model.fit(rows.features, y)
        if self.lent is not None:
            self.lent.append(model)

        def predict(others: Rows) -> Estimate:
            result = model.predict_distribution(others.features)
            return Estimate(result.mean, result.std, result.in_domain)

        return predict


@dataclass(frozen=True)
class RidgeHead:
    """Ridge regression on pooled features, its strength chosen by leave-one-out.

    Attributes:
        spec: of the features, see `Rows.pooled`.
    """

    spec: str

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:  # noqa: ARG002  # nothing is random
        """Solve the ridge regression; see `Head.fit`."""
        model = fit_ridge(rows.pooled(self.spec), y)
        return lambda others: Estimate(*model.predict(others.pooled(self.spec)))


@dataclass(frozen=True)
class GaussianProcessHead:
    """Gaussian process on pooled features: a linear and a squared-exponential part, both by marginal likelihood.

    Attributes:
        spec: of the features, see `Rows.pooled`.
    """

    spec: str

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Condition the Gaussian process; see `Head.fit`."""
        model = fit_gaussian_process(rows.pooled(self.spec), y, seed=seed)
        return lambda others: Estimate(*model.predict(others.pooled(self.spec)))


@dataclass(frozen=True)
class NeighboursHead:
    """Mean of the nearest rows in standardised pooled features, weighted by one over the distance.

    Attributes:
        spec: of the features, see `Rows.pooled`.
        k: neighbours.
    """

    spec: str
    k: int = 5

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:  # noqa: ARG002  # nothing is random
        """Index the rows and calibrate the deviations on each row without itself; see `Head.fit`."""
        x = rows.pooled(self.spec)
        centre, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 1e-6, scale, 1.0)
        search = NearestNeighbors(n_neighbors=min(self.k, len(y) - 1)).fit((x - centre) / scale)

        def average(distance: FloatArray, index: IntArray) -> tuple[FloatArray, FloatArray]:
            weight = 1.0 / np.maximum(distance, 1e-9)
            weight /= weight.sum(axis=1, keepdims=True)
            mean = (weight * y[index]).sum(axis=1)
            return mean, np.sqrt((weight * (y[index] - mean[:, None]) ** 2).sum(axis=1))

        # Without an argument kneighbors leaves each row itself out.
        mean, spread = average(*search.kneighbors())
        calibrator = _calibrator(y - mean, spread)

        def predict(others: Rows) -> Estimate:
            value, deviation = average(*search.kneighbors((others.pooled(self.spec) - centre) / scale))
            return Estimate(value, calibrator.std(deviation))

        return predict


@dataclass(frozen=True)
class CompositionRidgeHead:
    """Ridge on statistics of the composition."""

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Solve the ridge regression; see `Head.fit`."""
        return RidgeHead("composition").fit(rows, y, seed)


@dataclass(frozen=True)
class CompositionForestHead:
    """Random forest on statistics of the composition; deviations between trees (Hutter et al., Artif. Intell. 2014)."""

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Grow the forest; see `Head.fit`."""
        forest = random_forest(seed).fit(rows.composition, y)

        def predict(others: Rows) -> Estimate:
            x = others.composition
            trees = np.stack([tree.predict(x) for tree in forest.estimators_])
            return Estimate(trees.mean(axis=0), trees.std(axis=0))

        return predict


@dataclass(frozen=True)
class ScratchHead:
    """AtomSets without transfer: the same networks on one-hot elements, whose vectors are learned from these rows.

    Attributes:
        parameters: of `AtomSetsRegressor`, its features apart.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Train the ensemble on one-hot elements; see `Head.fit`."""
        inner = AtomSetsHead({**self.parameters, "features": "elements:one-hot"})
        predict = inner.fit(Rows(element_sets(rows.formula)), y, seed)
        return lambda others: predict(Rows(element_sets(others.formula)))


@dataclass(frozen=True)
class TransductionHead:
    """Bilinear transduction on pooled features.

    Attributes:
        spec: of the features, see `Rows.pooled`.
        options: sizes.
    """

    spec: str
    options: TransductionOptions = field(default_factory=TransductionOptions)

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Train the bilinear networks on pairs of rows; see `Head.fit`."""
        model = fit_transduction(rows.pooled(self.spec), y, seed=seed, options=self.options)
        return lambda others: Estimate(*model.predict(others.pooled(self.spec)))


@dataclass(frozen=True)
class MEGNetHead:
    """MEGNet itself from scratch, on the structures.

    Its deviation is that of its own training rows, so it is too small.

    Attributes:
        parameters: of `MEGNetRegressor`.
    """

    parameters: Mapping[str, Any] = field(default_factory=lambda: {"epochs": 50})

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Train MEGNet on the structures; see `Head.fit`."""
        if rows.structures is None:
            raise ValueError("MEGNet from scratch needs the structures, and there are none in these rows")
        model = MEGNetRegressor(**{**self.parameters, "transform": NONE.name, "seed": seed}).fit(rows.structures, y)
        noise = float(np.sqrt(np.mean((model.predict(rows.structures) - y) ** 2)))

        def predict(others: Rows) -> Estimate:
            if others.structures is None:
                raise ValueError("MEGNet from scratch needs the structures, and there are none in these rows")
            mean = np.asarray(model.predict(others.structures), dtype=np.float64)
            return Estimate(mean, np.full(len(mean), noise))

        return predict


@dataclass(frozen=True)
class MeanHead:
    """The mean of several heads; deviations add those within the heads to those between them.

    Attributes:
        heads: that are averaged.
    """

    heads: tuple[Head, ...]

    def fit(self, rows: Rows, y: FloatArray, seed: int) -> Predict:
        """Fit every head on the same rows; see `Head.fit`."""
        fitted = [head.fit(rows, y, seed) for head in self.heads]
        return lambda others: average([predict(others) for predict in fitted])


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of several estimates of the same rows, variances as of a mixture."""
    means = np.stack([estimate.mean for estimate in estimates])
    within = np.stack([estimate.std for estimate in estimates]) ** 2
    told = [estimate.in_domain for estimate in estimates if estimate.in_domain is not None]
    inside = np.all(told, axis=0) if told else None
    return Estimate(means.mean(axis=0), np.sqrt(within.mean(axis=0) + means.var(axis=0)), inside)


def _calibrator(residual: FloatArray, spread: FloatArray) -> Calibrator:
    return calibrate(residual, spread, 0.5)
