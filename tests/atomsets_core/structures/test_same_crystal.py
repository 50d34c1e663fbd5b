"""The one rule for what is the same crystal, and what its tolerances do."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import spglib
from pymatgen.core import Lattice, Structure

from atomsets_core.structures.reading import as_structures
from atomsets_core.structures.same_crystal import (
    _MIRRORED,
    TOLERANCES,
    CrystalsByFormula,
    KnownCrystals,
    Tolerances,
    prepare,
    same_crystal,
)

CUBIC = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(4.0), ["Ba", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)


def stretched(share: float) -> Structure:
    """Tetragonal, of the same volume."""
    wide = 4.0 / np.sqrt(1 + share)
    return Structure(Lattice.tetragonal(wide, 4.0 * (1 + share)), CUBIC.species, CUBIC.frac_coords)


def quartz(space_group: str) -> Structure:
    sites = [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]]
    right = Structure.from_spacegroup("P3_221", Lattice.hexagonal(4.916, 5.405), ["Si", "O"], sites)
    return right if space_group == "P3_221" else Structure(right.lattice, right.species, -right.frac_coords)


def of(*crystals: Structure, tolerances: Tolerances = TOLERANCES) -> list[int]:
    return same_crystal(as_structures(crystals), tolerances=tolerances).of.tolist()


def test_a_distortion_is_another_crystal_once_it_can_be_seen():
    assert of(CUBIC, stretched(0.005), stretched(0.06)) == [0, 0, 2]
    assert of(CUBIC, stretched(0.06), tolerances=Tolerances(symprec=0.5)) == [0, 0]


def test_volumes_count_up_to_their_ratio():
    small = Structure(Lattice.cubic(4.0 * 1.25 ** (1 / 3)), CUBIC.species, CUBIC.frac_coords)
    assert of(CUBIC, small) == [0, 1]
    assert of(CUBIC, small, tolerances=replace(TOLERANCES, volume_ratio=1.3)) == [0, 0]


def test_sites_count_up_to_their_tolerance():
    def tetragonal(height: float) -> Structure:
        return Structure.from_spacegroup(
            "P4/mmm", Lattice.tetragonal(4.0, 7.0), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, height]]
        )

    assert of(tetragonal(0.3), tetragonal(0.32)) == [0, 0]
    assert of(tetragonal(0.3), tetragonal(0.32), tolerances=Tolerances(site=0.01)) == [0, 1]


def test_mirror_images_are_one_crystal():
    left, right = quartz("P3_121"), quartz("P3_221")
    numbers = [
        spglib.get_symmetry_dataset((c.lattice.matrix, c.frac_coords, c.atomic_numbers), symprec=0.01).number
        for c in (left, right)
    ]
    assert numbers == [152, 154]
    assert of(left, right, right * (2, 1, 1)) == [0, 0, 0]


def test_the_pairs_of_mirrored_space_groups_are_all_there_are():
    # the eleven pairs of enantiomorphic space-group types: International Tables for Crystallography A
    assert len(_MIRRORED) == 11
    kinds = {kind.number: kind for kind in map(spglib.get_spacegroup_type, range(1, 531))}
    for second, first in _MIRRORED.items():
        assert first not in _MIRRORED
        assert kinds[first].pointgroup_international == kinds[second].pointgroup_international
        assert kinds[first].international_short != kinds[second].international_short


def test_each_crystal_is_prepared_once_and_only_when_its_formula_comes(monkeypatch):
    known = as_structures([CUBIC, stretched(0.06), quartz("P3_121")])
    asked = as_structures([CUBIC * (1, 1, 2), stretched(0.06) * (2, 1, 1), CUBIC])
    prepared = []

    def counting(structures, row, *more):
        if structures is known:
            prepared.append(row)
        return prepare(structures, row, *more)

    monkeypatch.setattr(sys.modules[prepare.__module__], "prepare", counting)
    crystals = CrystalsByFormula(known)
    assert [crystals.find(asked, row) for row in range(3)] == [0, 1, 0]
    assert prepared == [0, 1]


def test_a_crystal_of_another_formula_or_too_large_is_like_none():
    crystals = CrystalsByFormula(as_structures([CUBIC]))
    assert crystals.find(as_structures([quartz("P3_121")]), 0) is None
    assert prepare(as_structures([CUBIC]), 0, Tolerances(most_atoms=4)) is None
    assert KnownCrystals().find(prepare(as_structures([CUBIC]), 0)) is None


def test_what_the_matcher_is_told_are_its_own_defaults():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    ours, theirs = TOLERANCES.matcher(), StructureMatcher()
    for name in ("ltol", "stol", "angle_tol"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name))
