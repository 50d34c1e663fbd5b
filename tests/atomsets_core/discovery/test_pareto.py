"""Fronts, dominated volumes and expected improvements against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomsets_core.discovery.goals import Goal
from atomsets_core.discovery.pareto import boxes, expected_improvement, hypervolume, non_dominated


def by_definition(points):
    return np.array(
        [not any(np.all(q >= p) and np.any(q > p) for q in points) for p in points],
        dtype=bool,
    )


coordinates = st.integers(0, 5).map(float)


@given(st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[coordinates] * m), min_size=1, max_size=25)))
@settings(max_examples=80, deadline=None)
def test_the_front_is_what_nothing_dominates(rows):
    points = np.array(rows)
    assert non_dominated(points).tolist() == by_definition(points).tolist()


def test_large_numbers_on_one_axis_hide_nothing_on_another():
    assert non_dominated(np.array([[1e20, 0.0], [1e20, 1e-3]])).tolist() == [False, True]


@given(st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[coordinates] * m), min_size=0, max_size=8)))
@settings(max_examples=60, deadline=None)
def test_volume_and_boxes_fill_the_space(rows):
    """On a grid of whole numbers volumes can be counted: cubes that some point dominates, and cubes in a box."""
    m = len(rows[0]) if rows else 2
    points, reference = np.array(rows).reshape(len(rows), m), np.zeros(m)
    cubes = np.stack(np.meshgrid(*[np.arange(5.0)] * m, indexing="ij"), axis=-1).reshape(-1, m)
    dominated = np.array([any(np.all(p >= cube + 1) for p in points) for cube in cubes])
    assert hypervolume(points, reference) == dominated.sum()
    lower, upper = boxes(points, reference)
    held = np.array([np.sum(np.all((lower <= cube) & (upper >= cube + 1), axis=1)) for cube in cubes])
    assert held.tolist() == (~dominated).astype(int).tolist(), "each cube that is not dominated is in one box"


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_expected_improvement_is_the_mean_of_what_draws_add(axes):
    random = np.random.default_rng(axes)
    front, reference = random.random((6, axes)), np.full(axes, -0.2)
    mean, std = random.random((4, axes)), 0.3 * random.random((4, axes))
    std[0] = 0.0
    gains = [Goal("p", "maximize").gain(mean[:, k], std[:, k]) for k in range(axes)]
    found = expected_improvement(gains, 4, front, reference)
    before = hypervolume(front, reference)
    for row in range(4):
        drawn = mean[row] + std[row] * random.standard_normal((3000, axes))
        added = np.array([hypervolume(np.vstack([front, point]), reference) - before for point in drawn])
        error = added.std() / np.sqrt(len(added))
        assert found[row] == pytest.approx(added.mean(), abs=4 * error + 1e-5)


def test_what_is_known_to_be_dominated_adds_nothing():
    front = np.array([[1.0, 2.0], [2.0, 1.0]])
    gains = [Goal("p", "maximize").gain(np.array([0.5]), np.array([0.0])) for _ in range(2)]
    assert expected_improvement(gains, 1, front, np.zeros(2)) == 0.0
