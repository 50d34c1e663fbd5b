"""Neighbour lists are those of the infinite crystal, and a cell that has none worth the name is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from atomsets_core.structures.batch import Refusal, Structures
from atomsets_core.structures.graphs import CrystalGraphs, graph_batches, neighbours
from atomsets_core.structures.reading import as_structures

CUTOFF = 4.0


def image_sum(lattice: np.ndarray, frac: np.ndarray, cutoff: float) -> list[tuple[int, int, float]]:
    """Every (centre, neighbour, distance) up to the cutoff by going through all images that could matter."""
    frac = frac - np.floor(frac)
    # A point within the cutoff is at most cutoff / (height of the cell) cells away, and one more for both ends.
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    counts = np.ceil(cutoff / heights).astype(int) + 1
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in counts), indexing="ij"), -1).reshape(-1, 3)
    found = []
    for i, start in enumerate(frac):
        for j, end in enumerate(frac):
            distances = np.linalg.norm((end + images - start) @ lattice, axis=1)
            found += [(i, j, d) for d in distances[(distances <= cutoff) & (distances > 1e-8)]]
    return sorted(found)


def triclinic(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    while True:
        lattice = random.normal(scale=3.0, size=(3, 3))
        if abs(np.linalg.det(lattice)) > 8:
            return lattice, random.uniform(-1.5, 1.5, size=(random.integers(1, 6), 3))


def graphs(structures: Structures, max_bonds: int = 10**9, cutoff: float = CUTOFF) -> list[CrystalGraphs]:
    refused: list[Refusal] = []
    made = [graph for _, graph in graph_batches(structures, cutoff, max_bonds, refused)]
    assert not refused
    return made


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_neighbours_are_those_of_a_sum_over_images(seed: int):
    lattice, frac = triclinic(seed)
    expected = image_sum(lattice, frac, CUTOFF)
    centre, neighbour, distance = neighbours(lattice, frac, CUTOFF)
    found = sorted(zip(centre.tolist(), neighbour.tolist(), distance.tolist(), strict=True))
    assert [bond[0] for bond in found] == [bond[0] for bond in expected]
    assert Counter(bond[:2] for bond in found) == Counter(bond[:2] for bond in expected)
    np.testing.assert_allclose([bond[2] for bond in found], [bond[2] for bond in expected], atol=1e-9)
    assert (np.diff(centre) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_each_bond_has_its_reverse(seed: int):
    centre, neighbour, distance = neighbours(*triclinic(seed), CUTOFF)
    there = Counter(zip(centre.tolist(), neighbour.tolist(), np.round(distance, 6).tolist(), strict=True))
    back = Counter(zip(neighbour.tolist(), centre.tolist(), np.round(distance, 6).tolist(), strict=True))
    assert there == back


@pytest.mark.parametrize("seed", range(5))
def test_translation_and_wrapping_change_no_distance(seed: int):
    lattice, frac = triclinic(seed)
    wrapped = np.floor(np.random.default_rng(seed).uniform(-3, 3, frac.shape))
    for moved in (frac + np.array([0.123, -0.456, 0.789]), frac + wrapped):
        for before, after in zip(neighbours(lattice, frac, CUTOFF), neighbours(lattice, moved, CUTOFF), strict=True):
            np.testing.assert_allclose(np.sort(before), np.sort(after), atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_rotation_changes_no_distance(seed: int):
    lattice, frac = triclinic(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    before, after = (neighbours(cell, frac, CUTOFF)[2] for cell in (lattice, lattice @ rotation))
    np.testing.assert_allclose(np.sort(before), np.sort(after), atol=1e-9)


def test_coordination_shells_of_known_lattices():
    def shell(structure: Structure, cutoff: float) -> list[int]:
        batch = as_structures([structure])
        return np.bincount(neighbours(batch.lattice[0], batch.frac, cutoff)[0]).tolist()

    fcc = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.0), ["Al"], [[0, 0, 0]])
    bcc = Structure.from_spacegroup("Im-3m", Lattice.cubic(3.0), ["W"], [[0, 0, 0]])
    diamond = Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]])
    assert shell(fcc, 2.9) == [12] * 4
    assert shell(bcc, 2.7) == [8] * 2
    assert shell(bcc, 3.1) == [14] * 2
    assert shell(diamond, 1.6) == [4] * 8
    assert shell(diamond.get_primitive_structure(), 1.6) == [4] * 2


def test_the_cutoff_is_inclusive():
    batch = as_structures([Structure(Lattice.cubic(4.0), ["Po"], [[0, 0, 0]])])
    assert len(neighbours(batch.lattice[0], batch.frac, 4.0)[0]) == 6


REFUSED = {
    "overlapping atoms: sites": Structure(Lattice.cubic(4), ["H", "H"], [[0, 0, 0], [0.07, 0, 0]]),
    "overlapping atoms: sites 0 and 1 are 0.000": Structure(Lattice.cubic(4), ["H", "H"], [[0, 0, 0], [1, 0, 0]]),
    "atoms per cubic Angstrom": Structure(Lattice.cubic(0.7), ["H"], [[0, 0, 0]]),
    "isolated atom: site 0": Structure(Lattice.cubic(9), ["He"], [[0, 0, 0]]),
    "isolated atom: site 2": Structure(Lattice.cubic(12), ["H", "H", "He"], [[0, 0, 0], [0.06, 0, 0], [0.5, 0.5, 0.5]]),
    "isolated atoms: 2 in a cell": Structure(Lattice.cubic(1e4), ["H", "H"], [[0, 0, 0], [0.74e-4, 0, 0]]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_structure_without_a_graph_is_refused_and_the_others_are_not(reason: str):
    good = Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]])
    structures = as_structures([good, REFUSED[reason], good], ["before", "odd", "after"])
    refused: list[Refusal] = []
    ((rows, graph),) = graph_batches(structures, CUTOFF, 10**6, refused)
    assert rows.tolist() == [0, 2]
    assert graph.numbers.tolist() == [84, 84]
    assert [(r.material_id, r.stage, r.structure_hash) for r in refused] == [("odd", "featurize", structures.hashes[1])]
    assert reason in refused[0].reason


def test_a_hydrogen_molecule_in_a_box_is_a_graph():
    molecule = Structure(Lattice.cubic(10), ["H", "H"], [[0, 0, 0], [0.074, 0, 0]])
    (graph,) = graphs(as_structures([molecule]))
    assert graph.centre.tolist() == [0, 1]
    assert graph.neighbour.tolist() == [1, 0]
    np.testing.assert_allclose(graph.distance, 0.74, rtol=1e-6)


def many(n: int = 30) -> Structures:
    random = np.random.default_rng(3)
    # Atoms of a simple cubic grid, a little displaced: no overlap, nobody alone.
    grid = np.stack(np.meshgrid([0, 0.5], [0, 0.5], [0, 0.5]), -1).reshape(-1, 3)
    made = []
    for _ in range(n):
        sites = grid[: random.integers(1, 9)] + random.uniform(-0.05, 0.05, 3)
        made.append(Structure(Lattice.cubic(random.uniform(3.4, 3.9)), ["Cu"] * len(sites), sites))
    return as_structures(made)


@pytest.mark.parametrize("max_bonds", [1, 300, 1000, 10**9])
def test_batches_respect_the_bond_limit_and_hold_every_structure_once(max_bonds: int):
    structures = many()
    seen, batches = [], []
    for rows, graph in graph_batches(structures, CUTOFF, max_bonds, []):
        seen += rows.tolist()
        batches.append(graph)
        assert len(graph.centre) == graph.n_bonds.sum()
        assert len(graph.centre) <= max_bonds or len(rows) == 1
        np.testing.assert_array_equal(graph.n_atoms, structures.n_atoms[rows])
        np.testing.assert_array_equal(graph.numbers, structures.take(rows).numbers)
    assert seen == list(range(len(structures)))
    if max_bonds == 1:
        assert len(batches) == len(structures)
    if max_bonds == 10**9:
        assert len(batches) == 1


def test_in_a_batch_each_structure_has_the_bonds_it_has_alone_and_none_to_another():
    structures = many()
    (graph,) = graphs(structures)
    owner = np.repeat(np.arange(len(structures)), structures.n_atoms)
    np.testing.assert_array_equal(owner[graph.centre], owner[graph.neighbour])
    np.testing.assert_array_equal(np.bincount(owner[graph.centre]), graph.n_bonds)
    ends = np.concatenate([[0], np.cumsum(graph.n_bonds)])
    for i in range(len(structures)):
        (alone,) = graphs(structures.take([i]))
        own = slice(ends[i], ends[i + 1])
        np.testing.assert_array_equal(graph.centre[own] - structures.offsets[i], alone.centre)
        np.testing.assert_array_equal(graph.neighbour[own] - structures.offsets[i], alone.neighbour)
        np.testing.assert_array_equal(graph.distance[own], alone.distance)


def test_a_supercell_has_the_same_environments():
    cell = Structure.from_spacegroup("F-43m", Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    (one,), (eight,) = graphs(as_structures([cell])), graphs(as_structures([cell * (2, 2, 2)]))
    assert len(eight.distance) == 8 * len(one.distance)
    np.testing.assert_allclose(np.sort(eight.distance), np.sort(np.repeat(one.distance, 8)), atol=1e-5)


def test_nothing_in_nothing_out():
    assert list(graph_batches(many(1).take([]), CUTOFF, 10, [])) == []


def test_a_coordinate_a_hair_below_a_whole_number_is_on_the_boundary():
    structures = many(1)
    nudged = replace(structures, frac=structures.frac - np.floor(structures.frac) - 1e-17)
    np.testing.assert_allclose(np.sort(graphs(nudged)[0].distance), np.sort(graphs(structures)[0].distance), atol=1e-5)
