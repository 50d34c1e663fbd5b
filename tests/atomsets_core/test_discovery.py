"""The simulated discovery keeps what is hidden hidden, and scores chance as chance."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from atomsets_core.baselines import ridge
from atomsets_core.discovery import HEADS, Holdout, _heads, score, simulate, summarize, value_holdout
from atomsets_core.estimators import AtomSetsRegressor
from atomsets_core.features import Features

METALS = ("Mg", "Ca", "Sr", "Ba", "Ti", "Zr", "Hf", "V", "Nb", "Ta", "Cr", "Mo", "W", "Mn", "Re")
ANIONS = ("O", "S", "N", "C")


def values(n: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize(("goal", "sign"), [("maximize", 1), ("minimize", -1)])
@pytest.mark.parametrize("seed", range(3))
def test_every_hidden_value_is_better_than_every_one_learned_from(goal: str, sign: int, seed: int):
    y = values()
    split = value_holdout(y, goal=goal, quantile=0.1, pool_share=0.2, seed=seed)
    hidden = split.pool[split.hidden]
    rest = np.concatenate([split.train, split.pool[~split.hidden]])
    assert (sign * y[hidden]).min() > (sign * y[rest]).max()
    assert len(hidden) == 20
    assert (~split.hidden).sum() == 36
    assert sorted([*split.train, *split.pool]) == list(range(200))


def test_a_seed_gives_its_holdout_again_and_another_gives_another_with_the_same_hidden():
    y = values()
    one, again, other = (value_holdout(y, seed=seed) for seed in (0, 0, 1))
    for name in ("train", "pool", "hidden"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert set(one.train) != set(other.train)
    assert set(one.pool[one.hidden]) == set(other.pool[other.hidden])


def test_groups_never_straddle_training_and_pool():
    y = values()
    groups = np.array([f"F{i}" for i in np.random.default_rng(1).integers(0, 80, 200)], dtype=object)
    with_groups, without = value_holdout(y, groups=groups), value_holdout(y)
    assert not set(groups[with_groups.train]) & set(groups[with_groups.pool])
    # only training rows are given up for it
    np.testing.assert_array_equal(with_groups.pool, without.pool)
    assert set(with_groups.train) < set(without.train)


def test_values_equal_to_the_boundary_may_stay_but_none_is_better():
    y = np.round(values(), 0)
    split = value_holdout(y)
    assert y[split.pool[split.hidden]].min() >= y[split.train].max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "target"}, "needs the goal maximize or minimize"),
        ({"quantile": 0.001}, "too few to hide"),
        ({"pool_share": 0.0}, "too few to hide"),
        ({"pool_share": 1.0}, "too few to hide"),
        ({"quantile": 1.0}, "too few to hide"),
        ({"groups": np.array(["TiO2"] * 200, dtype=object)}, "0 rows are left to learn from"),
    ],
)
def test_a_holdout_with_an_empty_part_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        value_holdout(values(), **options)


def test_equal_predictions_score_as_chance():
    # A head that can't tell anything apart must not gain from the order of the pool.
    y = values(400)
    found = []
    for seed in range(60):
        split = value_holdout(y, seed=seed, pool_share=0.5)
        constant = score(y[split.pool], np.zeros(len(split.pool)), split.hidden, 1.0)
        found.append(constant["r_precision"])
        assert constant["spearman_outside"] is None
    # 40 hidden in a pool of 220; the standard error of the mean is 0.007
    assert np.mean(found) == pytest.approx(40 / 220, abs=0.03)


def test_a_ridge_head_finds_what_can_be_learned_and_scores_chance_on_permuted_labels():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 8))
    y = x @ random.normal(size=8) + 0.3 * random.normal(size=300)
    learned, chance, prevalence = [], [], []
    for seed in range(40):
        for labels, found in ((y, learned), (np.random.default_rng(seed).permutation(y), chance)):
            split = value_holdout(labels, seed=seed)
            predicted = ridge().fit(x[split.train], labels[split.train]).predict(x[split.pool])
            found.append(score(labels[split.pool], predicted, split.hidden, 1.0)["r_precision"])
            prevalence.append(split.hidden.mean())
    assert np.mean(learned) > 0.8
    # 30 hidden of 84 in the pool: one run scatters by 0.07, the mean of 40 by 0.011
    assert np.mean(chance) == pytest.approx(np.mean(prevalence), abs=0.045)


def test_scores_by_hand():
    y = np.array([10.0, 9, 3, 2, 8])
    hidden = np.array([True, True, False, False, True])
    found = score(y, np.array([5.0, 1, 4, 3, 6]), hidden, 1.0)
    assert found["hits"] == [1, 2, 2, 2, 3]
    assert found["r_precision"] == pytest.approx(2 / 3)
    assert found["enrichment"] == pytest.approx(2 / 3 / 0.6)
    assert found["mae_outside"] == pytest.approx((5 + 8 + 2) / 3)
    assert found["mae_inside"] == pytest.approx(1)
    assert found["bias_outside"] == pytest.approx(-5)
    assert found["spearman_outside"] == pytest.approx(-0.5)


def test_minimizing_scores_are_those_of_maximizing_the_opposite():
    y, predicted = values(50), values(50, 1)
    hidden = y > np.sort(y)[-10]
    up, down = score(y, predicted, hidden, 1.0), score(-y, -predicted, hidden, -1.0)
    assert up["hits"] == down["hits"]
    assert up["spearman_outside"] == pytest.approx(down["spearman_outside"])
    assert up["bias_outside"] == pytest.approx(-down["bias_outside"])


def crystals(n: int = 60) -> tuple[Features, np.ndarray]:
    """Features of invented binary compounds, and values that follow from them."""
    random = np.random.default_rng(5)
    formulas = [f"{metal}{anion}" for metal in METALS for anion in ANIONS][:n]
    counts = random.integers(1, 4, n)
    level = random.normal(size=(n, 16))
    sites = np.repeat(level, counts, axis=0) + 0.1 * random.normal(size=(counts.sum(), 16))
    names = np.array([f"m{i}" for i in range(n)], dtype=object)
    features = Features(
        material_id=names,
        structure_hash=names,
        formula=np.array(formulas, dtype=object),
        n_atoms=counts,
        sites={"V0": sites.astype(np.float32)},
        structure={},
        digest="d",
    )
    return features, level[:, 0] + 0.5 * level[:, 1]


def tiny() -> AtomSetsRegressor:
    return AtomSetsRegressor(
        "megnet:V0", phi=(8,), rho=(8,), members=2, folds=2, epochs=2, coverage=0.8, transform="log10", device="cpu"
    )


OPTIONS = {"goal": "maximize", "quantile": 0.15, "pool_share": 0.3}


@pytest.fixture(scope="module")
def run() -> dict:
    features, y = crystals()
    return simulate(tiny(), features, y, **OPTIONS, seed=0)


def test_a_simulation_is_json_with_every_head_and_sizes_that_add_up(run: dict):
    assert json.loads(json.dumps(run, allow_nan=False)) == run
    assert tuple(run["heads"]) == HEADS
    assert (run["n_hidden"], run["n_pool"]) == (9, 9 + 15)
    assert run["n_train"] == 60 - 24
    _, y = crystals()
    assert run["boundary"] <= np.sort(y)[-10]
    for head in run["heads"].values():
        assert len(head["hits"]) == run["n_pool"]
        assert head["hits"][-1] == run["n_hidden"]
        assert (np.diff(head["hits"]) >= 0).all()
        assert head["r_precision"] == head["hits"][8] / 9
    assert run["heads"]["oracle"]["r_precision"] == 1
    assert set(run["heads"]["random"]) == {"r_precision", "enrichment", "hits"}


def test_a_simulation_is_reproducible_and_depends_on_its_seed(run: dict):
    features, y = crystals()
    assert simulate(tiny(), features, y, **OPTIONS, seed=0) == run
    assert simulate(tiny(), features, y, **OPTIONS, seed=1)["heads"]["random"] != run["heads"]["random"]


def predictions(features: Features, y: np.ndarray, split: Holdout) -> dict[str, np.ndarray]:
    return {name: head() for name, head in _heads(tiny(), features, y, split, 0).items() if name != "oracle"}


def test_what_is_hidden_changes_no_prediction():
    features, y = crystals()
    split = value_holdout(y, goal="maximize", quantile=0.15, pool_share=0.3, seed=0, groups=features.formula)
    tampered = y.copy()
    tampered[split.pool] = 1e6 * np.arange(len(split.pool))
    before, after = predictions(features, y, split), predictions(features, tampered, split)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    # and the test can fail: what is learned from does change them
    tampered = y.copy()
    tampered[split.train[:5]] += 3
    changed = predictions(features, tampered, split)
    for name in ("AtomSets", "ridge, composition", "random forest, composition"):
        assert not np.array_equal(before[name], changed[name])


def test_other_members_of_the_pool_change_no_prediction():
    features, y = crystals()
    split = value_holdout(y, quantile=0.15, pool_share=0.3, groups=features.formula)
    half = replace(split, pool=split.pool[::2], hidden=split.hidden[::2])
    before, after = predictions(features, y, split), predictions(features, y, half)
    for name in ("AtomSets", "ridge, composition", "random forest, composition"):
        np.testing.assert_allclose(before[name][::2], after[name], rtol=1e-5, atol=1e-6, err_msg=name)


def head(r_precision: float, hits: list[int], **more: float | None) -> dict:
    return {"r_precision": r_precision, "enrichment": 2 * r_precision, "hits": hits, **more}


def test_a_summary_averages_over_seeds():
    runs = [
        {"heads": {"A": head(0.2, [0, 1], mae_outside=1.0, spearman_outside=None), "random": head(0.0, [0, 0])}},
        {"heads": {"A": head(0.4, [1, 1], mae_outside=3.0, spearman_outside=0.5), "random": head(0.5, [1, 1])}},
    ]
    rows = {row["head"]: row for row in summarize(runs)}
    assert rows["A"]["r_precision"] == pytest.approx(0.3)
    # standard deviation 0.1414 of two values, over the root of two
    assert rows["A"]["r_precision_se"] == pytest.approx(0.1)
    assert rows["A"]["enrichment"] == pytest.approx(0.6)
    assert rows["A"]["mae_outside"] == pytest.approx(2)
    assert rows["A"]["spearman_outside"] == pytest.approx(0.5)
    assert rows["A"]["hits"] == [0.5, 1]
    assert rows["random"]["mae_outside"] is None
    assert summarize(runs[:1])[0]["r_precision_se"] is None
    json.dumps(summarize(runs), allow_nan=False)
