"""How far a prediction can be believed: its distance from the training data, and intervals that hold near them.

Intervals are conformal (Vovk et al. 2005; normalised scores after Papadopoulos et al. 2002): the scores are residuals
on rows that the members making the prediction never saw, so that a share `coverage` of exchangeable new values falls
inside. Candidates are not exchangeable with training rows; `models/transfer.py` weighs the rows for them. Far from
everything that was trained on, a model knows nothing: there its predictions go to the mean of the training values and
their deviations to that of the training values, and no further.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.neighbors import NearestNeighbors

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

REFERENCES = 20_000
"""Training structures that distances are measured to at most: the time of a fit grows with n times this."""

DISTINCT = 1e-3
"""Projections of one crystal agree to this, in standard deviations of the training features: copies count once."""

FADING = 1.0
"""Remoteness beyond the domain over which a model forgets, see `Calibrator.kept`.

On eleven splits of K, n and phonon data by cluster, element, value and time of computation, predictions of AtomSets
still ordered structures at remoteness 1 to 1.5 as well as inside (the slope of values against predictions was 1.2 to
1.4), while errors grew to the deviation of the training values at 1.3 and beyond it at 1.5.
"""


@dataclass(frozen=True)
class Domain:
    """Where the model has seen something alike: mean distance to the nearest training structures.

    Distances are Euclidean in the leading principal components of the standardised pooled features, and to distinct
    structures: copies of one count once.

    Attributes:
        mean: (width,) of the training features.
        scale: (width,) of the training features.
        components: (n_components, width) of the standardised features.
        reference: (n_reference, n_components) float32, the training structures, or `REFERENCES` of them at random:
            all distances, those behind the threshold included, are then to the same sample.
        threshold: distance below which a structure counts as inside; 0 where all training structures are one.
        neighbours: how many nearest are averaged.
    """

    mean: FloatArray
    scale: FloatArray
    components: FloatArray
    reference: npt.NDArray[np.float32]
    threshold: float
    neighbours: int = 5

    def project(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """(n, n_components) float32 of (n, width) pooled features."""
        parts = [((block - self.mean) / self.scale) @ self.components.T for block in _blocks(features)]
        return np.concatenate(parts or [np.empty((0, len(self.components)))]).astype(np.float32)

    def distance(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """(n,) mean distances of (n, width) pooled features to the nearest training structures."""
        if not len(features):
            return np.empty(0)
        return self._nearest(self.project(features))[0].mean(axis=1)

    def remoteness(self, distance: FloatArray) -> FloatArray:
        """(n,) distances in units of the threshold: 1 or less is inside."""
        # Where all training structures are one there is no distance between them to measure others by.
        least = DISTINCT if self.threshold == 0.0 else 0.0
        return (
            np.maximum(distance - least, 0.0) / self.threshold
            if self.threshold
            else np.where(distance <= least, 0.0, np.inf)
        )

    def nearest(self, features: npt.NDArray[np.floating], n_train: int) -> tuple[FloatArray, IntArray]:
        """The nearest distinct training structures of (n, width) pooled features, nearest first.

        Args:
            features: pooled as those the domain was fitted to.
            n_train: structures it was fitted to, of which the references may be a sample.

        Returns:
            (n, k) distances and (n, k) row numbers in the training data, k of `neighbours` or of as many as there are.
        """
        distance, row = self._nearest(self.project(features))
        return distance, sampled_rows(n_train)[row]

    def distance_within(self, groups: IntArray | None = None) -> FloatArray:
        """(n_reference,) mean distances of the references to their nearest distinct others.

        Args:
            groups: (n_reference,) rows of a group are not measured to one another, as far as there are other groups.
        """
        return self._to_others(self.reference, groups, groups, self._copy_of)

    def distance_to_others(
        self, features: npt.NDArray[np.floating], groups: IntArray, reference_groups: IntArray
    ) -> FloatArray:
        """(n,) mean distances of (n, width) pooled features to the nearest distinct references of other groups."""
        return self._to_others(self.project(features), groups, reference_groups, None)

    @cached_property
    def _distinct(self) -> tuple[IntArray, IntArray]:
        """First row of each distinct reference, and (n_reference,) which of these each reference is a copy of."""
        cells = np.round(self.reference / DISTINCT).astype(np.int64)
        _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
        # In the order of the references, so that of equal distances the first row is the nearest.
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return first[order], place[inverse.reshape(-1)]

    @property
    def _copy_of(self) -> IntArray:
        return self._distinct[1]

    @cached_property
    def _search(self) -> NearestNeighbors:
        first = self._distinct[0]
        return NearestNeighbors(n_neighbors=min(self.neighbours, len(first))).fit(self.reference[first])

    def _nearest(self, points: npt.NDArray[np.float32]) -> tuple[FloatArray, IntArray]:
        """(n, k) distances and (n, k) rows of the references."""
        distance, row = self._search.kneighbors(points)
        return distance.astype(np.float64), self._distinct[0][row]

    def _to_others(
        self,
        points: npt.NDArray[np.float32],
        groups: IntArray | None,
        reference_groups: IntArray | None,
        copy_of: IntArray | None,
    ) -> FloatArray:
        first = self._distinct[0]
        others, k = self.reference[first].astype(np.float64), min(self.neighbours, len(first))
        squares, out = (others**2).sum(axis=1), np.zeros(len(points))
        for start in range(0, len(points), 1024):
            part = points[start : start + 1024].astype(np.float64)
            rows = np.arange(start, start + len(part))
            # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, one matrix product; of near points it may round to below 0.
            gaps = np.maximum((part**2).sum(axis=1)[:, None] + squares[None] - 2.0 * part @ others.T, 0.0)
            if copy_of is not None:
                gaps[np.arange(len(part)), copy_of[rows]] = np.inf
            if groups is not None and reference_groups is not None:
                kin = groups[rows][:, None] == reference_groups[first][None]
                # A group that is all there is must be measured by its own rows.
                kin[kin.all(axis=1)] = False
                gaps[kin] = np.inf
            near = np.sqrt(np.partition(gaps, k - 1, axis=1)[:, :k])
            there = np.isfinite(near)
            found = np.where(there, near, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
            out[rows] = found
        return out


def fit_domain(
    features: npt.NDArray[np.floating], share: float = 0.95, neighbours: int = 5, groups: IntArray | None = None
) -> Domain:
    """The domain of training structures; see `domain_and_distances`."""
    return domain_and_distances(features, share, neighbours, groups)[0]


def domain_and_distances(
    features: npt.NDArray[np.floating], share: float = 0.95, neighbours: int = 5, groups: IntArray | None = None
) -> tuple[Domain, FloatArray]:
    """The domain of training structures, and (n,) their mean distances to their nearest distinct others.

    Args:
        features: (n, width) pooled features.
        share: of the distinct training structures that count as inside when measured against the others.
        neighbours: nearest structures averaged.
        groups: (n,) rows that were left out together, such as those of a formula: the model that is judged on a row
            had seen none of its group, so the row is measured to the other groups. Without it only to other rows.

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
    if groups is None:
        own[sampled], own[others] = domain.distance_within(), domain.distance(features[others])
    else:
        own[sampled] = domain.distance_within(groups[sampled])
        own[others] = domain.distance_to_others(features[others], groups[others], groups[sampled])
    # A crystal that was measured many times is one: with its repeats counted, their number would set the threshold.
    one_each = np.concatenate([sampled[domain._distinct[0]], others])
    return replace(domain, threshold=float(np.quantile(own[one_each], share))), own


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

    Near the training data std^2 = floor^2 + (scale spread)^2 + (reach remoteness^2)^2, with the spread of the ensemble
    and the remoteness, the distance to the training structures in units of the domain's threshold. Where a structure is
    remote all members may be wrong alike, which their spread can't show. It is never more than `limit`, the deviation
    of the training values: who knows nothing but these is no farther off.

    Beyond the domain the model is believed less and less, as a Gaussian process with a proper prior would have it
    (Rasmussen & Williams, eq. 2.25 and 2.26, with a correlation `kept` between the value and what is known of it): the
    prediction is centre + kept (prediction - centre), the variance kept^2 std^2 + (1 - kept^2) limit^2.

    Attributes:
        floor: noise that the members share, in the unit of the (transformed) target.
        scale: factor on the spread of the ensemble.
        reach: standard deviation that remoteness 1 adds, in the unit of the (transformed) target.
        quantile: half-width of the interval in standard deviations.
        coverage: share of new values meant to fall inside.
        centre: mean of the training values; NaN in models that were saved before it was kept, which fade nowhere.
        limit: standard deviation of the training values.
    """

    floor: float
    scale: float
    reach: float
    quantile: float
    coverage: float
    centre: float = float("nan")
    limit: float = float("inf")

    def believed(self, mean: FloatArray, remoteness: FloatArray) -> FloatArray:
        """(n,) predictions, on the scale of the model, from (n,) means of the members."""
        return faded(mean, remoteness, self.centre)

    def std(self, spread: FloatArray, remoteness: FloatArray | None = None) -> FloatArray:
        """(n,) predictive standard deviations from (n,) spreads and (n,) remotenesses, 0 where they are not given."""
        # Whatever is as far as this is not known at all; a number keeps 0 x infinity from being none.
        far = np.zeros(len(spread)) if remoteness is None else np.minimum(remoteness, 1e3)
        own = np.minimum(self.floor**2 + (self.scale * spread) ** 2 + (self.reach * far**2) ** 2, self.limit**2)
        if not np.isfinite(self.centre):
            return np.sqrt(own)
        known = kept(far) ** 2
        return np.sqrt(known * own + (1.0 - known) * self.limit**2)

    def half_width(self, spread: FloatArray, remoteness: FloatArray | None = None) -> FloatArray:
        """(n,) half-widths of the intervals."""
        return self.quantile * self.std(spread, remoteness)


def kept(remoteness: FloatArray) -> FloatArray:
    """(n,) correlation left between values and what a model says of them: 1 inside the domain, 0 far outside."""
    return np.exp(-0.5 * (np.maximum(remoteness - 1.0, 0.0) / FADING) ** 2)


def faded(mean: FloatArray, remoteness: FloatArray, centre: FloatArray | float) -> FloatArray:
    """(n,) predictions that go to the centre, the mean of known values, as far as a model knows nothing.

    Args:
        mean: (n,) what it says.
        remoteness: (n,) distance to its training structures over the domain's threshold.
        centre: mean of the values it was trained on, (n,) where rows have centres of their own; NaN: nothing fades.
    """
    left = np.where(np.isfinite(centre), kept(remoteness), 1.0)
    return np.where(left == 1.0, mean, centre + left * (mean - centre))


def calibrate(
    residual: FloatArray,
    spread: FloatArray,
    coverage: float = 0.9,
    remoteness: FloatArray | None = None,
    centre: float = float("nan"),
    limit: float = float("inf"),
) -> Calibrator:
    """Fit floor, scale and reach by Gaussian likelihood, then the conformal quantile.

    Args:
        residual: (n,) measured minus predicted, on rows held out from the members that predicted.
        spread: (n,) standard deviation of those members.
        coverage: between 0 and 1.
        remoteness: (n,) distance to the training structures over the domain's threshold; without it reach is 0.
        centre: see `Calibrator`; residuals are of predictions that were faded towards it.
        limit: see `Calibrator`.

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
        # What is farther has faded: nothing of its variance is the model's own.
        terms.append(np.minimum(remoteness, 1.0 + 3.0 * FADING) ** 2)
    # Rows: 1, spread, remoteness^2, all squared; the variance is their sum with the squares of floor, scale and reach.
    squares = np.stack(terms) ** 2

    def cost(log_parameters: FloatArray) -> float:
        # -2 log N(residual; 0, variance) on average, without its constant. Logarithms keep parameters positive.
        variance = np.exp(2 * log_parameters) @ squares + 1e-12
        return float(np.mean(np.log(variance) + (residual / unit) ** 2 / variance))

    best = minimize(cost, np.log(np.full(len(terms), 0.5)), method="L-BFGS-B", bounds=[(-7.0, 3.0)] * len(terms))
    floor, scale, *reach = (float(x) for x in np.exp(best.x))
    far = reach[0] * unit if reach else 0.0
    fitted = Calibrator(floor * unit, scale, far, float("nan"), coverage, centre, limit)
    # Were the likelihood wrong, intervals would be too wide here and too narrow there, but on average they hold: the
    # quantile is of the scores as they are.
    scores = np.sort(np.abs(residual) / np.maximum(fitted.std(spread, remoteness), 1e-12 * unit))
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
    centre: float = float("nan"),
    limit: float = float("inf"),
) -> float:
    """Share of rows inside the interval when each fold's interval is calibrated on the other folds.

    NaN where the other folds are too few for it.
    """
    far = np.zeros(len(residual)) if remoteness is None else remoteness
    inside = np.zeros(len(residual), dtype=bool)
    for k in np.unique(fold):
        test = fold == k
        if (~test).sum() < rows_needed(coverage):
            return float("nan")
        known = None if remoteness is None else far[~test]
        calibrator = calibrate(residual[~test], spread[~test], coverage, known, centre, limit)
        inside[test] = np.abs(residual[test]) <= calibrator.half_width(spread[test], far[test])
    return float(np.mean(inside))
