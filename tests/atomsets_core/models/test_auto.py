"""The default recipe: the choice is made on what it should be made on, and the mixture is the best there is."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from atomsets_core.features.specification import parse_features
from atomsets_core.models import auto, recipe
from atomsets_core.models.auto import AutoAtomSets, _least_deviation_weights, _mixture_weights, _readings
from atomsets_core.models.recipe import candidates_for, choose, epochs_for


@pytest.fixture(scope="module")
def formulas():
    metals, anions = ["Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Zn", "Al"], ["O", "S", "Se", "F", "Cl", "Br"]
    return [f"{m}{k}{x}{n}" for m in metals for x in anions for k, n in ((1, 1), (2, 3))]


def test_least_deviation_weights_find_the_mixture():
    rng = np.random.default_rng(0)
    learners = rng.normal(size=(400, 3))
    truth = learners @ np.array([0.7, 0.3, 0.0]) + 0.01 * rng.normal(size=400)
    assert _least_deviation_weights(learners, truth) == pytest.approx([0.7, 0.3, 0.0], abs=0.02)


def test_a_useless_learner_gets_no_weight_and_weights_are_never_negative():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=300)
    learners = np.column_stack([truth + 0.1 * rng.normal(size=300), -truth])
    assert _least_deviation_weights(learners, truth) == pytest.approx([1.0, 0.0], abs=0.02)


def test_mixture_weights_are_at_the_maximum_of_the_likelihood():
    likelihood = np.random.default_rng(2).uniform(0.05, 1, size=(500, 3))
    weights = _mixture_weights(likelihood)
    assert weights.sum() == pytest.approx(1)
    best = np.log(likelihood @ weights).mean()
    for i in range(3):
        other = 0.98 * weights + 0.02 * np.eye(3)[i]
        assert np.log(likelihood @ other).mean() <= best + 1e-9


def test_choice_prefers_the_level_that_tells_the_target(formulas, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 600)
    rng = np.random.default_rng(0)
    y = rng.uniform(size=len(formulas))  # first a target that no candidate can tell: the first one stays
    report = choose(formulas, y, candidates=["megnet:V0", "amount"], epochs=10).report
    assert [row["features"] for row in report if row.get("chosen")] == ["megnet:V0"]
    amounts = parse_features("amount").featurize(recipe.as_batch(formulas))
    y = np.array(
        [
            amounts.sites["fraction"][a:b, 0].max()
            for a, b in zip(amounts.offsets[:-1], amounts.offsets[1:], strict=True)
        ]
    )
    choice = choose(formulas, y, candidates=["megnet:V0", "amount"], epochs=60)
    assert choice.features.startswith("amount")
    assert len(choice.report) == 2


def test_log_is_only_tried_on_positive_values(formulas):
    y = np.linspace(0, 1, len(formulas))
    report = choose(formulas, y, candidates=["megnet:V0"], transforms=("none", "log10"), epochs=2).report
    assert [row["transform"] for row in report] == ["none"]
    report = choose(formulas, y + 1, candidates=["megnet:V0"], transforms=("none", "log10"), epochs=2).report
    assert [row["transform"] for row in report] == ["none", "log10"]


def test_log_is_not_tried_where_a_row_that_is_not_looked_at_is_zero(formulas):
    y = np.linspace(1, 2, len(formulas))
    y[next(i for i in range(len(y)) if i not in np.random.default_rng(0).permutation(len(y))[:20])] = 0.0
    report = choose(formulas, y, candidates=["megnet:V0"], transforms=("none", "log10"), rows=20, epochs=2).report
    assert [row["transform"] for row in report] == ["none"]


def test_what_cannot_be_used_is_left_out_with_the_reason(formulas):
    y = np.linspace(0, 1, len(formulas))
    choice = choose(formulas, y, candidates=["megnet:V1", "megnet:V0"], epochs=2)
    assert choice.features == "megnet:V0"
    assert "needs coordinates" in choice.report[0]["left_out"]
    with pytest.raises(ValueError, match="no candidate can be used.*needs coordinates"):
        choose(formulas, y, candidates=["megnet:V1"])


def test_too_few_rows_and_unknown_tasks_are_refused(formulas):
    with pytest.raises(ValueError, match="too few to choose anything on"):
        choose(formulas[:5], np.arange(5.0))
    with pytest.raises(ValueError, match="no task 'ranking'"):
        choose(formulas, np.arange(len(formulas)), "ranking")


def test_training_is_longer_on_few_rows_and_bounded():
    assert epochs_for(100) == recipe.MOST_EPOCHS
    assert epochs_for(10**6) == recipe.FEWEST_EPOCHS
    assert epochs_for(1500) >= epochs_for(3000)


@pytest.mark.parametrize(("many", "members"), [(10**6, 10), (10, 5)])
def test_the_ensemble_has_fewer_members_on_many_rows(many, members, formulas, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 5)
    monkeypatch.setattr(auto, "MANY", many)
    model = AutoAtomSets(features="megnet:V0", heads=False).fit(formulas, np.linspace(0.1, 2, len(formulas)))
    assert model.network_.members == members


def test_nothing_is_predicted_below_a_frequent_smallest_value(formulas, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 20)
    y = np.where(np.arange(len(formulas)) % 3 == 0, 0.0, np.linspace(0.1, 2, len(formulas)))
    model = AutoAtomSets(features="megnet:V0", folds=3).fit(formulas, y)
    assert model.predict(["CsF", "NaCl", "Fe2O3"]).min() >= 0
    assert sum(model.weights_.values()) == pytest.approx(1)
    assert model.errors_["mixture"] <= min(error for name, error in model.errors_.items() if name != "mixture") + 1e-9


def test_probabilities_add_up_and_classes_keep_their_names(formulas, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 20)
    labels = np.array(["salt" if "F" in f or "Cl" in f or "Br" in f else "other" for f in formulas])
    model = AutoAtomSets("classification", features="megnet:V0", folds=3).fit(formulas, labels)
    probability = model.predict_proba(formulas)
    assert model.classes_.tolist() == ["other", "salt"]
    assert np.allclose(probability.sum(axis=1), 1)
    assert np.mean(model.predict(formulas) == labels) > 0.95


def test_trees_are_read_by_mean_and_by_median():
    rng = np.random.default_rng(0)
    table = np.zeros((200, 1), dtype=np.float32)
    y = rng.permutation(np.where(np.arange(200) < 140, 0.0, 3.0))  # seven of ten are metals, whatever is asked
    trees = ExtraTreesRegressor(400, bootstrap=True, max_samples=3, random_state=0).fit(table, y)
    found = _readings("trees", [trees], table[:1])
    assert list(found) == ["trees", "trees, median"]
    assert found["trees"][0] == pytest.approx(0.9, abs=0.15)
    assert found["trees, median"][0] in (0.0, 1.0)  # of three rows most often one or none is an insulator


def test_the_better_reading_is_what_counts(formulas, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 20)
    rng = np.random.default_rng(0)
    y = np.where(rng.uniform(size=len(formulas)) < 0.7, 0.0, rng.uniform(2, 5, len(formulas)))
    model = AutoAtomSets(features="megnet:V0", folds=3).fit(formulas, y)
    assert model.errors_["trees, median"] < model.errors_["trees"]
    assert model.weights_["trees"] + model.weights_["trees on amounts"] + model.weights_["boosting"] < 0.2
    again = AutoAtomSets(features="megnet:V0", folds=3).fit(formulas, y)
    assert np.array_equal(model.predict(formulas), again.predict(formulas))


def test_what_takes_long_is_for_few_structures():
    few, more, many = (candidates_for(n, compositions=False) for n in (1_000, 10_000, 100_000))
    assert "spring" in few[0]
    assert few[1:] == more
    assert more[1:] == many
    assert not any("response" in name for name in many)
    assert len({candidates_for(n, compositions=True) for n in (100, 10**6)}) == 1
