"""Acquisition functions agree with their definitions; the shortlist is diverse and holds the best."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from atomsets_core.discovery.acquisition import (
    ACQUISITIONS,
    GOALS,
    KINDS,
    UCB,
    Acquisition,
    acquisition,
    choose_batch,
    diverse_shortlist,
    find_acquisition,
    takers,
)
from atomsets_core.report import methods
from tests.spelling import spelled, spelled_in

MEAN = np.array([0.0, 1.0, 2.0, -1.0])
STD = np.array([2.0, 0.5, 0.1, 1.0])


@pytest.mark.parametrize(("goal", "sign"), [("maximize", 1), ("minimize", -1)])
@pytest.mark.parametrize("best", [-0.5, 1.0, 5.0])
def test_expected_improvement_is_the_integral_over_improvements(goal: str, sign: int, best: float):
    found = acquisition(MEAN, STD, goal=goal, kind="ei", best=best)
    for mean, std, value in zip(MEAN, STD, found, strict=True):
        gain = lambda x, m=mean, s=std: max(sign * (x - best), 0) * norm.pdf(x, m, s)  # noqa: E731
        expected = quad(gain, mean - 12 * std, mean + 12 * std, points=[best], limit=200)[0]
        assert value == pytest.approx(expected, abs=1e-8)


def test_expected_improvement_without_uncertainty_is_the_improvement():
    assert acquisition(np.array([3.0, 1, 2]), np.zeros(3), kind="ei", best=2.0).tolist() == [1, 0, 0]


def test_upper_confidence_bound_and_mean_by_hand():
    assert acquisition(MEAN, STD, kappa=2.0).tolist() == [4.0, 2.0, 2.2, 1.0]
    assert acquisition(MEAN, STD, kind="mean", kappa=2.0).tolist() == MEAN.tolist()
    assert acquisition(MEAN, STD, goal="target", target=1.0, kappa=0.5).tolist() == [0.0, 0.25, -0.95, -1.5]
    assert acquisition(MEAN, STD, goal="target", target=1.0, kind="mean").tolist() == [-1, 0, -1, -2]


@pytest.mark.parametrize("kind", ["ucb", "mean", "ei"])
def test_minimizing_is_maximizing_the_opposite(kind: str):
    up = acquisition(MEAN, STD, goal="maximize", kind=kind, best=0.7)
    down = acquisition(-MEAN, STD, goal="minimize", kind=kind, best=-0.7)
    np.testing.assert_allclose(up, down)


def test_a_doubtful_candidate_is_never_worse_under_ucb_and_ei():
    for kind in ("ucb", "ei"):
        assert (acquisition(MEAN, 2 * STD, kind=kind, best=3.0) >= acquisition(MEAN, STD, kind=kind, best=3.0)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "best"}, "no goal 'best'; there are maximize, minimize, target"),
        ({"kind": "pi"}, "no acquisition 'pi'; there are mean, ucb, ei"),
        ({"kind": "ei"}, "needs the best training value"),
        ({"kind": "probability"}, "needs the best training value"),
        ({"kind": "thompson"}, "needs a random generator"),
        ({"goal": "window"}, "the goal window needs a low and a high end"),
        ({"goal": "window", "window": (1.0, 0.0)}, "the window from 1 to 0 is empty"),
        ({"goal": "target"}, "the goals target and exceed need a value"),
        ({"goal": "target", "kind": "ei", "target": 1.0, "best": 0.0}, "acquisition mean, ucb or thompson"),
    ],
)
def test_what_is_missing_is_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        acquisition(MEAN, STD, **options)


def offered(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    groups = np.array([f"F{i}" for i in random.integers(0, n // 2, n)], dtype=object)
    return random.normal(size=n), random.normal(size=(n, 5)), groups


def distance_between(features: np.ndarray) -> float:
    gaps = np.linalg.norm(features[:, None] - features[None], axis=2)
    return float(gaps[np.triu_indices(len(features), 1)].min())


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_shortlist_has_the_best_first_and_one_of_each_group(spread: float, seed: int):
    score, features, groups = offered(seed=seed)
    chosen = diverse_shortlist(score, features, groups, 10, spread)
    assert len(chosen) == len(set(chosen.tolist())) == 10
    assert chosen[0] == score.argmax()
    assert len(set(groups[chosen])) == 10
    for row in chosen:
        assert score[row] == score[groups == groups[row]].max()


def test_without_spread_it_is_the_best_of_each_group_in_order():
    score, features, groups = offered()
    best = [row for row in np.argsort(-score) if score[row] == score[groups == groups[row]].max()]
    assert diverse_shortlist(score, features, groups, 12, 0.0).tolist() == best[:12]


def test_spread_alone_takes_the_farthest_next():
    score, features, groups = offered()
    groups = np.array([str(i) for i in range(len(score))], dtype=object)
    chosen = diverse_shortlist(score, features, groups, 6, 1.0)
    for count in range(1, 6):
        gaps = np.linalg.norm(features[:, None] - features[chosen[:count]], axis=2).min(axis=1)
        assert gaps[chosen[count]] == pytest.approx(gaps.max())


def test_more_spread_means_less_likeness_and_lower_scores():
    score, features, groups = offered(200)
    greedy, diverse = (diverse_shortlist(score, features, groups, 8, spread) for spread in (0.0, 0.8))
    assert distance_between(features[diverse]) > distance_between(features[greedy])
    assert score[diverse].sum() < score[greedy].sum()


def test_twins_under_two_names_are_not_both_taken_while_others_are_left():
    score = np.array([1.0, 0.99, 0.5])
    features = np.array([[0.0], [0.0], [1.0]])
    groups = np.array(["a", "b", "c"], dtype=object)
    assert diverse_shortlist(score, features, groups, 2, 0.5).tolist() == [0, 2]
    assert diverse_shortlist(score, features, groups, 2, 0.0).tolist() == [0, 1]


def test_sizes():
    score, features, groups = offered()
    assert len(diverse_shortlist(score, features, groups, 0, 0.5)) == 0
    assert len(diverse_shortlist(score[:0], features[:0], groups[:0], 5, 0.5)) == 0
    assert len(diverse_shortlist(score, features, groups, 1000, 0.5)) == len(set(groups))
    assert diverse_shortlist(score[:1], features[:1], groups[:1], 5, 0.5).tolist() == [0]


def test_equal_scores_and_equal_features_still_fill_the_list():
    groups = np.array(list("abcd"), dtype=object)
    assert sorted(diverse_shortlist(np.zeros(4), np.zeros((4, 2)), groups, 4, 0.5).tolist()) == [0, 1, 2, 3]


def test_the_scale_of_scores_and_features_plays_no_part():
    score, features, groups = offered()
    before = diverse_shortlist(score, features, groups, 10, 0.4)
    after = diverse_shortlist(100 * score + 7, 0.01 * features, groups, 10, 0.4)
    assert before.tolist() == after.tolist()


@pytest.mark.parametrize(("goal", "sign"), [("maximize", 1), ("minimize", -1)])
def test_the_probability_of_beating_the_best_is_that_of_a_draw(goal: str, sign: int):
    draws = MEAN + STD * np.random.default_rng(0).normal(size=(200_000, 4))
    found = acquisition(MEAN, STD, goal=goal, kind="probability", best=0.5)
    np.testing.assert_allclose(found, (sign * draws > sign * 0.5).mean(axis=0), atol=0.005)
    above = acquisition(MEAN, STD, goal="exceed", kind="probability", target=0.5)
    np.testing.assert_allclose(above, acquisition(MEAN, STD, kind="probability", best=0.5))
    within = acquisition(MEAN, STD, goal="window", kind="probability", window=(0.0, 1.0))
    np.testing.assert_allclose(within, ((draws > 0) & (draws < 1)).mean(axis=0), atol=0.005)


def test_thompson_picks_each_row_as_often_as_it_is_the_best():
    random = np.random.default_rng(0)
    wins = np.bincount([acquisition(MEAN, STD, kind="thompson", random=random).argmax() for _ in range(20_000)])
    draws = MEAN + STD * np.random.default_rng(1).normal(size=(200_000, 4))
    np.testing.assert_allclose(wins / 20_000, np.bincount(draws.argmax(axis=1)) / 200_000, atol=0.015)


def test_a_window_prefers_its_inside_and_then_what_is_near():
    found = acquisition(MEAN, STD, goal="window", kind="mean", window=(0.5, 1.5))
    assert found.tolist() == [-0.5, 0.0, -0.5, -1.5]


@pytest.mark.parametrize("diversity", ["k-centre", "determinantal"])
def test_a_diverse_batch_spreads_over_what_is_good(diversity: str):
    random = np.random.default_rng(0)
    # Twenty good rows in a heap, twenty a little less good all over the place, and many bad ones.
    points = np.concatenate([0.01 * random.normal(size=(20, 3)), random.normal(size=(180, 3))])
    score = np.concatenate([np.full(20, 1.0), np.full(20, 0.95), np.full(160, -5.0)]) + 1e-3 * random.random(200)
    greedy = choose_batch(score, points, 10)
    assert (greedy < 20).all()
    diverse = choose_batch(score, points, 10, diversity)
    assert len(set(diverse.tolist())) == 10
    assert diverse[0] == score.argmax()
    assert (diverse < 40).all()
    assert (diverse < 20).sum() <= 2
    assert distance_between(points[diverse]) > 10 * distance_between(points[greedy])


@pytest.mark.parametrize("diversity", ["none", "k-centre", "determinantal"])
def test_a_batch_has_its_size_also_among_twins(diversity: str):
    score = np.arange(30.0)
    assert len(set(choose_batch(score, np.zeros((30, 2)), 8, diversity).tolist())) == 8
    assert sorted(choose_batch(score, np.zeros((30, 2)), 50, diversity)) == list(range(30))
    with pytest.raises(ValueError, match="no diversity 'much'"):
        choose_batch(score, np.zeros((30, 2)), 8, "much")


OPTIMIST = Acquisition(
    "optimist",
    lambda asked: asked.optimistic(3.0),
    words="the best that can be hoped for",
    formula="{utility} as hoped for",
    refuses=("window",),
)
"""An entry that somebody might add."""

FIELDS = {"value": 30.0, "low": 10.0, "high": 40.0, "kappa": 0.5}


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("atomsets_core.discovery.acquisition")
    monkeypatch.setattr(module, "ACQUISITIONS", {**ACQUISITIONS, OPTIMIST.name: OPTIMIST})


def told(kind: str, goal: str, **changed: float) -> str:
    objective = {**FIELDS, "goal": goal, "acquisition": kind, **changed}
    return methods.acquisition(
        {"settings": {"objective": objective}, "transform": "log10", "target": "K {VRH}", "unit": "GPa"}
    )


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("kind", [*ACQUISITIONS, OPTIMIST.name])
@pytest.mark.usefixtures("added")
def test_an_entry_of_the_table_scores_and_is_told_for_every_goal_it_takes(kind: str, goal: str):
    wanted = {"target": {"target": 2.0}, "exceed": {"target": 2.0}, "window": {"window": (1.0, 2.0)}}.get(goal, {})
    options = {"goal": goal, "kind": kind, "best": 2.0, "random": np.random.default_rng(0), **wanted}
    if goal in find_acquisition(kind).refuses:
        with pytest.raises(ValueError, match=f"the goal '{goal}' takes the acquisition mean, ucb"):
            acquisition(MEAN, STD, **options)
        return
    assert np.isfinite(acquisition(MEAN, STD, **options)).all()
    sentence = told(kind, goal)
    assert "K {VRH}" in sentence
    assert "{u" not in sentence
    assert find_acquisition(kind).words


def test_a_paper_says_what_was_done():
    assert told("ei", "maximize") == "expected improvement of log10 K {VRH} over the best training value"
    assert told("ei", "exceed") == "expected improvement of log10 K {VRH} over the wanted value"
    assert told("probability", "minimize") == "the probability of a log10 K {VRH} beyond the best training value"
    assert told("probability", "exceed") == "the probability of a K {VRH} above 30.0 GPa"
    plain = "minus the distance of log10 K {VRH} to the wanted one"
    assert told("mean", "target") == told("ucb", "target", kappa=0.0) == f"{plain}, as predicted"
    assert told("ucb", "target") == f"{plain} as predicted, plus 0.5 \N{MULTIPLICATION SIGN} its standard deviation"
    assert told("ucb", "target", kappa=1.0) == f"{plain} as predicted, plus its standard deviation"


def test_those_that_are_compared_come_in_their_order():
    assert KINDS == ("mean", "ucb", "ei", "probability")
    assert len({kind.preference for kind in ACQUISITIONS.values()}) == len(KINDS) + 1
    assert takers("target", KINDS) == "mean or ucb"
    assert takers("window") == "mean, ucb, probability or thompson"


def test_no_weight_of_the_uncertainty_leaves_the_prediction_alone():
    assert find_acquisition(UCB.name, 0.0) is ACQUISITIONS["mean"]
    assert find_acquisition(UCB.name, 0.1) is UCB
    assert find_acquisition("ei", 0.0).name == "ei"


ABOUT, EVERYDAY = "acquisition|[Kk]ind|KIND", ("mean", "probability")


def test_names_are_spelled_in_the_table_alone():
    assert spelled(ACQUISITIONS, ABOUT, "atomsets_core/discovery/acquisition.py", everyday=EVERYDAY) == []


@pytest.mark.parametrize(
    "code",
    [
        "def search(kind: str = 'mean'): pass",
        "help = 'weight of ucb'",
        "if asked['acquisition'] == 'probability': pass",
    ],
)
def test_a_name_spelled_elsewhere_would_be_seen(code: str):
    assert list(spelled_in(code, ACQUISITIONS, ABOUT, EVERYDAY))
