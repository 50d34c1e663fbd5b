"""Ridge and Gaussian process: kept arrays say the same, other arrays are refused, the unit doesn't matter."""

import numpy as np
import pytest

from atomsets_core.models.vectors.gaussian import (
    fit_gaussian_process,
    fit_ridge,
    read_gaussian_process,
    read_ridge,
)

LEARNERS = {"ridge": (fit_ridge, read_ridge), "gaussian": (fit_gaussian_process, read_gaussian_process)}


def rows(n=60, width=5):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, width))
    return x, x @ np.arange(width) + np.sin(3 * x[:, 0]) + 0.1 * random.normal(size=n)


@pytest.mark.parametrize("name", LEARNERS)
def test_what_was_kept_says_the_same(name):
    fit, read = LEARNERS[name]
    x, y = rows()
    fitted = fit(x[:40], y[:40])
    again = read(fitted.arrays(), 5)
    for one, other in zip(fitted.predict(x), again.predict(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    assert np.abs(fitted.predict(x[40:])[0] - y[40:]).mean() < 0.7 * y.std()


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_another_unit_changes_nothing_but_the_unit(name, unit):
    x, y = rows()
    fit, _ = LEARNERS[name]
    here, there = fit(x, y).predict(x), fit(x, unit * y).predict(x)
    np.testing.assert_allclose(there[0], unit * here[0], rtol=1e-4, atol=1e-4 * unit)
    np.testing.assert_allclose(there[1], unit * here[1], rtol=1e-4)


@pytest.mark.parametrize("name", LEARNERS)
def test_arrays_that_are_not_those_of_a_learner_are_refused(name):
    fit, read = LEARNERS[name]
    x, y = rows()
    arrays = fit(x, y).arrays()
    for key, array in arrays.items():
        with pytest.raises(KeyError):
            read({k: v for k, v in arrays.items() if k != key}, 5)
        with pytest.raises(ValueError, match="of a learner|kind of numbers"):
            read({**arrays, key: array[:-1] if array.ndim == 1 else array[:, :-1]}, 5)
        with pytest.raises(ValueError, match="of a learner|kinds? of numbers"):
            read({**arrays, key: array.astype(np.float16)}, 5)
        broken = array.copy()
        broken.reshape(-1)[0] = np.nan
        with pytest.raises(ValueError, match="not a number"):
            read({**arrays, key: broken}, 5)
    with pytest.raises(ValueError, match="of a learner"):
        read(arrays, 6)
    with pytest.raises(ValueError, match="no scale"):
        read({**arrays, "scale": -arrays["scale"]}, 5)
    with pytest.raises(ValueError, match="negative|not positive"):
        read({**arrays, "numbers": -np.abs(arrays["numbers"])}, 5)
