"""Searches with hidden values by several properties at once."""

import numpy as np
import pytest

from atomsets_core.discovery.goals import Goal
from atomsets_core.discovery.together import best_combination, search_together, summarize_together

GOALS = [Goal("a", "maximize"), Goal("b", "maximize")]


@pytest.fixture(scope="module")
def values():
    """Two properties that oppose each other."""
    random = np.random.default_rng(1)
    a = random.normal(size=400)
    return {"a": a, "b": -a + random.normal(size=400)}


def runs(values, error, seeds=4):
    random = np.random.default_rng(2)
    mean = {name: v + error * random.normal(size=len(v)) for name, v in values.items()}
    std = {name: np.full(len(v), max(error, 1e-3)) for name, v in values.items()}
    return [search_together(GOALS, values, mean, std, seed) for seed in range(seeds)]


def test_good_predictions_find_the_front_and_bad_ones_are_no_better_than_chance(values):
    good = {row["strategy"]: row for row in summarize_together(runs(values, 0.05))}
    assert good["hypervolume"]["gained"] > 0.95
    assert good["hypervolume"]["found"] > good["a alone"]["found"] > good["random"]["found"]
    bad = {row["strategy"]: row for row in summarize_together(runs(values, 100.0, 8))}
    assert bad["hypervolume"]["found"] == pytest.approx(bad["random"]["found"], abs=0.15)


def test_limits_count_in_what_is_found(values):
    goals = [Goal("a", "maximize"), Goal("b", "exceed", value=1.0)]
    std = {name: np.full(len(v), 0.01) for name, v in values.items()}
    run = search_together(goals, values, values, std, 0)
    assert run["strategies"]["hypervolume"]["found"] > 0.9
    assert run["strategies"]["a alone"]["found"] < 0.5, "the highest a have too low a b"


def test_too_few_materials_or_nothing_to_gain(values):
    few = {name: v[:30] for name, v in values.items()}
    assert search_together(GOALS, few, few, few, 0) is None
    same = {name: np.zeros(100) for name in values}
    assert search_together(GOALS, same, same, same, 0) is None


def test_another_way_must_lead_by_two_standard_errors():
    def run(first, second):
        return {"strategies": {"hypervolume": {"gained": first}, "front": {"gained": second}}}

    assert best_combination([]) == "hypervolume"
    assert best_combination([run(0.5, 0.9), run(0.9, 0.5), run(0.5, 0.6)]) == "hypervolume"
    assert best_combination([run(0.5, 0.7), run(0.5, 0.72), run(0.5, 0.71)]) == "front"
