"""Rows of a formula stay together in every fold and part, and a seed gives the same ones for good."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from atomsets_core.models.folds import drawn, formula_groups, group_folds, held_out, stratified_folds
from atomsets_core.models.megnet_regressor import _split

FORMULAS = np.array([f"F{k}" for k in np.random.default_rng(7).integers(0, 60, 200)], dtype=object)


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def whole(part: np.ndarray) -> bool:
    """Whether no formula lies in two parts."""
    return all(len(set(part[formula == FORMULAS])) == 1 for formula in set(FORMULAS))


def test_groups_are_formulas_whatever_they_stand_in():
    group = formula_groups(["NaCl", "Fe", "NaCl"])
    assert group.tolist() == [1, 0, 1]
    assert group.dtype == np.int64
    assert formula_groups(np.array(["NaCl", "Fe", "NaCl"], dtype=object)).tolist() == [1, 0, 1]


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_of_whole_formulas_and_of_equal_size(folds):
    fold = group_folds(FORMULAS, folds, 0)
    assert whole(fold)
    assert np.ptp(np.bincount(fold)) <= 2
    assert fold.max() == folds - 1
    assert not np.array_equal(fold, group_folds(FORMULAS, folds, 1))


def test_scikit_learns_folds_are_others():
    theirs = np.zeros(len(FORMULAS), dtype=np.int64)
    cut = GroupKFold(5, shuffle=True, random_state=0)
    for fold, (_, test) in enumerate(cut.split(FORMULAS, groups=formula_groups(FORMULAS))):
        theirs[test] = fold
    assert len(set(zip(theirs, group_folds(FORMULAS, 5, 0), strict=True))) > 5
    assert len(set(np.bincount(theirs))) > 1


def test_fewer_formulas_than_folds_and_one_alone():
    assert sorted(group_folds(np.array(["a", "b", "a"], dtype=object), 5, 0)) == [0, 0, 1]
    # all that rows of one formula can be held out from is one another
    assert sorted(group_folds(np.array(["a", "a", "a"], dtype=object), 2, 0)) == [0, 0, 1]
    assert group_folds(np.array(["a"], dtype=object), 5, 0).tolist() == [-1]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
def test_a_part_is_of_whole_formulas_and_about_the_share(share):
    for seed in range(20):
        part = held_out(FORMULAS, share, seed)
        assert whole(part)
        assert 0 < part.sum() < share * len(FORMULAS)
        rows, watched = _split(FORMULAS, share, seed)
        assert not set(FORMULAS[rows]) & set(FORMULAS[watched])
        assert 0 < len(watched) <= share * len(FORMULAS)


def test_at_least_one_formula_is_drawn_and_never_all():
    random = np.random.default_rng(0)
    two = np.array(["a", "b"], dtype=object)
    assert drawn(two, 0, random).sum() == 1
    assert drawn(two, 9, random).sum() == 1
    assert drawn(np.array(["a", "a"], dtype=object), 0, random).all()


def test_a_seed_gives_what_it_always_gave():
    """Saved models and published figures rest on these."""
    folds = {k: digest(np.stack([group_folds(FORMULAS, k, seed) for seed in range(20)])) for k in (2, 5, 10)}
    assert folds == {2: "02df146fb029ee16", 5: "d1153f0dd505d213", 10: "d5bb888ab6b5fa2b"}
    parts = {s: digest(np.stack([held_out(FORMULAS, s, seed) for seed in range(50)])) for s in (0.05, 0.1, 0.5)}
    assert parts == {0.05: "d6c17733e310f62b", 0.1: "408a79201d4d0577", 0.5: "43a7e1522b5cf19e"}
    ends = {s: np.concatenate([np.concatenate(_split(FORMULAS, s, seed)) for seed in range(50)]) for s in (0.1, 0.9)}
    assert {s: digest(rows) for s, rows in ends.items()} == {0.1: "0ec07d591f9025f9", 0.9: "3578b670ec91a78c"}
    assert digest(stratified_folds(np.arange(200) % 2, FORMULAS, 5, 0)) == "04c90bfbf8264982"
