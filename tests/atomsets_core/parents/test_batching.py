"""Batches on a device that runs out of memory, graphs made ahead, bfloat16, and how little is computed."""

import threading

import numpy as np
import pytest
import torch

from atomsets_core.parents import batching
from atomsets_core.parents.batching import Halving, made_ahead, part_of
from atomsets_core.parents.megnet import torch_forward
from atomsets_core.parents.megnet.forward_kernel import BLOCK, SETS, CompiledForward, forward, pack
from atomsets_core.parents.megnet.parent import MEGNet
from atomsets_core.parents.megnet.weights import CUTOFF, read_weights
from atomsets_core.parents.registry import load_parent
from atomsets_core.structures.graphs import graph_batches


@pytest.fixture(scope="module")
def structures(elastic):
    return elastic.structures.take(np.arange(40))


@pytest.fixture
def plain():
    return MEGNet(read_weights(), compiled=False)


def full_above(bonds, network):
    """A forward pass on a device that holds so many bonds, and the sizes that it was asked for."""
    asked = []

    def limited(graphs, wanted):
        asked.append(len(graphs.centre))
        if len(graphs.centre) > bonds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return network(graphs, wanted)

    return limited, asked


def test_the_same_features_from_halves(plain, structures):
    expected = plain.featurize(structures)
    limited, asked = full_above(2000, plain.forward)
    plain._halving = Halving(limited, lambda: False)
    found = plain.featurize(structures)
    assert max(asked) > 4000
    assert not found.refused
    assert found.bonds == expected.bonds
    assert list(found.material_id) == list(expected.material_id)
    for level, values in {**found.sites, **found.structure}.items():
        # Products of other sizes round differently.
        np.testing.assert_allclose(values, {**expected.sites, **expected.structure}[level], atol=1e-4, err_msg=level)


def test_what_did_not_fit_once_is_not_tried_again(plain, structures):
    limited, asked = full_above(2000, plain.forward)
    plain._halving = Halving(limited, lambda: False)
    plain.featurize(structures)
    failed = sum(n > 2000 for n in asked)
    plain.featurize(structures)
    assert sum(n > 2000 for n in asked) == failed


def test_a_structure_that_never_fits_is_refused_alone(plain, structures):
    graphs = [graph for _, graph in graph_batches(structures, CUTOFF, 1, [])]
    sizes = np.array([len(graph.centre) for graph in graphs])
    largest = int(sizes.argmax())
    limited, _ = full_above(int(np.sort(sizes)[-2]), plain.forward)
    plain._halving = Halving(limited, lambda: False)
    found = plain.featurize(structures)
    assert [refusal.material_id for refusal in found.refused] == [structures.material_id[largest]]
    assert f"its {sizes[largest]:,} bonds need more memory than cpu has" in found.refused[0].reason
    assert len(found) == len(structures) - 1


def test_the_pieces_get_smaller_before_a_structure_is_given_up(plain, structures):
    network = plain.forward
    network._piece = 16 * torch_forward.PIECE

    def limited(graphs, wanted):
        if network._piece > 2 * torch_forward.PIECE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(graphs, wanted)

    plain._halving = Halving(limited, network.use_less_memory)
    found = plain.featurize(structures.take(np.arange(1)))
    assert len(found) == 1
    assert network._piece == 2 * torch_forward.PIECE


def test_other_errors_are_not_taken_for_a_lack_of_memory(plain, structures):
    def broken(graphs, wanted):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    plain._halving = Halving(broken, lambda: False)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        plain.featurize(structures)


def test_parts_of_a_batch_are_batches(structures):
    (_, whole), *_ = graph_batches(structures, CUTOFF, 10**9, [], vectors=True)
    part = part_of(whole, 5, 12)
    (_, alone), *_ = graph_batches(structures.take(np.arange(5, 12)), CUTOFF, 10**9, [], vectors=True)
    for name in ("numbers", "n_atoms", "n_bonds", "centre", "neighbour", "distance", "vector", "image"):
        np.testing.assert_array_equal(getattr(part, name), getattr(alone, name), err_msg=name)


def test_items_are_made_ahead_in_order_and_errors_come_through():
    def items():
        yield from (1, 2, 3)
        raise ValueError("the fourth")

    ahead = made_ahead(items())
    assert [next(ahead) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="the fourth"):
        next(ahead)


def test_a_reader_that_leaves_takes_the_maker_along():
    before = threading.active_count()
    items = made_ahead(iter(range(10**9)))
    assert next(items) == 0
    items.close()
    for _ in range(100):
        if threading.active_count() == before:
            return
        threading.Event().wait(0.05)
    pytest.fail("the thread that makes items is still there")


def test_batch_size_follows_the_free_memory(monkeypatch):
    card = torch.device("cuda")
    for free, expected in ((80e9, batching.LARGEST), (1e9, 666_666), (0.4e9, 10_000)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 80e9))
        assert batching.bonds_that_fit(card, 600, 400_000_000, 1) == expected
    assert batching.bonds_that_fit(torch.device("cpu"), 600, 400_000_000, 123) == 123


def test_bfloat16_is_near_and_has_a_digest_of_its_own(structures, megnet):
    low = load_parent("megnet-bf16")
    assert low.name == "megnet-bf16"
    assert low.digest != megnet.digest
    exact, found = megnet.featurize(structures), low.featurize(structures)
    np.testing.assert_array_equal(found.sites["V0"], exact.sites["V0"])
    for level in ("V1", "V2", "V3"):
        error = np.abs(found.sites[level] - exact.sites[level]).mean() / exact.sites[level].std()
        assert 1e-5 < error < 0.02, level


def test_the_embedding_needs_no_graph(megnet, plain, structures, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a graph was made")

    monkeypatch.setattr("atomsets_core.parents.megnet.parent.graph_batches", never)
    for parent in (megnet, plain):
        features = parent.featurize(structures, ["V0"])
        assert set(features.sites) == {"V0"}
        assert not features.structure
        assert features.bonds == 0


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_compiled_pass_stops_at_the_depth_asked_for(structures, depth):
    (_, graphs), *_ = graph_batches(structures, CUTOFF, 10**9, [])
    first_atom = np.concatenate([[0], np.cumsum(graphs.n_atoms)])
    first_bond = np.searchsorted(graphs.centre, np.arange(len(graphs.numbers) + 1))
    levels = np.full((3, len(graphs.numbers), 32), 777.0, dtype=np.float32)
    readout = np.full(96 * len(graphs.n_atoms), 777.0, dtype=np.float32)
    bonds = graphs.centre, graphs.neighbour, graphs.distance
    # Deeper blocks would spread their NaN weights over everything they touch.
    packed, *rest = pack(read_weights())
    packed = packed.copy()
    packed[depth * BLOCK : SETS] = np.nan
    forward(packed, *rest, depth, graphs.numbers, first_atom, first_bond, *bonds, levels, readout)
    assert (levels[depth:] == 777.0).all()
    assert (readout == 777.0).all()
    expected = CompiledForward(read_weights())(graphs, [f"V{depth}"])[f"V{depth}"]
    np.testing.assert_array_equal(levels[depth - 1], expected)


@pytest.mark.parametrize(("level", "blocks"), [("V1", [1]), ("V2", [1, 2]), ("V3", [1, 2, 3]), ("energy", [1, 2, 3])])
def test_the_torch_pass_runs_only_the_blocks_it_needs(plain, structures, level, blocks, monkeypatch):
    ran = []
    original = plain.forward._block
    monkeypatch.setattr(plain.forward, "_block", lambda k, *a, **b: (ran.append(k), original(k, *a, **b))[1])
    plain.featurize(structures, [level])
    assert ran == blocks
