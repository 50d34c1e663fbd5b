"""What kind of matter a cell holds: made structures whose bonds and voids are plain to see."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Molecule, Structure

from atomsets_core.structures.batch import Structures, empty_structures
from atomsets_core.structures.dimensionality import (
    MATTER_KINDS,
    MOST_SITES,
    NO_BULK,
    VACUUM,
    dimensionalities,
    has_vacuum,
    matter_kinds,
)
from atomsets_core.structures.reading import as_structures


def kind(structure: Structure) -> str:
    return str(matter_kinds(as_structures([structure]))[0])


def graphite(c: float, layers: int = 2) -> Structure:
    """Layers `c / layers` apart."""
    sites = [[0, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 0.5], [2 / 3, 1 / 3, 0.5]][: 2 * layers]
    return Structure(Lattice.hexagonal(2.46, c), ["C"] * len(sites), sites)


def in_a_box(species: list[str], places: list[list[float]], edge: float) -> Structure:
    return Molecule(species, places).get_boxed_structure(edge, edge, edge, reorder=False)


def molybdenite(c: float) -> Structure:
    height = 1.56 / c
    return Structure(
        Lattice.hexagonal(3.16, c), ["Mo", "S", "S"], [[0, 0, 0], [1 / 3, 2 / 3, height], [1 / 3, 2 / 3, -height]]
    )


SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
DIAMOND = Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.57), ["C"], [[0, 0, 0]])
DRY_ICE = Structure.from_spacegroup("Pa-3", Lattice.cubic(5.62), ["C", "O"], [[0, 0, 0], [0.1185, 0.1185, 0.1185]])
SELENIUM = Structure.from_spacegroup("P3_121", Lattice.hexagonal(4.366, 4.954), ["Se"], [[0.225, 0, 1 / 3]])
PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(6.29), ["Cs", "Pb", "I"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)

EXPECTED = {
    "rock salt": (SALT, "bulk"),
    "diamond": (DIAMOND, "bulk"),
    "caesium lead iodide": (PEROVSKITE, "bulk"),
    "potassium": (Structure.from_spacegroup("Im-3m", Lattice.cubic(5.33), ["K"], [[0, 0, 0]]), "bulk"),
    "mercury": (Structure(Lattice.rhombohedral(3.005, 70.53), ["Hg"], [[0, 0, 0]]), "bulk"),
    "graphite": (graphite(6.71), "layered"),
    "graphite drawn apart by a functional without dispersion": (graphite(9.0), "layered"),
    "graphene": (graphite(20.0, layers=1), "slab"),
    "two sheets far apart": (graphite(30.0), "slab"),
    "molybdenite": (molybdenite(6.15), "layered"),
    "a sheet of molybdenite": (molybdenite(18.0), "slab"),
    "selenium": (SELENIUM, "chains"),
    "a chain of carbon": (Structure(Lattice.tetragonal(12.0, 1.28), ["C"], [[0, 0, 0]]), "wire"),
    "dry ice": (DRY_ICE, "molecular"),
    "argon": (Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.26), ["Ar"], [[0, 0, 0]]), "molecular"),
    "nitrogen in a box": (in_a_box(["N", "N"], [[0, 0, 0], [0, 0, 1.1]], 20.0), "molecule"),
    "water in a box": (in_a_box(["O", "H", "H"], [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]], 12.0), "molecule"),
    "an atom in a box": (Structure(Lattice.cubic(15.0), ["Fe"], [[0, 0, 0]]), "molecule"),
    "a slab of salt": (
        Structure(Lattice.tetragonal(5.69, 20.0), SALT.species, SALT.cart_coords / [5.69, 5.69, 20.0]),
        "slab",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_matter_is_what_it_looks_like(name: str):
    structure, expected = EXPECTED[name]
    assert kind(structure) == expected
    assert expected in MATTER_KINDS


@pytest.mark.parametrize("name", ["graphite", "graphene", "dry ice", "selenium", "a chain of carbon", "rock salt"])
def test_the_cell_does_not_matter(name: str):
    structure, expected = EXPECTED[name]
    sheared = structure.make_supercell([[1, 0, 0], [1, 1, 0], [0, 1, 1]], in_place=False)
    moved = structure * (2, 1, 2)
    moved.translate_sites(range(len(moved)), [0.13, 0.47, 0.91])
    assert kind(sheared) == kind(moved) == expected


def test_intercalated_ions_and_mixtures_count_by_the_most_bonded_part():
    with_guest = graphite(10.0, layers=1)
    with_guest.append("Ar", [0, 0, 0.5])
    assert kind(with_guest) == "layered"
    assert dimensionalities(as_structures([with_guest])).tolist() == [2]


def test_no_bulk_are_those_in_vacuum_and_the_molecular_ones():
    words = {name: kind(structure) for name, (structure, _) in EXPECTED.items()}
    flagged = {name for name, word in words.items() if word in NO_BULK}
    assert "graphite" not in flagged
    assert "selenium" not in flagged
    assert {"graphene", "nitrogen in a box", "dry ice", "a slab of salt", "a chain of carbon"} <= flagged


def test_an_empty_sphere_fits_as_its_size_says():
    # Around the middle of a cube with an atom at each corner: half the diagonal less the van der Waals radius of neon.
    edge, radius = 8.0, 1.54
    largest = 2 * (edge * 3**0.5 / 2 - radius)
    lattice, frac, numbers = np.eye(3) * edge, np.zeros((1, 3)), np.array([10])
    assert has_vacuum(lattice, frac, numbers, largest - 0.1)
    assert not has_vacuum(lattice, frac, numbers, largest + 0.1)
    assert largest > VACUUM


def test_what_cannot_be_told_is_unknown_and_the_rest_is_told():
    mixed = Structure(Lattice.cubic(4.2), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    batch = as_structures([SALT, mixed, DRY_ICE])
    assert matter_kinds(batch).tolist() == ["bulk", "unknown", "molecular"]
    assert matter_kinds(empty_structures()).tolist() == []
    huge = np.arange(MOST_SITES + 1) / (MOST_SITES + 1)
    long = Structures(
        np.array(["long"], dtype=object),
        np.diag([4.0, 4.0, 4.0 * len(huge)])[None],
        np.array([len(huge)]),
        np.full(len(huge), 26),
        np.column_stack([0 * huge, 0 * huge, huge]),
    )
    endless = as_structures([Structure(Lattice.cubic(1e5), ["N"], [[0, 0, 0]])])
    start = time.perf_counter()
    assert matter_kinds(Structures.concat([long, endless])).tolist() == ["unknown", "unknown"]
    assert time.perf_counter() - start < 1.0


def test_real_crystals_are_bulk_and_the_layered_ones_are_known(elastic):
    words = dict(zip(elastic.structures.material_id, matter_kinds(elastic.structures), strict=True))
    flagged = {name for name, word in words.items() if word in NO_BULK}
    assert flagged == {"mp-697111"}  # ice
    assert {name: words[name] for name in ("mp-48", "mp-984", "mp-34202", "mp-19", "mp-149")} == {
        "mp-48": "layered",  # graphite
        "mp-984": "layered",  # boron nitride
        "mp-34202": "layered",  # bismuth telluride
        "mp-19": "chains",  # tellurium
        "mp-149": "bulk",  # silicon
    }
