"""The compiled forward pass gives the numbers of the torch one, on any grouping of the work, and can be missing."""

import sys

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomsets_core.compiled import compiled_module
from atomsets_core.parents.megnet import parent
from atomsets_core.parents.megnet.parent import MEGNet, compiled_forward
from atomsets_core.parents.megnet.weights import read_weights
from atomsets_core.sources.embedded import load_flla
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.reading import as_structures

pytest.importorskip("numba")

TOLERANCE = {"V0": 0, "V1": 3e-5, "V2": 5e-5, "V3": 1e-4, "v": 1e-4, "f2": 5e-5, "f1": 5e-5, "energy": 5e-6}


@pytest.fixture(scope="module")
def plain():
    return MEGNet(read_weights(), compiled=False)


@pytest.fixture(scope="module")
def sample(elastic):
    """Random embedded structures, cells of one atom, and one of 300 atoms."""
    flla = load_flla().structures
    some = flla.take(np.random.default_rng(0).choice(len(flla), 60, replace=False))
    single = elastic.structures.take(np.flatnonzero(elastic.structures.n_atoms == 1)[:5])
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    rutile.make_supercell([5, 5, 2])
    rutile.perturb(0.05)
    assert len(rutile) == 300
    return Structures.concat([some, single, as_structures([rutile])])


def assert_same(found, expected, scale=1.0):
    assert list(found.material_id) == list(expected.material_id)
    for level, values in {**found.sites, **found.structure}.items():
        other = {**expected.sites, **expected.structure}[level]
        np.testing.assert_allclose(values, other, atol=scale * TOLERANCE[level], rtol=0, err_msg=level)


def test_same_numbers_as_torch(megnet, plain, sample):
    assert megnet.compiled
    assert not plain.compiled
    assert megnet.digest == plain.digest
    assert_same(megnet.featurize(sample), plain.featurize(sample))


@pytest.mark.parametrize("levels", [["V1"], ["V3"], ["V2", "V1"], ["v"]])
def test_fewer_levels_same_bits(megnet, sample, levels):
    everything = megnet.featurize(sample)
    found = megnet.featurize(sample, levels)
    for level, values in {**found.sites, **found.structure}.items():
        np.testing.assert_array_equal(values, {**everything.sites, **everything.structure}[level])


@pytest.mark.parametrize(("max_bonds", "threads"), [(1, 1), (1000, 1), (5000, 3), (200_000, 2)])
def test_grouping_and_threads_do_not_matter(megnet, sample, monkeypatch, max_bonds, threads):
    together = megnet.featurize(sample)
    before = torch.get_num_threads()
    monkeypatch.setattr(parent, "MAX_BONDS_COMPILED", max_bonds)
    try:
        torch.set_num_threads(threads)
        apart = megnet.featurize(sample)
    finally:
        torch.set_num_threads(before)
    assert_same(apart, together, scale=0.5)


def test_refusals_come_in_order_whatever_the_grouping(megnet, monkeypatch):
    good = Structure(Lattice.cubic(3.0), ["Fe"], [[0, 0, 0]])
    lonely = Structure(Lattice.cubic(20.0), ["He"], [[0, 0, 0]])
    structures = as_structures([good, lonely] * 20)
    monkeypatch.setattr(parent, "MAX_BONDS_COMPILED", 50)
    features = megnet.featurize(structures, ["V1"])
    assert list(features.material_id) == [str(i) for i in range(0, 40, 2)]
    assert [refusal.material_id for refusal in features.refused] == [str(i) for i in range(1, 40, 2)]
    np.testing.assert_array_equal(features.sites["V1"], np.broadcast_to(features.sites["V1"][:1], (20, 32)))


@pytest.mark.slow
def test_a_million_bonds_in_one_structure(megnet, plain):
    iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    big = iron.copy()
    big.make_supercell([21, 21, 21])
    found, one = megnet.featurize(as_structures([big])), megnet.featurize(as_structures([iron]))
    assert found.n_atoms[0] == 18_522
    np.testing.assert_allclose(found.sites["V3"], np.broadcast_to(one.sites["V3"][:1], (18_522, 32)), atol=1e-4)
    np.testing.assert_allclose(found.structure["energy"], one.structure["energy"], atol=5e-6)


def test_without_numba_torch_and_pymatgen_do_the_work(megnet, sample, monkeypatch):
    few = sample.take(np.arange(10))
    expected = megnet.featurize(few)
    for name in ("atomsets_core.parents.megnet.forward_kernel", "atomsets_core.structures.neighbour_kernel"):
        monkeypatch.setitem(sys.modules, name, None)
    compiled_module.cache_clear()
    try:
        assert compiled_forward(read_weights()) is None
        assert compiled_module("structures.neighbour_kernel") is None
        fallback = MEGNet(read_weights())
        assert not fallback.compiled
        assert_same(fallback.featurize(few), expected)
    finally:
        compiled_module.cache_clear()


def test_other_devices_take_the_torch_path():
    assert not MEGNet(read_weights(), "cpu", compiled=False).compiled
    with pytest.raises((RuntimeError, NotImplementedError)):
        MEGNet(read_weights(), "meta").featurize(as_structures([Structure(Lattice.cubic(3.0), ["Fe"], [[0, 0, 0]])]))


@pytest.mark.parametrize("low", [-100.0, -20.0, -4.0])
def test_softplus_of_the_kernel(low):
    from atomsets_core.parents.megnet.forward_kernel import _activate_all

    x = np.linspace(low, -low, 4800, dtype=np.float32)
    expected = np.logaddexp(0.0, x.astype(np.float64))
    _activate_all(x, len(x))
    np.testing.assert_allclose(x, expected, atol=3e-7, rtol=1.2e-7)
