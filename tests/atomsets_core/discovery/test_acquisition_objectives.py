"""Objectives and constraints say what they mean; Pareto fronts hold what nothing beats."""

from __future__ import annotations

import numpy as np
import pytest

from atomsets_core.discovery.acquisition import Constraints, Objective, pareto_fronts, pareto_order, weighted_utility

Y = np.array([1.0, 2.0, 3.0, 4.0, 5.0])


def test_utilities_by_hand():
    assert Objective().utility(Y).tolist() == Y.tolist()
    assert Objective("minimize").utility(Y).tolist() == (-Y).tolist()
    assert Objective("target", value=3.5).utility(Y).tolist() == [-2.5, -1.5, -0.5, -0.5, -1.5]
    assert Objective("window", low=2, high=3).utility(Y).tolist() == [-1, 0, 0, -1, -2]
    assert Objective("exceed", value=4).utility(Y).tolist() == [-3, -2, -1, 0, 0]


def test_what_counts_as_found():
    assert Objective().wanted(Y, 0.4).tolist() == [False, False, False, True, True]
    assert Objective("minimize").wanted(Y, 0.2).tolist() == [True, False, False, False, False]
    assert Objective("window", low=2, high=3).wanted(Y, 0.2).tolist() == [False, True, True, False, False]
    # unrounded: 4 - 1e-9 is not above 4
    assert Objective("exceed", value=4).wanted(np.array([4 - 1e-9, 4, 4.1]), 0.9).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "most"}, "no goal 'most'"),
        ({"goal": "target"}, "need a value"),
        ({"goal": "maximize", "value": 1.0}, "need a value"),
        ({"goal": "window", "low": 1.0}, "needs a low and a high end"),
        ({"goal": "window", "low": 2.0, "high": 1.0}, "is empty"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Objective(**options)


FORMULAS = ["Fe2O3", "NaCl", "PbTiO3", "Fe"]


def test_constraints_by_hand():
    sites, hull = np.array([10, 2, 5, 1]), np.array([0.0, 0.2, np.nan, 0.05])

    def met(**options: object) -> list[bool]:
        return Constraints(**options).met(FORMULAS, sites, hull).tolist()  # type: ignore[arg-type]

    assert met() == [True] * 4
    assert met(forbidden=("Pb", "Cl")) == [True, False, False, True]
    assert met(allowed=("Fe", "O", "Na")) == [True, False, False, True]
    assert met(n_elements=(2, 2)) == [True, True, False, False]
    assert met(n_sites=(2, 5)) == [False, True, True, False]
    # unknown stability does not pass
    assert met(highest_above_hull=0.1) == [True, False, False, True]
    with pytest.raises(ValueError, match="needs these energies"):
        Constraints(highest_above_hull=0.1).met(FORMULAS, sites)
    with pytest.raises(ValueError, match="'Xx' is not an element"):
        Constraints(forbidden=("Xx",))
    with pytest.raises(ValueError, match="n_sites: from 3 to 1"):
        Constraints(n_sites=(3, 1))


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a >= b).all() and (a > b).any())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("properties", [1, 2, 3])
def test_a_pareto_front_holds_exactly_what_nothing_left_beats(seed: int, properties: int):
    utilities = np.random.default_rng(seed).integers(0, 8, (60, properties)).astype(float)
    front = pareto_fronts(utilities)
    for number in range(front.max() + 1):
        left = np.flatnonzero(front >= number)
        for row in left:
            beaten = any(dominates(utilities[other], utilities[row]) for other in left)
            assert beaten == (front[row] > number)
    order = pareto_order(utilities)
    assert (np.diff(front[np.argsort(-order, kind="stable")]) >= 0).all()


def test_weights_count_in_units_of_the_scale():
    utilities = {"K": np.array([100.0, 0.0]), "gap": np.array([0.0, 1.0])}
    scales = {"K": 100.0, "gap": 1.0}
    assert weighted_utility(utilities, {"K": 1, "gap": 1}, scales).tolist() == [0.5, 0.5]
    assert weighted_utility(utilities, {"K": 3, "gap": 1}, scales).tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match="weights are for"):
        weighted_utility(utilities, {"K": 1}, scales)
    with pytest.raises(ValueError, match="must not be negative"):
        weighted_utility(utilities, {"K": 0, "gap": 0}, scales)
