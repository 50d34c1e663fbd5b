"""The probability of a class as a number: calibrated, between 0 and 1, sure of nothing far away, and saved whole."""

import numpy as np
import pytest

from atomsets_core.models.trained import load_regressor, regressor_of
from atomsets_core.models.vectors.learners import MIXTURE, NETWORKS
from atomsets_core.models.vectors.odds import CLASS_HEADS
from atomsets_core.models.vectors.probability import ClassProbability, beta_interval
from atomsets_core.storage.store import Store

SMALL = {"features": "megnet:V0+V1+V2+V3", "members": 4, "folds": 4, "epochs": 8, "phi": [16], "rho": [16]}
N = 240


@pytest.fixture(scope="module")
def features(elastic, megnet):
    return megnet.featurize(elastic.structures.take(np.arange(N + 60)), ["V0", "V1", "V2", "V3"])


@pytest.fixture(scope="module")
def labels(elastic):
    return (elastic.columns["K_VRH"].to_numpy()[: N + 60] > 100).astype(float)


@pytest.fixture(scope="module")
def models(features, labels):
    return {name: ClassProbability(head=name, **SMALL).fit(features[np.arange(N)], labels[:N]) for name in CLASS_HEADS}


@pytest.mark.parametrize("name", CLASS_HEADS)
def test_probabilities_tell_new_rows_apart_and_intervals_hold_them(models, features, labels, name):
    found = models[name].predict_distribution(features[np.arange(N, N + 60)])
    assert np.mean((found.value > 0.5) == labels[N:]) > 0.85
    for array in (found.lower, found.value, found.upper, found.std):
        assert array.shape == (60,)
    assert (found.lower >= 0).all()
    assert (found.lower <= found.value).all()
    assert (found.value <= found.upper).all()
    assert (found.upper <= 1).all()
    assert (found.std > 0).all()
    assert (found.std**2 <= found.value * (1 - found.value) + 1e-12).all()
    np.testing.assert_array_equal(found.mean, found.value)


@pytest.mark.parametrize("name", CLASS_HEADS)
def test_out_of_fold_probabilities_are_of_models_that_never_saw_the_row(models, features, labels, name):
    model = models[name]
    tampered = labels[:N].copy()
    rows = model.fold_ == 0
    tampered[rows] = 1.0 - tampered[rows]
    other = ClassProbability(head=name, **SMALL).fit(features[np.arange(N)], tampered, fold=model.fold_)
    # Log odds of fold 0 come from labels of the others alone; only the calibration has seen the tampered ones.
    odds, theirs = (m._by_fold(m._apply(features[np.arange(N)])[0])[0, rows] for m in (model, other))
    np.testing.assert_allclose(odds, theirs)
    assert model.scores_["brier"] < model.share_ * (1 - model.share_)


@pytest.mark.parametrize("name", CLASS_HEADS)
def test_folds_share_the_class_and_keep_formulas_together(models, features, labels, name):
    fold = models[name].fold_
    shares = [labels[:N][fold == k].mean() for k in range(4)]
    assert np.ptp(shares) < 0.1
    formulas = features.formula[:N].astype(str)
    assert all(len(set(fold[formulas == formula])) == 1 for formula in np.unique(formulas))


@pytest.mark.parametrize("name", CLASS_HEADS)
def test_far_away_the_share_of_the_class_is_left_and_nothing_is_sure(models, name):
    model = models[name]
    far = np.array([1e6])
    odds = np.full((model.groups_, 1), 8.0)
    found = model._told(odds.mean(axis=0), odds, far)
    assert found.value[0] == pytest.approx(model.share_)
    assert (found.lower[0], found.upper[0]) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert not found.in_domain[0]
    near = model._told(odds.mean(axis=0), odds, np.zeros(1))
    assert near.value[0] > found.value[0]
    assert near.upper[0] - near.lower[0] < 1


@pytest.mark.parametrize("name", CLASS_HEADS)
def test_a_saved_model_says_the_same(models, features, tmp_path, name):
    store = Store(tmp_path)
    models[name].save(store, "m")
    again = load_regressor(store, "m")
    assert type(again) is ClassProbability
    here, there = (m.predict_distribution(features[np.arange(N, N + 60)]) for m in (models[name], again))
    for column, values in here.columns().items():
        np.testing.assert_array_equal(values, there.columns()[column], err_msg=column)
    left_out = again.predict_left_out(features[np.arange(N)], models[name].fold_)
    # As out of fold, but for the calibration, which is crossed there, and distances.
    assert np.corrcoef(left_out.value, models[name].oof_.value)[0, 1] > 0.98


def test_the_interval_holds_what_another_training_set_says(features, labels):
    parts = np.array_split(np.random.default_rng(0).permutation(N), 2)
    asked = {**SMALL, "features": SMALL["features"], "head": "random forest, composition"}
    one, other = (ClassProbability(**asked).fit(features[np.sort(rows)], labels[np.sort(rows)]) for rows in parts)
    rows = np.arange(N, N + 60)
    said, theirs = one.predict_distribution(features[rows]), other.predict_distribution(features[rows])
    assert np.mean((theirs.value >= said.lower) & (theirs.value <= said.upper)) > 0.75


def test_networks_of_another_head_are_not_trained_again(models, features, labels):
    lent = [models[NETWORKS]]
    mixed = ClassProbability(head=MIXTURE, **SMALL).fit(features[np.arange(N)], labels[:N], fitted=lent)
    assert mixed.network_ is models[NETWORKS].network_
    alone = models[MIXTURE].predict_distribution(features[np.arange(9)])
    np.testing.assert_allclose(mixed.predict_distribution(features[np.arange(9)]).value, alone.value, atol=1e-6)


def test_labels_that_are_no_class_are_refused(features):
    for wrong in (np.full(N, 1.0), np.linspace(0, 1, N), np.arange(N) % 3.0):
        with pytest.raises(ValueError, match="1 for rows of the class and 0 for the others"):
            ClassProbability(**SMALL).fit(features[np.arange(N)], wrong)
    with pytest.raises(ValueError, match="no head 'ridge'; there are AtomSets, logistic regression"):
        ClassProbability(**{**SMALL, "head": "ridge"}).fit(features[np.arange(N)], np.arange(N) % 2.0)


@pytest.mark.parametrize("name", CLASS_HEADS)
def test_formulas_alone_are_enough(elastic, labels, name):
    formulas = [str(formula) for formula in elastic.structures.formulas[: N + 60]]
    model = ClassProbability(head=name, members=2, folds=2, epochs=4).fit(formulas[:N], labels[:N])
    found = model.predict_distribution(formulas[N:])
    assert np.mean((found.value > 0.5) == labels[N:]) > 0.8


def test_the_task_makes_the_model():
    assert type(regressor_of({**SMALL, "task": "class", "head": MIXTURE})) is ClassProbability
    assert type(regressor_of({**SMALL, "task": "class"})) is ClassProbability


def test_beta_intervals_are_those_of_the_distribution():
    from scipy.stats import beta

    p, v = np.array([0.5, 0.9, 0.3]), np.array([0.01, 0.002, 1e-16])
    lower, upper = beta_interval(p, v, 0.9)
    a, b = 0.9 * (0.09 / 0.002 - 1), 0.1 * (0.09 / 0.002 - 1)
    assert beta.cdf(upper[1], a, b) - beta.cdf(lower[1], a, b) == pytest.approx(0.9)
    assert beta.mean(a, b) == pytest.approx(0.9)
    assert (lower[2], upper[2]) == (0.3, 0.3)
    # All of the variance a probability can have: 0 or 1.
    lower, upper = beta_interval(np.array([0.2]), np.array([0.16]), 0.9)
    assert (lower[0], upper[0]) == pytest.approx((0.0, 1.0), abs=1e-6)
