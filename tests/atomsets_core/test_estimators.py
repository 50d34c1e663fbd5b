"""The regressor behaves as scikit-learn expects, keeps folds apart, calibrates, and survives saving."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from atomsets_core.estimators import AtomSetsRegressor
from atomsets_core.specification import parse_features
from atomsets_core.storage import StorageError, Store

SMALL = {"members": 4, "folds": 2, "epochs": 8, "phi": (16,), "rho": (16,), "transform": "log10"}


@pytest.fixture(scope="module")
def fitted(elastic_features):
    features, values = elastic_features
    return AtomSetsRegressor(**SMALL).fit(features, values)


def test_fit_and_predict(fitted, elastic_features):
    features, values = elastic_features
    value, std = fitted.predict(features, return_std=True)
    assert value.shape == std.shape == (200,)
    assert (value > 0).all()
    assert (std > 0).all()
    assert fitted.score(features, values) > 0.5


def test_structures_and_their_features_predict_the_same(fitted, elastic, elastic_features):
    structures = elastic.structures.take(np.arange(5))
    expected = fitted.predict(elastic_features[0][:5])
    np.testing.assert_allclose(fitted.predict(structures), expected, rtol=1e-4)
    np.testing.assert_allclose(fitted.predict(structures.to_pymatgen()), expected, rtol=1e-4)


def test_clone_grid_search_and_cross_validation(elastic_features):
    features, values = elastic_features
    model = AtomSetsRegressor(**{**SMALL, "epochs": 2})
    assert clone(model).get_params() == model.get_params()
    assert cross_val_score(model, features, values, cv=2).shape == (2,)
    search = GridSearchCV(model, {"phi": [(8,), (16,)]}, cv=2).fit(features, values)
    assert search.best_params_["phi"] in [(8,), (16,)]


def test_rows_of_one_formula_share_a_fold(fitted, elastic_features):
    features, _ = elastic_features
    folds = {}
    for formula, fold in zip(features.formula, fitted.fold_, strict=True):
        folds.setdefault(formula, set()).add(int(fold))
    assert all(len(found) == 1 for found in folds.values())
    assert sorted(set(fitted.fold_)) == [0, 1]
    assert abs(int((fitted.fold_ == 0).sum()) - 100) < 10


def test_out_of_fold_predictions_know_nothing_of_their_labels(fitted, elastic_features):
    features, values = elastic_features
    changed = values.copy()
    fold = fitted.fold_ == 0
    changed[fold] = np.random.default_rng(0).permutation(changed[fold]) * 3.0
    other = AtomSetsRegressor(**SMALL).fit(features, changed)
    np.testing.assert_array_equal(other.oof_.mean[fold], fitted.oof_.mean[fold])


def test_intervals_cover_what_they_say(fitted, elastic_features):
    _, values = elastic_features
    inside = (values >= fitted.oof_.lower) & (values <= fitted.oof_.upper)
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    assert 0.8 < fitted.coverage_ < 0.97


def test_a_crystal_unlike_all_others_is_outside_the_domain(fitted, elastic_features):
    features, _ = elastic_features
    strange = features[:3]
    for level in strange.sites:
        strange.sites[level][...] += 30.0
    assert not fitted.predict_distribution(strange).in_domain.any()
    assert fitted.predict_distribution(features).in_domain.mean() > 0.9


def test_saved_and_loaded_it_predicts_the_same(fitted, elastic_features, tmp_path):
    features, _ = elastic_features
    store = Store(tmp_path)
    fitted.save(store, "model", {"target": "K_VRH"})
    loaded = AtomSetsRegressor.load(store, "model")
    expected, found = fitted.predict_distribution(features), loaded.predict_distribution(features)
    for name in ("value", "lower", "upper", "std", "distance", "in_domain"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors"}
    assert json.loads((tmp_path / "model/model.json").read_text())["about"] == {"target": "K_VRH"}


def test_damaged_and_newer_models_are_refused(fitted, tmp_path):
    store = Store(tmp_path)
    fitted.save(store, "model")
    whole = store.read("model/model.safetensors")
    store.write("model/model.safetensors", whole[:-100])
    with pytest.raises(StorageError, match="the model is damaged"):
        AtomSetsRegressor.load(store, "model")
    store.write("model/model.safetensors", whole)
    config = store.read_json("model/model.json")
    store.write_json("model/model.json", {**config, "format_version": 99})
    with pytest.raises(StorageError, match="model format 99 can't be read"):
        AtomSetsRegressor.load(store, "model")
    with pytest.raises(StorageError, match="does not exist"):
        AtomSetsRegressor.load(store, "nowhere")


def test_structure_levels_join_after_pooling(elastic, megnet):
    structures, values = elastic.structures.take(np.arange(60)), elastic.columns["K_VRH"].to_numpy()[:60]
    for levels in ("V3+v", "f2"):
        features = megnet.featurize(structures, levels.split("+"))
        model = AtomSetsRegressor(**{**SMALL, "features": f"megnet:{levels}"}).fit(features, values)
        assert np.isfinite(model.predict(features)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -3.0])
def test_unusable_labels_are_named(elastic_features, bad):
    features, values = elastic_features
    broken = values.copy()
    broken[7] = bad
    with pytest.raises(ValueError, match=r"label 7 is .*must be finite and positive"):
        AtomSetsRegressor(**SMALL).fit(features, broken)


def test_mistakes_are_named(fitted, elastic_features, elastic, megnet):
    features, values = elastic_features
    with pytest.raises(NotFittedError):
        AtomSetsRegressor().predict(features)
    with pytest.raises(ValueError, match="200 structures and 100 labels"):
        AtomSetsRegressor(**SMALL).fit(features, values[:100])
    with pytest.raises(ValueError, match="3 labelled structures are too few"):
        AtomSetsRegressor(**SMALL).fit(features[:3], values[:3])
    with pytest.raises(ValueError, match="no level 'V9'"):
        parse_features("megnet:V9")
    with pytest.raises(KeyError, match="no site level 'V1'"):
        fitted.predict(megnet.featurize(elastic.structures.take([0]), ["V0"]))


def test_traces_are_seen_when_amounts_are_levels_and_weights_are_flat():
    """The value depends on the amount of one trace element, which vanishes in a mean weighted by the fractions."""
    random = np.random.default_rng(0)
    traces = 10.0 ** random.uniform(-4, -2, 80)
    steels = [f"Fe{0.7 - x:.7f}Ni0.3C{x:.7f}" for x in traces]
    truth = np.log10(traces)
    options = {**SMALL, "transform": "none", "epochs": 60, "members": 2, "batch_size": 8}
    error = {}
    for features, alpha in (("megnet:V0", 1.0), ("megnet:V0,amount", 0.0)):
        model = AtomSetsRegressor(features, alpha=alpha, **options).fit(steels[:60], truth[:60])
        error[features] = np.abs(model.predict(steels[60:]) - truth[60:]).mean()
    assert error["megnet:V0"] > 0.35
    assert error["megnet:V0,amount"] < 0.1


def test_several_parents_are_seen_side_by_side(elastic):
    structures, values = elastic.structures.take(np.arange(60)), elastic.columns["K_VRH"].to_numpy()[:60]
    model = AtomSetsRegressor(**{**SMALL, "features": "megnet:V0+V1,chgnet:a0+mean(a1),magpie,amount"})
    model.fit(structures, values)
    assert model.network_.site_input.mean.shape[2] == 16 + 32 + 64 + 22 + 2
    assert model.network_.structure_input.mean.shape[2] == 64
    assert np.isfinite(model.predict(structures.take([3, 1]))).all()
    other = parse_features("megnet:V0+V1,chgnet:a0+a1,magpie,amount").featurize(structures)
    other.parents["magpie"] = "0" * 16
    with pytest.raises(ValueError, match="trained on features of parent digest"):
        model.predict(other)
