"""Formulas as people write them: adducts are the sum of their parts, and what can be read in two ways isn't read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition, Element

from atomsets_core.structures.compositions import from_formulas
from atomsets_core.structures.formulas import parse_formula, plain_amounts


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("NiSO4.6H2O", "Ni1 S1 O10 H12"),
        ("NiSO4·6H2O", "Ni1 S1 O10 H12"),
        ("NiSO4*6H2O", "Ni1 S1 O10 H12"),
        ("NiSO4•6H2O", "Ni1 S1 O10 H12"),
        ("NiSO4 . 6 H2O", "Ni1 S1 O10 H12"),
        ("Na2SO4.10H2O", "Na2 S1 O14 H20"),
        ("LiOH.H2O", "Li1 O2 H3"),
        ("SrCl2.6(H2O)", "Sr1 Cl2 O6 H12"),
        ("CaSO4.0.5H2O", "Ca1 S1 O4.5 H1"),
        ("CaSO4·1/2H2O", "Ca1 S1 O4.5 H1"),
        ("CaSO4·½H2O", "Ca1 S1 O4.5 H1"),
        ("Na0.3CoO2.1.4H2O", "Na0.3 Co1 O3.4 H2.8"),
        ("BaO.TiO2", "Ba1 Ti1 O3"),
        ("2CaO·SiO2", "Ca2 Si1 O4"),
        ("Al2(SO4)3.16H2O", "Al2 S3 O28 H32"),
        ("V₂O₅", "V2 O5"),
        ("La0.8Sr0.2CoO2.9", "La0.8 Sr0.2 Co1 O2.9"),
        ("Na0.33V2O5", "Na0.33 V2 O5"),
        ("Na0.5H2O", "Na0.5 H2 O1"),
    ],
)
def test_the_parts_of_a_formula_are_added_up(written: str, meant: str):
    assert parse_formula(written).almost_equals(Composition(meant))


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("NaN", "the cell reads 'NaN' (for the compound write Na1N1)"),
        ("None", "the cell reads 'None'"),
        ("NA", "the cell reads 'NA'"),
        ("", "no formula"),
        ("CaCl2.4NH3", "write CaCl2·4NH3"),
        ("Al2O3.2SiO2", "write Al2O3·2SiO2"),
        ("MgSO4.7H20", "water is H2O"),
        ("SiO2.nH2O", "how much water isn't stated"),
        ("MgSO4·xH2O", "how much water isn't stated"),
        ("La1-xSrxMnO3", "not a chemical formula"),
        ("Fe3+", "not a chemical formula"),
        ("Al-4Cu", "not a chemical formula"),
        ("·5H2O", "nothing stands beside a dot"),
    ],
)
def test_what_is_no_formula_or_could_be_two_is_refused_with_what_to_write(written: str, reason: str):
    batch, refused = from_formulas([written, "MgO"], ["a", "b"])
    assert list(batch.material_id) == ["b"]
    assert reason in refused[0].reason


SYMBOLS = st.sampled_from([*(element.symbol for element in Element), "Q", "Xx"])
AMOUNTS = st.sampled_from(["", "1", "2", "13", "144", "0", "01", "100000000"])


@given(st.lists(st.tuples(SYMBOLS, AMOUNTS), min_size=1, max_size=6))
def test_the_short_way_of_plain_formulas_is_no_other(parts):
    text = "".join(symbol + amount for symbol, amount in parts)
    amounts = plain_amounts(text)
    if amounts is not None:
        expected: dict[int, float] = {}
        for element, amount in parse_formula(text).items():
            expected[element.Z] = expected.get(element.Z, 0.0) + float(amount)
        assert amounts == expected


def test_the_short_way_is_taken_by_plain_formulas_alone():
    assert plain_amounts(" Fe2O3") == {26: 2.0, 8: 3.0}
    assert plain_amounts("HOH") == {1: 2.0, 8: 1.0}
    for text in ("NaN", "None", "Fe0", "Qq2O", "co", "Fe0.5O", "Fe2O3·H2O", "(OH)2", "D2O", ""):
        assert plain_amounts(text) is None


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("CuSO4 x 5H2O", "CuSO9H10"),
        ("CuSO4x5H2O", "CuSO9H10"),
        ("CuSO4 \u00d7 5 H2O", "CuSO9H10"),
        ("CuSO4-5H2O", "CuSO9H10"),
        ("CuSO4\u22175H2O", "CuSO9H10"),
        ("[Cu(NH3)4]SO4.H2O", "CuN4H14SO5"),
        ("Pb(Mg1/3Nb2/3)O3", "Pb3MgNb2O9"),
        ("La2/3TiO3", "La2Ti3O9"),
        ("Ba_{0.5}Sr_{0.5}TiO_3", "BaSrTi2O6"),
        ("Ba$_{0.5}$Sr$_{0.5}$TiO$_3$", "BaSrTi2O6"),
        ("Fe<sub>2</sub>O<sub>3</sub>", "Fe2O3"),
    ],
)
def test_signs_of_papers_and_suppliers(text: str, formula: str):
    found, meant = parse_formula(text).fractional_composition, Composition(formula).fractional_composition
    assert found.as_dict() == pytest.approx(meant.as_dict(), rel=1e-9)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\u03b1-Fe2O3", "a name before the formula"),
        ("2H-MoS2", "a name before the formula"),
        ("Fe^{3+}", "a charge"),
        ("Na\u207a", "a charge"),
        ("[PF6]-", "a charge"),
        ("7Li2O", "digits before an element"),
        ("0.94Na0.5Bi0.5TiO3-0.06BaTiO3", "several compounds"),
        ("NaCl_225", "not a chemical formula"),
    ],
)
def test_what_else_is_refused_says_why(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        parse_formula(text)


@pytest.mark.parametrize("text", ["Mg" + "9" * 400 + "/2O", "G1e999As", "MgO1e999", "CuSO4." + "9" * 400 + "H2O"])
def test_amounts_beyond_all_numbers_are_refused(text: str):
    found, refused = from_formulas([text, "NaCl"], ["a", "b"])
    assert list(found.material_id) == ["b"]
    assert [refusal.material_id for refusal in refused] == ["a"]
