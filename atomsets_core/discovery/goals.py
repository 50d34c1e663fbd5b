"""What is wanted of several properties at once: goals, limits with a probability, and one score for all of them.

Axes are goals without an end (maximize, minimize, target): what is best on one may not be on another. Limits are goals
that are met or not (exceed, below, window, class): a candidate meets them with a probability. Properties are taken for
independent given a candidate, since each has a model of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from atomsets_core.discovery.pareto import Gain, expected_improvement, non_dominated

FloatArray = npt.NDArray[np.float64]

AXES = ("maximize", "minimize", "target")
"""Goals of which more is always better."""

LIMITS = ("exceed", "below", "window", "class")
"""Goals that are met or not."""

COMBINATIONS = ("hypervolume", "front", "weights")
"""How several properties become one score, the preferred first."""

NODES = 64
"""Quantiles that stand for a distribution where there is no formula."""

DRAWS = 256
"""Random draws behind the probability to be on the front."""

REST = 1e-3
"""Weight of the gain of the weighted sum beside the expected growth of the volume: what can't be expected to add to the
volume is still ranked by something."""

PIECE = 8192
"""Candidates whose expected improvement is computed at a time."""

LEADING = 2000
"""Candidates among which that probability is computed; all others have none to speak of."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of one property; values on the scale its model works on.

    Attributes:
        name: of the property.
        goal: one of `AXES` or `LIMITS`. exceed: above `value`; below: below `value`; window: between `low` and `high`;
            class: the property itself is the probability to be of the wanted class.
        value: of the goals target, exceed and below.
        low: lower end of the window.
        high: upper end of the window.
        weight: of an axis, where axes are added up.
        at_least: probability below which a candidate is left out; None: its probability only counts in the score.
    """

    name: str
    goal: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    weight: float = 1.0
    at_least: float | None = None

    @property
    def is_limit(self) -> bool:
        """Whether it is met or not, as opposed to more being better."""
        return self.goal in LIMITS

    def utility(self, y: FloatArray) -> FloatArray:
        """(n,) how good values of an axis are, higher is better."""
        y = np.asarray(y, dtype=np.float64)
        if self.goal == "maximize":
            return y
        if self.goal == "minimize":
            return -y
        return -np.abs(y - self._value)

    def met(self, y: FloatArray) -> npt.NDArray[np.bool_]:
        """(n,) bool, whether values meet a limit; of a class, whether the probability is one half at least."""
        y = np.asarray(y, dtype=np.float64)
        if self.goal == "class":
            return y >= 0.5
        low, high = self._ends
        return (y >= low) & (y <= high)

    def probability(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """(n,) that a limit is met by normally distributed values; a deviation of 0 is a value that is known.

        Args:
            mean: (n,) of the values.
            std: (n,) their deviations.
        """
        if self.goal == "class":
            return np.clip(np.asarray(mean, dtype=np.float64), 0.0, 1.0)
        low, high = self._ends
        known = std <= 0
        width = np.where(known, 1.0, std)
        inside = ndtr((high - mean) / width) - ndtr((low - mean) / width)
        return np.where(known, self.met(mean), inside)

    def gain(self, mean: FloatArray, std: FloatArray) -> Gain:
        """What candidates are expected to lie above values of this axis.

        Args:
            mean: (n,) of the property.
            std: (n,) deviation; 0 where it is known.
        """
        if self.goal == "target":
            share = (np.arange(NODES) + 0.5) / NODES
            utility = self.utility(mean[:, None] + std[:, None] * ndtri(share)[None, :])
            return lambda ends: np.stack([np.maximum(utility - end, 0.0).mean(axis=1) for end in ends], axis=1)
        centre = self.utility(mean)

        def above(ends: FloatArray) -> FloatArray:
            gap = centre[:, None] - ends[None, :]
            width = np.where(std > 0, std, 1.0)[:, None]
            z = gap / width
            expected = width * (_density(z) + z * ndtr(z))
            return np.where(std[:, None] > 0, expected, np.maximum(gap, 0.0))

        return above

    @property
    def _value(self) -> float:
        assert self.value is not None  # noqa: S101  # of target, exceed and below
        return self.value

    @property
    def _ends(self) -> tuple[float, float]:
        if self.goal == "exceed":
            return self._value, np.inf
        if self.goal == "below":
            return -np.inf, self._value
        assert self.low is not None  # noqa: S101  # of the window
        assert self.high is not None  # noqa: S101
        return self.low, self.high


@dataclass(frozen=True)
class Known:
    """What is known of the axes without any candidate.

    Attributes:
        points: (k, axes) utilities of materials of which every axis is known and every limit is met.
        centre: (axes,) median utility of the known values of each axis.
        spread: (axes,) standard deviation of these.
        floor: (axes,) their lowest decile: a gain below it is none.
    """

    points: FloatArray
    centre: FloatArray
    spread: FloatArray
    floor: FloatArray


def known_of(goals: Sequence[Goal], values: Mapping[str, FloatArray], whole: Mapping[str, FloatArray]) -> Known:
    """What labels say of the axes.

    Args:
        goals: all of them.
        values: property -> (k,) values of materials of which all properties are known.
        whole: property -> values of every material of which that property is known, however many.
    """
    axes = [goal for goal in goals if not goal.is_limit]
    k = len(next(iter(values.values()), np.empty(0)))
    fit = np.ones(k, dtype=bool)
    for goal in goals:
        if goal.is_limit:
            fit &= goal.met(values[goal.name])
    points = np.stack([goal.utility(values[goal.name])[fit] for goal in axes], axis=1) if axes else np.empty((k, 0))
    utilities = [goal.utility(whole[goal.name]) for goal in axes]
    spread = np.array([u.std() for u in utilities])
    return Known(
        points[non_dominated(points)] if len(axes) else points,
        np.array([np.median(u) for u in utilities]),
        np.where(spread > 0, spread, 1.0),
        np.array([np.quantile(u, 0.1) for u in utilities]),
    )


@dataclass(frozen=True)
class Judged:
    """What several goals make of candidates.

    Attributes:
        score: (n,) the higher the better; see `COMBINATIONS`.
        feasible: (n,) probability to meet all limits.
        met: property of each limit -> (n,) probability to meet it.
        on_front: (n,) probability to meet all limits and to be on the Pareto front of these candidates and of what is
            known; NaN with fewer than two axes.
        front: (n,) bool, on the Pareto front of the predicted values.
        out: property of each limit with a least probability -> (n,) bool, which candidates miss that.
    """

    score: FloatArray
    feasible: FloatArray
    met: dict[str, FloatArray]
    on_front: FloatArray
    front: npt.NDArray[np.bool_]
    out: dict[str, npt.NDArray[np.bool_]]


def judge(
    goals: Sequence[Goal],
    mean: Mapping[str, FloatArray],
    std: Mapping[str, FloatArray],
    known: Known,
    combine: str = COMBINATIONS[0],
    seed: int = 0,
) -> Judged:
    """Score candidates by several goals at once.

    Args:
        goals: each of another property.
        mean: property -> (n,) predicted values, on the scale of its model.
        std: property -> (n,) their deviations; 0 where a value is known.
        known: see `known_of`.
        combine: "hypervolume": expected hypervolume improvement over what is known; "front": probability to be on the
            Pareto front; "weights": expected gain of the weighted sum of the axes, in standard deviations of their
            known values, over its known median. Each times the probability to meet all limits. The first has a
            thousandth of the last added, for what adds nothing to the volume. With one axis it is the expected
            improvement over the best known value, with none all are the probability alone.
        seed: of the draws behind the probabilities to be on the front.
    """
    if combine not in COMBINATIONS:
        raise ValueError(f"combine must be one of {', '.join(COMBINATIONS)}, not {combine!r}")
    n = len(next(iter(mean.values())))
    axes, limits = [g for g in goals if not g.is_limit], [g for g in goals if g.is_limit]
    met = {g.name: g.probability(mean[g.name], std[g.name]) for g in limits}
    feasible = np.prod(list(met.values()), axis=0) if met else np.ones(n)
    out = {g.name: met[g.name] < g.at_least for g in limits if g.at_least is not None}
    utility = np.stack([g.utility(mean[g.name]) for g in axes], axis=1) if axes else np.empty((n, 0))
    left = ~np.any(list(out.values()), axis=0) if out else np.ones(n, dtype=bool)
    front = np.zeros(n, dtype=bool)
    on_front = np.full(n, np.nan)
    if len(axes) > 1:
        front[left] = non_dominated(utility[left])
    if not axes:
        return Judged(feasible, feasible, met, on_front, front, out)
    deviation = np.stack([std[g.name] for g in axes], axis=1)
    weighted = feasible * _weighted_gain(axes, utility, deviation, known)
    if len(axes) > 1:
        on_front = _chance_of_front(axes, mean, std, known, feasible * left, weighted, seed)
    if combine == "weights":
        score = weighted
    elif combine == "front" and len(axes) > 1:
        score = on_front
    else:
        score = feasible * _expected_volume(axes, mean, std, known) + REST * weighted
    return Judged(score, feasible, met, on_front, front, out)


def pick_batch(
    goals: Sequence[Goal],
    mean: Mapping[str, FloatArray],
    std: Mapping[str, FloatArray],
    known: Known,
    formulas: Sequence[str],
    size: int,
    combine: str = COMBINATIONS[0],
) -> npt.NDArray[np.int64]:
    """Candidates to have together, best first, at most one of each formula.

    Each is chosen as if those before it had turned out as predicted, so that a batch spreads over the front (the
    "kriging believer" of Ginsbourger, Le Riche and Carraro, 2010).

    Args:
        goals: each of another property.
        mean: property -> (n,) predicted values of candidates, the best scores first.
        std: property -> (n,) their deviations.
        known: see `known_of`.
        formulas: (n,) of the candidates.
        size: of the batch.
        combine: see `judge`.

    Returns:
        (at most size,) positions.
    """
    axes = [goal for goal in goals if not goal.is_limit]
    n = len(formulas)
    free, chosen = np.ones(n, dtype=bool), list[int]()
    spread_out = len(axes) > 1 and combine == "hypervolume"
    judged = judge(goals, mean, std, known, combine)
    score = judged.score
    utility = np.stack([g.utility(mean[g.name]) for g in axes], axis=1) if axes else np.empty((n, 0))
    deviation = np.stack([std[g.name] for g in axes], axis=1) if axes else np.empty((n, 0))
    texts = np.asarray(formulas, dtype=object)
    while len(chosen) < size and free.any():
        row = int(np.argmax(np.where(free, score, -np.inf)))
        chosen.append(row)
        free &= texts != texts[row]
        if spread_out and free.any():
            points = np.concatenate([known.points, utility[row][None, :]])
            known = Known(points[non_dominated(points)], known.centre, known.spread, known.floor)
            rest = REST * judged.feasible * _weighted_gain(axes, utility, deviation, known)
            score = judged.feasible * _expected_volume(axes, mean, std, known) + rest
    return np.array(chosen, dtype=np.int64)


def _expected_volume(
    axes: Sequence[Goal], mean: Mapping[str, FloatArray], std: Mapping[str, FloatArray], known: Known
) -> FloatArray:
    """(n,) expected hypervolume improvement, in deviations of the known values, so that units don't matter."""
    n = len(mean[axes[0].name])
    found = np.empty(n)
    for start in range(0, n, PIECE):
        piece = slice(start, start + PIECE)
        gains = [g.gain(mean[g.name][piece], std[g.name][piece]) for g in axes]
        found[piece] = expected_improvement(gains, len(found[piece]), known.points, known.floor)
    return found / float(np.prod(known.spread))


def _weighted_gain(axes: Sequence[Goal], utility: FloatArray, deviation: FloatArray, known: Known) -> FloatArray:
    """(n,) what the weighted sum is expected to lie above that of the known medians."""
    weights = np.array([goal.weight for goal in axes]) / known.spread
    centre, width = (utility - known.centre) @ weights, np.sqrt((deviation**2) @ weights**2)
    z = centre / np.where(width > 0, width, 1.0)
    expected: FloatArray = np.where(width > 0, width * (_density(z) + z * ndtr(z)), np.maximum(centre, 0.0))
    return expected


def _chance_of_front(
    axes: Sequence[Goal],
    mean: Mapping[str, FloatArray],
    std: Mapping[str, FloatArray],
    known: Known,
    feasible: FloatArray,
    weighted: FloatArray,
    seed: int,
) -> FloatArray:
    """(n,) share of the draws in which a candidate is on the front, times the probability to meet all limits."""
    n = len(feasible)
    chance = np.zeros(n)
    leading = np.argsort(-weighted, kind="stable")[:LEADING]
    # Best on one axis alone may be far down in a sum.
    for goal in axes:
        best = np.argsort(-goal.utility(mean[goal.name]) * (feasible > 0), kind="stable")[: LEADING // 4]
        leading = np.union1d(leading, best)
    leading = leading[feasible[leading] > 0]
    random = np.random.default_rng(seed)
    for _ in range(DRAWS if len(leading) else 0):
        drawn = np.stack(
            [
                g.utility(mean[g.name][leading] + std[g.name][leading] * random.standard_normal(len(leading)))
                for g in axes
            ],
            axis=1,
        )
        there = random.random(len(leading)) < feasible[leading]
        points = np.concatenate([drawn[there], known.points])
        chance[leading[there]] += non_dominated(points)[: int(there.sum())]
    return chance / DRAWS


def _density(z: FloatArray) -> FloatArray:
    """(n,) density of the standard normal distribution."""
    density: FloatArray = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return density
