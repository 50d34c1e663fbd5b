"""From the spread of an ensemble to intervals that hold, and to a flag for where they can't.

Intervals are conformal (Vovk et al. 2005; normalised scores after Papadopoulos et al. 2002): the scores are residuals
on rows that the members making the prediction never saw, so that a share `coverage` of exchangeable new values falls
inside. Beyond the training domain nothing is exchangeable; `Domain` says where that is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibrator:
    """Predictive standard deviation, and interval half-width `quantile` times it.

    std^2 = floor^2 + (scale spread)^2 + (reach remoteness^2)^2, with the spread of the ensemble and the remoteness, the
    distance to the training structures in units of the domain's threshold. Where a structure is remote all members may
    be wrong alike, which their spread can't show.

    Attributes:
        floor: noise that the members share, in the unit of the (transformed) target.
        scale: factor on the spread of the ensemble.
        reach: standard deviation that remoteness 1 adds, in the unit of the (transformed) target.
        quantile: half-width of the interval in standard deviations.
        coverage: share of new values meant to fall inside.
    """

    floor: float
    scale: float
    reach: float
    quantile: float
    coverage: float

    def std(self, spread: FloatArray, remoteness: FloatArray | None = None) -> FloatArray:
        """(n,) predictive standard deviations from (n,) spreads and (n,) remotenesses, 0 where they are not given."""
        far = 0.0 if remoteness is None else self.reach * remoteness**2
        return np.sqrt(self.floor**2 + (self.scale * spread) ** 2 + far**2)

    def half_width(self, spread: FloatArray, remoteness: FloatArray | None = None) -> FloatArray:
        """(n,) half-widths of the intervals."""
        return self.quantile * self.std(spread, remoteness)


def calibrate(
    residual: FloatArray, spread: FloatArray, coverage: float = 0.9, remoteness: FloatArray | None = None
) -> Calibrator:
    """Fit floor, scale and reach by Gaussian likelihood, then the conformal quantile.

    Args:
        residual: (n,) measured minus predicted, on rows held out from the members that predicted.
        spread: (n,) standard deviation of those members.
        coverage: between 0 and 1.
        remoteness: (n,) distance to the training structures over the domain's threshold; without it reach is 0.

    Raises:
        ValueError: too few rows for the coverage, a coverage that isn't between 0 and 1, or lengths that differ.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage must be between 0 and 1, not {coverage}")
    n = len(residual)
    if n != len(spread):
        raise ValueError(f"{n} residuals and {len(spread)} spreads")
    rank = max(1, int(np.ceil((n + 1) * coverage - 1e-9)))
    if rank > n:
        raise ValueError(
            f"{n} held-out rows are too few for intervals of {coverage:.0%}: {rows_needed(coverage)} are needed"
        )
    unit = float(np.sqrt(np.mean(residual**2))) or 1.0

    terms = [np.ones(n), spread / unit]
    if remoteness is not None:
        terms.append(remoteness**2)
    squares = np.stack(terms) ** 2

    def cost(log_parameters: FloatArray) -> float:
        variance = np.exp(2 * log_parameters) @ squares + 1e-12
        return float(np.mean(np.log(variance) + (residual / unit) ** 2 / variance))

    best = minimize(cost, np.log(np.full(len(terms), 0.5)), method="L-BFGS-B", bounds=[(-7.0, 3.0)] * len(terms))
    floor, scale, *reach = (float(x) for x in np.exp(best.x))
    fitted = Calibrator(floor * unit, scale, reach[0] * unit if reach else 0.0, float("nan"), coverage)
    scores = np.sort(np.abs(residual) / fitted.std(spread, remoteness))
    return replace(fitted, quantile=float(scores[rank - 1]))


def rows_needed(coverage: float) -> int:
    """Held-out rows that intervals of this coverage need at least."""
    # 0.9 / (1 - 0.9) is a little more than 9 in floating point: the small number keeps ceil from adding a row.
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def crossed_coverage(
    residual: FloatArray,
    spread: FloatArray,
    fold: npt.NDArray[np.int64],
    coverage: float,
    remoteness: FloatArray | None = None,
) -> float:
    """Share of rows inside the interval when each fold's interval is calibrated on the other folds."""
    far = np.zeros(len(residual)) if remoteness is None else remoteness
    inside = np.zeros(len(residual), dtype=bool)
    for k in np.unique(fold):
        test = fold == k
        calibrator = calibrate(residual[~test], spread[~test], coverage, None if remoteness is None else far[~test])
        inside[test] = np.abs(residual[test]) <= calibrator.half_width(spread[test], far[test])
    return float(np.mean(inside))


@dataclass(frozen=True)
class Domain:
    """Where the model has seen something alike: mean distance to the nearest training structures.

    Distances are Euclidean in the leading principal components of the standardised pooled features.

    Attributes:
        mean: (width,) of the training features.
        scale: (width,) of the training features.
        components: (n_components, width) of the standardised features.
        reference: (n_train, n_components) float32, the training structures.
        threshold: distance below which a structure counts as inside.
        neighbours: how many nearest are averaged.
    """

    mean: FloatArray
    scale: FloatArray
    components: FloatArray
    reference: npt.NDArray[np.float32]
    threshold: float
    neighbours: int = 5

    def project(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """(n, n_components) of (n, width) pooled features."""
        return (((features - self.mean) / self.scale) @ self.components.T).astype(np.float32)

    def distance(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """(n,) mean distances of (n, width) pooled features to the nearest training structures."""
        if not len(features):
            return np.empty(0)
        search = NearestNeighbors(n_neighbors=min(self.neighbours, len(self.reference))).fit(self.reference)
        return search.kneighbors(self.project(features))[0].mean(axis=1).astype(np.float64)

    def distance_within(self) -> FloatArray:
        """(n_train,) mean distances of the training structures to their nearest others."""
        return _distance_within(self.reference, self.neighbours)


def fit_domain(features: npt.NDArray[np.floating], share: float = 0.95, neighbours: int = 5) -> Domain:
    """The domain of training structures.

    Args:
        features: (n, width) pooled features.
        share: of the training structures that count as inside when measured against the others.
        neighbours: nearest structures averaged.

    Raises:
        ValueError: fewer than three structures.
    """
    if len(features) < 3:
        raise ValueError(f"{len(features)} structures are too few to say what is alike")
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale[~(scale > 1e-6)] = 1.0
    standardised = (features - mean) / scale
    pca = PCA(n_components=min(20, *standardised.shape), svd_solver="full").fit(standardised)
    reference = (standardised @ pca.components_.T).astype(np.float32)
    k = min(neighbours, len(features) - 1)
    own = _distance_within(reference, k)
    # Copies of one structure are no distance apart; the floor keeps ratios to the threshold finite.
    return Domain(mean, scale, pca.components_, reference, max(float(np.quantile(own, share)), 1e-6), k)


def _distance_within(reference: npt.NDArray[np.float32], neighbours: int) -> FloatArray:
    # Without an argument kneighbors leaves each point itself out.
    found = NearestNeighbors(n_neighbors=neighbours).fit(reference).kneighbors()[0]
    return found.mean(axis=1).astype(np.float64)
