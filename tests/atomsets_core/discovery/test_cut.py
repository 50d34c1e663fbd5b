"""Which share of a cheap ranking holds the top of a dear one."""

import numpy as np
import pytest
from scipy.stats import norm

from atomsets_core.discovery.cut import agreement, share_needed


def drawn(correlation, n, seed=0):
    dear = np.random.default_rng(seed).normal(size=n)
    noise = np.random.default_rng(seed + 1).normal(size=n)
    return correlation * dear + np.sqrt(1 - correlation**2) * noise, dear


@pytest.mark.parametrize(("correlation", "top", "kept"), [(0.95, 0.01, 0.95), (0.8, 0.05, 0.99), (0.5, 0.3, 0.9)])
def test_the_share_is_that_of_drawn_rankings(correlation, top, kept):
    cheap, dear = drawn(correlation, 400_000)
    leaders = cheap[dear >= np.quantile(dear, 1 - top)]
    needed = np.mean(cheap >= np.quantile(leaders, 1 - kept))
    assert share_needed(correlation, top, kept) == pytest.approx(needed, rel=0.05)


def test_equal_rankings_need_no_more_than_the_top_and_unrelated_ones_that_share_of_all():
    assert share_needed(1.0, 0.1, 0.95) == pytest.approx(0.095, rel=1e-3)
    assert share_needed(0.0, 0.1, 0.95) == pytest.approx(0.95, rel=1e-6)


def test_more_is_needed_of_less_alike_rankings_and_to_keep_more():
    needed = [share_needed(rho, 0.02, 0.95) for rho in (0.99, 0.9, 0.7, 0.3)]
    assert needed == sorted(needed)
    assert share_needed(0.9, 0.02, 0.99) > share_needed(0.9, 0.02, 0.95)


def test_a_share_of_nothing_or_all_is_refused():
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        share_needed(0.9, 0.0, 0.95)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        share_needed(0.9, 0.1, 1.0)


def run_of(cheap, *dear, n_hidden=60):
    return {"cheap": list(cheap), "dear": [list(scores) for scores in dear], "n_hidden": n_hidden}


def test_what_is_assumed_is_no_more_than_what_was_found():
    runs = [run_of(*drawn(0.9, 300, seed)) for seed in range(0, 10, 2)]
    found = agreement(runs, 0.95)
    assert found.found == pytest.approx(0.9, abs=0.03)
    assert found.found - 0.2 < found.assumed < found.found
    assert found.top == 0.2
    # In the pools themselves that share of the cheap ranking held the top.
    for run in runs:
        places = norm.cdf(run["cheap"])
        assert 0 < np.mean(places) < 1
    assert share_needed(found.assumed, found.top, 0.95) >= found.share - 1e-6


def test_the_ranking_that_agrees_least_counts():
    cheap, dear = drawn(0.95, 300)
    other = drawn(0.6, 300)[1] * 0 + np.random.default_rng(9).normal(size=300)
    assert agreement([run_of(cheap, dear, other)], 0.95).found < 0.2 < agreement([run_of(cheap, dear)], 0.95).found


def test_tops_that_agree_less_than_all_the_rest_are_counted_with():
    cheap, dear = drawn(0.98, 300)
    leaders = np.argsort(-dear)[:10]
    hidden_low = cheap.copy()
    hidden_low[leaders] = np.sort(cheap)[100:110]  # the cheap one sees nothing of them
    plain, poor = (agreement([run_of(c, dear, n_hidden=10)], 0.95) for c in (cheap, hidden_low))
    assert poor.found > 0.8
    assert poor.assumed < poor.found - 0.15
    assert plain.assumed > poor.assumed


def test_without_a_repeat_nothing_is_said():
    with pytest.raises(ValueError, match="a simulated discovery at least"):
        agreement([], 0.95)
