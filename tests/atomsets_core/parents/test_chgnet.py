"""CHGNet gives the numbers of its own package."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.parents.registry import load_parent
from atomsets_core.sources.embedded import load_flla
from atomsets_core.structures import equivalent_sites
from atomsets_core.structures.reading import as_structures

peer_module = pytest.importorskip("chgnet.model.model")


@pytest.fixture(scope="module")
def parent():
    return load_parent("chgnet")


@pytest.fixture(scope="module")
def peer():
    return peer_module.CHGNet.load(use_device="cpu", verbose=False)


def own_answer(peer, structure):
    """Every level of one structure, from hooks on the package's own model and from its public call."""
    taken = {}

    def keep(level):
        return lambda _module, _inputs, output: taken.__setitem__(level, output.detach().clone().numpy())

    hooks = [
        peer.atom_embedding.register_forward_hook(keep("a0")),
        peer.atom_conv_layers[0].register_forward_hook(keep("a1")),
        peer.atom_conv_layers[1].register_forward_hook(keep("a2")),
        peer.readout_norm.register_forward_hook(keep("a4")),
    ]
    answer = peer.predict_structure(
        structure, task="e", return_site_energies=True, return_atom_feas=True, return_crystal_feas=True
    )
    for hook in hooks:
        hook.remove()
    assert answer["site_energies"].mean() == pytest.approx(float(answer["e"]), abs=1e-5)
    # The package's crystal feature is a sum over sites, ours their mean.
    return {
        **taken,
        "site": answer["atom_fea"],
        "crystal": answer["crystal_fea"][None] / len(structure),
        "energy": answer["e"].reshape(1, 1),
    }


def assert_parity(parent, peer, structures):
    batch = as_structures(structures)
    features = parent.featurize(batch)
    assert not features.refused
    for i, structure in enumerate(structures):
        expected = own_answer(peer, structure)
        sites = slice(features.offsets[i], features.offsets[i + 1])
        for level in parent.site_levels:
            np.testing.assert_allclose(features.sites[level][sites], expected[level], rtol=0, atol=1e-4)
        np.testing.assert_allclose(features.structure["crystal"][[i]], expected["crystal"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(features.structure["energy"][[i]], expected["energy"], rtol=0, atol=1e-5)


def test_materials_project_structures(parent, peer):
    assert_parity(parent, peer, load_flla().structures.take(np.arange(7, 3900, 390)).to_pymatgen())


def test_bonds_to_the_own_image_and_straight_angles(parent, peer):
    """In one-atom cells every bond starts and ends at the same atom, and has its reverse beside it."""
    iron = Structure(Lattice.from_parameters(2.48, 2.48, 2.48, 109.47, 109.47, 109.47), ["Fe"], [[0, 0, 0]])
    salt = Structure(Lattice.from_parameters(3.99, 3.99, 3.99, 60, 60, 60), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert_parity(parent, peer, [iron, salt])


def test_structures_without_angles(parent, peer):
    """No bond is shorter than 3 Angstrom: alone, and in company that has angles."""
    caesium = Structure(Lattice.from_parameters(5.3, 5.3, 5.3, 109.47, 109.47, 109.47), ["Cs"], [[0, 0, 0]])
    silicon = Structure(Lattice.from_parameters(3.87, 3.87, 3.87, 60, 60, 60), ["Si", "Si"], [[0, 0, 0], [0.25] * 3])
    assert_parity(parent, peer, [caesium])
    assert_parity(parent, peer, [caesium, silicon])


def test_merging_what_is_alike_changes_nothing(parent, monkeypatch):
    structures = load_flla().structures.take(np.arange(20, 3900, 200))
    merged = parent.featurize(structures)
    monkeypatch.setattr(
        equivalent_sites,
        "_classes",
        lambda labels: equivalent_sites._Classes(*[np.arange(len(labels))] * 2, np.ones_like(labels, int)),
    )
    whole = parent.featurize(structures)
    for level in parent.site_levels:
        np.testing.assert_allclose(merged.sites[level], whole.sites[level], rtol=0, atol=2e-5)
    for level in parent.structure_levels:
        np.testing.assert_allclose(merged.structure[level], whole.structure[level], rtol=0, atol=2e-5)


def test_all_weights_are_read(peer):
    from atomsets_core.parents.chgnet import read_weights

    assert sum(values.size for values in read_weights().values()) == peer.n_params == 412_525


def test_other_architecture_is_refused(monkeypatch):
    from atomsets_core.parents import chgnet

    monkeypatch.setattr(chgnet, "ARCHITECTURE", {"n_conv": 3})
    chgnet.read_weights.cache_clear()
    with pytest.raises(ValueError, match="n_conv is 4, this code is written for 3"):
        chgnet.read_weights()
    chgnet.read_weights.cache_clear()
