"""Every head has the face of AtomSets: out-of-fold intervals, saving, folds of its own, no unit that matters."""

import json

import numpy as np
import pytest
from sklearn.base import clone

from atomsets_core.features.making import featurize
from atomsets_core.features.specification import as_batch
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.models.saved_models import read_config
from atomsets_core.models.trained import load_model, load_regressor, regressor_of
from atomsets_core.models.vectors.learners import HEADS
from atomsets_core.models.vectors.regressor import HeadRegressor
from atomsets_core.storage.store import StorageError, Store

SMALL = {"features": "megnet:V0", "members": 4, "folds": 2, "epochs": 4, "phi": (8,), "rho": (8,), "device": "cpu"}
NETWORKS = "AtomSets + Gaussian process"
ALONE = [name for name in HEADS if name != NETWORKS]
METALS = ("Mg", "Ca", "Sr", "Ba", "Ti", "Zr", "Hf", "V", "Nb", "Ta", "Cr", "Mo", "W", "Mn", "Re")
FORMULAS = [f"{metal}{anion}" for metal in METALS for anion in ("O", "S", "N2", "C")]


@pytest.fixture(scope="module")
def offered():
    """Features of 60 compounds, and values that follow from their elements."""
    features = featurize(as_batch(FORMULAS), "megnet:V0")
    random = np.random.default_rng(0)
    per_element = dict(zip([*METALS, "O", "S", "N2", "C"], random.normal(size=len(METALS) + 4), strict=True))
    values = [per_element[f[:2] if f[:2] in METALS else f[:1]] + per_element[f[2:] or f[1:]] if f[:2] in METALS
              else per_element[f[:1]] + per_element[f[1:]] for f in FORMULAS]  # fmt: skip
    return features, 10.0 ** (0.3 * np.array(values) + 0.02 * random.normal(size=len(values)))


@pytest.fixture(scope="module")
def fitted(offered):
    features, values = offered
    return {name: HeadRegressor(head=name, transform="log10", **SMALL).fit(features, values) for name in HEADS}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_and_says_how_far_it_may_be_off(fitted, offered, name):
    features, values = offered
    model = fitted[name]
    found = model.predict_distribution(features)
    assert found.value.shape == found.lower.shape == found.std.shape == (60,)
    assert (found.std > 0).all()
    assert ((found.lower < found.value) & (found.value < found.upper)).all()
    assert np.corrcoef(model.oof_.mean, np.log10(values))[0, 1] > 0.4
    assert 0.75 <= model.coverage_ <= 1
    assert clone(model).get_params() == model.get_params()
    assert model.pooled(features).shape == (60, len(model.domain_.mean))
    # No rows, no predictions.
    assert model.predict(features[:0]).shape == (0,)


@pytest.mark.parametrize("name", HEADS)
def test_out_of_fold_predictions_know_nothing_of_their_labels(fitted, offered, name):
    features, values = offered
    model, fold = fitted[name], fitted[name].fold_ == 0
    changed = values.copy()
    changed[fold] = np.random.default_rng(0).permutation(changed[fold]) * 3.0
    other = HeadRegressor(head=name, transform="log10", **SMALL).fit(features, changed)
    np.testing.assert_allclose(other.oof_.mean[fold], model.oof_.mean[fold], rtol=0, atol=1e-12)
    assert not np.allclose(other.oof_.mean[~fold], model.oof_.mean[~fold], atol=1e-3)
    left_out = model.predict_left_out(features, model.fold_)
    # Outside the domain predictions fade, and a row that was learned from is no distance from itself.
    inside = model.oof_.in_domain
    assert inside.mean() > 0.9
    np.testing.assert_allclose(left_out.mean[inside], model.oof_.mean[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_head_predicts_the_same(fitted, offered, name, tmp_path):
    features, _ = offered
    store = Store(tmp_path)
    fitted[name].save(store, "m", {"unit": "GPa"})
    model = load_model(store, "m")
    assert type(model) is HeadRegressor
    assert model.get_params()["head"] == name
    before, after = fitted[name].predict_distribution(features), model.predict_distribution(features)
    for field in ("value", "lower", "upper", "mean", "std", "distance"):
        np.testing.assert_allclose(getattr(after, field), getattr(before, field), rtol=1e-9)
    assert read_config(store, "m")["about"] == {"unit": "GPa"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"model.safetensors", "model.json"}
    with pytest.raises(StorageError, match="of the kind 'HeadRegressor', not AtomSetsRegressor"):
        AtomSetsRegressor.load(store, "m")
    assert load_regressor(store, "m").n_train_ == 60


def test_folds_that_are_given_are_kept(offered):
    features, values = offered
    fold = np.arange(60) % 3
    model = HeadRegressor(head="ridge", **SMALL).fit(features, values, fold=fold)
    assert model.groups_ == 3
    np.testing.assert_array_equal(model.fold_, fold)
    assert len(model.learners_["ridge"]) == 3


def test_without_folds_there_are_no_intervals(offered):
    features, values = offered
    model = HeadRegressor(head="Gaussian process", **{**SMALL, "folds": 0}).fit(features, values)
    assert model.oof_ is None
    assert np.isnan(model.predict_distribution(features).lower).all()


def test_the_deviation_of_a_learner_reaches_the_calibration(fitted, offered):
    features, _ = offered
    model = fitted["Gaussian process"]
    members, _ = model._apply(features)
    own = [
        learner.predict(model.pooled(features).astype(np.float64)) for learner in model.learners_["Gaussian process"]
    ]
    for fold, (mean, deviation) in enumerate(own):
        np.testing.assert_allclose(members[fold::2, :, 0].mean(axis=0), mean, rtol=1e-9)
        np.testing.assert_allclose(members[fold::2, :, 0].std(axis=0, ddof=1), deviation, rtol=1e-6)


def test_a_mean_takes_what_others_have_learned_and_says_the_same(fitted, offered, monkeypatch):
    features, values = offered
    networks = AtomSetsRegressor(transform="log10", **SMALL).fit(features, values)
    parts = [networks, fitted["ridge"], fitted["Gaussian process"]]
    monkeypatch.setattr("atomsets_core.models.ensemble.train", None)
    monkeypatch.setattr("atomsets_core.models.vectors.learners.fit_gaussian_process", None)
    model = HeadRegressor(head=NETWORKS, transform="log10", **SMALL).fit(features, values, fitted=parts)
    np.testing.assert_allclose(
        model.predict_distribution(features).mean, fitted[NETWORKS].predict_distribution(features).mean, atol=1e-5
    )
    expected = (networks.oof_.mean + fitted["Gaussian process"].oof_.mean) / 2
    np.testing.assert_allclose(model.oof_.mean, expected, atol=1e-5)
    # Networks of other sizes are not what this head holds.
    other = HeadRegressor(head=NETWORKS, transform="log10", **{**SMALL, "phi": (4,)})
    with pytest.raises(TypeError):
        other.fit(features, values, fitted=parts)


def test_what_a_head_does_not_take_is_refused(offered):
    features, values = offered
    with pytest.raises(ValueError, match="no head 'tea leaves'; there are ridge"):
        HeadRegressor(head="tea leaves", **SMALL).fit(features, values)
    with pytest.raises(ValueError, match="learns one target, not 2"):
        HeadRegressor(head="ridge", **SMALL).fit(features, np.stack([values, values], axis=1))
    with pytest.raises(ValueError, match="rows of equal weight alone"):
        HeadRegressor(head="ridge", **SMALL).fit(features, values, sample_weight=np.arange(60) + 1.0)
    assert type(regressor_of(SMALL)) is AtomSetsRegressor
    assert regressor_of({**SMALL, "head": "ridge"}).head == "ridge"


@pytest.mark.parametrize("name", HEADS)
def test_every_flipped_bit_of_a_head_is_noticed(fitted, name, tmp_path):
    store = Store(tmp_path)
    fitted[name].save(store, "m")
    whole = store.read("m/model.safetensors")
    random = np.random.default_rng(0)
    for position in [0, 9, *random.integers(0, len(whole), 6).tolist(), len(whole) - 1]:
        broken = bytearray(whole)
        broken[position] ^= 1 << int(random.integers(8))
        store.write("m/model.safetensors", bytes(broken))
        with pytest.raises(StorageError, match="damaged"):
            load_model(store, "m")


def rewritten(store, change_arrays=None, change_config=None):
    """The model with other content and checksums that fit."""
    import hashlib

    import safetensors.torch

    from atomsets_core.models.saved_models import _checksum

    arrays = safetensors.torch.load(store.read("m/model.safetensors"))
    config = store.read_json("m/model.json")
    if change_arrays:
        change_arrays(arrays)
    if change_config:
        change_config(config)
    data = safetensors.torch.save(arrays)
    config["tensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    config["checksum"] = _checksum(config)
    store.write("m/model.safetensors", data)
    store.write("m/model.json", json.dumps(config).encode())


@pytest.mark.parametrize("name", HEADS)
def test_arrays_that_are_not_those_of_the_head_are_refused(fitted, name, tmp_path):
    store = Store(tmp_path)
    fitted[name].save(store, "m")
    _, arrays = fitted[name]._state()
    for key in list(arrays)[:6]:
        fitted[name].save(store, "m")
        rewritten(store, lambda found, key=key: found.pop(f"state.{key}"))
        with pytest.raises(StorageError, match="the model is damaged"):
            load_model(store, "m")
    for change in (
        lambda config: config["options"].update(head="tea leaves"),
        lambda config: config["options"].update(head="random forest" if name != "random forest" else "ridge"),
        lambda config: config["state"].update(groups=3),
        lambda config: config["state"].update(groups=0),
        lambda config: config["parameters"].update(no_such_parameter=1),
    ):
        fitted[name].save(store, "m")
        rewritten(store, None, change)
        with pytest.raises(StorageError, match="the model is damaged"):
            load_model(store, "m")
    fitted[name].save(store, "m")
    rewritten(store)
    assert load_model(store, "m").n_train_ == 60


def test_a_forest_that_goes_in_circles_is_refused(fitted, tmp_path):
    store = Store(tmp_path)
    fitted["random forest"].save(store, "m")

    def change(arrays):
        arrays["state.random forest.1.children"][0] = 0

    rewritten(store, change)
    with pytest.raises(StorageError, match=r"the model is damaged \(.*child that can't be its own"):
        load_model(store, "m")


UNITS = [1e-12, 1e12]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", ALONE)
def test_the_unit_of_the_values_changes_no_ranking(fitted, offered, name, unit):
    features, values = offered
    here = HeadRegressor(head=name, **SMALL).fit(features, values).predict_distribution(features)
    there = HeadRegressor(head=name, **SMALL).fit(features, unit * values).predict_distribution(features)
    np.testing.assert_allclose(there.value, unit * here.value, rtol=1e-4)
    np.testing.assert_allclose(there.std, unit * here.std, rtol=1e-3)
    np.testing.assert_allclose(there.upper, unit * here.upper, rtol=1e-3)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("loss", ["absolute", "squared"])
@pytest.mark.parametrize("head", ["AtomSets", NETWORKS])
def test_the_unit_of_the_values_changes_no_ranking_of_networks(offered, head, loss, unit):
    features, values = offered
    parameters = {**SMALL, "loss": loss, **({} if head == "AtomSets" else {"head": head})}
    here = regressor_of(parameters).fit(features, values).predict_distribution(features)
    there = regressor_of(parameters).fit(features, unit * values).predict_distribution(features)
    np.testing.assert_allclose(there.value, unit * here.value, rtol=1e-3)
    np.testing.assert_allclose(there.std, unit * here.std, rtol=1e-2)
