"""The one rule for what is the same crystal, and what its tolerances do."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import spglib
from pymatgen.core import Lattice, Structure

from atomsets_core.structures.primitive_cell import primitive_cell
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


def chiral(space_group: str) -> Structure:
    """A crystal without any mirror in a group that has no mirrored twin: its mirror image is in the same group."""
    lattice = Lattice.cubic(6.0) if space_group == "P2_13" else Lattice.orthorhombic(5.1, 6.3, 7.7)
    where = (
        [[0.06, 0.06, 0.06], [0.31, 0.17, 0.44]] if space_group == "P2_13" else [[0.1, 0.2, 0.3], [0.43, 0.31, 0.08]]
    )
    return Structure.from_spacegroup(space_group, lattice, ["Na", "Cl"], where)


@pytest.mark.parametrize("space_group", ["P1", "P2_12_12_1", "P2_13"])
def test_mirror_images_in_one_space_group_are_one_crystal(space_group):
    right = chiral(space_group)
    left = Structure(right.lattice, right.species, 1 - right.frac_coords)
    moved = left * (1, 2, 1)
    moved.translate_sites(range(len(moved)), [0.3, 0.1, 0.2])
    assert of(right, left, moved) == [0, 0, 0]


@pytest.mark.parametrize("second", sorted(_MIRRORED))
def test_mirror_images_in_all_mirrored_pairs_are_one_crystal(second):
    kind = next(k for k in map(spglib.get_spacegroup_type, range(1, 531)) if k.number == second)
    cubic, tetragonal = second >= 195, second < 143
    lattice = (
        Lattice.cubic(9.0) if cubic else Lattice.tetragonal(7.0, 9.0) if tetragonal else Lattice.hexagonal(7.0, 9.0)
    )
    right = Structure.from_spacegroup(
        kind.international_short, lattice, ["Fe", "O"], [[0.11, 0.27, 0.38], [0.4, 0.1, 0.03]]
    )
    left = Structure(right.lattice, right.species, -right.frac_coords)
    numbers = [
        spglib.get_symmetry_dataset((c.lattice.matrix, c.frac_coords, c.atomic_numbers), symprec=0.01).number
        for c in (right, left)
    ]
    assert numbers == [second, _MIRRORED[second]]
    assert of(right, left) == [0, 0]


def test_each_is_the_same_as_the_matcher_says_where_space_group_and_volume_agree(elastic):
    """Crystals of one kind and their strained, shaken and mirrored twins, pair by pair."""
    rng = np.random.default_rng(5)
    chosen = elastic.structures.take(rng.choice(np.flatnonzero(elastic.structures.n_atoms < 13), 12, replace=False))
    agreed = 0
    for crystal in chosen.to_pymatgen():
        twins = [crystal]
        for amount in (0.01, 0.3, 0.6, 1.0):
            strained = crystal.copy()
            strained.apply_strain(rng.uniform(-0.05, 0.05, 3))
            strained.perturb(amount)
            twins.append(Structure(strained.lattice, strained.species, -strained.frac_coords).get_reduced_structure())
        made = [prepare(as_structures([twin]), 0) for twin in twins]
        for one, two in itertools.combinations(made, 2):
            known = KnownCrystals()
            known.add(one)
            expected = one.space_group == two.space_group and TOLERANCES.matcher().fit(two.primitive, one.primitive)
            small, large = sorted((one.volume, two.volume))
            expected = expected and large <= TOLERANCES.volume_ratio * small
            if one.cell.sites == two.cell.sites and len(one.primitive) == len(two.primitive):
                assert (known.find(two) is not None) == expected
                agreed += 1
    assert agreed > 60


def test_without_compiled_loops_answers_are_the_same(monkeypatch):
    crystals = (
        CUBIC,
        stretched(0.06),
        quartz("P3_121"),
        quartz("P3_221") * (1, 1, 2),
        CUBIC * (2, 1, 1),
        stretched(0.005),
    )
    fast = of(*crystals)
    for name in ("same_crystal", "primitive_cell"):
        module = sys.modules[f"atomsets_core.structures.{name}"]
        monkeypatch.setattr(module, "compiled_module", lambda _: None)
    assert of(*crystals) == fast == [0, 1, 2, 2, 0, 0]


@pytest.mark.parametrize("times", [(1, 1, 1), (3, 1, 2), (5, 5, 5)])
def test_primitive_cells_are_found_in_large_and_shaken_ones(times):
    rng = np.random.default_rng(0)
    large = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]) * times
    shaken = Structure(
        large.lattice, large.species, large.frac_coords + rng.uniform(-1, 1, (len(large), 3)) * 0.01 / 30
    )
    found = primitive_cell(as_structures([shaken]), 0.1)
    assert found.sites == ((11, 1), (17, 1))
    assert abs(np.linalg.det(found.lattice)) == pytest.approx(5.69**3 / 4)
    assert primitive_cell(as_structures([shaken]), 1e-6).sites == (
        (11, len(large) // 2),
        (17, len(large) // 2),
    ) or times == (1, 1, 1)


def test_a_translation_that_misses_by_more_than_the_tolerance_is_none():
    doubled = CUBIC * (1, 1, 2)
    doubled.translate_sites([0], [0, 0, 0.3 / 8.0])
    assert dict(primitive_cell(as_structures([doubled]), 0.1).sites)[56] == 2
    assert of(CUBIC, doubled) == [0, 1]


def test_comparing_tells_how_far_it_is(caplog, monkeypatch):
    told = []
    batch = as_structures([CUBIC, quartz("P3_121"), CUBIC * (1, 1, 2), stretched(0.06)])
    same_crystal(batch, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]  # quartz has a formula of its own
    monkeypatch.setattr(sys.modules[prepare.__module__], "LOG_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        same_crystal(batch)
    assert "2 of 3 structures compared" in caplog.text


def test_searching_ends_after_its_time_and_counts_the_rest():
    crystals = CrystalsByFormula(as_structures([CUBIC]), seconds=0.0)
    assert crystals.find(as_structures([CUBIC * (1, 1, 2)]), 0) is None
    assert crystals.not_compared == 1
    assert crystals.find(as_structures([quartz("P3_121")]), 0) is None
    assert crystals.not_compared == 1  # no crystal of its formula is known: there was nothing to compare


def test_the_largest_cells_are_compared_in_bounded_time_and_larger_ones_not_at_all():
    rng = np.random.default_rng(1)

    def iron() -> Structure:
        grid = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:200]
        return Structure(Lattice.cubic(14.0), ["Fe"] * 200, (grid + rng.uniform(-0.2, 0.2, grid.shape)) / 6)

    batch = as_structures([iron(), iron(), iron()])
    same_crystal(batch)  # compiled now
    start = time.process_time()
    assert same_crystal(batch).of.tolist() == [0, 1, 2]
    assert time.process_time() - start < 30
    assert prepare(as_structures([CUBIC * (2, 1, 1)]), 0, Tolerances(most_sites=9)) is None


def test_shared_sites_are_compared_by_what_is_on_them():
    def mixed(share: float) -> Structure:
        return Structure(
            Lattice.cubic(3.0), [{"Fe": share, "Co": 1 - share}, {"Fe": 1 - share, "Co": share}], [[0] * 3, [0.5] * 3]
        )

    assert of(mixed(0.3), mixed(0.3) * (1, 1, 2), mixed(0.2), mixed(0.7)) == [0, 0, 2, 0]
