"""The compiled neighbour lists are pymatgen's, and refuse what those refuse."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.structures import graphs
from atomsets_core.structures.graphs import graph_batches, neighbours
from atomsets_core.structures.reading import as_structures

kernel = pytest.importorskip("atomsets_core.structures.neighbour_kernel")


def batches(structures, cutoff, max_bonds=200_000):
    refused = []
    return list(graph_batches(structures, cutoff, max_bonds, refused)), refused


def compiled_list(structure, cutoff):
    (batch,), refused = batches(as_structures([structure]), cutoff)
    assert not refused
    return batch[1]


def assert_same_list(structure, cutoff):
    found = compiled_list(structure, cutoff)
    centre, neighbour, distance = neighbours(structure.lattice.matrix, structure.frac_coords, cutoff)
    order = np.lexsort((distance, neighbour, centre))
    again = np.lexsort((found.distance, found.neighbour, found.centre))
    np.testing.assert_array_equal(found.centre, centre[order])
    np.testing.assert_array_equal(found.neighbour[again], neighbour[order])
    np.testing.assert_allclose(found.distance[again], distance[order], rtol=1.2e-7)
    assert (np.diff(found.centre) >= 0).all()


@pytest.mark.parametrize("cutoff", [5.0, 4.4, 7.3])
def test_same_pairs_in_real_crystals(elastic, cutoff):
    for structure in elastic.structures.take(np.arange(0, 1000, 25)).to_pymatgen():
        assert_same_list(structure, cutoff)


@pytest.mark.parametrize("seed", range(8))
def test_same_pairs_in_skewed_cells_and_outside_the_cell(seed):
    rng = np.random.default_rng(seed)
    angles = [*rng.choice([50, 70, 90, 105], 2), 60.0]
    lattice = Lattice.from_parameters(*rng.uniform(2.5, 12, 3), *angles)
    # A body-centred arrangement, shaken and moved by whole cells: never overlapping, always skewed.
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) + rng.uniform(-0.1, 0.1, (2, 3)) + rng.integers(-3, 4, (2, 3))
    assert_same_list(Structure(lattice, ["Si", "Si"], frac), 12.0)


def test_cutoff_is_inclusive():
    cubic = Structure(Lattice.cubic(5.0), ["Po"], [[0.3, 0.1, 0.7]])
    assert len(compiled_list(cubic, 5.0).centre) == 6
    assert_same_list(cubic, 5.0)
    assert_same_list(Structure(Lattice.cubic(2.5), ["Po"], [[0, 0, 0]]), 5.0)


def test_distances_of_the_kernel_are_pymatgens_to_1e_8(elastic):
    structures = elastic.structures.take([7])
    room, n = 100_000, 1
    lists = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    found = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros((n, 3))
    skip = np.zeros(n, bool)
    near = np.full(len(structures.numbers), 0.15)
    _, total = kernel.fill(
        structures.lattice, structures.frac, structures.offsets, skip, 0, 5.0, near, room, *lists, *found
    )
    expected = np.sort(neighbours(structures.lattice[0], structures.frac, 5.0)[2])
    np.testing.assert_allclose(np.sort(lists[2][:total]), expected, atol=1e-8, rtol=0)


def test_large_cells_use_larger_boxes():
    rng = np.random.default_rng(0)
    big = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    big.make_supercell([3, 3, 4])
    big.perturb(0.1)
    assert_same_list(big, 5.0)
    sparse = Structure(Lattice.cubic(60.0), ["H"] * 20, np.repeat(rng.random((10, 3)), 2, axis=0))
    for i in range(0, 20, 2):
        sparse.translate_sites([i], [0.02, 0.0, 0.0])
    assert_same_list(sparse, 5.0)


def test_batches_hold_at_most_so_many_bonds(elastic):
    structures = elastic.structures.take(np.arange(40))
    whole, _ = batches(structures, 5.0)
    assert len(whole) == 1
    for max_bonds in (1, 700, 3000):
        parts, _ = batches(structures, 5.0, max_bonds)
        assert all(len(graph.centre) <= max_bonds or len(rows) == 1 for rows, graph in parts)
        np.testing.assert_array_equal(np.concatenate([rows for rows, _ in parts]), np.arange(40))
        np.testing.assert_array_equal(np.concatenate([g.distance for _, g in parts]), whole[0][1].distance)


def test_a_structure_larger_than_the_buffers_is_listed(monkeypatch):
    dense = Structure(Lattice.cubic(2.0), ["Fe"], [[0, 0, 0]])
    dense.make_supercell([8, 8, 8])
    (batch,), _ = batches(as_structures([dense]), 8.0, 10)
    assert len(batch[1].centre) == len(neighbours(dense.lattice.matrix, dense.frac_coords, 8.0)[0]) > 100_000


def test_refusals_are_those_of_pymatgens_route(monkeypatch, elastic):
    odd = [
        Structure(Lattice.cubic(20.0), ["He"], [[0, 0, 0]]),
        Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.01]]),
        Structure(Lattice.cubic(0.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Structure(Lattice.orthorhombic(4000, 4000, 4000), ["H", "H"], [[0, 0, 0], [0, 0, 0.0002]]),
        Structure(Lattice.cubic(14.0), ["H", "H", "H"], [[0, 0, 0], [0, 0, 0.06], [0.5, 0.5, 0.5]]),
        *elastic.structures.take([0, 1]).to_pymatgen(),
    ]
    structures = as_structures(odd)
    found, refused = batches(structures, 5.0)
    monkeypatch.setattr(graphs, "compiled_module", lambda _: None)
    expected, reasons = batches(structures, 5.0)
    assert [(r.material_id, r.reason) for r in refused] == [(r.material_id, r.reason) for r in reasons]
    assert len(refused) == 5
    np.testing.assert_array_equal(found[0][0], expected[0][0])
    np.testing.assert_array_equal(found[0][1].n_bonds, expected[0][1].n_bonds)
