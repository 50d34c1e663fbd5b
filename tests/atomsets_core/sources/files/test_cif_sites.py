"""The sites of a CIF are its atoms: no dummies, no cut symbols, no lost hydrogen, no alternatives counted twice."""

from __future__ import annotations

import pytest

from atomsets_core.sources.base import pulled_from_entries
from atomsets_core.sources.files.cif import read_cif
from atomsets_core.sources.files.cif_sites import symbol_of_label
from atomsets_core.structures import Refusal


def block(columns: str, *rows: str, formula: str = "", more: str = "") -> str:
    """A cubic cell of 6 Angstrom in P 1, with columns of the list of sites and its rows."""
    lines = ["data_x", *(f"_cell_length_{axis} 6" for axis in "abc")]
    lines += [f"_cell_angle_{angle} 90" for angle in ("alpha", "beta", "gamma")]
    lines += [f"_chemical_formula_sum '{formula}'"] if formula else []
    lines += [more, "loop_", "_symmetry_equiv_pos_as_xyz", "'x,y,z'", "loop_"]
    return "\n".join([*lines, *(f"_atom_site_{name}" for name in columns.split()), *rows]) + "\n"


def contents(text: str) -> str:
    (found,) = read_cif(text, "x.cif", "x")
    if isinstance(found, Refusal):
        return found.reason
    pulled = pulled_from_entries([found])
    assert not pulled.refused
    return pulled.structures.to_pymatgen()[0].composition.formula


PLAIN = "label type_symbol fract_x fract_y fract_z"
SHARED = f"{PLAIN} occupancy"


@pytest.mark.parametrize("symbol", ["Si/Al", "Nb,Zr", "Si+Al", "Si0.5Al0.5", "(Si,Al)", "Si:Al", "Si|Al"])
def test_two_elements_in_one_symbol_are_refused(symbol):
    said = contents(block(PLAIN, f"M1 '{symbol}' 0 0 0", "O1 O .5 .5 .5"))
    assert "unknown element" in said or "needs a row" in said


@pytest.mark.parametrize("symbol", ["Fe3+", "Fe", "FE", "Fe0+", "Fe+3", "Fe(III)", "Fe1"])
def test_charges_and_numbers_behind_an_element_are_none_of_it(symbol):
    assert contents(block(PLAIN, f"M1 {symbol} 0 0 0", "O1 O2- .5 .5 .5")) == "Fe1 O1"


def test_hydrogen_that_shares_a_place_with_oxygen_stays():
    rows = ("La1 La 0 .5 .5 1", "H1 H 0 0 0 .8", "O1 O 0 0 0 .2")
    assert contents(block(SHARED, *rows, formula="La H0.8 O0.2")) == "La1 H0.8 O0.2"


@pytest.mark.parametrize("shared", [True, False])
def test_hydrogen_without_a_place_is_missed_whether_sites_are_shared_or_not(shared):
    calcium = ("Ca1 Ca 0 0 0 .5", "Sr1 Sr 0 0 0 .5") if shared else ("Ca1 Ca 0 0 0 1",)
    formula = "Ca0.5 H2 O Sr0.5" if shared else "Ca H2 O"
    said = contents(block(SHARED, *calcium, "O1 O .3 0 0 1", formula=formula))
    assert "the formula and the sites of the file disagree" in said
    attached = [f"{row} {2 if row.startswith('O') else 0}" for row in (*calcium, "O1 O .3 0 0 1")]
    assert "no positions" in contents(block(f"{SHARED} attached_hydrogens", *attached))


@pytest.mark.parametrize(
    ("formula", "read"),
    [
        ("Ca0.5 Sr0.5 O", True),
        ("Ca0.49 Sr0.51 O1.02", True),
        ("Ca Sr O2", True),
        ("Ca0.3 Sr0.7 O", False),
        ("Ca0.5 Sr0.5 O3", False),
    ],
)
def test_rounded_formulas_of_shared_sites_are_no_disagreement(formula, read):
    said = contents(block(SHARED, "Ca1 Ca 0 0 0 .5", "Sr1 Sr 0 0 0 .5", "O1 O .3 0 0 1", formula=formula))
    assert (said == "Sr0.5 Ca0.5 O1") is read
    assert read or "disagree" in said


@pytest.mark.parametrize("zero", ["0", "0.0", "0.000(0)", ".0"])
def test_empty_sites_are_left_out(zero):
    rows = ("Na1 Na 0 0 0 1", "Cl1 Cl .5 .5 .5 1", f"H1 H .25 .25 .25 {zero}")
    assert contents(block(SHARED, *rows)) == "Na1 Cl1"
    assert contents(block(SHARED, *rows, formula="Na Cl")) == "Na1 Cl1"
    assert "every site" in contents(block(SHARED, f"H1 H 0 0 0 {zero}"))


def test_an_occupancy_of_a_point_is_whole_and_a_question_is_not_known():
    assert contents(block(SHARED, "Na1 Na 0 0 0 .", "Cl1 Cl .5 .5 .5 1")) == "Na1 Cl1"
    assert "isn't known" in contents(block(SHARED, "Na1 Na 0 0 0 ?", "Cl1 Cl .5 .5 .5 1"))


def test_dummy_sites_are_no_atoms():
    rows = ("Mg1 Mg 0 0 0 d", "O1 O .5 .5 .5 d", "X1 O .25 .25 .25 dum")
    assert contents(block(f"{PLAIN} calc_flag", *rows)) == "Mg1 O1"
    assert contents(block(f"{PLAIN} calc_flag", *(row.replace(" dum", " d") for row in rows))) == "Mg1 O2"


def test_alternatives_by_group_alone_are_refused():
    columns = f"{PLAIN} disorder_assembly disorder_group"
    rows = ("Fe1 Fe 0 0 0 . .", "O1A O .4 0 0 A 1", "O1B O .4 .1 0 A 2")
    assert "alternatives (disorder groups 1, 2)" in contents(block(columns, *rows))
    assert contents(block(columns, *rows[:2])) == "Fe1 O1"  # the other one was taken out
    assert "alternatives" in contents(block(columns, rows[0], "O1A O .4 0 0 A -1"))
    assert "O1" in contents(block(f"{columns} occupancy", f"{rows[0]} 1", f"{rows[1]} .5", f"{rows[2]} .5"))


@pytest.mark.parametrize(
    "tag", ["_cell_modulation_dimension 1", "_cell_wave_vector_seq_id 1", "_space_group_ssg_name 'P'"]
)
def test_modulated_structures_are_refused(tag):
    assert "modulated" in contents(block(PLAIN, "Na1 Na 0 0 0", more=tag))
    assert contents(block(PLAIN, "Na1 Na 0 0 0", more="_cell_modulation_dimension 0")) == "Na1"


@pytest.mark.parametrize(
    ("label", "elements", "expected"),
    [
        ("Ca1", None, "Ca"),
        ("O1", None, "O"),
        ("Ho1", None, "Ho"),
        ("OW1", None, "O"),
        ("Ow1", None, "O"),
        ("HW2", None, "H"),
        ("HA", None, "H"),
        ("MG1", None, "Mg"),
        ("LA1", None, "La"),
        ("HO1", {"Ca", "O", "H"}, "H"),
        ("HO1", {"Ho", "O"}, "Ho"),
        ("NA1", {"Na", "Cl"}, "Na"),
        ("CA1", {"C", "N"}, "C"),
        ("Oa1", {"Si", "O"}, "O"),
        ("D1", {"H", "O"}, "D"),
    ],
)
def test_labels_that_name_an_element(label, elements, expected):
    assert symbol_of_label(label, elements) == expected


@pytest.mark.parametrize(
    ("label", "elements", "reason"),
    [
        ("HO1", None, "may be Ho or H"),
        ("CO2", None, "may be Co or C"),
        ("HO1", {"Ho", "H", "O"}, "may be Ho or H"),
        ("OH1", None, "group of atoms"),
        ("Wat1", None, "group of atoms"),
        ("NH4", None, "group of atoms"),
        ("M1", None, "unknown element"),
        ("T1", None, "unknown element"),
        ("Me1", None, "unknown element"),
        ("1", None, "names no element"),
        ("Fe1", {"Co", "O"}, "unknown element"),
    ],
)
def test_labels_that_do_not(label, elements, reason):
    with pytest.raises(ValueError, match=reason):
        symbol_of_label(label, elements)


@pytest.mark.parametrize("label", ["La/Sr", "Si-Al", "Nb,Zr", "Fe1+Co1"])
def test_a_label_of_two_elements_is_not_the_first(label):
    said = contents(block("label fract_x fract_y fract_z", f"{label} 0 0 0", "Se1 .5 .5 .5"))
    assert "names two elements" in said


@pytest.mark.parametrize(
    ("symbol", "formula", "outcome"),
    [
        ("CU", "", "Cu1 Se1"),
        ("SN2+", "", "Sn1 Se1"),
        ("CO", "Co Se", "Co1 Se1"),
        ("CO", "", "may be Co or C and O"),
        ("NH4", "", "a group of atoms"),
        ("Wat", "", "a group of atoms"),
    ],
)
def test_symbols_in_capitals_are_one_element_where_they_can_be_no_other(symbol, formula, outcome):
    assert outcome in contents(block(PLAIN, f"M1 {symbol} 0 0 0", "Se1 Se .5 .5 .5", formula=formula))


def test_hydrogen_and_deuterium_share_a_place_as_one_element():
    rows = ("Li1 Li 0 0 0 1", "D1 D .5 .5 .5 .6", "H1 H .5 .5 .5 .4")
    assert contents(block(SHARED, *rows, formula="Li D0.6 H0.4")) == "Li1 H1"
    apart = ("Li1 Li 0 0 0 1", "D1 D .5 .5 .5 .5", "H1 H .5 .5 0 .25")
    assert contents(block(SHARED, *apart, formula="Li D0.5 H0.25")) == "Li1 H0.75"


def test_hydrogen_of_a_moiety_is_missed_where_there_is_no_sum():
    rows = ("Mg1 Mg 0 0 0", "O1 O .5 .5 .5")
    said = contents(block(PLAIN, *rows, more="_chemical_formula_moiety 'Mg, 2(H O)'"))
    assert "states hydrogen, and no hydrogen atom is listed" in said
    mercury = ("Hg1 Hg 0 0 0", "O1 O .5 .5 .5")
    assert contents(block(PLAIN, *mercury, more="_chemical_formula_moiety 'Hg O'")) == "Hg1 O1"


def test_tags_in_capitals_and_with_dots_are_the_same_tags():
    text = block(PLAIN, "Mg1 Mg 0 0 0", "O1 O .5 .5 .5")
    assert contents(text.replace("_cell_length_a", "_Cell_Length_A")) == "Mg1 O1"
    dotted = text.replace("_cell_", "_cell.").replace("_atom_site_", "_atom_site.")
    assert contents(dotted) == "Mg1 O1"
