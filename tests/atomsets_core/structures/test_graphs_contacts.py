"""Two atoms overlap by what they are: below half the sum of their covalent radii, through every face of the cell."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Element, Lattice, Structure

from atomsets_core.sources.embedded import load_elastic, load_flla
from atomsets_core.structures import graphs
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.graphs import COVALENT_RADII, NEAREST, find_bonds, graph_batches, radii, without_overlaps
from atomsets_core.structures.reading import as_structures


def pair(first: str, second: str, distance: float) -> Structure:
    return Structure(Lattice.cubic(6), [first, second], [[0.9, 0.5, 0.5], [0.9 + distance / 6, 0.5, 0.5]])


def test_the_radii_are_those_of_cordero_and_others():
    known = CovalentRadius.radius
    assert [known[Element.from_Z(z).symbol] for z in range(1, 97)] == list(COVALENT_RADII)
    assert radii(np.array([118])) == COVALENT_RADII[-1]


@pytest.mark.parametrize(
    ("first", "second", "distance", "kept"),
    [
        ("Mg", "O", 0.90, False),
        ("Mg", "O", 1.80, True),
        ("Bi", "Bi", 0.78, False),
        ("Fe", "O", 0.52, False),
        ("Li", "O", 0.90, False),
        ("H", "H", 0.74, True),  # the shortest bond there is
        ("H", "O", 0.75, True),  # as X-rays see it
        ("N", "N", 1.10, True),
        ("C", "O", 1.13, True),
        ("U", "O", 1.70, True),
        ("Cs", "O", 2.10, True),
    ],
)
def test_known_bonds_are_kept_and_impossible_ones_are_not(first, second, distance, kept):
    rows, refused = without_overlaps(as_structures([pair(first, second, distance)]))
    assert (len(rows) == 1) is kept
    if not kept:
        assert f"{distance:.3f} Angstrom apart ({first} and {second}" in refused[0].reason


@pytest.mark.parametrize("load", [load_elastic, load_flla])
def test_no_embedded_crystal_is_refused(load):
    assert not without_overlaps(load().structures)[1]


def random_cells(n: int) -> Structures:
    random = np.random.default_rng(4)
    items = []
    while len(items) < n:
        lattice = random.normal(scale=3.0, size=(3, 3))
        if abs(np.linalg.det(lattice)) > 8:
            species = random.choice(["H", "O", "Fe", "Cs"], 5)
            items.append(Structure(Lattice(lattice), species, random.uniform(-2, 2, (5, 3))))
    return as_structures(items)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_nearest_of_all_images_counts(monkeypatch, compiled):
    structures = random_cells(60)
    if not compiled:
        monkeypatch.setattr(graphs, "compiled_module", lambda _: None)
    rows, refused = without_overlaps(structures)
    found = {int(refusal.material_id): refusal.reason for refusal in refused}
    assert 10 < len(found) < 60
    assert sorted([*rows, *found]) == list(range(60))
    for i in range(60):
        sites = slice(structures.offsets[i], structures.offsets[i + 1])
        bonds = find_bonds(structures.lattice[i], structures.frac[sites], 3.0)
        sizes = NEAREST * radii(structures.numbers[sites])
        near = bonds.distance < sizes[bonds.centre] + sizes[bonds.neighbour]
        assert near.any() == (i in found)
        if near.any():
            assert f"{bonds.distance[near].min():.3f} Angstrom" in found[i]


def test_networks_refuse_what_a_pull_refuses():
    structures = random_cells(60)
    refused = []
    for _ in graph_batches(structures, 5.0, 10_000, refused):
        pass
    overlapping = {refusal.material_id for refusal in refused if "overlapping" in refusal.reason}
    assert overlapping == {refusal.material_id for refusal in without_overlaps(structures)[1]}


def test_alternatives_on_shared_sites_do_not_overlap():
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5}, {"Na": 0.5}], [[0, 0, 0], [0.05, 0, 0]])
    rows, refused = without_overlaps(as_structures([shared]))
    assert rows.tolist() == [0]
    assert not refused
