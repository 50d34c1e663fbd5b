"""Probabilities hold after calibration, whatever scale, offset or shape the logits have."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from atomsets_core.models.probabilities import (
    calibration_error,
    crossed_probabilities,
    fit_probabilities,
    probability_scores,
    reliability,
)


def draw(n, classes=3, seed=0):
    """Logits and labels drawn from the probabilities that they say."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, classes)) * 1.5
    probability = softmax(logits, axis=1)
    label = (probability.cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    return logits, np.minimum(label, classes - 1)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scale_and_offset_are_found(classes):
    logits, label = draw(20000, classes)
    offset = np.linspace(-1, 1, classes)
    distorted = 3.0 * (logits - offset)
    fitted = fit_probabilities(distorted, label, "temperature")
    assert fitted.temperature == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(fitted.probability(distorted), softmax(logits, axis=1), atol=0.02)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_overconfident_logits_become_honest_on_rows_not_fitted_to(method):
    logits, label = draw(4000)
    fitted = fit_probabilities(5 * logits, label, method)
    new, truth = draw(20000, seed=1)
    before, after = softmax(5 * new, axis=1), fitted.probability(5 * new)
    assert calibration_error(before, truth) > 0.15
    assert calibration_error(after, truth) < 0.02
    assert log_loss(truth, after) < log_loss(truth, before) - 0.3


def test_isotonic_undoes_a_bend_that_a_temperature_can_not():
    logits, label = draw(10000, 2)
    bent = np.sign(logits) * np.abs(logits) ** 3
    new, truth = draw(10000, 2, seed=1)
    again = np.sign(new) * np.abs(new) ** 3
    straight, curve = (
        fit_probabilities(bent, label, method).probability(again) for method in ("temperature", "isotonic")
    )
    assert calibration_error(curve, truth) < 0.5 * calibration_error(straight, truth)


@pytest.mark.parametrize("method", ["temperature", "isotonic", "none"])
def test_rows_add_up_to_one_and_stay_between(method):
    logits, label = draw(300, 4)
    probability = fit_probabilities(logits, label, method).probability(100 * draw(50, 4, seed=2)[0])
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    assert ((probability >= 0) & (probability <= 1)).all()


def test_a_class_without_rows_does_not_run_away():
    logits, label = draw(300, 3)
    there = label != 2
    fitted = fit_probabilities(logits[there], label[there], "temperature")
    assert np.isfinite(fitted.probability(logits)).all()


def test_a_temperature_does_not_change_the_order_of_rows():
    logits, label = draw(500, 2)
    fitted = fit_probabilities(logits, label, "temperature")
    np.testing.assert_array_equal(np.argsort(fitted.probability(logits)[:, 1]), np.argsort(logits[:, 1] - logits[:, 0]))


def test_a_fold_does_not_calibrate_itself():
    logits, label = draw(1000)
    fold = np.arange(1000) % 5
    before = crossed_probabilities(logits, label, fold, "temperature")
    changed = label.copy()
    changed[fold == 2] = (changed[fold == 2] + 1) % 3
    after = crossed_probabilities(logits, changed, fold, "temperature")
    np.testing.assert_array_equal(after[fold == 2], before[fold == 2])
    assert not np.allclose(after[fold != 2], before[fold != 2])


def test_calibration_error_by_hand():
    probability = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    label = np.array([0] * 9 + [1] + [1] * 3 + [0] * 7)
    assert calibration_error(probability, label, bins=2) == pytest.approx((0.0 + 0.3) / 2)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="no calibration 'beta'; there are temperature, isotonic, none"):
        fit_probabilities(*draw(10), "beta")


def test_scores_of_probabilities_are_those_counted_by_hand():
    label, said = np.array([1.0, 1, 0, 0, 0]), np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    found = probability_scores(label, said)
    assert found["confusion"] == {"true_positive": 1, "false_positive": 1, "true_negative": 2, "false_negative": 1}
    assert found["share"] == 0.4
    assert found["accuracy"] == 0.6
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["roc_auc"] == pytest.approx(5 / 6)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.04 + 0.01) / 5)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.4, 0.8, 0.9])))
    assert probability_scores(np.ones(3), np.array([0.5, 0.5, 0.4]))["roc_auc"] is None


def test_probabilities_that_hold_lie_on_the_line():
    random = np.random.default_rng(0)
    said = random.random(5000)
    label = (random.random(5000) < said).astype(float)
    found = {name: np.array(values) for name, values in reliability(label, said).items()}
    assert found["rows"].sum() == 5000
    assert np.abs(found["said"] - found["found"]).max() < 0.06
    assert ((found["low"] <= found["found"]) & (found["found"] <= found["high"])).all()
    # Of ten intervals of 95 % hardly one may miss.
    assert ((found["low"] <= found["said"]) & (found["said"] <= found["high"])).sum() >= 8
    sure = reliability(label, said**3)
    assert np.mean(np.array(sure["said"]) < np.array(sure["low"])) > 0.5
    assert len(reliability(label[:25], said[:25])["said"]) == 2
