"""A composition is its fractions, however it is written; what has none is refused by name."""

import numpy as np
import pytest
from pymatgen.core import Composition, DummySpecies, Lattice, Structure

from atomsets_core.structures.batch import kind_of_table
from atomsets_core.structures.compositions import Compositions, as_compositions, from_formulas
from atomsets_core.structures.reading import as_structures

CRYSTAL = Structure(Lattice.cubic(4.2), ["Mg", "O"] * 2, [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0.5, 0.5, 0.5]])


def test_fractions_do_not_depend_on_how_the_formula_is_written():
    batch = as_compositions(["Fe2O3", "Fe4O6", "O3Fe2", Composition({"Fe": 0.4, "O": 0.6})])
    same = batch.take([0, 1, 2, 3])
    assert len(set(same.hashes)) == len(set(same.formulas)) == 1
    assert same.formulas[0] == "Fe2O3"
    np.testing.assert_allclose(same.fractions.reshape(4, 2), [[0.6, 0.4]] * 4)
    np.testing.assert_array_equal(same.numbers.reshape(4, 2), [[8, 26]] * 4)


def test_structures_have_the_composition_of_their_sites():
    mixed = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Co": 0.25}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structures = as_structures([CRYSTAL, mixed], ["MgO", "mixed"])
    batch = Compositions.of(structures)
    assert list(batch.formulas) == ["MgO", "Fe2CoO4"]
    assert list(batch.hashes) == list(as_compositions([CRYSTAL, mixed]).hashes)
    assert list(batch.hashes) == list(as_compositions(["MgO", "Fe0.5Co0.25O"]).hashes)
    assert batch.hashes[0] != structures.hashes[0]
    assert list(batch.material_id) == ["MgO", "mixed"]


def test_oxidation_states_of_one_element_count_together():
    assert as_compositions([Composition({"Fe2+": 0.5, "Fe3+": 0.5, "O2-": 1.25})]).n_elements[0] == 2


def test_traces_stay():
    steel = "Fe0.620C0.000953Mn0.000521Si0.00102Nb0.0000616Ni0.378444"
    batch = as_compositions([steel])
    assert batch.n_elements[0] == 6
    assert batch.fractions.sum() == pytest.approx(1)
    expected = Composition(steel).fractional_composition
    assert Composition(batch.formulas[0]).almost_equals(expected, 1e-4, 1e-7)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("", "no formula"),
        (None, "no formula"),
        (float("nan"), "no formula"),
        ("steel", "not a chemical formula: 'steel'"),
        ("Fe2O3)", "not a chemical formula"),
        ("Xx2O", "not a chemical formula|unknown element"),
        (Composition({DummySpecies("X"): 1, "O": 1}), "unknown element"),
        (Composition({"Fe": -1, "O": 2}, allow_negative=True), "the amount of Fe is -1"),
        (7, "not a composition but a int"),
        (Composition({}), "it holds no element"),
    ],
)
def test_what_has_no_composition_is_refused_alone(item, reason):
    batch, refused = from_formulas(["NaCl", item, "MgO"], ["a", "b", "c"])
    assert list(batch.material_id) == ["a", "c"]
    assert [(r.material_id, r.stage) for r in refused] == [("b", "parse")]
    assert any(part in refused[0].reason for part in reason.split("|"))
    with pytest.raises(ValueError, match="composition 1: "):
        as_compositions(["NaCl", item, "MgO"])


def test_selections_and_concatenations_carry_each_its_own():
    batch = as_compositions(["NaCl", "MgAl2O4", "Fe", "LiFePO4"])
    part = batch.take([3, 0, -2])
    assert list(part.formulas) == ["LiFePO4", "NaCl", "Fe"]
    assert list(part.n_elements) == [4, 2, 1]
    joined = Compositions.concat([batch.take(np.array([True, False, True, False])), batch.take([1, 3])])
    assert list(joined.hashes) == [batch.hashes[i] for i in (0, 2, 1, 3)]
    assert len(Compositions.concat([])) == len(batch.take([])) == 0


def test_as_a_table_it_has_a_row_each():
    table = as_compositions(["NaCl", "Fe2O3"], ["x", "y"]).to_arrow().to_pydict()
    assert table["material_id"] == ["x", "y"]
    assert table["Z"] == [[11, 17], [8, 26]]
    assert table["atomic_fraction"][1] == pytest.approx([0.6, 0.4])


def test_a_table_is_read_back_to_the_bit():
    batch = as_compositions(["Fe0.62C0.00095Mn0.3", "MgO", "Bi2Te3"], ["a", "b", "c"])
    table = batch.to_arrow()
    assert kind_of_table(table.column_names) == "compositions"
    again = Compositions.from_arrow(table)
    assert list(again.hashes) == list(batch.hashes) == table["structure_hash"].to_pylist()
    np.testing.assert_array_equal(again.fractions, batch.fractions)


def test_elements_of_a_batch():
    batch = as_compositions(["NaCl", "MgAl2O4", "O2"])
    assert batch.elements == [8, 11, 12, 13, 17]
    assert list(batch.holds(8)) == [False, True, True]
    assert not batch.holds(26).any()
