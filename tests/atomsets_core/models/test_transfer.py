"""Intervals hold for candidates that are drawn otherwise than the training rows, and beyond the range of values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from atomsets_core.models.transfer import STRONGEST, growth, likeness, reach_beyond, trust_candidates


def drawn(n: int, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around a shift, and residuals that are larger where the first coordinate is."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 5))
    x[:, 0] += shift
    return x, random.normal(size=n) * np.exp(0.7 * x[:, 0])


def trusted(shift: float, seed: int = 0, n: int = 1500):
    x, residual = drawn(n, 0.0, seed)
    others, truth = drawn(n, shift, 1000 + seed)
    half = np.full(n, np.quantile(np.abs(residual), 0.9))
    return trust_candidates(residual, np.ones(n), half, likeness(x, others), 0.9, n), half[0], truth


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.2])
def test_weighed_rows_foretell_and_mend_the_coverage_of_candidates(shift: float):
    trust, half, truth = trusted(shift)
    assert trust.expected == pytest.approx(np.mean(np.abs(truth) <= half), abs=0.05)
    assert np.mean(np.abs(truth) <= trust.factor * half) == pytest.approx(0.9, abs=0.04)


def test_without_a_shift_rows_count_about_alike_and_with_one_fewer_do():
    assert trusted(0.0)[0].effective_rows > 1200
    assert trusted(0.0)[0].factor == pytest.approx(1.0, abs=0.1)
    assert trusted(1.2)[0].effective_rows < 700


def test_candidates_like_no_training_row_get_no_interval():
    _, residual = drawn(200, 0.0, 0)
    weights = np.zeros(200)
    weights[:5] = STRONGEST
    trust = trust_candidates(residual, np.ones(200), np.ones(200), weights, 0.9, 50)
    assert trust.effective_rows == pytest.approx(5)
    assert not trust.enough
    # nine rows are what 90 % needs
    weights[:9] = STRONGEST
    enough = trust_candidates(residual, np.ones(200), np.ones(200), weights, 0.9, 50)
    assert enough.factor == pytest.approx(np.abs(residual[:9]).max())


def test_weights_have_an_end_and_few_rows_have_none():
    x, _ = drawn(300, 0.0, 0)
    far, _ = drawn(300, 9.0, 1)
    assert likeness(x, far).max() <= STRONGEST
    assert (likeness(x[:10], far) == 1.0).all()


def test_the_unit_of_features_and_values_plays_no_part():
    x, residual = drawn(400, 0.0, 0)
    others, _ = drawn(400, 0.8, 1)
    plain = likeness(x, others)
    np.testing.assert_allclose(likeness(1e6 * x, 1e6 * others), plain, rtol=1e-4)
    half = np.ones(400)
    one = trust_candidates(residual, half, half, plain, 0.9, 400)
    small = trust_candidates(1e-12 * residual, 1e-12 * half, 1e-12 * half, plain, 0.9, 400)
    assert small.factor == pytest.approx(one.factor)
    assert small.expected == pytest.approx(one.expected)


def test_perfect_predictions_stay_inside_intervals_of_no_width():
    nothing = np.zeros(50)
    trust = trust_candidates(nothing, nothing, nothing, np.ones(50), 0.9, 50)
    assert trust.expected == 1.0
    assert trust.error_factor == 0.0


def tail(n: int = 20_000, cut: bool = False) -> np.ndarray:
    """Exponential values, the best tenth of them cut off or not."""
    values = np.sort(np.random.default_rng(0).exponential(size=n))
    return values[: round(0.9 * n)] if cut else values


def best_tenth(values: np.ndarray) -> np.ndarray:
    k = round(0.1 * len(values))
    return values[-k:] - values[-k - 1]


def test_a_cut_tail_goes_on_as_far_as_an_exponential_one_does():
    there, beyond = best_tenth(tail(cut=True)), best_tenth(tail())
    # ln 10 / ln(0.19 / 0.109), by hand
    assert growth(there, 0.1, 0.9) == pytest.approx(math.log(10) / math.log(0.19 / 0.109), rel=0.1)
    predicted = growth(there, 0.1, 0.9) * np.quantile(there, 0.9)
    assert np.mean(beyond <= predicted) == pytest.approx(0.9, abs=0.02)


def test_a_whole_tail_goes_no_farther_than_it_did():
    assert growth(best_tenth(tail()), 0.1, 0.9) == 1.0
    assert growth(np.zeros(5), 0.1, 0.9) == 1.0


def test_reach_beyond_holds_the_share_of_values_it_promises():
    hidden, truth = best_tenth(tail(cut=True)), best_tenth(tail())
    random = np.random.default_rng(1)
    # A model that stays at the boundary, with noise: it follows nothing.
    reach = reach_beyond(hidden - 0.1 * random.normal(size=len(hidden)), hidden, 0 * hidden, 0.1, 0.9)
    assert np.mean(truth - 0.1 * random.normal(size=len(truth)) <= reach) == pytest.approx(0.9, abs=0.03)
    # One that follows needs no more than its own error.
    follows = hidden + 0.1 * random.normal(size=len(hidden))
    assert reach_beyond(hidden - follows, hidden, follows, 0.1, 0.9) == pytest.approx(0.128, abs=0.02)
    assert math.isnan(reach_beyond(hidden[:1], hidden[:1], hidden[:1], 0.1, 0.9))
