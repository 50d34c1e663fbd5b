"""The compiled forward pass gives the numbers of the torch one, however the work is cut, and can be missing."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomsets_core.compiled import compiled_module
from atomsets_core.parents.sevennet import compiled_forward, parent
from atomsets_core.parents.sevennet.parent import SEVENNET_0, SEVENNET_L3I5, SevenNet, read_weights
from atomsets_core.sources.embedded import load_flla
from atomsets_core.structures.batch import Structures, empty_structures
from atomsets_core.structures.reading import as_structures

pytest.importorskip("numba")
pytest.importorskip("sevenn")

RELATIVE = 5e-6
"""Of the largest number of a level; float32 rounds sums of another order by less."""

ENERGY = 2e-6
"""eV/atom: two steps of float32 at 8 eV."""


@pytest.fixture(scope="module", params=[SEVENNET_0, SEVENNET_L3I5], ids=lambda network: network.name)
def network(request):
    return request.param


@pytest.fixture(scope="module")
def fast(network):
    return SevenNet(read_weights(network), network)


@pytest.fixture(scope="module")
def plain(network):
    return SevenNet(read_weights(network), network, compiled=False)


@pytest.fixture(scope="module")
def sample(elastic):
    """Random embedded structures, cells of one atom, a distorted supercell, molecules far apart, bonds of hydrogen."""
    flla = load_flla().structures
    some = flla.take(np.random.default_rng(0).choice(len(flla), 20, replace=False))
    single = elastic.structures.take(np.flatnonzero(elastic.structures.n_atoms == 1)[:3])
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    rutile.make_supercell([4, 4, 3])
    rutile.perturb(0.05)
    molecules = Structure(
        Lattice.cubic(12.0), ["H", "H", "O", "H", "H"],
        [[0, 0, 0], [0.74, 0, 0], [6, 6, 6], [6.76, 6.59, 6], [5.24, 6.59, 6]], coords_are_cartesian=True,
    )  # fmt: skip
    return Structures.concat([some, single, as_structures([rutile, molecules])])


def assert_same(found, expected):
    assert list(found.material_id) == list(expected.material_id)
    for level, values in found.sites.items():
        other = expected.sites[level]
        np.testing.assert_allclose(values, other, atol=RELATIVE * np.abs(other).max(), rtol=0, err_msg=level)
    for level, values in found.structure.items():
        np.testing.assert_allclose(values, expected.structure[level], atol=ENERGY, rtol=0, err_msg=level)


def test_same_numbers_as_torch(fast, plain, sample):
    assert fast.compiled
    assert not plain.compiled
    assert fast.digest == plain.digest
    assert_same(fast.featurize(sample), plain.featurize(sample))


@pytest.mark.parametrize("levels", [["s0"], ["s1"], ["s3", "s2"]])
def test_fewer_levels_same_numbers(fast, sample, levels):
    """The last layer that is asked for makes its scalars alone, by code of its own."""
    assert_same(fast.featurize(sample, levels), fast.featurize(sample))


@pytest.mark.parametrize(("atoms", "group", "max_bonds"), [(1, 1, 1), (3, 7, 500), (10_000, 10_000, 100_000)])
def test_how_the_work_is_cut_does_not_matter(fast, sample, monkeypatch, atoms, group, max_bonds):
    few = sample.take(np.arange(len(sample) - 6, len(sample)))
    expected = fast.featurize(few)
    monkeypatch.setattr(compiled_forward, "ATOMS", atoms)
    monkeypatch.setattr(compiled_forward, "GROUP", group)
    monkeypatch.setattr(parent, "MAX_BONDS", max_bonds)
    assert_same(fast.featurize(few), expected)


def test_every_length_that_two_atoms_can_have(fast, plain):
    """Pairs from 0.3 Angstrom, where they overlap, to the cutoff: where the table is fine, coarse, and ends."""
    lengths = [0.34, 0.5, 0.74, 0.999, 1.37, 1.9999, 2.0, 2.0001, 3.3333, 4.4999, 4.5, 4.5001, 4.87, 4.9999, 5.0]
    pairs = [
        Structure(Lattice.cubic(20.0), ["H", "H"], [[0, 0, 0], [length, 0, 0]], coords_are_cartesian=True)
        for length in lengths
    ]
    found, expected = fast.featurize(as_structures(pairs)), plain.featurize(as_structures(pairs))
    assert len(found) == len(pairs)
    assert_same(found, expected)


def test_a_supercell_is_its_crystal(fast):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    big = salt.copy()
    big.make_supercell([4, 4, 4])
    found = fast.featurize(as_structures([salt, big]))
    assert found.n_atoms.tolist() == [8, 512]
    np.testing.assert_allclose(found.structure["energy"][1], found.structure["energy"][0], atol=ENERGY)
    last = found.sites["s4"]
    for z, element in enumerate((last[:4], last[4:8])):
        rows = np.flatnonzero(found_numbers(big) == (11, 17)[z])
        np.testing.assert_allclose(last[8:][rows], np.broadcast_to(element[:1], (256, 128)), atol=5e-5)


def found_numbers(structure):
    return np.array(structure.atomic_numbers)


def test_room_for_messages_is_that_of_a_piece(fast, monkeypatch):
    """Messages take 12.5 to 31 kB an atom: they are never there for all atoms of a batch."""
    asked = []

    def convolve(*arguments):
        asked.append(arguments[16].size)
        return kernel(*arguments)

    kernel = fast.forward._convolve
    monkeypatch.setattr(fast.forward, "_convolve", convolve)
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    copper.make_supercell([5, 5, 5])
    fast.featurize(as_structures([copper]), ["energy"])
    largest = compiled_forward.plan(fast.network.lmax, fast.network.lmax, fast.network.lmax).message_size()
    assert len(asked) == 20
    assert max(asked) == compiled_forward.ATOMS * largest


def test_nothing_in_nothing_out(fast):
    assert fast.featurize(empty_structures()).sites["s4"].shape == (0, 128)


def test_inside_and_outside_the_mode_of_inference(network, sample):
    few = sample.take(np.arange(3))
    with torch.inference_mode():
        inside = SevenNet(read_weights(network), network).featurize(few, ["s1"])
    assert_same(SevenNet(read_weights(network), network).featurize(few, ["s1"]), inside)


def test_without_numba_torch_does_the_work(fast, network, sample, monkeypatch):
    few = sample.take(np.arange(4))
    expected = fast.featurize(few)
    monkeypatch.setitem(sys.modules, "atomsets_core.parents.sevennet.edge_kernel", None)
    compiled_module.cache_clear()
    try:
        fallback = SevenNet(read_weights(network), network)
        assert not fallback.compiled
        assert_same(fallback.featurize(few), expected)
    finally:
        compiled_module.cache_clear()


def test_other_devices_take_the_torch_path(network):
    elsewhere = SimpleNamespace(network=network, device=torch.device("cuda"))
    assert compiled_forward.compiled_forward(elsewhere) is None
