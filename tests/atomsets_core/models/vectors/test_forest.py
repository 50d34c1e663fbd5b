"""A forest of plain arrays says what scikit-learn's does, and arrays that are none are refused."""

import numpy as np
import pytest

from atomsets_core.models.baselines import random_forest
from atomsets_core.models.vectors.forest import LEAF, MOST_COLUMNS, grow_forest, read_forest


def rows(n=150, width=12, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, width))
    x[:, 3] = np.round(x[:, 3])  # ties
    return x, x[:, 0] ** 2 + x[:, 3] + 0.1 * random.normal(size=n)


@pytest.fixture(scope="module")
def grown():
    return grow_forest(*rows(), trees=20, seed=3)


def test_it_says_what_scikit_learn_says(grown):
    x, y = rows()
    other, _ = rows(80, seed=1)
    mean, deviation = grown.predict(other)
    again = random_forest(3).set_params(n_estimators=20).fit(x, np.round((y - y.mean()) / y.std(), 9))
    exact = y.mean() + y.std() * np.stack([tree.predict(other) for tree in again.estimators_], axis=1)
    np.testing.assert_allclose(mean, exact.mean(axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(deviation, exact.std(axis=1), rtol=0, atol=1e-12)


def test_a_threshold_that_is_met_goes_where_scikit_learn_goes(grown):
    # Rows that lie on thresholds of the trees, one column at a time.
    inner = np.flatnonzero(grown.children[:, 0] != LEAF)[:60]
    x = np.zeros((len(inner), 12))
    x[np.arange(len(inner)), grown.column[inner]] = grown.threshold[inner]
    values, y = rows()
    reference = random_forest(3).set_params(n_estimators=20).fit(values, np.round((y - y.mean()) / y.std(), 9))
    np.testing.assert_allclose(grown.predict(x)[0], y.mean() + y.std() * reference.predict(x), rtol=0, atol=1e-12)


def test_many_columns_are_not_all_tried():
    x, y = rows(60, 4 * MOST_COLUMNS)
    found = grow_forest(x, y, trees=5, seed=0)
    reference = random_forest(0).set_params(n_estimators=5, max_features=MOST_COLUMNS / x.shape[1])
    reference.fit(x, np.round((y - y.mean()) / y.std(), 9))
    np.testing.assert_allclose(found.predict(x)[0], y.mean() + y.std() * reference.predict(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_another_unit_grows_the_same_trees(grown, unit):
    x, y = rows()
    other = grow_forest(x, unit * y, trees=20, seed=3)
    np.testing.assert_array_equal(other.children, grown.children)
    np.testing.assert_allclose(other.predict(x)[0], unit * grown.predict(x)[0], rtol=1e-9)


def test_equal_values_and_no_rows(grown):
    x, _ = rows(20)
    mean, deviation = grow_forest(x, np.full(20, 3.5), trees=4, seed=0).predict(x)
    np.testing.assert_array_equal(mean, 3.5)
    np.testing.assert_array_equal(deviation, 0)
    assert grown.predict(x[:0])[0].shape == (0,)


def test_what_was_kept_is_read_again(grown):
    x, _ = rows()
    again = read_forest(grown.arrays(), 12)
    np.testing.assert_array_equal(again.predict(x)[0], grown.predict(x)[0])


def inner_node(forest):
    return int(np.flatnonzero(forest.children[:, 0] != LEAF)[1])


def changed(forest, name, change):
    arrays = {key: value.copy() for key, value in forest.arrays().items()}
    change(arrays[name])
    return arrays


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("children", lambda a: a.__setitem__((0, 0), 0), "child that can't be its own"),
        ("children", lambda a: a.__setitem__((0, 1), len(a)), "child that can't be its own"),
        ("children", lambda a: a.__setitem__((0, 1), -2), "child that can't be its own"),
        ("children", lambda a: a.__setitem__((0, 1), LEAF), "one child"),
        ("column", lambda a: a.__setitem__(0, 12), "column that isn't there"),
        ("column", lambda a: a.__setitem__(0, -1), "column that isn't there"),
        ("threshold", lambda a: a.__setitem__(0, np.nan), "not a number"),
        ("value", lambda a: a.__setitem__(0, np.inf), "not a number"),
        ("roots", lambda a: a.__setitem__(0, 1), "don't follow each other"),
        ("roots", lambda a: a.__setitem__(-1, 1 << 40), "don't follow each other"),
        ("roots", lambda a: a.__setitem__(2, a[1]), "don't follow each other"),
    ],
)
def test_arrays_that_are_no_forest_are_refused(grown, name, change, message):
    with pytest.raises(ValueError, match=message):
        read_forest(changed(grown, name, change), 12)


def test_a_circle_is_refused(grown):
    node = inner_node(grown)
    below = int(grown.children[node, 0])
    while grown.children[below, 0] == LEAF:
        below += 1
    for target in (node, node - 1):
        with pytest.raises(ValueError, match="child that can't be its own"):
            read_forest(changed(grown, "children", lambda a, t=target: a.__setitem__((below, 1), t)), 12)
    # Into the next tree.
    with pytest.raises(ValueError, match="child that can't be its own"):
        read_forest(changed(grown, "children", lambda a: a.__setitem__((0, 1), grown.roots[1])), 12)


def test_any_change_of_the_nodes_is_refused_or_ends(grown):
    random = np.random.default_rng(0)
    x, _ = rows(30)
    for _ in range(300):
        arrays = {key: value.copy() for key, value in grown.arrays().items()}
        for _ in range(int(random.integers(1, 4))):
            name = str(random.choice(["children", "column", "roots"]))
            flat = arrays[name].reshape(-1)
            flat[random.integers(len(flat))] = random.choice([-2, -1, 0, 1, 11, 12, len(grown.value), 1 << 30])
        try:
            forest = read_forest(arrays, 12)
        except ValueError:
            continue
        assert np.isfinite(forest.predict(x)[0]).all()


@pytest.mark.parametrize("name", ["roots", "children", "column", "threshold", "value"])
def test_arrays_of_another_kind_or_length_are_refused(grown, name):
    arrays = grown.arrays()
    with pytest.raises(ValueError, match="other kinds of numbers"):
        read_forest({**arrays, name: arrays[name].astype(np.float32)}, 12)
    if name != "roots":
        with pytest.raises(ValueError, match="different lengths"):
            read_forest({**arrays, name: arrays[name][:-1]}, 12)
    with pytest.raises(KeyError):
        read_forest({key: value for key, value in arrays.items() if key != name}, 12)
