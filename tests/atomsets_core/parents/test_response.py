"""Stiffness levels: right against other ways to get the same derivative, and a property of the crystal alone."""

from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.parents.registry import load_parent
from atomsets_core.parents.response import GPA, MASSES, WAVENUMBER, primitive
from atomsets_core.structures.reading import as_structures

ANHARMONIC = 10
"""1/cm: a step of 0.02 Angstrom is not quite harmonic, so the axes it is made along are felt a little."""


@pytest.fixture(scope="module")
def response():
    try:
        return load_parent("chgnet-response")
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def crystals():
    silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    rutile = Structure(
        Lattice.tetragonal(4.6, 2.96),
        ["Ti", "Ti", "O", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]],
    )
    return as_structures([silicon.get_primitive_structure(), rutile])


@pytest.fixture(scope="module")
def features(response, crystals):
    return response.featurize(crystals)


def energies(response, structures):
    return response.base.featurize(structures, ["energy"]).structure["energy"][:, 0].astype(np.float64)


def test_bulk_modulus_is_the_curvature_of_the_energy_over_volume(response, crystals, features):
    for i in range(2):
        one = crystals.take([i])
        strain = np.linspace(-0.012, 0.012, 13)
        lattice = np.array([one.lattice[0] * (1 + x) for x in strain])
        curve = energies(response, replace(one.take([0] * 13), lattice=lattice))
        second = 2 * np.polyfit(strain, curve, 2)[0]
        volume = abs(np.linalg.det(one.lattice[0])) / one.n_atoms[0]
        expected = second / (9 * volume) * GPA
        assert 10 ** features.structure["elastic"][i, 0] == pytest.approx(
            expected, rel=0.1
        )  # the curve is a little rough


def test_a_spring_is_the_curvature_along_its_eigenvector(response, crystals, features):
    # Silicon's site is cubic: any direction has the curvature of the three equal eigenvalues.
    one = crystals.take([0])
    step = np.linspace(-0.05, 0.05, 7)
    direction = np.array([1.0, 2.0, 2.0]) / 3
    frac = np.concatenate([one.frac + np.outer([1, 0], x * direction) @ np.linalg.inv(one.lattice[0]) for x in step])
    curve = energies(response, replace(one.take([0] * 7), frac=frac)) * one.n_atoms[0]
    stiffness = 2 * np.polyfit(step, curve, 2)[0]
    expected = np.sqrt(stiffness / MASSES[14]) * WAVENUMBER
    assert features.sites["spring"][0] == pytest.approx([expected] * 3, rel=0.05)


def test_softest_direction_comes_first_and_equal_sites_have_equal_springs(features):
    spring = features.sites["spring"]
    assert (np.diff(spring, axis=1) >= 0).all()
    assert np.allclose(spring[2], spring[3])  # silicon has two sites, then come the two Ti
    assert np.allclose(spring[4:7], spring[7])


def test_rotation_and_order_of_the_sites_do_not_matter(response, crystals, features):
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = response.featurize(replace(crystals, lattice=crystals.lattice @ turn))
    assert turned.sites["spring"] == pytest.approx(features.sites["spring"], rel=0.03, abs=ANHARMONIC)
    assert turned.structure["elastic"] == pytest.approx(features.structure["elastic"], rel=0.02, abs=0.03)
    order = [1, 0, 7, 6, 5, 4, 3, 2]
    shuffled = replace(crystals, numbers=crystals.numbers[order], frac=crystals.frac[order])
    found = response.featurize(shuffled)
    assert found.sites["spring"] == pytest.approx(features.sites["spring"][order], rel=0.03, abs=ANHARMONIC)


def test_choice_of_cell_does_not_matter(response, crystals, features):
    larger = [s.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]], in_place=False) for s in crystals.to_pymatgen()]
    found = response.featurize(as_structures(larger))
    assert found.n_atoms.tolist() == [4, 12]
    assert found.structure["elastic"] == pytest.approx(features.structure["elastic"], rel=0.02, abs=0.03)
    heaviest = found.sites["spring"][4:8]  # the four Ti of the larger cell
    assert heaviest == pytest.approx(np.repeat(features.sites["spring"][2:3], 4, axis=0), rel=0.03, abs=ANHARMONIC)


def test_a_primitive_cell_stays_as_it_is(crystals):
    reduced, image = primitive(crystals)
    assert np.array_equal(reduced.lattice, crystals.lattice)
    assert np.array_equal(reduced.frac, crystals.frac)
    assert image.tolist() == [0, 1, 0, 1, 2, 3, 4, 5]


def test_what_the_base_parent_refuses_is_refused_with_its_reason(response, crystals):
    lonely = as_structures([Structure(Lattice.cubic(15), ["He"], [[0, 0, 0]])], ids=["lonely"])
    both = type(crystals).concat([lonely, crystals])
    found = response.featurize(both)
    assert len(found) == 2
    assert [r.material_id for r in found.refused] == ["lonely"]
    assert "neighbour" in found.refused[0].reason
    assert found.refused[0].structure_hash == lonely.hashes[0]


def test_one_level_alone_is_the_same_number(response, crystals, features):
    alone = response.featurize(crystals, ["elastic"])
    assert not alone.sites
    assert np.allclose(alone.structure["elastic"], features.structure["elastic"], atol=1e-3)
    assert response.digest != response.base.digest
