"""Reduced formulas are pymatgen's, exceptions and polyanions included."""

import numpy as np
import pytest
from pymatgen.core import Composition, Element

from atomsets_core.structures.batch import Structures, formula_of, reduced_formula


def of(numbers):
    return Structures(
        np.array(["x"], object),
        np.eye(3)[None],
        np.array([len(numbers)]),
        np.array(numbers),
        np.zeros((len(numbers), 3)),
    ).formulas[0]


@pytest.mark.parametrize(
    ("symbols", "formula"),
    [
        ("O", "O2"),
        ("Na Na O O", "Na2O2"),
        ("H O", "H2O2"),
        ("Fe O Fe O O", "Fe2O3"),
        ("Li Fe P O O O O", "LiFePO4"),
        ("Ca P P O O O O O O O O Ca Ca", "Ca3(PO4)2"),
        ("Xe F F", "XeF2"),
        ("Fe Fe", "Fe"),
    ],
)
def test_known(symbols, formula):
    assert of([Element(symbol).Z for symbol in symbols.split()]) == formula


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_compositions():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        numbers = np.sort(rng.choice(np.arange(1, 119), rng.integers(1, 6), replace=False)).tolist()
        counts = rng.choice([1, 2, 3, 4, 8, 12], len(numbers))
        counts = (counts // np.gcd.reduce(counts)).tolist()
        expected = Composition({Element.from_Z(z): n for z, n in zip(numbers, counts, strict=True)}).reduced_formula
        assert reduced_formula(tuple(numbers), tuple(counts)) == expected


def test_unknown_elements_have_no_formula():
    assert of([0, 8]) == "?"


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({26: 0.5, 27: 0.5}, "FeCo"),
        ({26: 0.4, 8: 0.6}, "Fe2O3"),
        ({26: 2, 8: 3}, "Fe2O3"),
        ({11: 0.25, 19: 0.25, 17: 0.5}, "KNaCl2"),
        ({26: 0.99, 6: 0.01}, "Fe0.99C0.01"),
        ({26: 0.62, 6: 0.000953, 28: 0.379047}, "Fe0.62Ni0.379047C0.000953"),
        ({2: 0.333333333, 26: 0.666666667}, "Fe2He"),
    ],
)
def test_amounts_become_the_smallest_whole_numbers_or_stay_fractions(amounts, expected):
    found = formula_of(list(amounts), list(amounts.values()))
    assert Composition(found).fractional_composition.almost_equals(
        Composition({Element.from_Z(z): x for z, x in amounts.items()}).fractional_composition, 1e-5, 1e-6
    )
    assert found == expected or Composition(found).reduced_formula == Composition(expected).reduced_formula
