"""Scores agree with values worked out by hand and with scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from atomsets_core import metrics

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
