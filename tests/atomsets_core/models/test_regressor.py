"""The regressor behaves as scikit-learn expects, keeps folds apart, calibrates, and survives saving."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from atomsets_core.features.specification import as_batch, parse_features
from atomsets_core.models.networks.training import train
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.storage.store import StorageError, Store

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


@pytest.fixture(scope="module")
def moduli(elastic, elastic_features):
    """Two targets, each missing in some rows, never both."""
    values = elastic.columns[["K_VRH", "G_VRH"]].to_numpy()[:200].copy()
    values[::5, 0] = np.nan
    values[2::5, 1] = np.nan
    return elastic_features[0], values


def test_several_targets_are_learned_from_what_is_there(moduli):
    features, values = moduli
    model = AtomSetsRegressor(**{**SMALL, "epochs": 25}).fit(features, values)
    predicted, std = model.predict(features, return_std=True)
    assert predicted.shape == std.shape == (200, 2)
    for column in (0, 1):
        there = np.isfinite(values[:, column])
        assert np.corrcoef(np.log(values[there, column]), np.log(predicted[there, column]))[0, 1] > 0.75
        inside = (values[there, column] >= model.oof_.lower[there, column]) & (
            values[there, column] <= model.oof_.upper[there, column]
        )
        assert inside.mean() == pytest.approx(0.9, abs=0.02)
    assert model.coverage_.shape == (2,)
    assert model.predict_distribution(features).in_domain.shape == (200,)


def test_a_missing_value_is_not_seen_whatever_stands_for_it(moduli):
    """Rows without a second value train the first target alone: taking the second away changes that one only."""
    features, values = moduli
    only = values[:, 0].copy()
    rows = np.isfinite(only)
    alone = AtomSetsRegressor(**{**SMALL, "folds": 0}).fit(features[rows], only[rows])
    beside = AtomSetsRegressor(**{**SMALL, "folds": 0}).fit(
        features[rows], np.where([True, False], values[rows], np.nan)
    )
    assert beside.network_.target.mean[0, 0, 0] == alone.network_.target.mean[0, 0, 0]
    assert beside.network_.target.scale[0, 0, 1] == 1


def test_transforms_can_differ_by_target(moduli):
    features, values = moduli
    shifted = values.copy()
    shifted[:, 1] -= 1000.0
    model = AtomSetsRegressor(**{**SMALL, "transform": ("log10", "none")}).fit(features, shifted)
    predicted = model.predict(features)
    assert (predicted[:, 0] > 0).all()
    assert (predicted[:, 1] < 0).all()
    with pytest.raises(ValueError, match="3 transforms for 2 targets"):
        AtomSetsRegressor(**{**SMALL, "transform": ("none",) * 3}).fit(features, values)
    with pytest.raises(ValueError, match=r"target 1: label .* must be finite and positive"):
        AtomSetsRegressor(**SMALL).fit(features, shifted)


def test_a_row_without_any_value_is_named(moduli):
    features, values = moduli
    broken = values.copy()
    broken[4] = np.nan
    with pytest.raises(ValueError, match="row 4 of the labels has no value at all"):
        AtomSetsRegressor(**SMALL).fit(features, broken)
    sparse = values.copy()
    sparse[5:, 1], sparse[np.isnan(sparse[:, 0]), 0] = np.nan, 100.0
    with pytest.warns(UserWarning, match="4 labels of target 1 are too few for intervals of 90%: 9 are needed"):
        model = AtomSetsRegressor(**SMALL).fit(features, sparse)
    found = model.predict_distribution(features)
    assert np.isfinite(found.lower[:, 0]).all()
    assert np.isnan(found.lower[:, 1]).all()
    assert np.isfinite(found.std).all()


def test_rows_without_weight_are_not_learned_from(elastic_features):
    features, values = elastic_features
    weight = np.ones(200)
    weight[::4] = 0.0
    changed = np.where(weight == 0, values * 50, values)
    first, second = (
        AtomSetsRegressor(**{**SMALL, "folds": 0}).fit(features, y, sample_weight=weight) for y in (values, changed)
    )
    np.testing.assert_array_equal(first.predict(features), second.predict(features))
    with pytest.raises(ValueError, match="must be finite, not below 0"):
        AtomSetsRegressor(**SMALL).fit(features, values, sample_weight=-weight)


def test_early_stopping_never_touches_the_fold_that_calibrates(elastic_features, monkeypatch):
    from atomsets_core.models import ensemble

    features, values = elastic_features
    asked = {}

    def listening(network, data, y, used, options, *, validation, **others):
        asked.update(used=used, validation=validation)
        return original(network, data, y, used, options, validation=validation, **others)

    original = ensemble.train
    monkeypatch.setattr(ensemble, "train", listening)
    options = {**SMALL, "epochs": 60, "patience": 3, "learning_rate": 0.02}
    model = AtomSetsRegressor(**options).fit(features, values)
    assert len(model.losses_) < 60
    for member in range(4):
        left_out = model.fold_ == member % 2
        assert not asked["used"][member, left_out].any()
        assert not asked["validation"][member, left_out].any()
        assert ((asked["used"][member] > 0) ^ asked["validation"][member])[~left_out].all()
        assert asked["validation"][member].any()
    with pytest.raises(ValueError, match="validation_share must be between 0 and 1"):
        AtomSetsRegressor(**{**options, "validation_share": 0.0}).fit(features, values)


def test_validation_rows_are_whole_formulas_that_the_member_may_see():
    from atomsets_core.models.ensemble import _validation_rows

    groups = np.array([f"F{i // 3}" for i in range(90)], dtype=object)
    seen = np.ones((4, 90), dtype=bool)
    seen[0, :45], seen[1, 45:] = False, False
    chosen = _validation_rows(seen, groups, 0.2, 0)
    assert not (chosen & ~seen).any()
    assert chosen.sum(axis=1).tolist() == [9, 9, 18, 18]
    for row in chosen:
        assert all(len(set(row[groups == name])) == 1 for name in set(groups))
    assert not np.array_equal(chosen[2], chosen[3])


def test_it_works_in_a_pipeline_and_as_a_list_of_formulas():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    formulas = [f"{metal}{anion}" for metal in ("Li", "Na", "K", "Mg", "Ca", "Sr", "Ti", "Zr") for anion in "OSFHCP"]
    values = np.array([len(formula) + "LiNaKMgCa".find(formula[:2]) for formula in formulas], dtype=float)
    options = {**SMALL, "transform": "none", "epochs": 3}
    to_upper = FunctionTransformer(lambda rows: [row.strip() for row in rows])
    pipeline = make_pipeline(to_upper, AtomSetsRegressor("magpie,amount", **options))
    assert cross_val_score(pipeline, [f" {f} " for f in formulas], values, cv=3).shape == (3,)
    search = GridSearchCV(
        AtomSetsRegressor(**options),
        {"features": ["megnet:V0", "amount"], "alpha": [0.0, 1.0]},
        cv=2,
        error_score="raise",
    ).fit(np.array(formulas), values)
    assert search.best_params_["features"] in ("megnet:V0", "amount")
    assert search.predict(["NaCl", "MgO"]).shape == (2,)


def test_constructors_only_store():
    phi, limits = [7], {"folds": 2}
    model = AtomSetsRegressor("megnet:V9", phi=phi, auto_limits=limits, transform="nonsense")
    assert model.get_params()["phi"] is phi
    assert model.get_params()["auto_limits"] is limits
    assert not [name for name in vars(model) if name.endswith("_")]
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert model.set_params(members=3) is model


def test_crystals_and_their_formulas_agree_where_only_elements_count(elastic):
    structures = elastic.structures.take(np.arange(40))
    values = elastic.columns["K_VRH"].to_numpy()[:40]
    model = AtomSetsRegressor("megnet:V0", **SMALL).fit(structures, values)
    formulas = list(structures.formulas)
    np.testing.assert_allclose(model.predict(formulas), model.predict(structures), rtol=1e-4)
    for pooling, alpha in ((("sum",), 1.0), (("mean",), 0.5)):
        other = AtomSetsRegressor("megnet:V0", **{**SMALL, "pooling": pooling, "alpha": alpha}).fit(structures, values)
        with pytest.raises(ValueError, match="was trained on sites of crystals and can't be applied to fractions"):
            other.predict(formulas)


def test_auto_says_what_it_chose_and_never_looks_beyond_its_rows():
    random = np.random.default_rng(0)
    traces = 10.0 ** random.uniform(-4, -2, 60)
    steels = [f"Fe{0.7 - x:.7f}Ni0.3C{x:.7f}" for x in traces]
    limits = {
        "candidates": ["megnet:V0", "megnet:V0,amount", "nowhere:V0"],
        "members": 2,
        "epochs": 60,
    }
    options = {**SMALL, "transform": "none", "epochs": 5, "batch_size": 8}
    model = AtomSetsRegressor("auto", auto_limits=limits, **options).fit(steels, np.log10(traces))
    assert model.choice_.features == "megnet:V0,amount:fraction+log"
    assert model.options_.pooling == model.choice_.parameters["pooling"]
    assert model.get_params()["features"] == "auto"
    error = {row["features"]: row["error"] for row in model.choice_.report if "error" in row}
    assert error["megnet:V0,amount:fraction+log"] < error["megnet:V0"]
    (missing,) = [row for row in model.choice_.report if "error" not in row]
    assert "no parent named 'nowhere'" in missing["left_out"]
    with pytest.raises(ValueError, match="give structures or compositions"):
        AtomSetsRegressor("auto", **options).fit(parse_features("megnet:V0").featurize(as_batch(steels)), traces)


def test_large_data_take_larger_steps_and_small_data_those_they_always_took(elastic_features, monkeypatch):
    features, values = elastic_features
    sizes = []

    def spy(network, data, y, used, options, **how):
        sizes.append(options.batch_size)
        return train(network, data, y, used, options, **how)

    monkeypatch.setattr("atomsets_core.models.ensemble.train", spy)
    few = {"members": 2, "folds": 0, "phi": (8,), "rho": (8,), "epochs": 1}
    AtomSetsRegressor(**few).fit(features, values)
    monkeypatch.setattr("atomsets_core.models.networks.training.FEW", 50)
    for batch_size in ("auto", 16):
        AtomSetsRegressor(batch_size=batch_size, **few).fit(features, values)
    assert sizes == [64, 128, 16]
