"""A challenger must be better twice; folds never change; what a model left out is what it never saw."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.campaigns import duels
from atomsets_core.campaigns.duels import CHALLENGER, CHAMPION
from atomsets_core.campaigns.frozen_folds import FrozenFolds, freeze, read_frozen
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.storage.store import StorageError, Store


def test_folds_of_old_rows_never_change_whatever_comes():
    frozen = FrozenFolds(5, {"NaCl": 3, "MgO": 1})
    old = ["NaCl", "MgO", "CaO", "NaCl"]
    first = frozen.assign(old)
    assert first[[0, 1, 3]].tolist() == [3, 1, 3]
    many = [f"X{i}" for i in range(1000)]
    grown = frozen.assign(many[:500] + old + many[500:])
    assert grown[500:504].tolist() == first.tolist()
    # what comes later spreads over all folds: 200 each on average, within four standard deviations
    assert np.abs(np.bincount(frozen.assign(many), minlength=5) - 200).max() < 4 * np.sqrt(1000 * 0.2 * 0.8)


def test_frozen_folds_are_read_back_or_refused(tmp_path):
    store = Store(tmp_path)
    table = pa.table({"formula": ["NaCl", "MgO", "NaCl"], "fold": [0, 1, 0], "value": [1.0, 2.0, 3.0]})
    store.write_table("models/a/out_of_fold.parquet", table)
    frozen = freeze(store, "models/a")
    assert (frozen.n, frozen.of) == (2, {"NaCl": 0, "MgO": 1})
    assert read_frozen(store, "models/a", frozen.digest) == frozen
    store.write_table("models/a/out_of_fold.parquet", table.set_column(1, "fold", pa.array([1, 0, 1])))
    with pytest.raises(StorageError, match="was changed"):
        read_frozen(store, "models/a", frozen.digest)
    store.write_table("models/b/out_of_fold.parquet", table.set_column(1, "fold", pa.array([-1, -1, -1])))
    with pytest.raises(StorageError, match="without folds"):
        freeze(store, "models/b")


@pytest.fixture(scope="module")
def trained(elastic_features):
    features, values = elastic_features
    options = {"members": 4, "folds": 2, "epochs": 3, "phi": [8], "rho": [8], "transform": "log10"}
    model = AtomSetsRegressor("megnet:V0+V1+V2+V3", **options).fit(features[np.arange(120)], values[:120])
    return model, features, values


def test_left_out_predictions_are_the_out_of_fold_ones(trained, tmp_path):
    model, features, _ = trained
    store = Store(tmp_path)
    model.save(store, "m")
    again = AtomSetsRegressor.load(store, "m").predict_left_out(features[np.arange(120)], model.fold_)
    # Those outside the domain fade, and a row that was learned from is no distance from itself.
    inside = model.oof_.in_domain
    np.testing.assert_allclose(again.mean[inside], model.oof_.mean[inside], rtol=1e-5, atol=1e-6)
    assert not np.allclose(again.mean, model.predict_distribution(features[np.arange(120)]).mean, rtol=1e-4)


def test_left_out_predictions_are_of_the_members_that_left_the_fold_out(trained):
    model, features, _ = trained
    rows = features[np.arange(120, 200)]
    folds = np.arange(80) % 2
    said = model.predict_left_out(rows, folds)
    members, _ = model._apply(rows)
    for k in range(2):
        near = (folds == k) & said.in_domain
        np.testing.assert_allclose(said.mean[near], members[k::2, near, 0].mean(axis=0), rtol=1e-6)
    # a fold that held no row when the model was trained: nobody has seen it, everybody answers
    everybody = model.predict_left_out(rows, np.full(80, 7))
    np.testing.assert_allclose(everybody.mean, model.predict_distribution(rows).mean, rtol=1e-6)


def test_given_folds_are_used(trained):
    _, features, values = trained
    fold = FrozenFolds(3, {}).assign(features.formula)
    options = {"members": 3, "folds": 2, "epochs": 1, "phi": [4], "rho": [4], "transform": "log10"}
    model = AtomSetsRegressor("megnet:V0+V1+V2+V3", **options).fit(features, values, fold=fold)
    np.testing.assert_array_equal(model.fold_, fold)
    assert model.groups_ == 3
    for wrong, message in ((fold[:-1], "shape"), (fold - 1, "from 0"), (fold + 0.5, "whole numbers")):
        with pytest.raises(ValueError, match=message):
            AtomSetsRegressor("megnet:V0+V1+V2+V3", **options).fit(features, values, fold=wrong)


def errors(rng, n, champion, challenger):
    truth = rng.normal(size=n)
    return truth, truth + rng.normal(0, champion, n), truth + rng.normal(0, challenger, n)


def test_on_folds():
    rng = np.random.default_rng(0)
    groups = [f"g{i // 2}" for i in range(400)]
    better = duels.on_folds(*errors(rng, 400, 0.10, 0.07), groups)
    assert better["better"]
    assert better["mae_challenger"] < better["mae_champion"]
    assert not duels.on_folds(*errors(rng, 400, 0.07, 0.10), groups)["better"]
    same = errors(rng, 400, 0.1, 0.1)[:2]
    assert not duels.on_folds(*same, same[1], groups)["better"]


def test_luck_is_not_better():
    """Equally good models: the challenger takes over in about one of ten tries, as CONFIDENCE says, and no more."""
    rng = np.random.default_rng(1)
    groups = [f"g{i}" for i in range(200)]
    wins = np.mean([duels.on_folds(*errors(rng, 200, 0.1, 0.1), groups)["better"] for _ in range(60)])
    assert wins < 0.25


def test_copies_of_one_formula_are_no_evidence():
    """One formula with 50 rows that the challenger happens to know better against many with one row each."""
    truth = np.zeros(60)
    champion, challenger = np.full(60, 0.10), np.full(60, 0.10)
    challenger[:50] = 0.05
    challenger[50:] = 0.13
    alone = duels.on_folds(truth, champion, challenger, [f"g{i}" for i in range(60)])
    together = duels.on_folds(truth, champion, challenger, ["g0"] * 50 + [f"g{i}" for i in range(1, 11)])
    assert alone["better"]
    assert not together["better"]


def runs(r_precision, mae, kind="ucb", n=3):
    return [{"acquisition": {kind: r_precision, "mean": 0.0}, "mae_outside": mae}] * n


@pytest.mark.parametrize(
    ("champion", "challenger", "better"),
    [
        ((0.60, 0.10), (0.90, 0.12), True),  # finds far more
        ((0.90, 0.10), (0.60, 0.05), False),  # finds far less
        ((0.80, 0.10), (0.79, 0.09), True),  # as many, noise aside, and errs less
        ((0.80, 0.10), (0.81, 0.11), False),  # as many, noise aside, and errs more
        ((0.80, 0.10), (0.80, 0.10), False),  # the same: the champion stays
    ],
)
def test_on_discovery(champion, challenger, better):
    kinds = {CHAMPION: "ucb", CHALLENGER: "ucb"}
    found = duels.on_discovery(runs(*champion), runs(*challenger), kinds, n_hidden=100)
    assert found["better"] is better
    assert found["r_precision_challenger"] == pytest.approx(challenger[0])


def test_verdict_needs_both():
    folds = {"n": 100, "mae_champion": 0.1, "mae_challenger": 0.09, "share": 0.97, "better": True}
    kinds = {CHAMPION: "ucb", CHALLENGER: "ucb"}
    won = duels.on_discovery(runs(0.6, 0.1), runs(0.9, 0.1), kinds, 100)
    lost = duels.on_discovery(runs(0.9, 0.1), runs(0.6, 0.1), kinds, 100)
    assert duels.verdict(folds, won)["promote"]
    assert duels.verdict(folds, None)["promote"]
    assert not duels.verdict(folds, lost)["promote"]
    assert "not better on the simulated discovery" in duels.verdict(folds, lost)["why"]
    worse = {**folds, "better": False}
    assert not duels.verdict(worse, won)["promote"]
    assert "the frozen folds and the simulated discovery" in duels.verdict(worse, lost)["why"]


def test_probabilities_duel_by_their_log_loss():
    random = np.random.default_rng(0)
    p = random.random(400)
    truth = (random.random(400) < p).astype(float)
    groups = [f"F{k}" for k in range(400)]
    surer = np.where(p > 0.5, 0.999, 0.001)
    found = duels.on_folds(truth, surer, p, groups, loss="log_loss")
    assert found["better"]
    assert found["log_loss_challenger"] == pytest.approx(-np.mean(np.log(np.where(truth > 0.5, p, 1 - p))))
    # A mean error would have it the other way: it rewards what is surer than it may be.
    assert np.abs(surer - truth).mean() < np.abs(p - truth).mean()
    runs = [{"acquisition": {"mean": 0.8}, "brier": brier} for brier in (0.2, 0.1)]
    discovery = duels.on_discovery(runs[:1], runs[1:], {CHAMPION: "mean", CHALLENGER: "mean"}, 10)
    assert discovery["better"]
    told = duels.verdict(found, discovery)
    assert told["promote"]
    assert "it has a log loss of" in told["why"]
    assert "of the hidden class" in told["why"]
    assert "a Brier score of 0.1 against 0.2" in told["why"]
