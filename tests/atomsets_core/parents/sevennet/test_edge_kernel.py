"""What the loop over bonds reads, its harmonics and its radial weights, is what the network computes."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")
pytest.importorskip("sevenn")

from atomsets_core.parents.sevennet import edge_kernel
from atomsets_core.parents.sevennet.compiled_forward import knots, radial_table
from atomsets_core.parents.sevennet.networks import SEVENNET_0, SEVENNET_L3I5
from atomsets_core.parents.sevennet.parent import read_weights
from atomsets_core.parents.sevennet.plan import plan
from atomsets_core.parents.sevennet.torch_forward import TorchForward, _harmonics


@pytest.fixture(scope="module", params=[SEVENNET_0, SEVENNET_L3I5], ids=lambda network: network.name)
def plain(request):
    return TorchForward(read_weights(request.param), request.param, torch.device("cpu"))


@pytest.mark.parametrize("lmax", [2, 3])
def test_harmonics_are_those_of_torch(lmax):
    vectors = np.random.default_rng(0).normal(size=(500, 3)) * 3
    vectors[:3] = np.eye(3) * [2.0, -1.0, 3.0]
    found = np.full((501, (lmax + 1) ** 2), -7, dtype=np.float32)
    edge_kernel.harmonics_of(vectors, lmax, found)
    direction = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:-1], _harmonics(torch.from_numpy(direction), lmax), atol=5e-7)
    np.testing.assert_array_equal(found[-1], -7)


def test_knots_meet_where_their_distance_changes_and_where_the_switch_begins():
    found = knots(edge_kernel)
    assert (np.diff(found) > 0).all()
    assert found[edge_kernel.FINE_KNOTS] == edge_kernel.BORDER
    # SevenNet-0's switching function has a kink in its second derivative at 4.5 Angstrom: no cubic may cross it.
    assert np.abs(found - 4.5).min() < 1e-9
    assert found[-1] == pytest.approx(5.0, abs=1e-9)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_error_of_the_table_is_below_the_rounding_of_the_layers(plain, k):
    """Weights at 3,000 lengths from 0.7 Angstrom, against float64; beside them what float32 makes of the layers."""
    lmax = plain.network.lmax
    layer, what = plain.layers[k], plan(lmax, lmax * (k > 0), lmax * (k < 4))
    table = radial_table(plain, layer, what, edge_kernel).reshape(-1)
    lengths = np.sort(np.random.default_rng(k).uniform(0.7, 5.0, 3000)).astype(np.float32)
    found = np.empty(len(lengths) * what.columns, dtype=np.float32)
    edge_kernel._weigh(table, what.columns, lengths, 0, len(lengths), found)
    radial = torch.cat([layer.radial[path.l1, path.l2, path.l3] for path in what.paths], dim=1)
    single = torch.from_numpy(lengths)
    exact = (layer.radial_hidden(plain.radial_basis(single.double())) @ radial.double()).numpy()
    rounded = (layer.radial_hidden(plain.radial_basis(single)) @ radial).numpy()
    error, rounding = (np.abs(x - exact) for x in (found.reshape(exact.shape), rounded))
    assert np.sqrt(np.mean(error**2)) < 0.4 * np.sqrt(np.mean(rounding**2))
    assert error.max() < rounding.max()
