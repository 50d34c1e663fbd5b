"""How far a prediction can be believed: its distance from the training data, and intervals that hold near them.

Intervals are conformal (Vovk et al. 2005; normalised scores after Papadopoulos et al. 2002): the scores are residuals
on rows that the members making the prediction never saw, so that a share `coverage` of exchangeable new values falls
inside. Beyond the training domain nothing is exchangeable; `Domain` says where that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.neighbors import NearestNeighbors

FloatArray = npt.NDArray[np.float64]

REFERENCES = 20_000
"""Training structures that distances are measured to at most: the time of a fit grows with n times this."""


@dataclass(frozen=True)
class Domain:
    """Where the model has seen something alike: mean distance to the nearest training structures.

    Distances are Euclidean in the leading principal components of the standardised pooled features.

    Attributes:
        mean: (width,) of the training features.
        scale: (width,) of the training features.
        components: (n_components, width) of the standardised features.
        reference: (n_reference, n_components) float32, the training structures, or `REFERENCES` of them at random:
            all distances, those behind the threshold included, are then to the same sample.
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
        parts = [((block - self.mean) / self.scale) @ self.components.T for block in _blocks(features)]
        return np.concatenate(parts or [np.empty((0, len(self.components)))]).astype(np.float32)

    def distance(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """(n,) mean distances of (n, width) pooled features to the nearest training structures."""
        if not len(features):
            return np.empty(0)
        search = NearestNeighbors(n_neighbors=min(self.neighbours, len(self.reference))).fit(self.reference)
        return search.kneighbors(self.project(features))[0].mean(axis=1).astype(np.float64)

    def nearest(self, features: npt.NDArray[np.floating], n_train: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """The nearest training structures of (n, width) pooled features, nearest first.

        Args:
            features: pooled as those the domain was fitted to.
            n_train: structures it was fitted to, of which the references may be a sample.

        Returns:
            (n, neighbours) distances and (n, neighbours) row numbers in the training data.
        """
        search = NearestNeighbors(n_neighbors=min(self.neighbours, len(self.reference))).fit(self.reference)
        distance, row = search.kneighbors(self.project(features))
        return distance.astype(np.float64), sampled_rows(n_train)[row]

    def distance_within(self) -> FloatArray:
        """(n_reference,) mean distances of the references to their nearest others."""
        # Without an argument kneighbors leaves each point itself out.
        found = NearestNeighbors(n_neighbors=self.neighbours).fit(self.reference).kneighbors()[0]
        return found.mean(axis=1).astype(np.float64)


def fit_domain(features: npt.NDArray[np.floating], share: float = 0.95, neighbours: int = 5) -> Domain:
    """The domain of training structures; see `domain_and_distances`."""
    return domain_and_distances(features, share, neighbours)[0]


def domain_and_distances(
    features: npt.NDArray[np.floating], share: float = 0.95, neighbours: int = 5
) -> tuple[Domain, FloatArray]:
    """The domain of training structures, and (n,) their mean distances to their nearest others.

    Args:
        features: (n, width) pooled features.
        share: of the training structures that count as inside when measured against the others.
        neighbours: nearest structures averaged.

    Raises:
        ValueError: fewer than three structures.
    """
    if len(features) < 3:
        raise ValueError(f"{len(features)} structures are too few to say what is alike")
    mean = features.mean(axis=0, dtype=np.float64)
    # In float64 and blocks: squares around the mean lose no digits, and no second copy of the features is made.
    scale = np.sqrt(sum(((block - mean) ** 2).sum(axis=0) for block in _blocks(features)) / len(features))
    scale[~(scale > 1e-6)] = 1.0
    components = _principal_components(features, mean, scale)
    k = min(neighbours, len(features) - 1)
    domain = Domain(mean, scale, components, np.empty((0, len(components)), dtype=np.float32), 0.0, k)
    sampled = sampled_rows(len(features))
    domain = replace(domain, reference=domain.project(features[sampled]))
    # A reference is measured to its others, a row that was not sampled to all of them; neither ever to itself.
    own, others = np.empty(len(features)), np.setdiff1d(np.arange(len(features)), sampled)
    own[sampled], own[others] = domain.distance_within(), domain.distance(features[others])
    # Copies of one structure are no distance apart; the floor keeps ratios to the threshold finite.
    return replace(domain, threshold=max(float(np.quantile(own, share)), 1e-6)), own


def _blocks(features: npt.NDArray[np.floating]) -> Iterator[FloatArray]:
    for start in range(0, len(features), 4096):
        yield features[start : start + 4096].astype(np.float64)


def _principal_components(features: npt.NDArray[np.floating], mean: FloatArray, scale: FloatArray) -> FloatArray:
    """(at most 20, width) leading eigenvectors of the correlations, each with its largest entry positive."""
    correlation = np.zeros((features.shape[1], features.shape[1]))
    for block in _blocks(features):
        standardised = (block - mean) / scale
        correlation += standardised.T @ standardised
    # `eigh` sorts ascending, and leaves the sign of a vector open: fixed, so that every machine saves the same domain.
    vectors = np.linalg.eigh(correlation)[1].T[::-1][: min(20, *features.shape)]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    return np.ascontiguousarray(vectors * np.sign(largest))


def sampled_rows(n: int) -> npt.NDArray[np.int64]:
    """(at most REFERENCES,) int64 rows that distances are measured to, ascending: all n, or so many at random."""
    if n <= REFERENCES:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, REFERENCES, replace=False))


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
    # Of n + 1 exchangeable scores the new one is among the `rank` smallest with probability rank / (n + 1) or more, so
    # the rank-th smallest of the n known ones holds a share `coverage` of new values, whatever their distribution (Vovk
    # et al. 2005). The small number is for products that round to a little above a whole number.
    rank = max(1, int(np.ceil((n + 1) * coverage - 1e-9)))
    if rank > n:
        raise ValueError(
            f"{n} held-out rows are too few for intervals of {coverage:.0%}: {rows_needed(coverage)} are needed"
        )
    # In units of the residuals, so that starts and bounds below suit any target.
    unit = float(np.sqrt(np.mean(residual**2))) or 1.0

    terms = [np.ones(n), spread / unit]
    if remoteness is not None:
        terms.append(remoteness**2)
    # Rows: 1, spread, remoteness^2, all squared; the variance is their sum with the squares of floor, scale and reach.
    squares = np.stack(terms) ** 2

    def cost(log_parameters: FloatArray) -> float:
        # -2 log N(residual; 0, variance) on average, without its constant. Logarithms keep parameters positive.
        variance = np.exp(2 * log_parameters) @ squares + 1e-12
        return float(np.mean(np.log(variance) + (residual / unit) ** 2 / variance))

    best = minimize(cost, np.log(np.full(len(terms), 0.5)), method="L-BFGS-B", bounds=[(-7.0, 3.0)] * len(terms))
    floor, scale, *reach = (float(x) for x in np.exp(best.x))
    fitted = Calibrator(floor * unit, scale, reach[0] * unit if reach else 0.0, float("nan"), coverage)
    # Were the likelihood wrong, intervals would be too wide here and too narrow there, but on average they hold: the
    # quantile is of the scores as they are.
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
