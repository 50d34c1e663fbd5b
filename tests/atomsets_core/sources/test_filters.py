"""A candidate that is a training crystal in other clothes is found; another polymorph is not."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from atomsets_core.sources.filters import already_seen
from atomsets_core.structures.batch import empty_structures
from atomsets_core.structures.reading import as_structures

RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
ANATASE = Structure.from_spacegroup(
    "I4_1/amd", Lattice.tetragonal(3.785, 9.514), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.2081]]
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
TRAINING = as_structures([RUTILE, SALT], ["rutile", "salt"])


def seen(structure: Structure, name: str = "new") -> str:
    return str(already_seen(as_structures([structure], [name]), TRAINING)[0])


def shifted(structure: Structure) -> Structure:
    moved = structure.copy()
    moved.translate_sites(range(len(moved)), [0.13, 0.27, 0.41])
    return moved


DISGUISES = {
    "supercell": RUTILE * (2, 1, 2),
    "primitive cell": SALT.get_primitive_structure(),
    "other origin": shifted(RUTILE),
    "other order of sites": Structure.from_sites(list(reversed(list(RUTILE)))),
    "other axes": Structure(RUTILE.lattice.matrix[[2, 0, 1]], RUTILE.species, RUTILE.frac_coords[:, [2, 0, 1]]),
    "sheared cell of the same lattice": SALT.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]], in_place=False),
    "conventional of the primitive": SpacegroupAnalyzer(
        SALT.get_primitive_structure()
    ).get_conventional_standard_structure(),
    "other relaxation": Structure(Lattice.tetragonal(4.65, 2.98), RUTILE.species, RUTILE.frac_coords),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_the_same_crystal_is_found(name: str):
    assert seen(DISGUISES[name]) == "the same crystal is in the training data"


def test_another_polymorph_another_compound_and_another_ordering_are_new():
    assert seen(ANATASE) == ""
    tin = RUTILE.copy()
    tin.replace_species({"Ti": "Sn"})
    assert seen(tin) == ""
    swapped = RUTILE.copy()
    swapped.replace_species({"Ti": "O", "O": "Ti"})
    assert seen(swapped) == ""


def test_the_same_identifier_is_found_whatever_it_holds():
    assert seen(ANATASE, "salt") == "its identifier is in the training data"


def test_the_same_content_is_found_by_its_hash():
    assert seen(RUTILE) == "its structure is in the training data"


def test_each_candidate_gets_its_own_answer():
    candidates = as_structures([ANATASE, SALT * (1, 1, 2), ANATASE, RUTILE], ["a", "b", "salt", "c"])
    assert already_seen(candidates, TRAINING).tolist() == [
        "",
        "the same crystal is in the training data",
        "its identifier is in the training data",
        "its structure is in the training data",
    ]


def test_nothing_is_seen_where_there_is_nothing():
    assert already_seen(TRAINING, empty_structures()).tolist() == ["", ""]
    assert already_seen(empty_structures(), TRAINING).tolist() == []
