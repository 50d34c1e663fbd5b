"""Ridge and Gaussian-process regression on plain vectors, small enough to be fitted again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

FloatArray = npt.NDArray[np.float64]

MOST_FOR_LIKELIHOOD = 600
"""Rows on which the likelihood of a Gaussian process is maximised; its cost grows with their cube."""

MOST_ROWS = 3000
"""Rows a Gaussian process is conditioned on."""

FARTHEST = 8.0
"""Standardised columns are cut off here: a column that is all but constant must not carry a prediction away."""


@dataclass(frozen=True)
class Scaler:
    """Standardises columns by the rows a model learns from.

    Attributes:
        mean: (width,) of those rows.
        scale: (width,) of those rows, 1 for a constant column.
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, x: FloatArray) -> Scaler:
        """From (n, width) rows."""
        scale = x.std(axis=0)
        return cls(x.mean(axis=0), np.where(scale > 1e-6, scale, 1.0))

    def __call__(self, x: FloatArray) -> FloatArray:
        """(n, width), each row of mean square 1 or so, whatever the width."""
        # Over the root of the width, so that |x|^2, and with it the scale of kernels and penalties, is near 1 however
        # many columns there are.
        return np.clip((x - self.mean) / self.scale, -FARTHEST, FARTHEST) / np.sqrt(x.shape[1])


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression.

    Attributes:
        scaler: of the columns.
        centre: mean of the values.
        weights: (width,) on scaled columns.
        directions: (rank, width) right singular vectors of the scaled columns.
        shrunk: (rank,) 1 / (singular value^2 + strength).
        noise: root mean square of the leave-one-out residuals.
        strength: chosen.
    """

    scaler: Scaler
    centre: float
    weights: FloatArray
    directions: FloatArray
    shrunk: FloatArray
    noise: float
    strength: float

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) means and (n,) standard deviations for (n, width) rows."""
        scaled = self.scaler(x)
        # Var = noise^2 (1 + x' (X'X + strength)^-1 x): noise of a new value, and what the fit doesn't know of this x.
        leverage = ((scaled @ self.directions.T) ** 2 * self.shrunk).sum(axis=1)
        return self.centre + scaled @ self.weights, self.noise * np.sqrt(1.0 + leverage)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `read_ridge` takes: name -> float64 array, (width,) or of the shape of the attribute of that name."""
        return {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "weights": self.weights,
            "directions": self.directions,
            "shrunk": self.shrunk,
            "numbers": np.array([self.centre, self.noise, self.strength]),
        }


def read_ridge(arrays: Mapping[str, npt.NDArray[Any]], width: int) -> Ridge:
    """The ridge regression of `Ridge.arrays`, for rows of this width.

    Raises:
        KeyError: an array is missing.
        ValueError: they are not those of a ridge regression.
    """
    scaler, numbers = _read_scaler(arrays, width), _floats(arrays, "numbers", 3)
    rank = len(arrays["shrunk"])
    weights, shrunk = _floats(arrays, "weights", width), _floats(arrays, "shrunk", rank)
    directions = _floats(arrays, "directions", rank, width)
    if (shrunk < 0).any() or numbers[1] < 0:
        raise ValueError("a deviation of a ridge regression is negative")
    centre, noise, strength = numbers.tolist()
    return Ridge(scaler, centre, weights, directions, shrunk, noise, strength)


def fit_ridge(x: FloatArray, y: FloatArray) -> Ridge:
    """Ridge on standardised columns, its strength the one with the smallest leave-one-out error.

    The residual of a row left out is its residual over one minus its leverage (Allen's PRESS), so that all strengths
    cost one singular value decomposition.

    Args:
        x: (n, width) rows.
        y: (n,) values.
    """
    scaler, centre = Scaler.of(x), float(y.mean())
    left, singular, right = np.linalg.svd(scaler(x), full_matrices=False)
    projected, target = left.T @ (y - centre), y - centre
    best: tuple[float, float] = (np.inf, 1.0)
    for strength in np.logspace(-4, 3, 29):
        # X = U S V'. The hat matrix is U diag(kept) U' plus 1/n for the mean; its diagonal is the leverage h, and the
        # residual of a row left out is e / (1 - h) (the same as Rasmussen & Williams, eq. 5.10 to 5.12, for a linear
        # kernel).
        kept = singular**2 / (singular**2 + strength)
        leverage = (left**2 * kept).sum(axis=1) + 1.0 / len(y)
        residual = (target - left @ (kept * projected)) / np.maximum(1.0 - leverage, 1e-3)
        best = min(best, (float(np.mean(residual**2)), float(strength)))
    error, strength = best
    shrunk = 1.0 / (singular**2 + strength)
    return Ridge(scaler, centre, right.T @ (singular * shrunk * projected), right, shrunk, np.sqrt(error), strength)


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted Gaussian process with the kernel linear x.x' + bump exp(-|x - x'|^2 / 2 length^2), noise on top.

    Attributes:
        scaler: of the columns.
        centre: mean of the values.
        unit: standard deviation of the values; the following are in it.
        linear: variance of the linear part.
        bump: variance of the squared-exponential part.
        length: of the latter, in scaled columns.
        noise: variance of the noise.
        rows: (n, width) scaled, that it is conditioned on.
        factor: (n, n) lower Cholesky factor of their covariance.
        dual: (n,) covariance^-1 values.
    """

    scaler: Scaler
    centre: float
    unit: float
    linear: float
    bump: float
    length: float
    noise: float
    rows: FloatArray
    factor: FloatArray
    dual: FloatArray

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) means and (n,) standard deviations, noise included, for (n, width) rows."""
        scaled = self.scaler(x)
        cross = _kernel(scaled, self.rows, self.linear, self.bump, self.length)
        # Rasmussen & Williams, eq. 2.25 and 2.26: mean k' K^-1 y, variance k(x, x) - k' K^-1 k, and the noise again for
        # a new value rather than the function.
        explained = np.einsum("ij,ji->i", cross, cho_solve((self.factor, True), cross.T))
        own = self.linear * (scaled**2).sum(axis=1) + self.bump + self.noise
        # The difference of two large numbers may round to below what even a known row keeps.
        std = np.sqrt(np.maximum(own - explained, self.noise))
        return self.centre + self.unit * (cross @ self.dual), self.unit * std

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `read_gaussian_process` takes: name -> float64 array, rows (n, width). Not the factor."""
        return {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "rows": self.rows.astype(np.float32),
            "dual": self.dual,
            "numbers": np.array([self.centre, self.unit, self.linear, self.bump, self.length, self.noise]),
        }


def read_gaussian_process(arrays: Mapping[str, npt.NDArray[Any]], width: int) -> GaussianProcess:
    """The Gaussian process of `GaussianProcess.arrays`, for rows of this width.

    Raises:
        KeyError: an array is missing.
        ValueError: they are not those of a Gaussian process.
    """
    scaler, numbers = _read_scaler(arrays, width), _floats(arrays, "numbers", 6)
    n = len(arrays["dual"])
    dual = _floats(arrays, "dual", n)
    if arrays["rows"].dtype != np.float32:
        raise ValueError("the rows of a Gaussian process are of another kind of numbers")
    rows = _floats({"rows": arrays["rows"].astype(np.float64)}, "rows", n, width)
    centre, *kernel = numbers.tolist()
    if min(kernel) <= 0:
        raise ValueError("a variance or length of a Gaussian process is not positive")
    unit, linear, bump, length, noise = kernel
    factor = _factor(rows, linear, bump, length, noise)
    return GaussianProcess(scaler, centre, unit, linear, bump, length, noise, rows, factor, dual)


def _read_scaler(arrays: Mapping[str, npt.NDArray[Any]], width: int) -> Scaler:
    mean, scale = _floats(arrays, "mean", width), _floats(arrays, "scale", width)
    if (scale <= 0).any():
        raise ValueError("the columns of a learner have no scale")
    return Scaler(mean, scale)


def _floats(arrays: Mapping[str, npt.NDArray[Any]], name: str, *shape: int) -> FloatArray:
    found = arrays[name]
    if found.dtype != np.float64 or found.shape != shape:
        raise ValueError(f"{name} of a learner is {found.dtype} {found.shape}, not float64 {shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} of a learner holds something that is not a number")
    return found


def fit_gaussian_process(
    x: FloatArray, y: FloatArray, *, seed: int = 0, most_for_likelihood: int = MOST_FOR_LIKELIHOOD
) -> GaussianProcess:
    """Kernel by marginal likelihood (Rasmussen & Williams, eq. 5.9), conditioned on at most `MOST_ROWS` rows.

    Args:
        x: (n, width) rows.
        y: (n,) values.
        seed: of the choice of rows where there are more than can be used.
        most_for_likelihood: rows on which the likelihood is maximised.
    """
    scaler, centre, unit = Scaler.of(x), float(y.mean()), float(y.std()) or 1.0
    order = np.random.default_rng(seed).permutation(len(y))
    scaled, target = scaler(x), (y - centre) / unit
    likely = order[:most_for_likelihood]
    linear, bump, length, noise = _likeliest(scaled[likely], target[likely])
    used = np.sort(order[:MOST_ROWS])
    # To the digits that are kept of them, so that a saved process says the same.
    rows = scaled[used].astype(np.float32).astype(np.float64)
    factor = _factor(rows, linear, bump, length, noise)
    dual = cho_solve((factor, True), target[used])
    return GaussianProcess(scaler, centre, unit, linear, bump, length, noise, rows, factor, dual)


def _factor(rows: FloatArray, linear: float, bump: float, length: float, noise: float) -> FloatArray:
    """(n, n) lower Cholesky factor of the covariance of rows."""
    # 1e-8 in units of the variance of the values: twins among the rows must not make the matrix singular.
    covariance = _kernel(rows, rows, linear, bump, length) + (noise + 1e-8) * np.eye(len(rows))
    factor: FloatArray = cho_factor(covariance, lower=True)[0]
    return factor


def _squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, one matrix product; of equal rows it may round to below 0.
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.maximum(squares, 0.0)


def _kernel(a: FloatArray, b: FloatArray, linear: float, bump: float, length: float) -> FloatArray:
    result: FloatArray = linear * (a @ b.T) + bump * np.exp(-_squared_distances(a, b) / (2.0 * length**2))
    return result


def _likeliest(rows: FloatArray, target: FloatArray) -> tuple[float, float, float, float]:
    """Linear and bump variance, length and noise variance with the highest marginal likelihood."""
    dots, distances, n = rows @ rows.T, _squared_distances(rows, rows), len(rows)

    def cost(logs: FloatArray) -> tuple[float, FloatArray]:
        linear, bump, length, noise = np.exp(logs)
        bumps = bump * np.exp(-distances / (2.0 * length**2))
        try:
            factor = cho_factor(linear * dots + bumps + (noise + 1e-8) * np.eye(n), lower=True)
        except LinAlgError:
            return 1e10, np.zeros(4)
        dual, inverse = cho_solve(factor, target), cho_solve(factor, np.eye(n))
        # -log p(y) = y' K^-1 y / 2 + log det K / 2 + const (eq. 5.8), half of log det K being the sum of the logarithms
        # of Cholesky's diagonal; d/dt = -tr((a a' - K^-1) dK/dt) / 2 with a = K^-1 y (eq. 5.9), t a logarithm.
        slope = np.outer(dual, dual) - inverse
        gradient = [
            (slope * linear * dots).sum(),
            (slope * bumps).sum(),
            (slope * bumps * distances).sum() / length**2,
            noise * np.trace(slope),
        ]
        return 0.5 * target @ dual + np.log(np.diag(factor[0])).sum(), -0.5 * np.array(gradient)

    # Bounds keep the kernel well conditioned; the start is a mixture of both parts with little noise.
    bounds = [(-9.0, 6.0), (-9.0, 5.0), (-2.5, 3.0), (-9.0, 1.0)]
    start = np.log([1.0, 1.0, 1.0, 0.02])
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
    linear, bump, length, noise = (float(value) for value in np.exp(found.x))
    return linear, bump, length, noise
