"""The simulated discovery keeps what is hidden from every head, and scores chance as chance."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from atomsets_core.discovery.choice import campaign_heads, choose, verdict
from atomsets_core.discovery.heads import (
    AtomSetsHead,
    CompositionForestHead,
    CompositionRidgeHead,
    Estimate,
    GaussianProcessHead,
    Head,
    MeanHead,
    MEGNetHead,
    NeighboursHead,
    RidgeHead,
    Rows,
    ScratchHead,
    TransductionHead,
)
from atomsets_core.discovery.lineup import choices, lineup
from atomsets_core.discovery.simulate import CHOSEN, Asked, Design, answer, ask, lead, score, scored, summarize
from atomsets_core.discovery.transduction import TransductionOptions
from atomsets_core.parents.base import Features

METALS = ("Mg", "Ca", "Sr", "Ba", "Ti", "Zr", "Hf", "V", "Nb", "Ta", "Cr", "Mo", "W", "Mn", "Re")
ANIONS = ("O", "S", "N", "C")
SMALL = {
    "features": "megnet:V0", "phi": (8,), "rho": (8,), "members": 2, "folds": 2, "epochs": 2, "coverage": 0.8,
    "device": "cpu",
}  # fmt: skip
QUICK = TransductionOptions(members=2, hidden=8, width=4, steps=20, offered=20, differences=50, anchors=3)
HEADS: dict[str, Head] = {
    "AtomSets": AtomSetsHead(SMALL),
    "from scratch": ScratchHead({k: v for k, v in SMALL.items() if k != "features"}),
    "ridge": RidgeHead("megnet:V0"),
    "ridge with composition": RidgeHead("megnet:V0,composition"),
    "Gaussian process": GaussianProcessHead("megnet:V0"),
    "transduction": TransductionHead("megnet:V0", QUICK),
    "neighbours": NeighboursHead("megnet:V0"),
    "ridge, composition": CompositionRidgeHead(),
    "random forest, composition": CompositionForestHead(),
    "mean": MeanHead((RidgeHead("megnet:V0"), GaussianProcessHead("megnet:V0"))),
}
DESIGN = Design(quantile=0.15, pool_share=0.3)


def crystals(n: int = 60) -> tuple[Rows, np.ndarray]:
    """Features of invented binary compounds, and values that follow from them."""
    random = np.random.default_rng(5)
    formulas = np.array([f"{metal}{anion}" for metal in METALS for anion in ANIONS][:n], dtype=object)
    counts = random.integers(1, 4, n)
    level = random.normal(size=(n, 16))
    sites = np.repeat(level, counts, axis=0) + 0.1 * random.normal(size=(counts.sum(), 16))
    names = np.array([f"m{i}" for i in range(n)], dtype=object)
    features = Features(names, names, formulas, counts, {"V0": sites.astype(np.float32)}, {}, "d")
    return Rows(features), level[:, 0] + 0.5 * level[:, 1]


@pytest.mark.parametrize("name", HEADS)
def test_what_is_hidden_changes_no_prediction(name: str):
    rows, y = crystals()
    split = DESIGN.holdout(y, rows.formula, 0)
    before = ask(HEADS[name], rows, y, split, 0)
    tampered = y.copy()
    tampered[split.pool] = 1e6 * np.arange(len(split.pool))
    after = ask(HEADS[name], rows, tampered, split, 0)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.std, after.std)
    # And the test can fail: what is learned from does change it.
    tampered = y.copy()
    tampered[split.train[:5]] += 3
    assert not np.array_equal(before.mean, ask(HEADS[name], rows, tampered, split, 0).mean)


@pytest.mark.parametrize("name", HEADS)
def test_other_members_of_the_pool_change_no_prediction_and_seeds_repeat(name: str):
    rows, y = crystals()
    split = DESIGN.holdout(y, rows.formula, 0)
    half = replace(split, pool=split.pool[::2], hidden=split.hidden[::2])
    whole, part = ask(HEADS[name], rows, y, split, 3), ask(HEADS[name], rows, y, half, 3)
    np.testing.assert_allclose(whole.mean[::2], part.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.std[::2], part.std, rtol=1e-4, atol=1e-5)
    assert (whole.std > 0).all()
    np.testing.assert_array_equal(ask(HEADS[name], rows, y, split, 3).mean, whole.mean)


def test_the_inner_holdout_lies_inside_the_training_part_and_hides_its_best():
    rows, y = crystals()
    for goal, sign in (("maximize", 1), ("minimize", -1)):
        design = replace(DESIGN, goal=goal)
        outer = design.holdout(y, rows.formula, 1)
        inner = design.inner(y, rows.formula, outer, 1)
        assert set(inner.train) | set(inner.pool) | set(inner.dropped) == set(outer.train)
        assert not set(inner.train) & set(inner.pool)
        hidden = inner.pool[inner.hidden]
        assert (sign * y[hidden]).min() >= (sign * y[inner.train]).max()
        assert (sign * y[hidden]).max() <= (sign * y[outer.pool[outer.hidden]]).min()


def test_the_choice_inside_does_not_look_at_what_is_hidden():
    rows, y = crystals()
    heads = {"ridge": HEADS["ridge"], "neighbours": HEADS["neighbours"]}
    choices = {"ridge": ["ridge"], "neighbours": ["neighbours"], "both": ["ridge", "neighbours"]}
    split = DESIGN.holdout(y, rows.formula, 0)
    tampered = y.copy()
    # Another order among the hidden: the same rows are hidden, other heads would win.
    hidden = split.pool[split.hidden]
    tampered[hidden] = y[hidden][::-1] + 10
    found = []
    for labels in (y, tampered):
        answers = {n: answer(head, rows, labels, DESIGN, 0, with_inner=True) for n, head in heads.items()}
        found.append(scored(answers, labels, rows.formula, DESIGN, 0, choices))
    assert found[0]["chosen"] == found[1]["chosen"]
    assert found[0]["inner"] == found[1]["inner"]
    assert found[0]["heads"]["both"]["mae_outside"] != found[1]["heads"]["both"]["mae_outside"]


def test_a_label_permutation_gives_chance_and_the_true_labels_do_not():
    random = np.random.default_rng(0)
    rows, _ = crystals(60)
    x = np.repeat(random.normal(size=(300, 16)), 1, axis=0)
    names = np.array([f"m{i}" for i in range(300)], dtype=object)
    formulas = np.array([f"Fe{i + 1}O" for i in range(300)], dtype=object)
    features = Features(names, names, formulas, np.ones(300, dtype=np.int64), {"V0": x.astype(np.float32)}, {}, "d")
    rows = Rows(features)
    y = x @ random.normal(size=16) + 0.3 * random.normal(size=300)
    design = Design()
    for head in (HEADS["ridge"], HEADS["Gaussian process"]):
        learned, chance = [], []
        for seed in range(12):
            for labels, found in ((y, learned), (np.random.default_rng(seed).permutation(y), chance)):
                split = design.holdout(labels, rows.formula, seed)
                estimate = ask(head, rows, labels, split, seed)
                asked = Asked(labels[split.pool], split.hidden, 1.0, labels[split.train].max())
                found.append(score(asked, estimate)["r_precision"])
        # 30 hidden of 84: one run scatters by 0.07, the mean of 12 by 0.021.
        assert np.mean(learned) > 0.8
        assert np.mean(chance) == pytest.approx(30 / 84, abs=0.085)


def test_equal_predictions_score_as_chance():
    # A head that can't tell anything apart must not gain from the order of the pool.
    y = np.random.default_rng(0).normal(size=400)
    formula = np.array([str(i) for i in range(400)], dtype=object)
    found = []
    for seed in range(60):
        split = Design(pool_share=0.5).holdout(y, formula, seed)
        flat = Estimate(np.zeros(len(split.pool)), np.ones(len(split.pool)))
        constant = score(Asked(y[split.pool], split.hidden, 1.0, 1.0), flat)
        found.append(constant["r_precision"])
        assert constant["spearman_outside"] is None
    # 40 hidden in a pool of 220; the standard error of the mean is 0.007
    assert np.mean(found) == pytest.approx(40 / 220, abs=0.03)


def test_scores_by_hand():
    y = np.array([10.0, 9, 3, 2, 8])
    hidden = np.array([True, True, False, False, True])
    mean, std = np.array([5.0, 1, 4, 3, 6]), np.array([10.0, 1, 1, 1, 1])
    in_domain = np.array([True, False, True, False, True])
    found = score(Asked(y, hidden, 1.0, 3.0, 1.0), Estimate(mean, std, in_domain))
    assert found["hits"] == [1, 2, 2, 2, 3]
    assert found["r_precision"] == pytest.approx(2 / 3)
    assert found["enrichment"] == pytest.approx(2 / 3 / 0.6)
    # predicted above 3: rows 0, 2 and 4, of which two are; three of five are
    assert found["acceleration"] == pytest.approx((2 / 3) / (3 / 5))
    assert found["mae_outside"] == pytest.approx((5 + 8 + 2) / 3)
    assert found["mae_inside"] == pytest.approx(1)
    assert found["bias_outside"] == pytest.approx(-5)
    assert found["spearman_outside"] == pytest.approx(-0.5)
    # 90 % of a Gaussian lies within 1.645 deviations: of the hidden only the first, of the others both
    assert found["coverage_outside"] == pytest.approx(1 / 3)
    assert found["coverage_inside"] == 1
    assert found["width_outside"] == found["width_inside"] == pytest.approx(2 * 1.64485, rel=1e-5)
    # Rows 1 and 3 are outside the domain: 8 and 1 off, deviations of 1.
    assert (found["unlike"], found["coverage_unlike"], found["bias_unlike"]) == (2.0, 0.5, pytest.approx(-3.5))
    assert found["width_unlike"] == pytest.approx(2 * 1.64485, rel=1e-5)
    assert "unlike" not in score(Asked(y, hidden, 1.0, 3.0, 1.0), Estimate(mean, std))
    # with its deviation row 0 comes first under ucb: 15, 7, 5, 4, 2
    assert found["acquisition"]["ucb"] == pytest.approx(2 / 3)


def test_minimizing_scores_are_those_of_maximizing_the_opposite():
    y, predicted = (np.random.default_rng(seed).normal(size=50) for seed in (0, 1))
    hidden = y > np.sort(y)[-10]
    std = np.random.default_rng(2).uniform(0.5, 2, 50)
    up = score(Asked(y, hidden, 1.0, 1.0), Estimate(predicted, std))
    down = score(Asked(-y, hidden, -1.0, -1.0), Estimate(-predicted, std))
    assert up["hits"] == down["hits"]
    assert up["acquisition"] == down["acquisition"]
    assert up["acceleration"] == down["acceleration"]
    assert up["spearman_outside"] == pytest.approx(down["spearman_outside"])
    assert up["bias_outside"] == pytest.approx(-down["bias_outside"])


@pytest.fixture(scope="module")
def run() -> dict:
    rows, y = crystals()
    answers = {name: answer(head, rows, y, DESIGN, 0) for name, head in HEADS.items()}
    return scored(answers, y, rows.formula, DESIGN, 0)


def test_a_run_is_json_with_every_head_and_sizes_that_add_up(run: dict):
    assert json.loads(json.dumps(run, allow_nan=False)) == run
    assert list(run["heads"]) == [*HEADS, "random", "oracle"]
    assert (run["n_hidden"], run["n_pool"]) == (9, 9 + 15)
    assert run["n_train"] + run["n_dropped"] == 60 - 24
    assert run["prevalence"] == pytest.approx(9 / 24)
    _, y = crystals()
    assert run["boundary"] <= np.sort(y)[-10]
    for head in run["heads"].values():
        assert len(head["hits"]) == run["n_pool"]
        assert head["hits"][-1] == run["n_hidden"]
        assert (np.diff(head["hits"]) >= 0).all()
        assert head["r_precision"] == head["hits"][8] / 9
    assert run["heads"]["oracle"]["r_precision"] == run["heads"]["oracle"]["area"] == 1


def head(r_precision: float, hits: list[int], **more: float | None) -> dict:
    kinds = dict.fromkeys(("mean", "ucb", "ei", "probability"), r_precision)
    found = {"r_precision": r_precision, "enrichment": 2 * r_precision, "hits": hits, "acquisition": kinds}
    return {**found, **more}


def test_a_summary_averages_over_seeds_with_intervals():
    runs = [
        {"heads": {"A": head(0.2, [0, 1], mae_outside=1.0, spearman_outside=None), "random": head(0.0, [0, 0])}},
        {"heads": {"A": head(0.4, [1, 1], mae_outside=3.0, spearman_outside=0.5), "random": head(0.5, [1, 1])}},
        {"heads": {"random": head(0.1, [0, 1])}},
    ]
    rows = {row["head"]: row for row in summarize(runs)}
    assert rows["A"]["r_precision"] == pytest.approx(0.3)
    assert rows["A"]["seeds"] == 2
    assert rows["A"]["intervals"]["r_precision"] == pytest.approx([0.2, 0.4])
    # standard deviation 0.1414 of two values, over the root of two
    assert rows["A"]["r_precision_se"] == pytest.approx(0.1)
    assert rows["A"]["mae_outside"] == pytest.approx(2)
    assert rows["A"]["spearman_outside"] == pytest.approx(0.5)
    assert rows["A"]["intervals"]["spearman_outside"] is None
    assert rows["A"]["hits"] == [0.5, 1]
    assert rows["random"]["mae_outside"] is None
    gap = lead(runs, "A", "random") if "A" in runs[2]["heads"] else lead(runs[:2], "A", "random")
    assert gap is not None
    assert gap["mean"] == pytest.approx(0.05)
    json.dumps(summarize(runs), allow_nan=False)


def test_blind_picking_is_summed_up_by_what_it_finds_on_average():
    runs = [
        {"n_hidden": 2, "n_pool": 4, "heads": {"A": head(1.0, [1, 2, 2, 2]), "random": head(found, [0, 0, 1, 2])}}
        for found in (0.0, 0.5)
    ]
    row = {row["head"]: row for row in summarize(runs)}["random"]
    assert (row["r_precision"], row["enrichment"], row["r_precision_se"]) == (0.5, 1.0, None)
    assert row["hits"] == [0.5, 1.0, 1.5, 2.0]
    assert row["intervals"]["r_precision"] is None
    # The verdict of the same runs names the same figure.
    assert verdict(runs, 1.0)["prevalence"] == row["r_precision"]


def test_the_campaign_takes_the_first_of_what_finds_most_noise_aside():
    def made(found: dict[str, tuple[float, float, float]]) -> dict:
        heads = {}
        for name, (greedy, bold, error) in found.items():
            heads[name] = head(greedy, [], mae_outside=error)
            heads[name]["acquisition"] = {"mean": greedy, "ucb": bold, "ei": greedy, "probability": 0.0}
        return {"heads": heads, "n_hidden": 100, "n_pool": 400}

    # 0.8 of 100 has a standard error of 0.04: 0.6 is clearly less, 0.77 is not.
    clear = choose([made({"A": (0.5, 0.6, 0.1), "B": (0.5, 0.8, 0.3)})], ["A", "B"])
    assert clear is not None
    assert (clear["head"], clear["acquisition"]) == ("B", "ucb")
    near = choose([made({"A": (0.77, 0.5, 0.1), "B": (0.5, 0.8, 0.3)})], ["A", "B"])
    assert near is not None
    # mean and ei find as many: mean comes first
    assert (near["head"], near["acquisition"]) == ("A", "mean")
    other = choose([made({"A": (0.77, 0.5, 0.1), "B": (0.5, 0.8, 0.3)})], ["B", "A"])
    assert other is not None
    assert (other["head"], other["acquisition"]) == ("B", "ucb")
    only = choose([made({"A": (0.77, 0.5, 0.1), "B": (0.5, 0.9, 0.3)})], ["A", "B"], ["mean"])
    assert only is not None
    assert (only["head"], only["acquisition"]) == ("A", "mean")
    assert choose([], ["A"]) is None


def test_no_better_than_random_is_said_where_blind_picking_does_as_well():
    runs = [{"n_hidden": 20, "n_pool": 60}]
    blind = []
    wanted = np.arange(60) < 20
    for seed in range(4000):
        order = np.random.default_rng(seed).permutation(60)
        blind.append(wanted[order][:20].mean())
    told = [verdict(runs, value)["better_than_random"] for value in blind]
    assert 0.005 < np.mean(told) < 0.05
    assert verdict(runs, 0.8)["better_than_random"]


def test_a_campaign_compares_its_recipes_with_the_others():
    rows, y = crystals()
    heads = campaign_heads({**SMALL, "transform": "log10", "seed": 0})
    answers = {name: answer(fit, rows, y, DESIGN, 0) for name, fit in heads.items()}
    found = choose([scored(answers, y, rows.formula, DESIGN, 0)], list(heads)[:2])
    assert found is not None
    assert found["head"] in list(heads)[:2]
    assert CHOSEN not in answers


def test_megnet_from_scratch_sees_structures_and_nothing_of_the_pool(elastic, elastic_features):
    features, values = elastic_features
    chosen = np.arange(60)
    rows, y = Rows(features[chosen], elastic.structures.take(chosen)), np.log10(values[chosen])
    split = DESIGN.holdout(y, rows.formula, 0)
    head = MEGNetHead({"epochs": 1})
    before = ask(head, rows, y, split, 0)
    tampered = y.copy()
    tampered[split.pool] = 1e6 * np.arange(len(split.pool))
    np.testing.assert_array_equal(before.mean, ask(head, rows, tampered, split, 0).mean)
    tampered = y.copy()
    tampered[split.train[:5]] += 3
    assert not np.array_equal(before.mean, ask(head, rows, tampered, split, 0).mean)
    with pytest.raises(ValueError, match="needs the structures"):
        ask(head, replace(rows, structures=None), y, split, 0)


def test_the_lineup_names_every_head_once_and_chooses_between_the_richest_features():
    alone, both = lineup(["megnet"]), lineup(["megnet", "chgnet"])
    assert set(alone) <= set(both)
    for entries, parent in ((alone, "megnet"), (both, "chgnet")):
        eligible = [name for name, entry in entries.items() if entry.eligible]
        assert eligible == [
            f"AtomSets, {parent}",
            f"AtomSets, linear readout, {parent}",
            f"Gaussian process, {parent}",
            "ridge, all features",
        ]
        offered = choices(entries)
        assert list(offered)[:4] == eligible
        assert offered[f"AtomSets, {parent} + Gaussian process"] == [
            f"AtomSets, {parent}",
            f"Gaussian process, {parent}",
        ]
        assert all(set(parts) <= set(eligible) for parts in offered.values())
