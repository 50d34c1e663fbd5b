"""A hidden class: nothing of its chemistry is learned from, seeds hide others, and scores are of probabilities."""

import numpy as np
import pytest

from atomsets_core.discovery.choice import CLASS_BY_COST, CLASS_PREFERRED, campaign_heads, choose, recipes
from atomsets_core.discovery.classes import ClassDesign, design_of, learnable, scored_by
from atomsets_core.discovery.heads import Rows
from atomsets_core.discovery.simulate import Design, answer, summarize
from atomsets_core.models import CLASS_HEADS, ClassProbability, composition_statistics
from atomsets_core.models.trained import regressor_of

DESIGN = ClassDesign()
SMALL = {"features": "megnet:V0+V1+V2+V3", "members": 2, "folds": 2, "epochs": 3, "phi": [8], "rho": [8],
         "task": "class", "coverage": 0.9}  # fmt: skip


@pytest.fixture(scope="module")
def rows(elastic, megnet):
    return Rows(megnet.featurize(elastic.structures.take(np.arange(400)), ["V0", "V1", "V2", "V3"]))


@pytest.fixture(scope="module")
def y(elastic):
    return (elastic.columns["K_VRH"].to_numpy()[:400] > 120).astype(float)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_from_the_hidden_chemistry_is_learned_from(rows, y, seed):
    formula = rows.formula
    split = DESIGN.holdout(y, formula, seed)
    k, m = round(0.1 * y.sum()), int(0.2 * (y == 0).sum())
    assert split.sizes["n_hidden"] == k
    assert split.sizes["n_pool"] == k + m
    assert sum(len(part) for part in (split.train, split.pool, split.dropped)) == len(y)
    assert (y[split.pool[split.hidden]] == 1).all()
    assert (y[split.pool[~split.hidden]] == 0).all()
    assert not set(formula[split.train]) & set(formula[split.pool])
    # No training row lies as near to the middle of the hidden ones as the farthest of them does, or hardly any.
    vectors = composition_statistics(formula.astype(str).tolist())
    scale = vectors.std(axis=0)
    vectors = (vectors - vectors.mean(axis=0)) / np.where(scale > 1e-6, scale, 1.0)
    hidden = vectors[split.pool[split.hidden]]
    gap = np.linalg.norm(vectors - hidden.mean(axis=0), axis=1)
    assert np.mean(gap[split.train] < np.median(gap[split.pool[split.hidden]])) < 0.02


def test_every_seed_hides_another_chemistry_the_same_each_time(rows, y):
    found = [DESIGN.holdout(y, rows.formula, seed) for seed in range(5)]
    assert len({split.what for split in found}) == 5
    hidden = [set(split.pool[split.hidden].tolist()) for split in found]
    assert all(len(a & b) < len(a) / 2 for i, a in enumerate(hidden) for b in hidden[:i])
    again = DESIGN.holdout(y, rows.formula, 3)
    np.testing.assert_array_equal(again.pool, found[3].pool)
    assert again.what == found[3].what


def test_too_few_to_hide_some_says_so(rows, y):
    few = np.zeros(400)
    few[:7] = 1.0
    with pytest.raises(ValueError, match="7 rows of the class and 393 others are too few to hide 5"):
        DESIGN.holdout(few, rows.formula, 0)
    assert learnable(np.array([0.0, 0, 1, 1]), np.array(["A", "B", "C", "D"], dtype=object))
    assert not learnable(np.array([0.0, 0, 1, 1]), np.array(["A", "B", "C", "C"], dtype=object))


def test_the_goal_makes_the_design():
    options = {"quantile": 0.2, "pool_share": 0.3}
    assert design_of({**options, "goal": "class"}) == ClassDesign(quantile=0.2, pool_share=0.3)
    assert design_of({**options, "goal": "minimize"}) == Design("minimize", 0.2, 0.3)


def test_scores_are_those_of_what_was_said(rows, y):
    split = DESIGN.holdout(y, rows.formula, 0)
    truth = split.hidden.astype(float)
    said = {"knows": 0.01 + 0.98 * truth, "lies": 0.99 - 0.98 * truth, "shrugs": np.full(len(truth), truth.mean())}
    answers = {name: {"mean": p.tolist(), "std": [0.1] * len(p)} for name, p in said.items()}
    run = scored_by(DESIGN, answers, y, rows.formula, 0, 0.5)
    knows, lies, shrugs = (run["heads"][name] for name in said)
    assert knows["r_precision"] == 1.0
    assert knows["roc_auc"] == 1.0
    assert lies["r_precision"] == lies["roc_auc"] == 0.0
    assert knows["brier"] == pytest.approx(0.0001)
    assert knows["log_loss"] == pytest.approx(-np.log(0.99))
    assert shrugs["roc_auc"] == 0.5
    assert shrugs["calibration_error"] < 0.2
    assert lies["probability_hidden"] == pytest.approx(0.01)
    assert run["heads"]["oracle"]["r_precision"] == 1.0
    rows_ = {row["head"]: row for row in summarize([run, run])}
    assert rows_["knows"]["roc_auc"] == 1.0
    assert "mae_outside" not in rows_["knows"]


def test_heads_of_classes_find_what_was_hidden_and_the_best_is_chosen(rows, y):
    assert set(CLASS_PREFERRED) == set(CLASS_BY_COST) == set(CLASS_HEADS)
    heads = ["AtomSets", "logistic regression", "random forest, composition", "mixture"]
    runs = []
    for seed in range(2):
        answers = {name: answer(head, rows, y, DESIGN, seed) for name, head in campaign_heads(SMALL, heads).items()}
        runs.append(scored_by(DESIGN, answers, y, rows.formula, seed, 0.5))
    found = choose(runs, heads, ("mean", "ucb"))
    assert found["better_than_random"]
    assert found["r_precision"] > 2 * found["prevalence"]
    assert found["beyond"] is None
    assert found["head"] in heads


def test_recipes_of_classes_make_models_of_classes():
    for name, parameters in recipes(SMALL).items():
        model = regressor_of(parameters)
        assert type(model) is ClassProbability
        assert model.head == name
    with pytest.raises(ValueError, match="no head 'ridge'; there are AtomSets, mixture, logistic regression"):
        recipes(SMALL, ["ridge"])
