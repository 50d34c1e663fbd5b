"""Composition statistics against the periodic table and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from atomsets_core.models.baselines import (
    ELEMENT_PROPERTIES,
    composition_statistics,
    element_table,
    random_forest,
    ridge,
)

WIDTH = len(ELEMENT_PROPERTIES)


def prop(z: int, name: str) -> float:
    return element_table()[z, ELEMENT_PROPERTIES.index(name)]


@pytest.mark.parametrize(
    ("z", "values"),
    [
        (1, {"row": 1, "group": 1, "atomic_mass": 1.00794, "X": 2.20, "n_s": 1, "n_p": 0}),
        (8, {"row": 2, "group": 16, "atomic_mass": 15.9994, "X": 3.44, "n_s": 2, "n_p": 4, "n_d": 0}),
        (26, {"row": 4, "group": 8, "X": 1.83, "melting_point": 1811, "n_s": 2, "n_d": 6}),
        (46, {"row": 5, "group": 10, "n_s": 0, "n_d": 10}),
        (82, {"row": 6, "group": 14, "n_s": 2, "n_p": 2, "n_d": 10, "n_f": 14}),
        (92, {"row": 7, "n_f": 3, "n_d": 1, "n_s": 2}),
    ],
)
def test_known_elements(z: int, values: dict[str, float]):
    assert prop(z, "Z") == z
    for name, value in values.items():
        assert prop(z, name) == pytest.approx(value), name


def test_the_table_has_no_gap_and_a_missing_value_is_the_median():
    table = element_table()
    assert table.shape == (119, WIDTH)
    assert np.isfinite(table).all()
    # helium has no electronegativity on Pauling's scale
    assert prop(2, "X") == np.median([prop(z, "X") for z in range(1, 119)])


def test_statistics_of_hematite_by_hand():
    (row,) = composition_statistics(["Fe2O3"])
    assert row.shape == (6 * WIDTH + 4,)
    blocks = row[: 6 * WIDTH].reshape(6, WIDTH)
    z = dict(zip(("mean", "deviation", "min", "max", "range", "mode"), blocks[:, 0], strict=True))
    # 0.4 x 26 + 0.6 x 8 = 15.2; 0.4 x 10.8 + 0.6 x 7.2 = 8.64
    assert z == pytest.approx({"mean": 15.2, "deviation": 8.64, "min": 8, "max": 26, "range": 18, "mode": 8})
    electronegativity = blocks[:, ELEMENT_PROPERTIES.index("X")]
    assert electronegativity == pytest.approx([2.796, 0.7728, 1.83, 3.44, 1.61, 3.44])
    assert row[-4:] == pytest.approx([2, np.sqrt(0.52), (0.064 + 0.216) ** (1 / 3), (0.01024 + 0.07776) ** 0.2])


def test_an_element_has_no_deviation():
    (row,) = composition_statistics(["Si"])
    blocks = row[: 6 * WIDTH].reshape(6, WIDTH)
    for i in (0, 2, 3, 5):
        np.testing.assert_array_equal(blocks[i], element_table()[14])
    assert not blocks[[1, 4]].any()
    assert row[-4:].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("names", [("NaCl", "ClNa"), ("Fe2O3", "O3Fe2"), ("CaTiO3", "TiO3Ca"), ("LiFePO4", "PO4FeLi")])
def test_the_order_in_which_a_formula_is_written_plays_no_part(names: tuple[str, str]):
    one, other = composition_statistics(names)
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_only_fractions_count():
    one, other = composition_statistics(["Fe2O3", "Fe4O6"])
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_no_formula_no_row():
    assert composition_statistics([]).shape == (0, 6 * WIDTH + 4)


def test_a_row_does_not_depend_on_the_others():
    together = composition_statistics(["Fe2O3", "NaCl", "Si"])
    np.testing.assert_array_equal(together[1], composition_statistics(["NaCl"])[0])


def test_ridge_finds_a_linear_law_and_the_forest_is_reproducible():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 5)) * [1, 10, 100, 0.1, 1]
    y = x @ [1, 0.2, 0.03, 4, 0] + 7
    assert np.abs(ridge().fit(x, y).predict(x) - y).max() < 0.05
    few = {"n_estimators": 10}
    one, same, other = (random_forest(seed).set_params(**few).fit(x, y).predict(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
