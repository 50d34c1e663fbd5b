"""Goals over several properties: limits with a probability, scores that don't depend on units, batches."""

import numpy as np
import pytest
from scipy.stats import norm

from atomsets_core.discovery.goals import COMBINATIONS, REST, Goal, judge, known_of, pick_batch


@pytest.fixture
def case():
    random = np.random.default_rng(0)
    mean = {"a": random.normal(size=60), "b": random.normal(size=60), "c": random.normal(size=60)}
    std = {name: 0.1 + 0.4 * random.random(60) for name in mean}
    labels = {name: random.normal(size=40) for name in mean}
    return mean, std, labels


GOALS = [Goal("a", "maximize"), Goal("b", "minimize", weight=2.0), Goal("c", "exceed", value=0.3)]


def test_probabilities_of_limits():
    mean, std = np.array([1.0, 1.0, 3.0]), np.array([0.5, 0.0, 0.0])
    assert Goal("a", "exceed", value=2.0).probability(mean, std) == pytest.approx([1 - norm.cdf(2), 0, 1])
    assert Goal("a", "below", value=2.0).probability(mean, std) == pytest.approx([norm.cdf(2), 1, 0])
    inside = norm.cdf(0) - norm.cdf(-2)
    assert Goal("a", "window", low=0.0, high=1.0).probability(mean, std) == pytest.approx([inside, 1, 0])
    assert Goal("a", "class").probability(np.array([0.2, 1.0]), np.zeros(2)).tolist() == [0.2, 1.0]


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_order_doesnt_depend_on_units(case, combine):
    mean, std, labels = case

    def order(a, b):
        factor = {"a": a, "b": b, "c": 1.0}
        scaled = [{name: factor[name] * values for name, values in part.items()} for part in (mean, std, labels)]
        known = known_of(GOALS, scaled[2], scaled[2])
        return np.argsort(-judge(GOALS, scaled[0], scaled[1], known, combine).score, kind="stable").tolist()

    assert order(1e9, 1e-6)[:20] == order(1.0, 1.0)[:20]


def test_what_misses_a_limit_is_named_and_not_on_the_front(case):
    mean, std, labels = case
    goals = [*GOALS[:2], Goal("c", "exceed", value=0.3, at_least=0.8)]
    judged = judge(goals, mean, std, known_of(goals, labels, labels))
    missed = judged.met["c"] < 0.8
    assert judged.out["c"].tolist() == missed.tolist()
    assert missed.any()
    assert not judged.front[missed].any()
    assert judged.front.any()
    assert np.all(judged.on_front[missed] == 0.0)


def test_a_certain_value_beats_an_equal_guess_only_where_that_is_right():
    """Of two with the same mean the uncertain one may still improve on the best known, the known one can't."""
    goals = [Goal("a", "maximize")]
    known = known_of(goals, {"a": np.array([0.0, 1.0])}, {"a": np.array([0.0, 1.0])})
    judged = judge(goals, {"a": np.array([0.9, 0.9, 1.5])}, {"a": np.array([0.0, 0.5, 0.0])}, known)
    assert judged.score[0] == pytest.approx(REST * 0.4 / known.spread[0])
    assert judged.score[1] > 10 * judged.score[0]
    assert judged.score[2] == pytest.approx((0.5 + REST) / known.spread[0])


def test_limits_alone_rank_by_their_probability():
    goals = [Goal("a", "exceed", value=0.0), Goal("b", "below", value=0.0)]
    mean, std = {"a": np.array([1.0, -1.0]), "b": np.array([0.0, -3.0])}, {"a": np.ones(2), "b": np.ones(2)}
    judged = judge(goals, mean, std, known_of(goals, {"a": np.empty(0), "b": np.empty(0)}, {}))
    assert judged.score == pytest.approx([norm.cdf(1) * 0.5, norm.cdf(-1) * norm.cdf(3)])
    assert np.isnan(judged.on_front).all()


def test_target_is_nearest_best():
    goals = [Goal("a", "target", value=2.0)]
    known = known_of(goals, {"a": np.array([0.0, 5.0])}, {"a": np.array([0.0, 5.0])})
    score = judge(goals, {"a": np.array([2.0, 1.0, 4.5])}, {"a": np.full(3, 0.1)}, known).score
    assert np.argsort(-score).tolist() == [0, 1, 2]


def test_a_batch_spreads_over_the_front_and_holds_no_formula_twice():
    """Nine look-alikes at one end of the front, one candidate at the other: the batch of two holds both ends."""
    a = np.concatenate([np.full(9, 10.0) - 0.01 * np.arange(9), [1.0]])
    b = np.concatenate([np.full(9, 1.0), [9.0]])
    goals = [Goal("a", "maximize"), Goal("b", "maximize")]
    labels = {"a": np.array([0.0, 0.5, 0.2]), "b": np.array([0.5, 0.0, 0.1])}
    known = known_of(goals, labels, labels)
    mean, std = {"a": a, "b": b}, {"a": np.full(10, 0.05), "b": np.full(10, 0.05)}
    formulas = [f"X{i}" for i in range(10)]
    assert pick_batch(goals, mean, std, known, formulas, 2).tolist() == [0, 9]
    same = pick_batch(goals, mean, std, known, ["X"] * 9 + ["Y"], 5)
    assert sorted(same.tolist()) == [0, 9]
