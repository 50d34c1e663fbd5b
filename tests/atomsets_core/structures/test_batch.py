"""Structures as columns: what goes in comes out, and whatever can't be a crystal is refused with its reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import DummySpecies, Element, Lattice, Molecule, Structure

from atomsets_core.sources.embedded import load_elastic
from atomsets_core.structures.batch import Structures, empty_structures, ragged_rows
from atomsets_core.structures.reading import as_structures, from_arrow, from_pymatgen, lattice_vectors

CUBE = [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0]
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)
TRICLINIC = Structure(Lattice.from_parameters(4, 5, 6, 71, 83, 97), ["Fe", "S", "S"], np.eye(3) * 0.37)


def batch() -> Structures:
    return as_structures([RUTILE, PEROVSKITE, TRICLINIC], ["r", "p", "t"])


def table(lattice: object = None, z: object = None, frac: object = None) -> pa.Table:
    """Three cubes of polonium, with the middle one's lattice, numbers or coordinates replaced."""
    return pa.table(
        {
            "material_id": ["before", "odd", "after"],
            "lattice": [CUBE, CUBE if lattice is None else lattice, CUBE],
            "Z": [[84], [84] if z is None else z, [84]],
            "frac": [[0.0, 0, 0], [0.0, 0, 0] if frac is None else frac, [0.5, 0, 0]],
        }
    )


def same(a: Structures, b: Structures) -> None:
    assert list(a.material_id) == list(b.material_id)
    for name in ("lattice", "n_atoms", "numbers", "frac"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_arrow_round_trip_changes_no_bit():
    before = batch()
    after, rows, refused = from_arrow(before.to_arrow())
    same(before, after)
    assert refused == []
    assert rows.tolist() == [0, 1, 2]
    assert list(before.hashes) == list(after.hashes) == before.to_arrow()["structure_hash"].to_pylist()


def test_arrow_round_trip_of_nothing():
    after, rows, refused = from_arrow(empty_structures().to_arrow())
    assert (len(after), len(rows), refused) == (0, 0, [])


def test_a_sliced_and_chunked_table_keeps_each_row_with_its_own_sites():
    whole = batch().to_arrow()
    pieces = pa.concat_tables([whole.slice(2, 1), whole.slice(0, 2), whole.slice(1, 0)])
    same(from_arrow(pieces)[0], batch().take([2, 0, 1]))


def test_pymatgen_round_trip():
    for before, after in zip([RUTILE, PEROVSKITE, TRICLINIC], batch().to_pymatgen(), strict=True):
        assert before == after
        np.testing.assert_array_equal(before.lattice.matrix, after.lattice.matrix)


def test_six_cell_parameters_give_the_cell_of_pymatgen():
    random = np.random.default_rng(0)
    parameters = []
    while len(parameters) < 200:
        angles = random.uniform(25, 155, 3)
        # the three angles of a corner: each smaller than the sum of the others, together less than a full turn
        if angles.sum() < 355 and 2 * angles.max() < angles.sum() - 5:
            parameters.append([*random.uniform(2, 20, 3), *angles])
    ours = lattice_vectors(np.array(parameters))
    theirs = np.array([Lattice.from_parameters(*row).matrix for row in parameters])
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_rows_with_six_and_nine_numbers_may_stand_in_one_table():
    cell = TRICLINIC.lattice
    mixed, _, refused = from_arrow(table(lattice=[*cell.abc, *cell.angles]))
    assert not refused
    np.testing.assert_allclose(mixed.lattice[1], Lattice.from_parameters(*cell.parameters).matrix, atol=1e-9)
    np.testing.assert_array_equal(mixed.lattice[[0, 2]], np.array([CUBE, CUBE]).reshape(-1, 3, 3))


def test_hashes_do_not_depend_on_identifiers_or_on_whole_translations():
    before = batch()
    assert list(as_structures([RUTILE, PEROVSKITE, TRICLINIC]).hashes) == list(before.hashes)
    moved = replace(before, frac=before.frac + np.array([1.0, -2.0, 3.0]))
    assert list(moved.hashes) == list(before.hashes)


def test_hashes_tell_coordinates_species_lattice_and_number_of_sites_apart():
    one = batch().take([2])
    nudged = one.frac.copy()
    nudged[0, 0] += 2e-6
    other = one.numbers.copy()
    other[0] += 1
    variants = [
        one,
        replace(one, frac=nudged),
        replace(one, numbers=other),
        replace(one, lattice=one.lattice + 2e-6 * np.eye(3)),
        replace(one, frac=one.frac[[1, 0, 2]]),
        replace(one, n_atoms=np.array([2]), numbers=one.numbers[:2], frac=one.frac[:2]),
    ]
    assert len({variant.hashes[0] for variant in variants}) == len(variants)


def test_hashes_of_one_structure_are_the_same_wherever_it_stands():
    whole = batch()
    for row in range(3):
        assert whole.take([row]).hashes[0] == whole.hashes[row]


def test_the_hash_is_stable_across_versions():
    # Shards are found by it: a change means that every stored feature is made anew.
    assert from_arrow(table())[0].hashes[0] == "1c9687242c5c18422a581be77d70aa79"


def test_take_repeats_reorders_and_counts_from_the_end():
    whole = batch()
    picked = whole.take([2, 0, 2])
    assert list(picked.material_id) == ["t", "r", "t"]
    assert picked.to_pymatgen() == [TRICLINIC, RUTILE, TRICLINIC]
    same(whole.take([-1]), whole.take([2]))
    same(whole.take(np.array([False, True, True])), whole.take([1, 2]))
    assert len(whole.take([])) == 0
    with pytest.raises(IndexError):
        whole.take([3])


def test_concat_undoes_take():
    whole = batch()
    same(Structures.concat([whole.take([0]), whole.take([]), whole.take([1, 2])]), whole)
    assert len(Structures.concat([])) == 0


def test_a_batch_whose_parts_do_not_fit_is_refused():
    whole = batch()
    with pytest.raises(ValueError, match="inconsistent batch of 3 structures"):
        replace(whole, n_atoms=whole.n_atoms + 1)


def test_ragged_rows_against_a_loop():
    random = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(random.integers(0, 5, 40))])
    indices = random.integers(0, 40, 100)
    loop = [row for i in indices for row in range(offsets[i], offsets[i + 1])]
    assert ragged_rows(offsets, indices).tolist() == loop


def test_formulas_are_those_of_pymatgen_on_every_embedded_structure():
    structures = load_elastic().structures
    theirs = [structure.composition.reduced_formula for structure in structures.to_pymatgen()]
    assert list(structures.formulas) == theirs


def test_formulas_of_elements_that_come_in_pairs():
    lone = [Structure(Lattice.cubic(4), [symbol], [[0, 0, 0]]) for symbol in ("O", "N", "Fe")]
    assert list(as_structures(lone).formulas) == ["O2", "N2", "Fe"]


IMPOSSIBLE = [
    ({"frac": [0.0, float("nan"), 0]}, "a coordinate is NaN or infinite"),
    ({"frac": [0.0, float("inf"), 0]}, "a coordinate is NaN or infinite"),
    ({"lattice": [float("nan"), *CUBE[1:]]}, "the lattice has a NaN or infinite entry"),
    ({"lattice": [float("inf"), *CUBE[1:]]}, "the lattice has a NaN or infinite entry"),
    ({"lattice": [4.0, 0, 0, 8.0, 0, 0, 0, 0, 4.0]}, "no volume"),
    ({"lattice": [0.0] * 9}, "no volume"),
    ({"lattice": [4.0, 0, 4, 90, 90, 90]}, "no volume"),
    ({"lattice": [-4.0, 4, 4, 90, 90, 90]}, "a negative length"),
    ({"lattice": [4.0, 4, 4, 30, 30, 90]}, "angles that close no cell"),
    ({"lattice": [4.0, 4, 4, 130, 130, 130]}, "angles that close no cell"),
    ({"lattice": [4.0, 4, 4, 90, 0, 90]}, "angles that close no cell"),
    ({"lattice": [4.0, 4, 4, 90, 90, 200]}, "angles that close no cell"),
    ({"lattice": CUBE[:8]}, "lattice has 8 numbers, 6 or 9 are needed"),
    ({"lattice": []}, "lattice has 0 numbers, 6 or 9 are needed"),
    ({"z": [0]}, "unknown element: atomic number 0"),
    ({"z": [119]}, "unknown element: atomic number 119"),
    ({"z": [-1]}, "unknown element: atomic number -1"),
    ({"z": [1.5]}, "unknown element: atomic number 1.5"),
    ({"z": [float("inf")]}, "unknown element: atomic number inf"),
    ({"z": [None]}, "an atomic number is missing"),
    ({"z": [], "frac": []}, "it has no sites"),
    ({"frac": [0.0, 0.0]}, "2 coordinates for 1 sites, 3 are needed"),
    ({"z": [84, 84]}, "3 coordinates for 2 sites, 6 are needed"),
]


@pytest.mark.parametrize(("change", "reason"), IMPOSSIBLE)
def test_what_is_no_crystal_is_refused_with_its_reason_and_the_rest_is_kept(change: dict, reason: str):
    accepted, rows, refused = from_arrow(table(**change))
    assert list(accepted.material_id) == ["before", "after"]
    assert rows.tolist() == [0, 2]
    assert [refusal.material_id for refusal in refused] == ["odd"]
    assert reason in refused[0].reason
    assert refused[0].stage in ("parse", "validate")


@pytest.mark.parametrize("column", ["lattice", "Z", "frac"])
def test_a_null_row_is_refused(column: str):
    broken = table()
    values = broken[column].to_pylist()
    values[1] = None
    position = broken.column_names.index(column)
    accepted, _, refused = from_arrow(broken.set_column(position, column, pa.array(values)))
    assert list(accepted.material_id) == ["before", "after"]
    assert [refusal.material_id for refusal in refused] == ["odd"]


def test_an_atomic_number_too_long_for_a_float_refuses_its_row_alone():
    numbers = pa.array([[84], [2**60 + 1], [84]], pa.list_(pa.int64()))
    accepted, _, refused = from_arrow(table().set_column(2, "Z", numbers))
    assert list(accepted.material_id) == ["before", "after"]
    assert "atomic number" in refused[0].reason


def test_without_identifiers_the_position_is_the_identifier():
    accepted, _, refused = from_arrow(table(z=[0]).drop_columns(["material_id"]))
    assert list(accepted.material_id) == ["0", "2"]
    assert refused[0].material_id == "1"


@pytest.mark.parametrize("column", ["lattice", "Z", "frac"])
def test_a_missing_column_is_named(column: str):
    with pytest.raises(ValueError, match=f"no column '{column}'"):
        from_arrow(table().drop_columns([column]))


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 3.0], ["a", "b", "c"], [[["a"]], [["b"]], [["c"]]], [["x"], ["y"], ["z"]]]
)
def test_a_column_of_another_type_is_named(values: list):
    with pytest.raises(ValueError, match=r"column 'lattice' holds .* not lists of numbers"):
        from_arrow(table().set_column(1, "lattice", pa.array(values)))


NUMBERS = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 0.5, 3.0, 4.0, 90.0, 1e-300, 1e300]))
ROWS = st.lists(
    st.tuples(
        st.one_of(st.just(CUBE), st.lists(NUMBERS, min_size=5, max_size=10), st.none()),
        st.one_of(st.lists(st.integers(-1, 120), max_size=2), st.lists(NUMBERS, max_size=2), st.none()),
        st.one_of(st.lists(NUMBERS, max_size=7), st.just([0.0, 0.0, 0.0]), st.none()),
    ),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_any_table_of_numbers_is_sorted_into_accepted_and_refused(rows: list):
    columns = list(zip(*rows, strict=True)) if rows else [[], [], []]
    kind = pa.list_(pa.float64())
    made = {
        name: pa.array([None if v is None else [None if x is None else float(x) for x in v] for v in column], kind)
        for name, column in zip(("lattice", "Z", "frac"), columns, strict=True)
    }
    accepted, kept, refused = from_arrow(pa.table(made))
    assert len(accepted) + len(refused) == len(rows)
    assert {*(str(row) for row in kept), *(refusal.material_id for refusal in refused)} == {
        str(row) for row in range(len(rows))
    }
    assert np.isfinite(accepted.lattice).all()
    assert np.isfinite(accepted.frac).all()
    assert ((accepted.numbers >= 1) & (accepted.numbers <= 118)).all()
    assert len(accepted.hashes) == len(accepted.formulas) == len(accepted)
    assert all(refusal.reason for refusal in refused)


def test_refusals_of_pymatgen_objects_name_what_is_wrong():
    cube = Lattice.cubic(4)
    nan = Structure(cube, ["Fe"], [[0, 0, 0]])
    nan[0].frac_coords = np.array([np.nan, 0, 0])
    items = {
        "good": RUTILE,
        "unknown element": Structure(cube, [DummySpecies("X")], [[0, 0, 0]]),
        "no sites": Structure(cube, [], []),
        "a coordinate is NaN": nan,
        "no volume": Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["Fe"], [[0, 0, 0]]),
        "not a crystal structure but a Molecule": Molecule(["H"], [[0, 0, 0]]),
        "not a crystal structure but a str": "Fe2O3",
    }
    accepted, refused = from_pymatgen(items.values(), list(items))
    assert list(accepted.material_id) == ["good"]
    assert len(refused) == len(items) - 1
    for refusal in refused:
        assert refusal.material_id in refusal.reason


MIXED = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Co": 0.25}, {"O": 1}], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_partial_occupancy_is_a_row_for_each_element_with_its_share():
    accepted, refused = from_pymatgen([RUTILE, MIXED])
    assert not refused
    assert list(accepted.disordered) == [False, True]
    rows = slice(accepted.offsets[1], accepted.offsets[2])
    assert dict(zip(accepted.numbers[rows], accepted.shares[rows], strict=True)) == {26: 0.5, 27: 0.25, 8: 1}
    assert accepted.formulas[1] == "Fe2CoO4"
    assert accepted.take([0]).weights is None
    assert Structures.concat([as_structures([RUTILE]), as_structures([MIXED])]).hashes[1] == accepted.hashes[1]


def test_partial_occupancy_survives_the_way_to_parquet_and_back():
    batch = as_structures([RUTILE, MIXED], ["a", "b"])
    read, _, refused = from_arrow(batch.to_arrow())
    assert not refused
    assert list(read.hashes) == list(batch.hashes)
    back = read.to_pymatgen()
    assert back[0].is_ordered
    assert back[1].composition.almost_equals(MIXED.composition)
    assert len(back[1]) == 2
    table = batch.to_arrow()
    bad = pa.array([[1.0] * 6, [0.5, 1.5, 1.0]], pa.large_list(pa.float64()))
    refused = from_arrow(table.set_column(table.column_names.index("occupancy"), "occupancy", bad))[2]
    assert [(r.material_id, r.reason) for r in refused] == [
        ("b", "an occupancy is 1.5; it must be above 0 and up to 1")
    ]


def test_the_share_of_an_element_on_a_site_is_part_of_the_hash():
    other = Structure(MIXED.lattice, [{"Fe": 0.25, "Co": 0.5}, {"O": 1}], MIXED.frac_coords)
    assert len({*as_structures([MIXED, other]).hashes}) == 2


def test_oxidation_states_are_passed_over():
    charged = RUTILE.copy()
    charged.add_oxidation_state_by_element({"Ti": 4, "O": -2})
    assert as_structures([charged]).hashes[0] == as_structures([RUTILE]).hashes[0]


def test_as_structures_names_the_first_that_can_not_be_used():
    with pytest.raises(ValueError, match="structure bad: it has no sites"):
        as_structures([RUTILE, Structure(Lattice.cubic(4), [], [])], ["good", "bad"])
    whole = batch()
    assert as_structures(whole) is whole


def test_heaviest_element_is_accepted():
    accepted, _, refused = from_arrow(table(z=[118]))
    assert not refused
    assert accepted.formulas[1] == Element.from_Z(118).symbol


def test_a_missing_identifier_is_a_refusal_of_its_own():
    cell = [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0]
    table = pa.table(
        {"material_id": ["a", None, None], "lattice": [cell] * 3, "Z": [[26]] * 3, "frac": [[0.0] * 3] * 3}
    )
    accepted, rows, refused = from_arrow(table)
    assert list(accepted.material_id) == ["a"]
    assert list(rows) == [0]
    assert [(refusal.material_id, refusal.reason) for refusal in refused] == [
        ("row 1", "no material_id"),
        ("row 2", "no material_id"),
    ]
