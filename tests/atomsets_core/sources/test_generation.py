"""Generated compositions: charge-balanced ones by smact, and solid solutions between end members."""

import re

import numpy as np
import pytest
from pymatgen.core import Composition

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.generation import Generation, generate
from atomsets_core.sources.pull import holds_formulas, pull


def amounts(formula):
    return {element.symbol: amount for element, amount in Composition(formula).items()}


def test_charges_add_up_to_nothing_in_every_composition():
    pytest.importorskip("smact")
    found = generate(Generation(elements=["O", "Ti", "Ba"], largest=6))
    formulas = list(found.structures.formulas)
    assert {"BaTiO3", "TiO2", "BaO"} <= set(formulas)
    assert len(set(formulas)) == len(formulas) == len(found.columns)
    for formula, how in zip(formulas, found.columns["made_of"], strict=True):
        states = {symbol: int(f"{sign}{n}") for symbol, n, sign in re.findall(r"([A-Z][a-z]?)(\d+)([+-])", how)}
        of_formula = amounts(formula)
        assert set(states) == set(of_formula)
        assert sum(states[symbol] * amount for symbol, amount in of_formula.items()) == pytest.approx(0, abs=1e-9)
        assert max(of_formula.values()) <= 6
        assert 2 <= len(of_formula) <= 3


def test_integers_and_numbers_of_elements_are_bounds():
    pytest.importorskip("smact")
    three = generate(Generation(elements=["Ba", "Ti", "O"], least=3, largest=3))
    assert set(three.structures.n_elements) == {3}
    assert "BaTiO3" in three.structures.formulas
    assert "Ba2TiO4" not in three.structures.formulas


def test_a_solid_solution_lies_on_the_line_between_its_ends():
    found = generate(Generation(end_members=[["Bi2Te3", "Sb2Te3"]], steps=4))
    assert sorted(found.structures.material_id) == ["Bi0.5Sb1.5Te3", "Bi1.5Sb0.5Te3", "Bi2Te3", "BiSbTe3", "Sb2Te3"]
    assert list(found.structures.material_id) == sorted(found.structures.material_id)
    for name, how in zip(found.structures.material_id, found.columns["made_of"], strict=True):
        share = float(re.search(r"([\d.]+) Bi2Te3", how)[1]) if "Bi2Te3" in how else 0.0
        of_formula = amounts(name)
        assert of_formula.get("Bi", 0.0) == pytest.approx(2 * share)
        assert of_formula.get("Sb", 0.0) == pytest.approx(2 - 2 * share)
        assert of_formula["Te"] == pytest.approx(3)


def test_three_ends_span_a_triangle_and_shares_count_formula_units():
    found = generate(Generation(end_members=[["PbTe", "SnTe", "Bi2Te3"]], steps=3))
    # (steps + 1)(steps + 2) / 2 points of a triangular grid
    assert len(found.structures) == 10
    row = list(found.columns["made_of"]).index("0.6667 PbTe + 0.3333 Bi2Te3")
    assert amounts(found.structures.material_id[row]) == pytest.approx(
        {"Pb": 2 / 3, "Bi": 2 / 3, "Te": 5 / 3}, rel=1e-5
    )
    np.testing.assert_allclose(np.add.reduceat(found.structures.fractions, found.structures.offsets[:-1]), 1)


def test_what_two_ways_make_is_there_once():
    once = generate(Generation(end_members=[["PbTe", "SnTe"]], steps=2))
    twice = generate(Generation(end_members=[["PbTe", "SnTe"], ["SnTe", "PbTe"]], steps=2))
    assert list(once.structures.hashes) == list(twice.structures.hashes)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Generation(), "name elements to combine, or end_members"),
        (Generation(elements=["Qq", "O"]), "'Qq' is no element"),
        (Generation(end_members=[["PbTe"]]), "needs two end members at least, not PbTe"),
        (Generation(end_members=[["PbTe", "Sn?"]]), "end members PbTe, Sn\\?: not a chemical formula"),
        (Generation(end_members=[["PbTe", "SnTe"]], steps=100, count=50), "there are more than 50 compositions"),
    ],
)
def test_what_can_not_be_made_is_a_sentence(options, reason):
    with pytest.raises(SourceError, match=f"generate: .*{reason}|^generate: {reason}"):
        generate(options)


def test_metals_alone_have_no_charges_to_balance():
    pytest.importorskip("smact")
    with pytest.raises(SourceError, match="no composition of He, Ne is charge-balanced with integers up to 8"):
        generate(Generation(elements=["He", "Ne"]))


def test_the_address_names_elements_and_only_formulas_are_made():
    pytest.importorskip("smact")
    assert set(pull("generate:Na, Cl", compositions=True).structures.formulas) >= {"NaCl"}
    with pytest.raises(SourceError, match="generated are formulas, and structures are needed here"):
        pull("generate:Na,Cl")
    assert holds_formulas("generate:Na,Cl")
    assert holds_formulas("embedded:moduli")
    assert not holds_formulas("embedded:elastic")
    assert not holds_formulas("mp")
