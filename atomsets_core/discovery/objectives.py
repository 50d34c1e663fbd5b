"""What is wanted: of one property, of several at once, and of the material itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pymatgen.core import Composition, Element

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

GOALS = ("maximize", "minimize", "target", "window", "exceed")


@dataclass(frozen=True)
class Objective:
    """What is wanted of one property. Values are on the scale the model works on.

    Attributes:
        goal: "maximize", "minimize"; "target", as near to `value` as can be; "window", between `low` and `high`;
            "exceed", above `value`, how far doesn't matter.
        value: of the goals target and exceed.
        low: lower end of the window.
        high: upper end of the window.
    """

    goal: str = "maximize"
    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise ValueError(f"no goal {self.goal!r}; there are {', '.join(GOALS)}")
        if (self.goal in ("target", "exceed")) != (self.value is not None):
            raise ValueError("the goals target and exceed need a value, the others take none")
        if (self.goal == "window") != (self.low is not None and self.high is not None):
            raise ValueError("the goal window needs a low and a high end, the others take none")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"the window from {self.low:g} to {self.high:g} is empty")

    def utility(self, y: FloatArray) -> FloatArray:
        """(n,) how good values are, higher is better; 0 for every value in the window and above the threshold."""
        y = np.asarray(y, dtype=np.float64)
        if self.goal == "maximize":
            return y
        if self.goal == "minimize":
            return -y
        if self.goal == "target":
            return -np.abs(y - self._value)
        if self.goal == "exceed":
            return np.minimum(y - self._value, 0.0)
        low, high = self._window
        return -np.maximum(np.maximum(low - y, y - high), 0.0)

    def wanted(self, y: FloatArray, share: float) -> Mask:
        """(n,) the rows that count as found: in the window, above the threshold, else the best share of the values.

        Values are compared unrounded; of equal ones at the edge the first count.
        """
        utility = self.utility(y)
        if self.goal in ("window", "exceed"):
            return utility >= 0.0
        found = np.zeros(len(y), dtype=bool)
        # So many rows exactly: with a threshold at the quantile, ties would make them more.
        found[np.argsort(-utility, kind="stable")[: max(1, round(share * len(y)))]] = True
        return found

    @property
    def _value(self) -> float:
        assert self.value is not None  # noqa: S101  # by __post_init__
        return self.value

    @property
    def _window(self) -> tuple[float, float]:
        assert self.low is not None  # noqa: S101  # by __post_init__
        assert self.high is not None  # noqa: S101
        return self.low, self.high


@dataclass(frozen=True)
class Constraints:
    """What a material must be, whatever its property.

    Attributes:
        highest_above_hull: eV/atom; a material of unknown stability doesn't pass. None: any.
        allowed: symbols; a material may hold no other element. Empty: any.
        forbidden: symbols that a material must not hold.
        n_elements: fewest and most elements; None: any.
        n_sites: fewest and most sites; None: any.
    """

    highest_above_hull: float | None = None
    allowed: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    n_elements: tuple[int, int] | None = None
    n_sites: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for symbol in (*self.allowed, *self.forbidden):
            if not Element.is_valid_symbol(symbol):
                raise ValueError(f"{symbol!r} is not an element")
        for name, bounds in (("n_elements", self.n_elements), ("n_sites", self.n_sites)):
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{name}: from {bounds[0]} to {bounds[1]} there is nothing")

    def met(
        self, formulas: Sequence[str], n_sites: npt.NDArray[np.integer], above_hull: FloatArray | None = None
    ) -> Mask:
        """(n,) which materials meet all constraints.

        Args:
            formulas: of the materials.
            n_sites: (n,) of each.
            above_hull: (n,) eV/atom, NaN where unknown; needed for a bound on it.

        Raises:
            ValueError: a bound on the stability, and no stabilities.
        """
        elements = [{e.symbol for e in Composition(str(formula))} for formula in formulas]
        passed = np.array(
            [(not self.allowed or held <= set(self.allowed)) and not held & set(self.forbidden) for held in elements],
            dtype=bool,
        )
        for bounds, counts in (
            (self.n_elements, np.array([len(held) for held in elements])),
            (self.n_sites, np.asarray(n_sites)),
        ):
            if bounds is not None:
                passed &= (counts >= bounds[0]) & (counts <= bounds[1])
        if self.highest_above_hull is not None:
            if above_hull is None:
                raise ValueError("a bound on the energy above hull needs these energies")
            with np.errstate(invalid="ignore"):
                passed &= np.asarray(above_hull, dtype=np.float64) <= self.highest_above_hull
        return passed


def weighted_utility(
    utilities: Mapping[str, FloatArray], weights: Mapping[str, float], scales: Mapping[str, float]
) -> FloatArray:
    """(n,) weighted sum of the utilities of several properties, each in units of its scale.

    Args:
        utilities: property -> (n,), higher is better.
        weights: property -> its weight, not negative.
        scales: property -> e.g. the deviation of its known values, so that units play no part.

    Raises:
        ValueError: properties that differ, a negative weight, or none above 0.
    """
    if set(weights) != set(utilities):
        raise ValueError(f"weights are for {sorted(weights)}, the properties are {sorted(utilities)}")
    if min(weights.values()) < 0 or max(weights.values()) <= 0:
        raise ValueError(f"weights must not be negative, nor all 0: {dict(weights)}")
    total = sum(weights.values())
    # A property whose known values are all alike has no scale; it is taken as it is.
    parts = [weights[name] / total * utilities[name] / (scales[name] or 1.0) for name in utilities]
    return np.sum(parts, axis=0)


def pareto_fronts(utilities: FloatArray) -> npt.NDArray[np.int64]:
    """(n,) number of the Pareto front of each row: 0 where no row is better in one property and as good in all others.

    Front 1 is what is left without front 0, and so on (non-dominated sorting, Deb et al., IEEE Trans. Evol. Comput. 6,
    182 (2002)).

    Args:
        utilities: (n, properties), higher is better.
    """
    n = len(utilities)
    front = np.full(n, -1, dtype=np.int64)
    left = np.arange(n)
    number = 0
    while len(left):
        values = utilities[left]
        # No row can be dominated by one of a lower sum.
        order = np.argsort(-values.sum(axis=1), kind="stable")
        kept: list[int] = []
        for row in order:
            others = values[kept]
            dominated = ((others >= values[row]).all(axis=1) & (others > values[row]).any(axis=1)).any()
            if not dominated:
                kept.append(int(row))
        front[left[kept]] = number
        left = np.delete(left, kept)
        number += 1
    return front


def pareto_order(utilities: FloatArray) -> FloatArray:
    """(n,) scores that rank by Pareto front and within a front by the sum of ranks in each property, higher is better.

    Args:
        utilities: (n, properties), higher is better.
    """
    n = len(utilities)
    if not n:
        return np.empty(0)
    # Ranks have no unit. Their sum over (properties x n) is below 1, so it never lifts a row over a front.
    ranks = np.argsort(np.argsort(utilities, axis=0, kind="stable"), axis=0, kind="stable").sum(axis=1)
    return -pareto_fronts(utilities).astype(np.float64) + ranks / (utilities.shape[1] * n)
