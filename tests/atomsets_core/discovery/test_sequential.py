"""A sequential search learns only what it has chosen, and beats blind picking where there is something to learn."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from atomsets_core.discovery.acquisition import ACQUISITIONS, Constraints, Objective, pareto_fronts
from atomsets_core.discovery.heads import Estimate, Predict, RidgeHead, Rows
from atomsets_core.discovery.sequential import Search, random_budget, search, summarize_searches
from atomsets_core.parents.base import Features

N = 300
X = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
Y = X @ np.array([1.0, 0.5, -0.5, 0.2, 0.0, 0.0]) + 0.1 * np.random.default_rng(1).normal(size=N)
OTHER = X @ np.array([-1.0, 0.5, 0.5, 0.0, 0.3, 0.0]) + 0.1 * np.random.default_rng(2).normal(size=N)
NAMES = np.array([f"m{i}" for i in range(N)], dtype=object)
FORMULAS = np.array([("Fe" if i % 3 else "Pb") + f"O{i % 7 + 1}" for i in range(N)], dtype=object)
ROWS = Rows(Features(NAMES, NAMES, FORMULAS, np.ones(N, dtype=np.int64), {"V0": X}, {}, "d"))
HEAD = RidgeHead("megnet:V0")
RULES = Search(share=0.05, n_start=30, batch=5, rounds=12)


def play(rules: Search, seed: int = 0, **more: object) -> dict:
    return search(HEAD, ROWS, {"y": Y, "z": OTHER}, rules, seed, vectors=X, **more)  # type: ignore[arg-type]


@dataclass
class Spy:
    """A head that remembers what it was shown."""

    seen: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def fit(self, rows: Rows, y: np.ndarray, seed: int) -> Predict:  # noqa: ARG002
        self.seen.append((rows.features.material_id.copy(), y.copy()))
        return lambda others: Estimate(np.arange(len(others), dtype=float), np.ones(len(others)))


def test_a_head_sees_the_start_and_then_what_was_chosen_and_nothing_else():
    spy = Spy()
    search(spy, ROWS, {"y": Y}, RULES, 0, vectors=X)
    value = dict(zip(NAMES, Y, strict=True))
    assert [len(y) for _, y in spy.seen] == [30 + 5 * i for i in range(12)]
    for (before, _), (after, shown) in zip(spy.seen, spy.seen[1:], strict=False):
        assert list(after[: len(before)]) == list(before)
        assert len(set(after)) == len(after)
        np.testing.assert_array_equal(shown, [value[name] for name in after])
    # It starts from the worse half.
    assert max(spy.seen[0][1]) <= np.median(Y)


def test_values_not_yet_learned_change_no_choice_until_they_are():
    found = play(RULES)
    tampered = Y.copy()
    better = np.median(Y) < Y
    tampered[better] += np.random.default_rng(3).uniform(0, 0.5, better.sum())
    spy, again = Spy(), Spy()
    for one, labels in ((spy, Y), (again, tampered)):
        search(one, ROWS, {"y": labels}, replace(RULES, rounds=2, share=0.001), 0, vectors=X)
    np.testing.assert_array_equal(spy.seen[0][0], again.seen[0][0])
    assert found["n_start"] == 30


@pytest.mark.parametrize("kind", ACQUISITIONS)
@pytest.mark.parametrize("diversity", ["none", "k-centre"])
def test_every_acquisition_beats_blind_picking_by_far(kind: str, diversity: str):
    rules = replace(RULES, kind=kind, diversity=diversity)
    found, blind = ([play(replace(rules, kind=k), seed)["found"][-1] for seed in range(4)] for k in (kind, "random"))
    # 15 wanted among 270: blind picking finds 60 x 15 / 270 = 3.3 on average
    assert np.mean(blind) < 6
    assert np.mean(found) > 10


def test_permuted_labels_leave_nothing_to_learn():
    found = []
    for seed in range(8):
        labels = np.random.default_rng(seed).permutation(Y)
        found.append(search(HEAD, ROWS, {"y": labels}, RULES, seed, vectors=X)["found"][-1])
    # 60 of 270 picked: 3.3 of 15 by chance, standard error of the mean of eight 0.55
    assert 1.3 < np.mean(found) < 5.5


@pytest.mark.parametrize(
    "objective",
    [
        Objective("minimize"),
        Objective("target", value=0.5),
        Objective("window", low=0.4, high=0.5),
        Objective("exceed", value=2.0),
    ],
)
def test_other_objectives_are_found_too(objective: Objective):
    rules = replace(RULES, objectives={"y": objective}, start="random", rounds=8)
    kinds = ["mean", "ucb"] + ([] if objective.goal == "target" else ["probability"])
    blind = [play(replace(rules, kind="random"), seed) for seed in range(3)]
    chance = np.mean([run["found"][-1] for run in blind])
    for kind in kinds:
        found = [play(replace(rules, kind=kind), seed)["found"][-1] for seed in range(3)]
        assert np.mean(found) > 1.5 * max(chance, 1), kind


def test_several_properties_by_weights_and_by_pareto():
    both = {"y": Objective(), "z": Objective()}
    weighted = replace(RULES, objectives=both, weights={"y": 2.0, "z": 1.0}, kind="mean", start="random")
    pareto = replace(weighted, pareto=True)
    for rules in (weighted, pareto):
        wanted = rules.wanted({"y": Y, "z": OTHER}, np.ones(N, dtype=bool))
        found = np.mean([play(rules, seed)["found"][-1] for seed in range(3)])
        blind = np.mean([play(replace(rules, kind="random"), seed)["found"][-1] for seed in range(3)])
        assert found > 2 * max(blind, 1)
        assert found <= wanted.sum()
    front = pareto_fronts(np.column_stack([Y, OTHER])) == 0
    np.testing.assert_array_equal(pareto.wanted({"y": Y, "z": OTHER}, np.ones(N, dtype=bool)), front)


def test_what_breaks_a_constraint_is_neither_chosen_nor_wanted():
    allowed = Constraints(forbidden=("Pb",)).met(list(FORMULAS), np.ones(N, dtype=np.int64))
    assert 0 < allowed.sum() < N
    spy = Spy()
    found = search(spy, ROWS, {"y": Y}, RULES, 0, vectors=X, allowed=allowed)
    legal = set(NAMES[allowed])
    assert all(name in legal for names, _ in spy.seen for name in names)
    assert found["n_wanted"] == round(0.05 * allowed.sum())
    with pytest.raises(ValueError, match="nothing to search for"):
        search(spy, ROWS, {"y": Y}, replace(RULES, objectives={"y": Objective("exceed", value=99.0)}), 0, vectors=X)


def test_runs_repeat_and_are_json():
    one, again, other = play(RULES), play(RULES), play(RULES, 1)
    assert one == again
    assert one["found"] != other["found"]
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert (np.diff(one["found"]) >= 0).all()
    assert (np.diff(one["best"]) >= 0).all()


def test_the_budget_of_blind_picking_is_that_of_random_orders():
    random, budgets = np.random.default_rng(0), []
    for _ in range(4000):
        order = random.permutation(np.arange(120) < 11)
        budgets.append(np.flatnonzero(np.cumsum(order) >= 6)[0] + 1)
    # the sixth of eleven is half of them, rounded up
    assert random_budget(11, 120, 0.5) == pytest.approx(np.mean(budgets), rel=0.02)


def test_a_summary_gives_budgets_and_multiples():
    runs = [
        {"search": "ucb", "n_pool": 100, "n_wanted": 4, "found": [0, 1, 2, 2]},
        {"search": "ucb", "n_pool": 100, "n_wanted": 4, "found": [1, 2, 2, 3]},
        {"search": "random", "n_pool": 100, "n_wanted": 4, "found": [0, 0, 0, 1]},
    ]
    rows = {row["search"]: row for row in summarize_searches(runs)}
    assert rows["ucb"]["budget"] == 2.5
    assert rows["ucb"]["multiple"] == pytest.approx(2.5 / (2 * 101 / 5))
    assert rows["ucb"]["budget_interval"] == [2.0, 3.0]
    assert (rows["random"]["reached"], rows["random"]["budget"]) == (0, None)
