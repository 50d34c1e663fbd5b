"""Gathering features block by block gives what gathering them at once gives, and never holds them all."""

from functools import partial

import numpy as np
import pytest
import torch

from atomsets_core.models.networks.training_data import Cut, TrainingData, merge_equal
from atomsets_core.parents.base import Features

LEVELS = ("V0", "V1", "V2", "V3")
SITES = partial(Features.site_matrix, levels=LEVELS)
STRUCTURE = partial(Features.structure_matrix, levels=())
CPU = torch.device("cpu")


class InBlocks:
    """Features handed out in blocks of any cut and order."""

    def __init__(self, features, blocks):
        self.features, self.parts = features, blocks
        self.n_atoms = features.n_atoms

    def __len__(self):
        return len(self.features)

    def blocks(self):
        for rows in self.parts:
            yield np.asarray(rows), self.features[rows]


@pytest.fixture(scope="module")
def features(elastic_features):
    return elastic_features[0]


def test_how_structures_are_cut_into_blocks_changes_no_bit(features):
    whole = TrainingData.gathered(features, SITES, STRUCTURE)
    order = np.random.default_rng(0).permutation(200)
    pieces = TrainingData.gathered(InBlocks(features, [order[:13], order[13:150], order[150:]]), SITES, STRUCTURE)
    rows = np.array([5, 199, 0, 5, 77])
    for one, other in ((whole.batch(rows, CPU), pieces.batch(rows, CPU)),):
        for name in ("sites", "weights", "owner", "structure"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    np.testing.assert_array_equal(whole.pooled(), pieces.pooled())
    at_once = TrainingData.merged(SITES(features), STRUCTURE(features), features.offsets)
    assert torch.equal(whole.sites, at_once.sites)


def test_merged_features_in_a_file_are_those_in_memory(features, monkeypatch):
    files, memmap = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda file, **how: files.append(how["shape"]) or memmap(file, **how))
    memory = TrainingData.gathered(features, SITES, STRUCTURE)
    assert files == []
    file = TrainingData.gathered(features, SITES, STRUCTURE, in_memory=0)
    assert files == [(int(features.n_atoms.sum()), 112)]
    assert torch.equal(memory.sites, file.sites)


def test_pooled_vectors_are_those_of_the_unmerged_sites(features):
    pooled = TrainingData.gathered(features, SITES, partial(Features.structure_matrix, levels=())).pooled()
    expected = features.pooled(LEVELS)
    scale = expected.std(axis=0)
    assert (np.abs(pooled - expected) / scale).max() < 0.01


def test_only_equal_sites_of_one_structure_are_merged(features):
    sites, offsets = SITES(features), features.offsets
    first, weights, merged = merge_equal(sites, offsets)
    scale = sites.std(axis=0)
    assert weights.sum() == len(sites)
    for i in range(len(features)):
        own = sites[offsets[i] : offsets[i + 1]]
        kept = sites[first[merged[i] : merged[i + 1]]]
        assert weights[merged[i] : merged[i + 1]].sum() == len(own)
        distance = np.abs((own[:, None] - kept[None]) / scale).max(axis=2)
        assert distance.min(axis=1).max() < 0.01


def test_a_structure_is_merged_alike_in_any_company(features):
    sites, offsets = SITES(features), features.offsets
    first, _, merged = merge_equal(sites, offsets)
    for i in (0, 50, 199):
        own = slice(offsets[i], offsets[i + 1])
        alone = merge_equal(sites[own], np.array([0, offsets[i + 1] - offsets[i]]))[0]
        np.testing.assert_array_equal(alone + offsets[i], first[merged[i] : merged[i + 1]])


def test_equal_sites_weigh_together_what_they_weigh_apart():
    sites = np.array([[1, 2], [1, 2], [3, 4], [1, 2]], dtype=np.float32)
    weights = np.array([0.2, 0.3, 0.5, 1.0], dtype=np.float32)
    first, together, offsets = merge_equal(sites, np.array([0, 3, 4]), weights)
    np.testing.assert_array_equal(first, [0, 2, 3])
    np.testing.assert_allclose(together, [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(offsets, [0, 2, 3])


def test_stretches_hold_every_row_once_in_steps_of_the_batch(features):
    data = TrainingData.gathered(features, SITES, STRUCTURE)
    rows = np.random.default_rng(1).permutation(200)
    runs = list(data.runs(rows, 16, sites=200))
    np.testing.assert_array_equal(np.concatenate(runs), rows)
    assert len(runs) > 3
    assert all(len(run) % 16 == 0 for run in runs[:-1])
    assert all(len(run) == 16 or data.lengths(run).sum() <= 200 for run in runs)
    assert [len(run) for run in data.runs(rows[:5], 1, sites=1)] == [1] * 5


def test_a_part_of_a_cut_is_the_batch_of_its_rows(features):
    data = TrainingData.gathered(features, SITES, STRUCTURE)
    rows = np.array([3, 150, 9, 42, 8])
    part, batch = Cut.at(data, rows, CPU).part(1, 4), data.batch(rows[1:4], CPU)
    for name in ("sites", "weights", "owner", "structure"):
        assert torch.equal(getattr(part, name), getattr(batch, name)), name
