"""Log odds on plain vectors: right where the answer is known, finite for one kind alone, refused where damaged."""

import numpy as np
import pytest
from scipy.special import expit, logit

from atomsets_core.models.vectors.learners import find_head
from atomsets_core.models.vectors.odds import CLASS_HEADS, ODDS, fit_logistic, read_logistic

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(4000, 5))
ODDS_TRUE = 2.0 * X[:, 0] - X[:, 1] + 0.5
Y = (RANDOM.random(4000) < expit(ODDS_TRUE)).astype(float)


def test_a_logistic_regression_finds_the_odds_that_made_the_labels():
    found, deviation = fit_logistic(X, Y).predict(X)
    assert np.abs(found - ODDS_TRUE).mean() < 0.15
    assert (deviation == 0).all()


def test_units_of_the_columns_play_no_part():
    np.testing.assert_allclose(
        fit_logistic(X[:300], Y[:300]).predict(X)[0],
        fit_logistic(X[:300] * [1e3, 1, 1e-2, 1, 1] + 7.0, Y[:300]).predict(X * [1e3, 1, 1e-2, 1, 1] + 7.0)[0],
        atol=1e-3,
    )


@pytest.mark.parametrize("name", ODDS)
def test_each_learner_is_read_back_as_it_was(name):
    learner = ODDS[name]
    fitted = learner.fit(X[:200], Y[:200], 0, 5)
    again = learner.read(fitted.arrays(), 5)
    np.testing.assert_array_equal(fitted.predict(X)[0], again.predict(X)[0])
    assert np.isfinite(fitted.predict(X)[0]).all()
    assert np.mean((fitted.predict(X)[0] > 0) == (Y > 0.5)) > 0.7


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_of_one_kind_alone_only_their_number_is_learned(kind):
    found, _ = fit_logistic(X[:9], np.full(9, kind)).predict(X[:3])
    np.testing.assert_allclose(found, logit((9 * kind + 0.5) / 10))


def test_a_damaged_regression_is_refused():
    arrays = fit_logistic(X[:100], Y[:100]).arrays()
    with pytest.raises(ValueError, match="of another width"):
        read_logistic(arrays, 6)
    with pytest.raises(ValueError, match="not a number"):
        read_logistic({**arrays, "weights": np.full(5, np.nan)}, 5)
    with pytest.raises(KeyError):
        read_logistic({"mean": arrays["mean"]}, 5)


def test_every_head_has_parts_that_are_there():
    for name, parts in CLASS_HEADS.items():
        assert find_head(name, CLASS_HEADS) == parts
        assert all(part in ODDS or part == "AtomSets" for part in parts)
