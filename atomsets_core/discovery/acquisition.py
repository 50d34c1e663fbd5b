"""From predictions to a ranked list, and from that to a shortlist that is not the same material over and over.

One entry of `ACQUISITIONS` is a way to score, with the words for it; batches are chosen by score and unlikeness.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from atomsets_core.discovery.objectives import Objective

FloatArray = npt.NDArray[np.float64]

DIVERSITIES = ("none", "k-centre", "determinantal")


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
