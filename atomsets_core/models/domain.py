"""The applicability domain: how far from the training data a structure lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from atomsets_core.models.calibration import FloatArray

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
