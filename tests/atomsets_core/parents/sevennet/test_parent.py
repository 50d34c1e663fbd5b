"""SevenNet-0 and SevenNet-l3i5 give the numbers of their own package."""

import warnings

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomsets_core.parents.registry import load_parent
from atomsets_core.parents.sevennet import parent as parents
from atomsets_core.parents.sevennet.torch_forward import SILU_SCALE
from atomsets_core.sources.embedded import load_flla
from atomsets_core.structures.reading import as_structures

peer_module = pytest.importorskip("sevenn.calculator")

PEERS = {"sevennet": "7net-0", "sevennet-l3i5": "7net-l3i5"}

# The package's polynomial cutoff of l3i5 cancels terms of up to 48 in float32; layer after layer that grows.
TOLERANCE = {"sevennet": 1e-4, "sevennet-l3i5": 5e-4}


@pytest.fixture(scope="module", params=["sevennet", "sevennet-l3i5"])
def parent(request):
    return load_parent(request.param)


@pytest.fixture(scope="module")
def peer(parent):
    """The package's own calculator; `answers` holds what its five gates gave last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calculator = peer_module.SevenNetCalculator(PEERS[parent.name], device="cpu")
    calculator.answers = {}

    def keep(level):
        return lambda _module, _inputs, output: calculator.answers.__setitem__(level, output["x"].detach().clone())

    for k in range(5):
        calculator.model._modules[f"{k}_equivariant_gate"].register_forward_hook(keep(f"s{k}"))
    calculator.model._modules["onehot_to_feature_x"].register_forward_hook(keep("embedding"))
    return calculator


def assert_parity(parent, peer, structures):
    features = parent.featurize(as_structures(structures))
    assert not features.refused
    for i, structure in enumerate(structures):
        atoms = structure.to_ase_atoms()
        atoms.calc = peer
        energy = atoms.get_potential_energy() / len(atoms)
        sites = slice(features.offsets[i], features.offsets[i + 1])
        for level in parent.site_levels:
            scalars = peer.answers[level][:, :128].numpy()
            np.testing.assert_allclose(features.sites[level][sites], scalars, rtol=0, atol=TOLERANCE[parent.name])
        assert features.structure["energy"][i, 0] == pytest.approx(energy, abs=1e-5)


def test_materials_project_structures(parent, peer):
    structures = load_flla().structures.take(np.arange(7, 3900, 390)).to_pymatgen()
    assert_parity(parent, peer, [structure for structure in structures if len(structure) <= 24])


def test_bonds_to_the_own_image(parent, peer):
    iron = Structure(Lattice.from_parameters(2.48, 2.48, 2.48, 109.47, 109.47, 109.47), ["Fe"], [[0, 0, 0]])
    salt = Structure(Lattice.from_parameters(3.99, 3.99, 3.99, 60, 60, 60), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert_parity(parent, peer, [iron, salt])


def test_more_lengths_than_are_kept(parent, monkeypatch):
    """In torch a structure with more distinct lengths takes another way to its radial weights, to the same numbers."""
    structures = load_flla().structures.take([100])
    plain = parents.SevenNet(parents.read_weights(parent.network), parent.network, compiled=False)
    assert not plain.compiled
    expected = plain.featurize(structures)
    monkeypatch.setattr("atomsets_core.parents.sevennet.torch_forward.MAX_LENGTHS", 1)
    found = plain.featurize(structures)
    for level in parent.site_levels:
        np.testing.assert_allclose(found.sites[level], expected.sites[level], rtol=0, atol=1e-5)


def test_scale_of_the_silu_is_that_of_the_training():
    """e3nn draws a million normal numbers from seed 0 and scales the activation to second moment 1 on them."""
    normal = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert pytest.approx(torch.nn.functional.silu(normal).pow(2).mean().pow(-0.5).item(), rel=1e-12) == SILU_SCALE


def test_no_code_is_unpickled(tmp_path, monkeypatch):
    class Payload:
        def __reduce__(self):
            return print, ("run while loading",)

    torch.save({"config": Payload(), "model_state_dict": {}}, tmp_path / "bad.pth")
    monkeypatch.setattr(parents.Network, "file", lambda _self: tmp_path / "bad.pth")
    parents.read_weights.cache_clear()
    with pytest.raises(Exception, match="Weights only load failed"):
        parents.read_weights(parents.SEVENNET_0)
    parents.read_weights.cache_clear()
