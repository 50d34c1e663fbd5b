"""Training: members see only their rows, merged sites give the same numbers, seeds decide everything."""

import numpy as np
import pytest
import torch

from atomsets_core.sets import AtomSetsNetwork
from atomsets_core.training import TrainingData, TrainingOptions, apply, train

LEVELS = ("V0", "V1", "V2", "V3")


@pytest.fixture(scope="module")
def problem(elastic_features):
    features, values = elastic_features
    features, values = features[:60], values[:60]
    data = TrainingData.merged(features.site_matrix(LEVELS), features.structure_matrix(()), features.offsets)
    return features, data, np.log10(values)[:, None]


def options(**changes):
    defaults = {
        "epochs": 5,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "weight_decay": 1e-4,
        "loss": "absolute",
        "seed": 0,
    }
    return TrainingOptions(**{**defaults, **changes})


def fitted(data, y, used, seed=0, **changes):
    torch.manual_seed(seed)
    network = AtomSetsNetwork(len(used), data.sites.shape[1], phi=(16,), rho=(16,))
    losses = train(network, data, y, used, options(**changes))
    return network, losses


def everything(members, n):
    return np.ones((members, n), dtype=bool)


def test_merging_equal_sites_changes_no_prediction(problem):
    features, data, y = problem
    plain = TrainingData(
        torch.from_numpy(features.site_matrix(LEVELS)),
        torch.ones(int(features.n_atoms.sum())),
        torch.empty(len(features), 0),
        features.offsets,
    )
    network, _ = fitted(plain, y, everything(2, 60))
    np.testing.assert_allclose(apply(network, data), apply(network, plain), atol=1e-3)
    assert len(data.sites) < 0.5 * len(plain.sites)
    assert float(data.weights.sum()) == len(plain.sites)
    other, _ = fitted(data, y, everything(2, 60))
    np.testing.assert_allclose(other.site_input.mean, network.site_input.mean, atol=1e-3)
    np.testing.assert_allclose(other.site_input.scale, network.site_input.scale, rtol=1e-3)


def test_loss_falls(problem):
    _, data, y = problem
    _, losses = fitted(data, y, everything(2, 60), epochs=30)
    assert losses[-1] < 0.4 * losses[0]


def test_same_seed_same_numbers(problem):
    _, data, y = problem
    first, second, other = (apply(fitted(data, y, everything(2, 60), seed)[0], data) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


def test_a_member_learns_nothing_from_rows_it_must_not_see(problem):
    _, data, y = problem
    used = everything(2, 60)
    used[0, :20] = False
    changed = y.copy()
    changed[:20] += 5.0
    first, second = (fitted(data, labels, used)[0] for labels in (y, changed))
    np.testing.assert_array_equal(apply(first, data)[0], apply(second, data)[0])
    assert not np.allclose(apply(first, data)[1], apply(second, data)[1])


def test_batches_of_prediction_do_not_matter(problem):
    _, data, y = problem
    network, _ = fitted(data, y, everything(2, 60))
    np.testing.assert_allclose(apply(network, data, 7), apply(network, data), atol=1e-6)


def test_mistakes_are_named(problem):
    _, data, y = problem
    with pytest.raises(ValueError, match="no rows to train on"):
        fitted(data, y, np.zeros((1, 60), dtype=bool))
    with pytest.raises(ValueError, match="no loss 'cubic'"):
        fitted(data, y, everything(1, 60), loss="cubic")
    with pytest.raises(ValueError, match=r"diverged in epoch \d+.*lower model.learning_rate"):
        fitted(data, y * np.nan, everything(1, 60))
