"""MEGNetRegressor learns, is the same for the same seed and after a kill, and refuses what it can't take."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from atomsets_core.models.megnet_regressor import MEGNetRegressor
from atomsets_core.models.networks import graph_training
from atomsets_core.models.networks.graph_set import build_graphs
from atomsets_core.models.networks.graph_training import LOSSES
from atomsets_core.storage.store import StorageError, Store


@pytest.fixture(scope="module")
def labelled(elastic):
    return elastic.structures.take(np.arange(0, 1180, 20)), elastic.columns["K_VRH"].to_numpy()[0:1180:20]


@pytest.fixture(scope="module")
def graphs(labelled):
    return build_graphs(labelled[0], 5.0)


class Kept:
    """A checkpoint in memory; `die` ends the training at the n-th save."""

    def __init__(self, die=None):
        self.data, self.die, self.saves = None, die, 0

    def load(self):
        return self.data

    def save(self, data):
        self.data = data
        self.saves += 1
        if self.saves == self.die:
            raise KeyboardInterrupt


def test_it_can_fit_sixteen_structures(graphs, labelled):
    few = graphs.take(np.arange(16))
    y = labelled[1][:16]
    model = MEGNetRegressor(transform="log10", epochs=100, batch_size=16, validation_fraction=0).fit(few, y)
    assert np.abs(np.log10(model.predict(few)) - np.log10(y)).max() < 0.15 * np.log10(y).std()
    assert model.histories_[0].losses[-1] < 0.1 * model.histories_[0].losses[0]


def test_it_learns_what_transfers(graphs, labelled):
    """Fine-tuned on 50 values it predicts nine others better than their mean does."""
    y = np.log10(labelled[1])
    model = MEGNetRegressor("megnet", epochs=20, validation_fraction=0).fit(graphs.take(np.arange(50)), y[:50])
    error = np.abs(model.predict(graphs.take(np.arange(50, 59))) - y[50:]).mean()
    assert error < 0.6 * np.abs(y[:50].mean() - y[50:]).mean()


def test_same_seed_same_model(graphs, labelled):
    def run(seed):
        return MEGNetRegressor(transform="log10", epochs=3, seed=seed).fit(graphs, labelled[1]).predict(graphs)

    np.testing.assert_array_equal(run(5), run(5))
    assert np.abs(run(5) - run(6)).max() > 1e-3


@pytest.mark.parametrize("die", [1, 5, 8])
def test_a_killed_training_goes_on_and_ends_the_same(graphs, labelled, die, monkeypatch):
    monkeypatch.setattr("atomsets_core.models.megnet_regressor.CHECKPOINT_SECONDS", 0.0)
    now = 0.0

    def step(self, real=graph_training._Run.step):
        nonlocal now
        now += 1.0
        real(self)

    monkeypatch.setattr(graph_training._Run, "step", step)
    monkeypatch.setattr(graph_training, "time", SimpleNamespace(monotonic=lambda: now))
    model = MEGNetRegressor(transform="log10", epochs=4, batch_size=20, seed=2)
    whole = clone(model).fit(graphs, labelled[1])
    kept = Kept(die)
    with pytest.raises(KeyboardInterrupt):
        clone(model).fit(graphs, labelled[1], checkpoint=kept)
    resumed, kept.die = clone(model), None
    resumed.fit(graphs, labelled[1], checkpoint=kept)
    assert kept.saves == 3 * 4 - 1
    np.testing.assert_array_equal(resumed.predict(graphs), whole.predict(graphs))
    assert resumed.histories_ == whole.histories_
    assert resumed.histories_[0].seconds == whole.histories_[0].seconds == 3 * 4


def test_a_checkpoint_of_something_else_is_not_used(graphs, labelled, monkeypatch):
    monkeypatch.setattr("atomsets_core.models.megnet_regressor.CHECKPOINT_SECONDS", 0.0)
    model = MEGNetRegressor(transform="log10", epochs=2, seed=2)
    whole = clone(model).fit(graphs, labelled[1])
    other = Kept()
    clone(model).set_params(seed=3).fit(graphs, labelled[1], checkpoint=other)
    for data in (b"rubbish", other.data):
        kept = Kept()
        kept.data = data
        found = clone(model).fit(graphs, labelled[1], checkpoint=kept)
        np.testing.assert_array_equal(found.predict(graphs), whole.predict(graphs))


def test_members_differ_and_their_mean_is_predicted(graphs, labelled):
    epochs = []
    model = MEGNetRegressor(transform="log10", epochs=2, members=3)
    model.fit(graphs, labelled[1], progress=lambda epoch, of, _: epochs.append((epoch, of)))
    assert epochs == [(epoch, 6) for epoch in range(1, 7)]
    value, std = model.predict(graphs, return_std=True)
    assert (std > 0).all()
    assert value.shape == std.shape == (len(graphs),)


def test_validation_rows_choose_the_epoch(graphs, labelled):
    model = MEGNetRegressor(transform="log10", epochs=40, patience=4, learning_rate=2e-2, validation_fraction=0.3)
    (history,) = model.fit(graphs, labelled[1]).histories_
    assert history.best_epoch == 1 + int(np.argmin(history.validation))
    assert len(history.losses) in (40, history.best_epoch + 4)


def test_validation_rows_are_not_trained_on(graphs, labelled):
    """Wrong labels on the validation rows change which epoch is kept, and nothing in the losses."""
    from atomsets_core.models.megnet_regressor import _split

    rows, validation = _split(graphs.formula, 0.2, 0)
    assert 0.1 * len(graphs) < len(validation) < 0.25 * len(graphs)
    assert not set(graphs.formula[rows]) & set(graphs.formula[validation])
    y = np.log10(labelled[1])
    swapped = y.copy()
    swapped[validation] = y[validation][::-1]
    model = MEGNetRegressor(epochs=3, validation_fraction=0.2)
    one, two = (clone(model).fit(graphs, values).histories_[0] for values in (y, swapped))
    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-5)
    assert one.validation != two.validation


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_learns(graphs, labelled, loss):
    model = MEGNetRegressor("megnet", transform="log10", epochs=6, loss=loss, validation_fraction=0)
    losses = model.fit(graphs, labelled[1]).histories_[0].losses
    assert losses[-1] < 0.9 * losses[0]


def test_log_cosh_is_log_cosh():
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(LOSSES["log_cosh"](x), torch.log(torch.cosh(x)))


def test_frozen_blocks_keep_the_parents_weights(graphs, labelled):
    from atomsets_core.parents.megnet.weights import read_weights

    start = read_weights()
    for blocks in (0, 1, 3):
        model = MEGNetRegressor("megnet", frozen_blocks=blocks, epochs=1, transform="log10").fit(graphs, labelled[1])
        changed = {
            name.split("/")[0]
            for name, value in model.networks_[0].weights.items()
            if not np.array_equal(value.numpy(), start[name])
        }
        assert {"dense_19", "dense_20", "dense_21", "set2_set_1", "set2_set_2"} <= changed
        assert [f"meg_net_layer_{k}" in changed for k in (1, 2, 3)] == [k > blocks for k in (1, 2, 3)]
        assert ("embedding_1" in changed) == (blocks == 0)
        for number in range(7, 13):
            assert (f"dense_{number}" in changed) == (blocks < 2)


def test_a_kept_head_starts_as_the_parent(elastic, megnet):
    """With next to no learning the model gives the parent's energies, in their unit."""
    structures = elastic.structures.take(np.arange(0, 200, 10))
    energies = megnet.featurize(structures, ["energy"]).structure["energy"][:, 0].astype(float)
    model = MEGNetRegressor("megnet", head="keep", epochs=1, learning_rate=1e-9, validation_fraction=0)
    np.testing.assert_allclose(model.fit(structures, energies).predict(structures), energies, atol=2e-3)


def test_it_works_in_scikit_learn(labelled):
    structures = labelled[0].take(np.arange(15)).to_pymatgen()
    y = labelled[1][:15]
    model = MEGNetRegressor(epochs=1, transform="log10")
    assert clone(model).get_params() == model.get_params()
    scores = cross_val_score(model, structures, y, cv=3, scoring="neg_mean_absolute_error")
    assert np.isfinite(scores).all()


def test_save_and_load(tmp_path, graphs, labelled):
    model = MEGNetRegressor(transform="log10", epochs=2, members=2).fit(graphs, labelled[1])
    store = Store(tmp_path)
    model.save(store, "m", {"target": "K_VRH"})
    again = MEGNetRegressor.load(store, "m")
    np.testing.assert_array_equal(again.predict(graphs), model.predict(graphs))
    assert again.get_params() == model.get_params()
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]
    config = json.loads((tmp_path / "m/model.json").read_text())
    (tmp_path / "m/model.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(StorageError, match="format 99"):
        MEGNetRegressor.load(store, "m")
    (tmp_path / "m/model.json").write_text(json.dumps(config))
    weights = (tmp_path / "m/model.safetensors").read_bytes()
    (tmp_path / "m/model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(StorageError, match="damaged"):
        MEGNetRegressor.load(store, "m")
    (tmp_path / "m/model.json").write_text(json.dumps({k: v for k, v in config.items() if k != "tensors"}))
    with pytest.raises(StorageError, match=r"model\.safetensors can't be read"):
        MEGNetRegressor.load(store, "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": "nobody"}, "no init 'nobody'"),
        ({"head": "other"}, "no head 'other'"),
        ({"frozen_blocks": 1}, "needs a parent"),
        ({"init": "megnet", "frozen_blocks": 4}, "blocks 1 to 3"),
        ({"init": "megnet", "cutoff": 4.0}, "was trained with cutoff 5 Angstrom, not 4"),
        ({"loss": "cubic"}, "no loss 'cubic'; there are absolute"),
        ({"epochs": 0}, "epochs is 0"),
        ({"validation_fraction": 1.0}, "between 0 and 1"),
        ({"transform": "sqrt"}, "no transform 'sqrt'"),
        ({"learning_rate": 1e6, "epochs": 3}, "training diverged"),
    ],
)
def test_parameters_that_make_no_sense(graphs, labelled, change, message):
    with pytest.raises(ValueError, match=message):
        MEGNetRegressor(**{"epochs": 1, **change}).fit(graphs, labelled[1])


def test_bad_data(graphs, labelled):
    y = labelled[1]
    model = MEGNetRegressor(epochs=1)
    with pytest.raises(NotFittedError):
        model.predict(graphs)
    with pytest.raises(ValueError, match="59 structures and 58 labels"):
        model.fit(graphs, y[:-1])
    with pytest.raises(ValueError, match="label 2 is nan"):
        model.fit(graphs, np.where(np.arange(len(y)) == 2, np.nan, y))
    with pytest.raises(ValueError, match="too few"):
        model.fit(graphs.take([0, 1, 2]), y[:3])
    curium = Structure(Lattice.cubic(4.0), ["Cm", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match="structure 0: MEGNet does not cover Cm"):
        model.fit([curium] * 5, np.ones(5))
    lonely = Structure(Lattice.cubic(20.0), ["He"], [[0, 0, 0]])
    with pytest.raises(ValueError, match="structure 3: isolated atom"):
        model.fit([*labelled[0].take([0, 1, 2]).to_pymatgen(), lonely, lonely], np.ones(5))
    with pytest.raises(ValueError, match="one training; there are 2"):
        MEGNetRegressor(members=2).fit(graphs, y, checkpoint=Kept())
    model.fit(graphs, y)
    with pytest.raises(ValueError, match="cutoff 5, not 4"):
        model.predict(build_graphs(labelled[0].take([0, 1, 2]), 4.0))
