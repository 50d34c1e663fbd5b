"""What is wanted, how candidates are scored by it, and a shortlist that is not the same material over and over.

One entry of `ACQUISITIONS` is a way to score, with the words for it; batches are chosen by score and unlikeness.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from pymatgen.core import Composition, Element
from scipy.stats import norm

FloatArray = npt.NDArray[np.float64]

Mask = npt.NDArray[np.bool_]

GOALS = ("maximize", "minimize", "target", "window", "exceed")

DIVERSITIES = ("none", "k-centre", "determinantal")


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


@dataclass(frozen=True)
class Question:
    """What an acquisition is asked. Everything is on the scale the model works on.

    Attributes:
        kind: name of the acquisition, for messages.
        mean: (n,) predictions.
        std: (n,) calibrated standard deviations.
        objective: what is wanted.
        kappa: weight of the uncertainty.
        best: best training value.
        random: for draws.
    """

    kind: str
    mean: FloatArray
    std: FloatArray
    objective: Objective
    kappa: float = 1.0
    best: float | None = None
    random: np.random.Generator | None = None

    @property
    def spread(self) -> FloatArray:
        """(n,) standard deviations that can be divided by."""
        return np.maximum(self.std, 1e-12)

    def optimistic(self, kappa: float) -> FloatArray:
        """(n,) utility of the predictions, plus kappa standard deviations."""
        wanted = self.objective
        # Far below a threshold the prediction itself still tells good from better.
        threshold = wanted.value if wanted.goal == "exceed" else None
        utility = wanted.utility(self.mean) if threshold is None else self.mean - threshold
        return utility + kappa * self.std

    def gain(self) -> FloatArray:
        """(n,) how far predictions are beyond the best training value, or the threshold of the goal exceed.

        Raises:
            ValueError: it is missing.
        """
        reference = self.objective.value if self.objective.goal == "exceed" else self.best
        if reference is None:
            raise ValueError(f"the acquisition {self.kind!r} needs the best training value")
        return (self.mean - reference) * (-1.0 if self.objective.goal == "minimize" else 1.0)


@dataclass(frozen=True)
class Acquisition:
    """A way to score candidates.

    Attributes:
        name: in options, files and tables; it never changes.
        score: question -> (n,) scores, higher is better.
        words: what candidates are ranked by, e.g. "the prediction alone".
        formula: the same with what is predicted and wanted, for a paper: text with any of {utility}, {quantity},
            {reference}, {better} and {weight}, see `report.methods.acquisition`.
        preference: its place among those that a simulated discovery compares and a campaign may ask for; where several
            find as many, the lowest is taken. None: neither. Simulated discoveries hold the scores of all that are
            compared, so another one takes another `RECIPE_VERSION`.
        refuses: goals it doesn't go with.
        unitless: whether scores are pure numbers and not in the unit of the scale.
        weighs: whether kappa plays a part; without a weight it is the prediction alone.
    """

    name: str
    score: Callable[[Question], FloatArray]
    words: str
    formula: str
    preference: int | None = None
    refuses: tuple[str, ...] = ()
    unitless: bool = False
    weighs: bool = False


def _expected_improvement(asked: Question) -> FloatArray:
    """Jones et al., J. Glob. Optim. 13, 455 (1998)."""
    gain = asked.gain()
    return gain * norm.cdf(gain / asked.spread) + asked.std * norm.pdf(gain / asked.spread)


def _probability(asked: Question) -> FloatArray:
    """Probability of being better than the best value (Kushner, J. Basic Eng. 86, 97 (1964)), or within the window."""
    low, high = asked.objective.low, asked.objective.high
    if low is not None and high is not None:
        return norm.cdf((high - asked.mean) / asked.spread) - norm.cdf((low - asked.mean) / asked.spread)
    return norm.cdf(asked.gain() / asked.spread)


def _draw(asked: Question) -> FloatArray:
    """Utility of a value drawn for each row by itself (Thompson, Biometrika 25, 285 (1933))."""
    if asked.random is None:
        raise ValueError(f"the acquisition {asked.kind!r} needs a random generator")
    return asked.objective.utility(asked.mean + asked.std * asked.random.normal(size=len(asked.mean)))


MEAN = Acquisition(
    "mean",
    lambda asked: asked.optimistic(0.0),
    words="the prediction alone",
    formula="{utility}, as predicted",
    preference=1,
)

UCB = Acquisition(
    "ucb",
    lambda asked: asked.optimistic(asked.kappa),
    words="the prediction plus a part of its uncertainty",
    formula="{utility} as predicted, plus {weight}its standard deviation",
    preference=2,
    weighs=True,
)
"""Taken where nothing tells which is best."""

ACQUISITIONS: Mapping[str, Acquisition] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            MEAN,
            UCB,
            Acquisition(
                "ei",
                _expected_improvement,
                words="the expected improvement over the best known value",
                formula="expected improvement of {quantity} over {reference}",
                preference=3,
                refuses=("target", "window"),
            ),
            Acquisition(
                "probability",
                _probability,
                words="the probability of beating the best known value",
                formula="the probability of {better}",
                preference=4,
                refuses=("target",),
                unitless=True,
            ),
            Acquisition(
                "thompson",
                _draw,
                words="a value drawn by the prediction and its uncertainty",
                formula="{utility}, drawn by the prediction and its standard deviation",
            ),
        )
    }
)
"""Name -> acquisition. An entry here is all that another one takes."""

KINDS = tuple(
    kind.name
    for kind in sorted(ACQUISITIONS.values(), key=lambda kind: kind.preference or 0)
    if kind.preference is not None
)
"""Acquisitions that are compared, the first the one that is taken where several find as many."""


def find_acquisition(name: str, kappa: float = 1.0) -> Acquisition:
    """The acquisition of a name; one that gives the uncertainty no weight is the prediction alone.

    Raises:
        ValueError: there is none.
    """
    if name not in ACQUISITIONS:
        raise ValueError(f"no acquisition {name!r}; there are {', '.join(ACQUISITIONS)}")
    kind = ACQUISITIONS[name]
    return MEAN if kind.weighs and not kappa else kind


def takers(goal: str, names: Collection[str] = tuple(ACQUISITIONS)) -> str:
    """Which of these acquisitions go with a goal, in words."""
    *others, last = (name for name in names if goal not in ACQUISITIONS[name].refuses)
    return f"{', '.join(others)} or {last}" if others else last


def acquisition(
    mean: FloatArray,
    std: FloatArray,
    *,
    goal: str = "maximize",
    kind: str = UCB.name,
    kappa: float = 1.0,
    best: float | None = None,
    target: float | None = None,
    window: tuple[float, float] | None = None,
    random: np.random.Generator | None = None,
) -> FloatArray:
    """(n,) scores, higher is better, on the scale the model works on.

    Args:
        mean: (n,) predictions.
        std: (n,) calibrated standard deviations.
        goal: one of `objectives.GOALS`.
        kind: one of `ACQUISITIONS`. "mean": the utility of the prediction (greedy); "ucb": that plus kappa std; "ei":
            expected improvement over `best`, or over the threshold of the goal exceed; "probability": of being better
            than `best`, above the threshold or within the window; "thompson": the utility of a drawn value.
        kappa: weight of the uncertainty.
        best: best training value, needed by "ei" and "probability" for maximize and minimize.
        target: wanted value of the goal target, threshold of the goal exceed.
        window: ends of the goal window.
        random: draws for "thompson".

    Raises:
        ValueError: an unknown goal or kind, one that doesn't go with the other, or a value it needs is missing.
    """
    chosen = find_acquisition(kind)
    low, high = window or (None, None)
    asked = Question(kind, mean, std, Objective(goal, target, low, high), kappa, best, random)
    if goal in chosen.refuses:
        raise ValueError(f"the goal {goal!r} takes the acquisition {takers(goal)}")
    return chosen.score(asked)


def diverse_shortlist(
    score: FloatArray, features: npt.NDArray[np.floating], groups: npt.NDArray[np.object_], size: int, spread: float
) -> npt.NDArray[np.int64]:
    """Row numbers of a shortlist: best score first, then the best trade of score against likeness to what is chosen.

    Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): the next row has the highest
    (1 - spread) x score + spread x distance to the nearest chosen one, both scaled to 0..1 over the rows offered. Of
    one group only the best-scored row is taken.

    Args:
        score: (n,) higher is better.
        features: (n, width) vectors in which likeness is measured.
        groups: (n,) labels such as reduced formulas.
        size: rows wanted; fewer come back when there are fewer groups.
        spread: 0 takes the best scores, 1 looks at likeness alone.
    """
    n = len(score)
    if not n or size < 1:
        return np.empty(0, dtype=np.int64)
    relevance = (score - score.min()) / (np.ptp(score) or 1.0)
    open_ = np.zeros(n, dtype=bool)
    seen: set[str] = set()
    for row in np.argsort(-score, kind="stable"):
        if str(groups[row]) not in seen:
            seen.add(str(groups[row]))
            open_[row] = True
    chosen = [int(np.argmax(np.where(open_, relevance, -np.inf)))]
    nearest = np.linalg.norm(features - features[chosen[0]], axis=1)
    scale = float(nearest.max()) or 1.0
    while len(chosen) < size:
        open_[chosen[-1]] = False
        if not open_.any():
            break
        # Distances over the largest to the best row, so that `spread` weighs two numbers between 0 and 1.
        value = (1.0 - spread) * relevance + spread * np.minimum(nearest / scale, 1.0)
        chosen.append(int(np.argmax(np.where(open_, value, -np.inf))))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.int64)


def choose_batch(
    score: FloatArray, vectors: npt.NDArray[np.floating], size: int, diversity: str = "none", offered: int = 4
) -> npt.NDArray[np.int64]:
    """Row numbers of a batch to try next, the best score first.

    Args:
        score: (n,) higher is better.
        vectors: (n, width) in which rows are alike or not.
        size: rows wanted; all of them where there are no more.
        diversity: "none": the best scores. "k-centre": of the best `offered` x size rows, the one farthest from those
            chosen, again and again (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)). "determinantal": of the same rows,
            greedily the largest determinant of likeness times quality (Chen et al., NeurIPS 2018).
        offered: how many rows are looked at for each place.

    Raises:
        ValueError: an unknown diversity.
    """
    if diversity not in DIVERSITIES:
        raise ValueError(f"no diversity {diversity!r}; there are {', '.join(DIVERSITIES)}")
    order = np.argsort(-score, kind="stable")
    if diversity == "none" or size >= len(order) or size < 2:
        return order[: max(size, 0)].astype(np.int64)
    shortlist = order[: offered * size]
    points = np.asarray(vectors, dtype=np.float64)[shortlist]
    pick = _k_centre(points, size) if diversity == "k-centre" else _determinantal(score[shortlist], points, size)
    return shortlist[pick].astype(np.int64)


def _k_centre(points: FloatArray, size: int) -> list[int]:
    chosen = [0]
    nearest = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(size, len(points)):
        # Below every distance, also of twins of a chosen row, which are 0 apart from it.
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _determinantal(score: FloatArray, points: FloatArray, size: int) -> list[int]:
    """Greedy maximum of log det of quality x likeness x quality, row after row by its Cholesky factor."""
    # L_ij = q_i S_ij q_j (Kulesza & Taskar, Found. Trends Mach. Learn. 5, 123 (2012)): log det of a batch is 2 sum log
    # q, the quality, plus log det S, the unlikeness. 1.5 sets one against the other: a deviation of the score is worth
    # a factor e^3 of the determinant.
    quality = np.exp(1.5 * (score - score.mean()) / (score.std() or 1.0))
    gaps = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    # The median gap as the length of the kernel, so that likenesses are spread between 0 and 1 whatever the unit.
    likeness = np.exp(-gaps / (np.median(gaps[gaps > 0]) if (gaps > 0).any() else 1.0))
    kernel = quality[:, None] * likeness * quality[None]
    left = np.diag(kernel).copy()
    factors = np.zeros((0, len(points)))
    chosen: list[int] = []
    while len(chosen) < min(size, len(points)):
        open_ = left.copy()
        open_[chosen] = -np.inf
        row = int(np.argmax(open_))
        if open_[row] <= 1e-10:
            # What is left adds nothing: twins of rows already chosen. The best scores fill the batch.
            chosen += [int(i) for i in np.argsort(-score, kind="stable") if i not in chosen][: size - len(chosen)]
            break
        # Next row of the Cholesky factor: c = (L_row - C' c_row) / d_row. What is left of a diagonal, d_i^2, is the
        # factor by which taking i multiplies the determinant (Chen et al. 2018), so the largest is taken.
        update = (kernel[row] - factors.T @ factors[:, row]) / np.sqrt(left[row])
        factors = np.vstack([factors, update])
        left = left - update**2
        chosen.append(row)
    return chosen
