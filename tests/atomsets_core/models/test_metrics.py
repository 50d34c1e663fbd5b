"""Scores agree with values worked out by hand and with scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from atomsets_core.models import metrics

Y = np.array([1.0, 2.0, 4.0])
P = np.array([2.0, 2.0, 1.0])


def test_errors_by_hand():
    assert metrics.mean_absolute_error(Y, P) == pytest.approx(4 / 3)
    assert metrics.root_mean_squared_error(Y, P) == pytest.approx(math.sqrt(10 / 3))
    assert metrics.bias(Y, P) == pytest.approx(-2 / 3)
    # mean 7/3: total 16/9 + 1/9 + 25/9 = 14/3
    assert metrics.r_squared(Y, P) == pytest.approx(1 - 10 / (14 / 3))


@pytest.mark.parametrize("seed", range(3))
def test_errors_and_correlations_against_scipy_and_sklearn(seed: int):
    random = np.random.default_rng(seed)
    y = random.normal(size=80)
    p = np.round(y + random.normal(size=80), 1)
    assert metrics.mean_absolute_error(y, p) == pytest.approx(sk.mean_absolute_error(y, p))
    assert metrics.root_mean_squared_error(y, p) == pytest.approx(sk.root_mean_squared_error(y, p))
    assert metrics.r_squared(y, p) == pytest.approx(sk.r2_score(y, p))
    assert metrics.spearman(y, p) == pytest.approx(stats.spearmanr(y, p).statistic)


def test_what_is_not_defined_is_nan_and_never_zero():
    none, two = np.empty(0), np.array([1.0, 1.0])
    for score in (metrics.mean_absolute_error, metrics.root_mean_squared_error, metrics.bias, metrics.r_squared):
        assert math.isnan(score(none, none))
    assert math.isnan(metrics.r_squared(two, two))
    assert math.isnan(metrics.spearman(two, np.array([1.0, 2.0])))
    assert math.isnan(metrics.spearman(Y, np.ones(3)))
    assert math.isnan(metrics.spearman(Y[:1], P[:1]))
    assert math.isnan(metrics.coverage(none, none, none))
    assert math.isnan(metrics.r_precision(np.zeros(3, bool), P))
    assert math.isnan(metrics.enrichment(np.zeros(3, bool), P, 2))


def test_spearman_sees_only_the_order():
    assert metrics.spearman(Y, np.exp(Y) + 7) == pytest.approx(1)
    assert metrics.spearman(Y, -(Y**3)) == pytest.approx(-1)


def test_coverage_counts_the_ends_in():
    assert metrics.coverage(Y, np.array([1.0, 2.5, 0.0]), np.array([1.0, 3.0, 4.0])) == pytest.approx(2 / 3)


WANTED = np.array([True, False, True, False, False])
SCORE = np.array([0.9, 0.8, 0.1, 0.7, 0.05])


def test_hits_by_hand():
    assert metrics.hits(WANTED, SCORE).tolist() == [1, 1, 1, 2, 2]
    assert metrics.r_precision(WANTED, SCORE) == 0.5
    # one of two found where 2 x 2/5 were expected
    assert metrics.enrichment(WANTED, SCORE, 2) == pytest.approx(1 / 0.8)
    assert metrics.enrichment(WANTED, SCORE, 5) == pytest.approx(1)


def test_equal_scores_keep_their_order():
    assert metrics.hits(WANTED, np.zeros(5)).tolist() == [1, 1, 2, 2, 2]


def test_an_oracle_finds_everything_and_its_opposite_nothing():
    y = np.random.default_rng(0).normal(size=200)
    wanted = y >= np.sort(y)[-20]
    assert metrics.r_precision(wanted, y) == 1
    assert metrics.enrichment(wanted, y, 20) == pytest.approx(10)
    assert metrics.r_precision(wanted, -y) == 0


def test_random_ranking_gives_the_prevalence_on_average():
    random = np.random.default_rng(0)
    wanted = np.arange(100) < 30
    found = [metrics.r_precision(wanted, random.random(100)) for _ in range(2000)]
    # standard error: sqrt(0.3 x 0.7 / 30 x 70 / 99 / 2000) = 0.0016
    assert np.mean(found) == pytest.approx(0.3, abs=0.006)
    enriched = [metrics.enrichment(wanted, random.random(100), 10) for _ in range(2000)]
    assert np.mean(enriched) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("k", [0, 6, -1])
def test_enrichment_needs_a_place_in_the_list(k: int):
    with pytest.raises(ValueError, match="is not between 1 and 5"):
        metrics.enrichment(WANTED, SCORE, k)


def test_precision_and_recall_by_hand():
    assert metrics.precision_at(WANTED, SCORE, 2) == 0.5
    assert metrics.recall_at(WANTED, SCORE, 2) == 0.5
    assert metrics.recall_at(WANTED, SCORE, 4) == 1
    assert np.isnan(metrics.recall_at(np.zeros(5, bool), SCORE, 2))
    with pytest.raises(ValueError, match="is not between 1 and 5"):
        metrics.precision_at(WANTED, SCORE, 6)


def test_the_acceleration_factor_is_precision_over_an_unrounded_prevalence():
    y = np.array([0.96, 1.04, 1.2, 0.5])
    predicted = np.array([1.1, 1.1, 0.9, 0.2])
    # rounded to one digit 0.96 would count as 1.0: above 1 are two of four; predicted above 1 are two, one of them is
    assert metrics.acceleration(y, predicted, 1.0) == pytest.approx((1 / 2) / (2 / 4))
    assert metrics.acceleration(y, predicted, 0.99) == pytest.approx((1 / 2) / (2 / 4))
    assert np.isnan(metrics.acceleration(y, np.zeros(4), 1.0))
    assert np.isnan(metrics.acceleration(np.zeros(4), predicted, 1.0))


def test_area_is_0_for_random_and_1_for_the_oracle():
    random = np.random.default_rng(0)
    wanted = np.arange(60) < 15
    assert metrics.area_under_hits(wanted, wanted.astype(float)) == 1
    assert metrics.area_under_hits(wanted, -wanted.astype(float)) < 0
    found = [metrics.area_under_hits(wanted, random.random(60)) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0, abs=0.03)
    assert np.isnan(metrics.area_under_hits(np.ones(4, bool), np.arange(4.0)))


def test_lines_of_random_and_oracle():
    assert metrics.random_hits(2, 4).tolist() == [0.5, 1, 1.5, 2]
    assert metrics.oracle_hits(2, 4).tolist() == [1, 2, 2, 2]
    assert metrics.budget_for(np.array([0, 1, 1, 2]), 2) == 4
    assert metrics.budget_for(np.array([0, 1, 1, 2]), 1) == 2
    assert np.isnan(metrics.budget_for(np.array([0, 1]), 2))


def test_gaussian_coverage_and_scatter_of_right_deviations():
    random = np.random.default_rng(0)
    mean, std = random.normal(size=20_000), random.uniform(0.5, 2, 20_000)
    y = mean + std * random.normal(size=20_000)
    assert metrics.gaussian_coverage(y, mean, std) == pytest.approx(0.9, abs=0.01)
    assert metrics.scatter_ratio(y, mean, std) == pytest.approx(1, abs=0.02)
    assert metrics.scatter_ratio(y, mean, std / 2) == pytest.approx(2, abs=0.04)


def test_bootstrap_intervals_hold_the_true_mean_as_often_as_they_say():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        low, high = metrics.bootstrap_interval(random.normal(3.0, 1.0, 30), resamples=500, seed=trial)
        held += low <= 3.0 <= high
    # percentile intervals of 30 values are a little short of 95 %
    assert 0.88 < held / 300 < 0.98
    assert np.isnan(metrics.bootstrap_interval([1.0])[0])
    assert metrics.bootstrap_interval([1.0, float("nan"), 1.0]) == (1.0, 1.0)
