"""From the spread of an ensemble to standard deviations and intervals that hold for structures like the known ones.

Intervals are conformal (Vovk et al. 2005; normalised scores after Papadopoulos et al. 2002): the scores are residuals
on rows that the members making the prediction never saw, so that a share `coverage` of exchangeable new values falls
inside. Beyond the training domain nothing is exchangeable; `models/domain.py` says where that is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

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
