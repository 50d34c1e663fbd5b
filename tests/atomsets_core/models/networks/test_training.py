"""Training: members see only their rows, merged sites give the same numbers, seeds decide everything."""

import numpy as np
import pytest
import torch

from atomsets_core.models.networks.set_network import AtomSetsNetwork
from atomsets_core.models.networks.training import (
    TrainingOptions,
    _Training,
    automatic_batch_size,
    structures_within,
    train,
)
from atomsets_core.models.networks.training_data import TrainingData, apply

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


def test_the_number_of_threads_decides_no_digit_that_matters(problem):
    _, data, y = problem
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(apply(fitted(data, y, everything(4, 60), epochs=10)[0], data))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(*found, atol=1e-4)


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
        fitted(data, y, everything(1, 60), learning_rate=1e30)
    with pytest.raises(ValueError, match="no row has a label"):
        fitted(data, y * np.nan, everything(1, 60))


class Memory:
    """A checkpoint that can be read between two trainings."""

    def __init__(self):
        self.saved = []

    def load(self):
        return self.saved[-1] if self.saved else None

    def save(self, data):
        self.saved.append(data)


def test_a_training_that_was_cut_off_ends_where_it_would_have_ended(problem):
    _, data, y = problem
    used = everything(2, 60)
    validation = np.zeros((2, 60), dtype=bool)
    validation[:, 50:], used[:, 50:] = True, False
    how = {"epochs": 12, "checkpoint_every": 5, "patience": 50}

    def run(checkpoint, stop_after=None):
        def progress(epoch, _epochs, _loss):
            if epoch == stop_after:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        network = AtomSetsNetwork(2, data.sites.shape[1], phi=(16,), rho=(16,), dropout=0.2)
        losses = train(
            network, data, y, used, options(**how), validation=validation, progress=progress, checkpoint=checkpoint
        )
        return apply(network, data), losses

    undisturbed, losses = run(None)
    memory = Memory()
    with pytest.raises(KeyboardInterrupt):
        run(memory, stop_after=8)
    assert len(memory.saved) == 1
    resumed, resumed_losses = run(memory)
    np.testing.assert_array_equal(resumed, undisturbed)
    assert resumed_losses == losses
    memory.saved.append(memory.saved[0][:-10])
    np.testing.assert_array_equal(run(memory)[0], undisturbed)


def test_a_step_in_parts_gives_the_same_gradient(problem, monkeypatch):
    _, data, y = problem
    whole, _ = fitted(data, y, everything(2, 60))
    accumulate = _Training._accumulate
    failures = []

    def short_of_memory(self, *step):
        if self.micro > 4:
            failures.append(self.micro)
            raise torch.OutOfMemoryError("no memory")
        return accumulate(self, *step)

    monkeypatch.setattr(_Training, "_accumulate", short_of_memory)
    parts, _ = fitted(data, y, everything(2, 60))
    assert failures == [16, 8]
    np.testing.assert_allclose(apply(parts, data), apply(whole, data), atol=1e-3)


def test_a_step_takes_what_fits_into_the_memory(problem):
    _, data, _ = problem
    network = AtomSetsNetwork(10, 112, phi=(128,), rho=(128,))
    sites = len(data.sites) / len(data)
    each = 4 * sites * (112 + 4 * 10 * 128)
    assert structures_within(int(7.5 * each), network, data, 64) == 7
    assert structures_within(int(1e12), network, data, 64) == 64
    assert structures_within(0, network, data, 64) == 1


def test_large_steps_are_made_in_parts_that_a_cache_holds(problem):
    _, data, y = problem
    many = np.tile(np.arange(60), 10)
    larger = TrainingData(data.sites, data.weights, data.structure[many], data.offsets, many)
    sizes = []

    class Watched(AtomSetsNetwork):
        def forward(self, batch):
            sizes.append(batch.n_structures)
            return super().forward(batch)

    def fit():
        torch.manual_seed(0)
        network = Watched(2, data.sites.shape[1], phi=(16,), rho=(16,))
        train(network, larger, y[many], everything(2, 600), options(epochs=3, batch_size=300))
        return apply(network, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atomsets_core.models.networks.training.CACHED_SITES", 100)
        parts = fit()
    assert max(sizes) == 64
    sizes.clear()
    np.testing.assert_allclose(fit(), parts, atol=1e-4)
    assert max(sizes) == 300


def test_memory_that_never_suffices_is_told(problem, monkeypatch):
    _, data, y = problem

    def short_of_memory(self, *step):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(_Training, "_accumulate", short_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        fitted(data, y, everything(1, 60))


def test_half_precision_learns_as_well(problem):
    _, data, y = problem
    half, full = (fitted(data, y, everything(2, 60), epochs=60, mixed_precision=mixed)[1] for mixed in (True, False))
    assert half[-1] < 0.4 * half[0]
    assert half[-1] == pytest.approx(full[-1], abs=0.05)
    assert half != full


def test_members_of_one_fold_have_the_scales_of_its_rows_alone(problem):
    features, data, y = problem
    used = everything(4, 60)
    used[0, :20] = used[2, :20] = False
    used[3, 30:] = False
    network, _ = fitted(data, y, used, epochs=1)
    owner = np.repeat(np.arange(60), features.n_atoms)
    for member, rows in enumerate(used):
        sites = features.site_matrix(LEVELS)[rows[owner]].astype(np.float64)
        np.testing.assert_allclose(network.site_input.mean[member, 0], sites.mean(axis=0), atol=2e-3)
        np.testing.assert_allclose(network.site_input.scale[member, 0], sites.std(axis=0), rtol=5e-3)
        np.testing.assert_allclose(network.target.mean[member, 0], y[rows].mean(), rtol=1e-6)
        np.testing.assert_allclose(network.target.scale[member, 0], y[rows].std(), rtol=1e-6)


def test_another_trainings_checkpoint_is_not_used(problem):
    _, data, y = problem
    memory = Memory()

    def run(labels, checkpoint, **changes):
        torch.manual_seed(0)
        network = AtomSetsNetwork(2, data.sites.shape[1], phi=(16,), rho=(16,))
        how = options(epochs=4, checkpoint_every=2, **changes)
        train(network, data, labels, everything(2, 60), how, checkpoint=checkpoint)
        return apply(network, data)

    run(y, memory)
    assert len(memory.saved) == 1
    for labels, changes in ((y + np.arange(60)[:, None] / 60, {}), (y, {"learning_rate": 1e-3}), (y, {"seed": 1})):
        found = run(labels, Memory(), **changes)
        stale = Memory()
        stale.saved = memory.saved[:1]
        np.testing.assert_array_equal(run(labels, stale, **changes), found)


def test_steps_a_pass_grow_more_slowly_than_rows_only_beyond_a_few_thousand():
    assert {automatic_batch_size(rows) for rows in (10, 1181, 2048)} == {64}
    assert automatic_batch_size(4 * 2048) == 128
    assert automatic_batch_size(2049) == 64
    sizes = [automatic_batch_size(rows) for rows in range(1000, 200_000, 1000)]
    assert sizes == sorted(sizes)


def test_every_member_gets_its_own_best_epoch_back(problem):
    _, data, y = problem
    used, validation = everything(2, 60), np.zeros((2, 60), dtype=bool)
    validation[0, :10], validation[1, 10:20] = True, True
    used[validation] = False
    kept = []

    def errors(network):
        found = np.abs(apply(network, data)[:, :, 0] - y[:, 0])
        return np.array([found[member, validation[member]].mean() for member in range(2)])

    torch.manual_seed(0)
    network = AtomSetsNetwork(2, data.sites.shape[1], phi=(64,), rho=(64,))
    how = options(epochs=40, patience=5, learning_rate=1e-2)
    losses = train(network, data, y, used, how, validation=validation, progress=lambda *_: kept.append(errors(network)))
    assert 5 <= len(losses) <= 40
    np.testing.assert_allclose(errors(network), np.min(kept, axis=0), rtol=1e-4)


def test_missing_targets_are_left_out(problem):
    _, data, y = problem
    two = np.column_stack([y[:, 0], -y[:, 0]])
    gaps = two.copy()
    gaps[::2, 1] = np.nan

    def fit(targets):
        torch.manual_seed(0)
        network = AtomSetsNetwork(2, data.sites.shape[1], phi=(16,), rho=(16,), outputs=2)
        train(network, data, targets, everything(2, 60), options(epochs=20))
        return apply(network, data)

    found = fit(gaps)
    assert np.isfinite(found).all()
    wrong = two.copy()
    wrong[::2, 1] += 100.0
    np.testing.assert_array_equal(fit(np.where(np.isnan(gaps), np.nan, wrong)), found)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_learned(problem, classes):
    _, data, y = problem
    label = np.digitize(y[:, 0], np.quantile(y[:, 0], np.arange(1, classes) / classes))
    target = label[:, None].astype(float) if classes == 2 else np.eye(3)[label]
    torch.manual_seed(0)
    network = AtomSetsNetwork(1, data.sites.shape[1], phi=(16,), rho=(16,), outputs=target.shape[1])
    loss = "logistic" if classes == 2 else "cross_entropy"
    train(network, data, target, everything(1, 60), options(epochs=60, loss=loss))
    scores = apply(network, data)[0]
    found = scores[:, 0] > 0 if classes == 2 else scores.argmax(axis=1)
    assert (found == label).mean() > 0.9
