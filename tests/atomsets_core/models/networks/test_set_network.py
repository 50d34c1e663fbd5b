"""AtomSets layers and networks give the reference implementation's numbers; poolings don't see order or padding."""

import numpy as np
import pytest
import torch

from atomsets_core.models.networks.set_network import (
    POOLINGS,
    AtomSetsNetwork,
    SetBatch,
    WeightedSet2Set,
    weighted_mean,
)


@pytest.fixture(scope="module")
def reference(data):
    return np.load(data / "atomsets_layers_reference.npz")


@pytest.fixture(scope="module")
def batch(reference):
    return SetBatch(
        torch.from_numpy(reference["x"]),
        torch.from_numpy(reference["weights"]),
        torch.from_numpy(reference["index"]).long(),
        torch.empty(3, 0),
    )


def put(layer, weight, bias):
    layer.weight.data[0] = torch.from_numpy(weight)
    layer.bias.data[0, 0] = torch.from_numpy(bias)


def test_weighted_mean_equals_the_reference(reference, batch):
    found = weighted_mean(batch.sites[None], batch.weights, batch.owner, 3, float(reference["mean_alpha"]))
    np.testing.assert_allclose(found[0].numpy(), reference["mean_out"], atol=1e-6)


def test_weighted_set2set_equals_the_reference(reference, batch):
    layer = WeightedSet2Set(1, 12, int(reference["set2set_T"]), int(reference["set2set_n_hidden"]))
    put(layer.to_memory, reference["set2set_x_to_m_weight"], reference["set2set_x_to_m_bias"])
    put(layer.recurrent, reference["set2set_recurrent_kernel"], reference["set2set_recurrent_bias"])
    found = layer(batch.sites[None], batch.weights, batch.owner, 3)
    np.testing.assert_allclose(found[0].detach().numpy(), reference["set2set_out"], atol=1e-6)


NETWORKS = {
    "net_mean": {"pooling": ("mean",), "alpha": 1.7},
    "net_set2set": {"pooling": ("set2set",), "set2set_steps": 3},
    "net_both": {"pooling": ("mean", "set2set"), "alpha": 0.5, "set2set_steps": 2},
}


@pytest.mark.parametrize("task", ["reg", "cls"])
@pytest.mark.parametrize("kind", list(NETWORKS))
def test_networks_equal_the_reference(reference, batch, kind, task):
    name = f"{kind}_{task}"
    network = AtomSetsNetwork(1, 12, phi=(16, 8), rho=(8, 4), set2set_hidden=8, **NETWORKS[kind])
    layers = sorted(
        {key.split("/")[1] for key in reference.files if key.startswith(f"{name}/dense")}, key=lambda k: int(k[6:])
    )
    for layer, key in zip([*network.phi, *network.rho, network.out], layers, strict=True):
        put(layer, reference[f"{name}/{key}/kernel:0"], reference[f"{name}/{key}/bias:0"])
    if network.set2set is not None:
        prefix = next(key.rsplit("/", 1)[0] for key in reference.files if key.startswith(f"{name}/weighted_set2_set"))
        put(network.set2set.to_memory, reference[f"{prefix}/x_to_m_weight:0"], reference[f"{prefix}/x_to_m_bias:0"])
        put(
            network.set2set.recurrent,
            reference[f"{prefix}/recurrent_kernel:0"],
            reference[f"{prefix}/recurrent_bias:0"],
        )
    found = network(batch)[0]
    if task == "cls":
        found = torch.sigmoid(found)
    np.testing.assert_allclose(found.detach().numpy(), reference[f"{name}_out"], atol=1e-5)


@pytest.mark.parametrize(
    ("width", "options", "parameters"),
    [
        (16, {}, 13_633),
        (32, {}, 14_657),
        (32, {"pooling": ("set2set",), "set2set_steps": 3, "set2set_hidden": 512}, 2_208_577),
    ],
)
def test_parameter_counts_equal_the_reference(width, options, parameters):
    network = AtomSetsNetwork(3, width, phi=(64, 64), rho=(64, 64), **options)
    assert network.n_parameters() == parameters


def random_batch(seed, sizes=(3, 1, 5), width=6):
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    return SetBatch(
        torch.randn(n, width, generator=generator),
        torch.rand(n, generator=generator) + 0.1,
        torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        torch.randn(len(sizes), 2, generator=generator),
    )


def pick(batch, rows, owner, structures):
    rows = torch.tensor(rows)
    return SetBatch(
        batch.sites[rows], batch.weights[rows], torch.tensor(owner), batch.structure[torch.tensor(structures)]
    )


@pytest.fixture(scope="module", params=[(name,) for name in POOLINGS] + [POOLINGS])
def network(request):
    torch.manual_seed(1)
    return AtomSetsNetwork(2, 6, 2, phi=(8,), rho=(8,), pooling=request.param, set2set_hidden=4)


def test_order_of_sites_does_not_matter(network):
    batch = random_batch(0)
    shuffled = pick(batch, [2, 0, 1, 3, 8, 4, 6, 5, 7], [0, 0, 0, 1, 2, 2, 2, 2, 2], [0, 1, 2])
    torch.testing.assert_close(network(shuffled), network(batch), atol=1e-6, rtol=1e-5)


def test_a_structure_alone_gives_what_it_gives_in_a_batch(network):
    batch = random_batch(0)
    together = network(batch)
    alone = network(pick(batch, [4, 5, 6, 7, 8], [0] * 5, [2]))
    torch.testing.assert_close(alone[:, 0], together[:, 2], atol=1e-6, rtol=1e-5)


def test_splitting_a_site_into_copies_with_its_weight_shared_changes_nothing(network):
    batch = random_batch(0)
    split = pick(batch, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0, 0, 1, 2, 2, 2, 2, 2], [0, 1, 2])
    split.weights[:2] /= 2
    torch.testing.assert_close(network(split), network(batch), atol=1e-5, rtol=1e-5)


def test_members_are_independent(network):
    batch = random_batch(0)
    before = network(batch)
    network(batch)[0].sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is None or not parameter.grad[1].any()
        parameter.grad = None
    with torch.no_grad():
        network.out.weight[0] += 1.0
    after = network(batch)
    torch.testing.assert_close(after[1], before[1])
    assert not torch.allclose(after[0], before[0])


def test_a_network_on_structure_levels_alone():
    network = AtomSetsNetwork(2, 0, 2, rho=(8,))
    assert network(random_batch(0)).shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": ("median",)}, "no pooling 'median'"),
        ({"activation": "tanh"}, "no activation 'tanh'"),
        ({"site_width": 0}, "at least one site level"),
    ],
)
def test_what_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AtomSetsNetwork(**{"members": 1, "site_width": 4, **options})


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_a_doubled_cell_is_the_same_crystal_to_all_but_the_sum(pooling, alpha):
    torch.manual_seed(1)
    network = AtomSetsNetwork(2, 6, 2, phi=(8,), rho=(8,), pooling=(pooling,), alpha=alpha, set2set_hidden=4)
    batch = random_batch(0)
    batch.weights[:] = 1.0
    doubled = pick(batch, [*range(3), *range(3), 3, 4, 5, 6, 7, 8], [0] * 6 + [1] + [2] * 5, [0, 1, 2])
    same = torch.allclose(network(doubled), network(batch), atol=1e-5)
    assert same == (pooling != "sum")


def test_alpha_makes_a_mean_of_fractions_depend_on_how_they_are_listed():
    """The remark on alpha: only with alpha 1 may an element be listed in two parts."""
    values, owner = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0])
    weights = torch.tensor([0.25, 0.25, 0.5])
    split = values.clone()
    split[:, 1] = split[:, 0]
    whole, listed = split[:, [0, 2]], torch.tensor([0.5, 0.5])
    for alpha, equal in ((1.0, True), (0.5, False), (0.0, False)):
        once = weighted_mean(whole, listed, owner[:2], 1, alpha)
        twice = weighted_mean(split, weights, owner, 1, alpha)
        assert torch.allclose(once, twice, atol=1e-6) == equal
    # alpha 0 counts all alike, whatever they weigh
    plain = weighted_mean(values, torch.tensor([1e-4, 0.5, 0.4999]), owner, 1, 0.0)
    torch.testing.assert_close(plain, values.mean(dim=1, keepdim=True))


def test_heads_share_the_columns_and_weights_enter_as_their_logarithm():
    from atomsets_core.models.networks.set_network import WeightedAttention

    torch.manual_seed(0)
    layer = WeightedAttention(1, 8, 4)
    batch = random_batch(0, width=8)
    found = layer(batch.sites[None], batch.weights, batch.owner, 3)[0]
    energy = layer.energy(batch.sites)[0] + batch.weights.log()[:, None]
    for structure in range(3):
        rows = batch.owner == structure
        share = torch.softmax(energy[rows], dim=0)
        for head in range(4):
            columns = slice(2 * head, 2 * head + 2)
            expected = (share[:, head : head + 1] * batch.sites[rows][:, columns]).sum(dim=0)
            torch.testing.assert_close(found[structure, columns], expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="8 columns can't be shared by 3 attention heads"):
        WeightedAttention(1, 8, 3)
