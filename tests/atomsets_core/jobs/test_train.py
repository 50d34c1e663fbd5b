"""From a source to a model: what is learned from, what is held out, and that intervals hold there."""

import numpy as np
import pytest

from atomsets_core.features.making import featurize
from atomsets_core.jobs.train import labels_of, train_on
from atomsets_core.models.checks import held_out_check
from atomsets_core.models.classifier import AtomSetsClassifier
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.sources.pull import pull

SMALL = {"members": 4, "folds": 2, "epochs": 15, "phi": (32,), "rho": (32,), "transform": "log10"}


def test_intervals_hold_on_crystals_never_seen(elastic):
    """118 structures, then as many others: the standard error of the share inside is 2 %."""
    model = AtomSetsRegressor("megnet:V0+V1", **SMALL)
    features = featurize(elastic.structures, "megnet:V0+V1")
    values = elastic.columns["K_VRH"].to_numpy()
    checks = [held_out_check(model, features, values, 0.1, seed) for seed in (0, 1)]
    assert np.mean([check["coverage"] for check in checks]) == pytest.approx(0.9, abs=0.06)
    for check in checks:
        assert check["n_train"] + check["n_test"] == 1181
        assert check["n_test"] == pytest.approx(118, abs=3)
        assert 0 < check["width"] < 1.5
        assert check["mae"] < 0.1
    assert not hasattr(model, "network_"), "the check leaves the model alone"


def test_with_one_member_a_fold_intervals_rest_on_distance_alone(elastic_features):
    features, values = elastic_features
    model = AtomSetsRegressor(**{**SMALL, "members": 2, "features": "megnet:V0+V1+V2+V3"}).fit(features, values)
    found, (calibrator,) = model.predict_distribution(features), model.calibrators_
    remote = found.distance / model.domain_.threshold
    np.testing.assert_allclose(found.std, calibrator.std(np.zeros(200), remote), rtol=1e-6)


def test_held_out_rows_touch_nothing(elastic_features):
    features, values = elastic_features
    model = AtomSetsRegressor("megnet:V0+V1+V2+V3", **{**SMALL, "epochs": 3})
    before = held_out_check(model, features, values, 0.2)
    from atomsets_core.models.folds import group_folds

    changed = values.copy()
    test = group_folds(features.formula, 5, 0) == 0
    assert before["n_test"] == test.sum()
    changed[test] *= 1000.0
    after = held_out_check(model, features, changed, 0.2)
    assert after["width"] == before["width"]
    assert after["mae"] > before["mae"] + 1
    with pytest.raises(ValueError, match=r"a share of 0\.0 of 200 rows can't be held out"):
        held_out_check(model, features, values, 0.0)


def test_several_targets_keep_rows_with_any_value(elastic):
    pulled = elastic
    columns = pulled.columns.iloc[:60].copy()
    columns.loc[columns.index[:3], "K_VRH"] = np.nan
    columns.loc[columns.index[2:5], "G_VRH"] = np.nan
    few = type(pulled)(pulled.structures.take(np.arange(60)), columns, [], pulled.provenance)
    model = AtomSetsRegressor("megnet:V0", **{**SMALL, "epochs": 2})
    trained = train_on(few, ["K_VRH", "G_VRH"], model)
    assert trained.values.shape == (59, 2)
    assert np.isnan(trained.values).sum() == 4
    assert [refusal.reason for refusal in trained.refused] == ["K_VRH is missing"]
    with pytest.raises(ValueError, match="a classifier learns one column"):
        labels_of(few, ["K_VRH", "G_VRH"], AtomSetsClassifier())


def test_classes_of_a_table_are_what_they_say(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,flag,number\nFe,True,1.0\nNaCl,False,0.0\nMgO,,2.0\nCu,True,\n")
    pulled = pull(str(path), compositions=True)
    usable, values, refused = labels_of(pulled, ["flag"], AtomSetsClassifier())
    assert usable.tolist() == [True, True, False, True]
    assert values[usable].tolist() == [True, False, True]
    assert [refusal.reason for refusal in refused] == ["flag is missing"]
    assert labels_of(pulled, ["number"], AtomSetsClassifier())[1][:3].tolist() == [1, 0, 2]
