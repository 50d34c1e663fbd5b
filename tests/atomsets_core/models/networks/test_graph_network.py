"""The trainable MEGNet is the parent's arithmetic, with right gradients, whether or not alike sites are merged."""

import json

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomsets_core.models.networks.graph_network import MEGNetNetwork
from atomsets_core.models.networks.graph_set import build_graphs
from atomsets_core.models.networks.graph_training import apply_network
from atomsets_core.parents.megnet.weights import read_weights, weight_shapes
from atomsets_core.structures.reading import as_structures

SITES = ("V0", "V1", "V2", "V3")


@pytest.fixture(scope="module")
def six(data):
    raw = json.loads((data / "megnet_structures.json").read_text())
    structures = [Structure(e["lattice"], e["atomic_numbers"], e["frac_coords"]) for e in raw.values()]
    return as_structures(structures, list(raw)), np.load(data / "megnet_reference.npz")


@pytest.fixture(scope="module")
def published():
    return MEGNetNetwork(read_weights())


def on_sites(graphs, values):
    """Values of the graph's atoms, given to each site."""
    first = np.cumsum(graphs.n_atoms) - graphs.n_atoms
    return values[graphs.site + np.repeat(first, graphs.n_sites)]


def levels_of(network, graphs):
    with torch.no_grad():
        return {k: v.numpy() for k, v in network.levels(graphs.batch(np.arange(len(graphs)))).items()}


def test_it_has_the_weights_of_the_published_network():
    assert {name: value.shape for name, value in read_weights().items()} == weight_shapes()
    assert sum(value.numel() for value in MEGNetNetwork().parameters()) == 167_761


@pytest.mark.parametrize("merge", [False, True])
def test_published_weights_give_the_original_numbers(six, published, merge):
    structures, reference = six
    graphs = build_graphs(structures, 5.0, resolution=0, merge=merge)
    found = levels_of(published, graphs)
    for level in SITES:
        expected = np.concatenate([reference[f"{name}/{level}"] for name in structures.material_id])
        np.testing.assert_allclose(on_sites(graphs, found[level]), expected, atol=1e-4)
    for level in ("v", "f2", "f1"):
        expected = np.concatenate([reference[f"{name}/{level}"] for name in structures.material_id])
        np.testing.assert_allclose(found[level], expected, atol=1e-4)
    energies = np.concatenate([reference[f"{name}/out"] for name in structures.material_id])
    np.testing.assert_allclose(found["energy"], energies, atol=5e-6)


@pytest.mark.parametrize("merge", [False, True])
def test_embedded_structures_as_the_parent_gives_them(elastic, megnet, published, merge):
    structures = elastic.structures.take(np.arange(0, 1181, 20))
    graphs = build_graphs(structures, 5.0, resolution=0, merge=merge)
    assert (graphs.n_bonds.sum() < 0.3 * build_graphs(structures, 5.0, merge=False).n_bonds.sum()) == merge
    expected = megnet.featurize(structures)
    found = levels_of(published, graphs)
    for level in SITES:
        np.testing.assert_allclose(on_sites(graphs, found[level]), expected.sites[level], atol=1e-4)
    for level in ("v", "f2", "f1"):
        np.testing.assert_allclose(found[level], expected.structure[level], atol=1e-4)
    np.testing.assert_allclose(found["energy"], expected.structure["energy"], atol=5e-6)


def test_rounding_of_distances_is_below_a_hundredth_of_the_error(elastic, megnet, published):
    """The published network errs by 26 meV/atom; rounding to 1e-3 Angstrom moves it by less than 0.26 on average."""
    structures = elastic.structures.take(np.arange(0, 1181, 10))
    found = levels_of(published, build_graphs(structures, 5.0))["energy"]
    exact = megnet.featurize(structures, ["energy"]).structure["energy"]
    assert np.abs(found - exact).mean() < 0.26e-3


def gradients(network, graphs):
    network.zero_grad(set_to_none=True)
    output = network(graphs.batch(np.arange(len(graphs)), dtype=torch.float64))
    (output * torch.linspace(1.0, 2.0, len(output), dtype=torch.float64)).sum().backward()
    return {name: value.grad.clone() for name, value in network.weights.items()}


@pytest.fixture(scope="module")
def salts():
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    return as_structures([salt, rutile])


def test_gradients_are_those_of_finite_differences(salts):
    network = MEGNetNetwork(read_weights()).double()
    graphs = build_graphs(salts, 4.0)
    found = gradients(network, graphs)
    batch = graphs.batch(np.arange(2), dtype=torch.float64)
    factor = torch.linspace(1.0, 2.0, 2, dtype=torch.float64)
    rng = np.random.default_rng(0)
    for name, parameter in network.weights.items():
        direction = torch.from_numpy(rng.normal(size=tuple(parameter.shape)))
        step, value = 1e-5, []
        with torch.no_grad():
            for sign in (1, -1):
                parameter += sign * step * direction
                value.append(float((network(batch) * factor).sum()))
                parameter -= sign * step * direction
        numeric = (value[0] - value[1]) / (2 * step)
        analytic = float((found[name] * direction).sum())
        assert analytic == pytest.approx(numeric, rel=1e-5, abs=1e-7), name


def test_merging_keeps_the_gradients(salts):
    network = MEGNetNetwork(read_weights()).double()
    merged, whole = (gradients(network, build_graphs(salts, 5.0, merge=merge)) for merge in (True, False))
    for name in merged:
        scale = float(whole[name].abs().max()) + 1e-9
        # Shares are float32.
        assert float((merged[name] - whole[name]).abs().max()) < 3e-6 * scale, name


def test_what_is_alike_stands_once(salts):
    graphs = build_graphs(salts, 3.0)
    assert graphs.n_sites.tolist() == [8, 6]
    assert graphs.n_atoms.tolist() == [2, 2]
    # Rock salt: one shell. Rutile: Ti and O each see the other at two distances, O sees O within 3 Angstrom too.
    assert graphs.n_shells[0] == 1
    assert sorted(graphs.numbers[:2].tolist()) == [11, 17]
    np.testing.assert_allclose(graphs.site_share, [0.5, 0.5, 1 / 3, 2 / 3])
    owner = np.repeat([0, 1], graphs.n_bonds)
    for i in (0, 1):
        centre = graphs.centre[owner == i]
        np.testing.assert_allclose(np.bincount(centre, weights=graphs.share[owner == i]), 1.0, rtol=1e-6)


def test_batches_and_subsets_do_not_matter(elastic, published):
    graphs = build_graphs(elastic.structures.take(np.arange(0, 300, 10)), 5.0)
    with torch.no_grad():
        together = published(graphs.batch(np.arange(30))).numpy()
        rows = np.array([7, 3, 29])
        np.testing.assert_allclose(published(graphs.batch(rows)).numpy(), together[rows], atol=2e-6)
        np.testing.assert_allclose(published(graphs.take(rows).batch(np.arange(3))).numpy(), together[rows], atol=2e-6)
        pieces = graphs.pieces(np.arange(30), 100)
        assert len(pieces) > 5
        assert np.concatenate(pieces).tolist() == list(range(30))
        in_pieces = np.concatenate([published(graphs.batch(piece)).numpy() for piece in pieces])
    np.testing.assert_allclose(in_pieces, together, atol=2e-6)


def test_a_supercell_is_the_same_graph(published, salts):
    doubled = [s.make_supercell([[2, 0, 0], [0, 1, 0], [0, 1, 1]]) for s in salts.to_pymatgen()]
    one, two = build_graphs(salts, 5.0), build_graphs(as_structures(doubled), 5.0)
    assert two.n_atoms.tolist() == one.n_atoms.tolist()
    with torch.no_grad():
        found, expected = (published(g.batch(np.arange(2))).numpy() for g in (two, one))
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_structures_without_a_graph_are_named():
    lonely = Structure(Lattice.cubic(20.0), ["He"], [[0, 0, 0]])
    copper = Structure(Lattice.from_parameters(2.55, 2.55, 2.55, 60, 60, 60), ["Cu"], [[0, 0, 0]])
    graphs = build_graphs(as_structures([lonely, copper], ["lonely", "copper"]), 5.0)
    assert list(graphs.material_id) == ["copper"]
    assert [(r.material_id, "isolated" in r.reason) for r in graphs.refused] == [("lonely", True)]


def test_a_weight_of_another_shape_is_named():
    weights = read_weights()
    with pytest.raises(ValueError, match="dense_21/kernel has shape"):
        MEGNetNetwork({**weights, "dense_21/kernel": np.zeros((15, 1), dtype=np.float32)})


def test_an_untrained_network_tells_crystals_apart(elastic):
    # By tenths of the spread of a standardised target; with Glorot's weights by a hundredth, with twice those by 1,000.
    graphs = build_graphs(elastic.structures.take(np.arange(60)), 5.0)
    spreads = [
        apply_network(MEGNetNetwork(generator=torch.Generator().manual_seed(seed)), graphs, np.arange(60)).std()
        for seed in range(3)
    ]
    assert min(spreads) > 0.03
    assert max(spreads) < 1.0
