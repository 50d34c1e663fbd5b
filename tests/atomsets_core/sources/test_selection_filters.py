"""A candidate that is a training crystal in other clothes is found; another polymorph is not."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.core.operations import SymmOp
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from atomsets_core.sources.selection import already_seen
from atomsets_core.structures.batch import empty_structures
from atomsets_core.structures.reading import as_structures

RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
ANATASE = Structure.from_spacegroup(
    "I4_1/amd", Lattice.tetragonal(3.785, 9.514), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.2081]]
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(4.0), ["Ba", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)
QUARTZ = Structure.from_spacegroup(
    "P3_221", Lattice.hexagonal(4.916, 5.405), ["Si", "O"], [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]]
)
TRAINING = as_structures([RUTILE, SALT, PEROVSKITE, QUARTZ], ["rutile", "salt", "perovskite", "quartz"])


def seen(structure: Structure, name: str = "new") -> str:
    return str(already_seen(as_structures([structure], [name]), TRAINING)[0])


def rotated(structure: Structure) -> Structure:
    turn = SymmOp.from_axis_angle_and_translation([1, 2, 3], 40)
    return structure.copy().apply_operation(turn)


def mirrored(structure: Structure) -> Structure:
    return Structure(structure.lattice, structure.species, -structure.frac_coords)


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
    "rotated in space": rotated(RUTILE),
    "all of that at once": rotated(shifted(PEROVSKITE * (2, 1, 1))),
    "mirror image": mirrored(QUARTZ),
    "mirror image in another cell": shifted(mirrored(QUARTZ) * (1, 1, 2)),
    "other relaxation": Structure(Lattice.tetragonal(4.65, 2.98), RUTILE.species, RUTILE.frac_coords),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_the_same_crystal_is_found(name: str):
    assert seen(DISGUISES[name]) == "the same crystal is in the training data"


FERROELECTRIC = Structure(
    Lattice.tetragonal(3.99, 4.20),
    PEROVSKITE.species,
    PEROVSKITE.frac_coords + np.array([[0, 0, 0.05]] + [[0] * 3] * 4),
)
DISTORTED = {
    "tetragonal perovskite": Structure(Lattice.tetragonal(3.9, 4.2), PEROVSKITE.species, PEROVSKITE.frac_coords),
    "ferroelectric perovskite": FERROELECTRIC,
    "rutile of calcium chloride's kind": Structure.from_spacegroup(
        "Pnnm", Lattice.orthorhombic(4.75, 4.45, 2.959), ["Ti", "O"], [[0, 0, 0], [0.29, 0.32, 0]]
    ),
    "compressed salt": Structure(Lattice.cubic(5.2), SALT.species, SALT.frac_coords),
}


@pytest.mark.parametrize("name", DISTORTED)
def test_a_distorted_phase_of_a_training_crystal_is_new_though_the_matcher_takes_it_for_one(name: str):
    known = [RUTILE, SALT, PEROVSKITE]
    assert any(StructureMatcher().fit(DISTORTED[name], crystal) for crystal in known)
    assert seen(DISTORTED[name]) == ""
    assert seen(rotated(shifted(DISTORTED[name]))) == ""


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
    assert already_seen(TRAINING, empty_structures()).tolist() == [""] * len(TRAINING)
    assert already_seen(empty_structures(), TRAINING).tolist() == []
