"""Newcomers like the others are not called shifted, others are; small numbers say nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.campaigns import drift


def table(rng, n, shift=0.0, formula="Al2O3", outside=0.1):
    mean = rng.normal(2.0 + shift, 0.3, n)
    return pa.table(
        {
            "predicted": 10**mean,
            "distance": rng.uniform(1, 5, n),
            "n_atoms": rng.integers(1, 40, n),
            "in_domain": rng.random(n) >= outside,
            "formula": pa.array([formula] * n, pa.string()),
        }
    )


def joined(a, b):
    new = np.r_[np.zeros(a.num_rows, dtype=bool), np.ones(b.num_rows, dtype=bool)]
    return pa.concat_tables([a, b]), new


def test_index_of_a_shift_that_is_known():
    """Two bins, shares 1/4 and 3/4 against 3/4 and 1/4: 2 x (1/2) ln 3."""
    before, now = np.array([250_000, 750_000]), np.array([750_000, 250_000])
    assert drift.stability_index(before, now) == pytest.approx(np.log(3), rel=1e-4)
    assert drift.stability_index(before, before) == 0.0


def test_false_alarms_are_as_rare_as_promised():
    """300 draws of 60 newcomers from the very same distribution: about one in a hundred beyond chance."""
    rng = np.random.default_rng(1)
    found = [drift.shift(rng.normal(size=2000), rng.normal(size=60)) for _ in range(300)]
    beyond = np.mean([f["psi"] > f["chance"] for f in found])
    assert beyond <= 0.04
    # without the correction for chance, the usual 0.1 would cry wolf every other week
    assert np.mean([f["psi"] > drift.NOTABLE for f in found]) > 0.3
    assert np.mean([f["shifted"] for f in found]) <= 0.04


def test_shifts_are_found():
    rng = np.random.default_rng(2)
    ranking, new = joined(table(rng, 3000), table(rng, 300, shift=0.4, outside=0.6))
    found = drift.candidate_drift(ranking, new, np.log10)
    assert found["quantities"]["prediction"]["shifted"]
    assert found["quantities"]["prediction"]["p"] < 1e-6
    assert not found["quantities"]["atoms in the cell"]["shifted"]
    assert not found["quantities"]["distance to the training data"]["shifted"]
    assert found["outside_domain"]["new"] > 0.5 > found["outside_domain"]["others"]


def test_elements():
    rng = np.random.default_rng(3)
    ranking, new = joined(table(rng, 1000), table(rng, 100, formula="Hf3C"))
    found = drift.candidate_drift(ranking, new)["elements"]
    assert found["shifted"]
    assert found["never_before"] == ["C", "Hf"]
    assert found["gained"] == [["C", 0.0, 1.0], ["Hf", 0.0, 1.0]]
    assert drift.elements(pa.chunked_array([["Al2O3", "Al2O3", "CO2", "Co"]])) == {"Al": 2, "O": 3, "C": 1, "Co": 1}


def test_few_newcomers_say_nothing():
    rng = np.random.default_rng(4)
    ranking, new = joined(table(rng, 100), table(rng, drift.FEW - 1, shift=5.0))
    found = drift.candidate_drift(ranking, new)
    assert found["quantities"] is None
    assert found["n_new"] == drift.FEW - 1
    everything = drift.candidate_drift(table(rng, 50), np.zeros(50, dtype=bool))
    assert everything["outside_domain"]["new"] is None


def test_a_constant_column_is_no_shift():
    found = drift.shift(np.full(100, 3.0), np.full(50, 3.0))
    assert found["psi"] < found["chance"]
    assert not found["shifted"]
