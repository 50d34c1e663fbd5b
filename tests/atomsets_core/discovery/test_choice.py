"""A campaign chooses among all heads, says to whom AtomSets lost, and tries the cheapest first."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from atomsets_core.discovery.choice import (
    BY_COST,
    LINEAR,
    MIXTURE,
    OWN,
    PREFERRED,
    campaign_heads,
    choose,
    defeat,
    recipes,
)
from atomsets_core.models import HEADS, HeadRegressor, regressor_of

FOREST = "random forest, composition"


def run(found: dict[str, tuple[float, float]], n_hidden: int = 100, n_pool: int = 400) -> dict[str, Any]:
    """One simulated discovery: head -> R-precision by the prediction alone and error outside."""
    heads = {
        name: {"acquisition": dict.fromkeys(("ei", "ucb", "mean", "probability"), share), "mae_outside": error}
        for name, (share, error) in found.items()
    }
    return {"heads": heads, "n_hidden": n_hidden, "n_pool": n_pool}


def test_every_head_can_be_chosen_and_is_made():
    assert set(PREFERRED) == set(BY_COST) == {OWN, LINEAR, *HEADS}
    found = recipes({"features": "megnet:V0", "rho": [8]})
    assert tuple(found) == PREFERRED
    assert found[OWN] == {"features": "megnet:V0", "rho": [8]}
    assert found[LINEAR]["rho"] == []
    for name in HEADS:
        model = regressor_of(found[name])
        assert type(model) is HeadRegressor
        assert model.head == name
    assert list(recipes({}, [FOREST, OWN])) == [FOREST, OWN]
    with pytest.raises(ValueError, match="no head 'tea leaves'; there are AtomSets"):
        recipes({}, ["tea leaves"])


def test_heads_are_tried_from_the_cheapest_on_parts_before_their_mean():
    assert tuple(campaign_heads({"features": "megnet:V0"})) == BY_COST
    assert list(campaign_heads({"features": "megnet:V0"}, [OWN, "ridge"])) == ["ridge", OWN]
    for name, parts in HEADS.items():
        assert all(BY_COST.index(part) <= BY_COST.index(name) for part in parts)


def test_a_head_that_finds_clearly_more_is_chosen_and_it_is_said_to_whom_atomsets_lost():
    runs = [run({OWN: (0.53, 0.2), LINEAR: (0.50, 0.2), FOREST: (0.62 + d, 0.4), "ridge": (0.4, 0.3)})
            for d in (0.01, -0.01)]  # fmt: skip
    found = choose(runs, (*PREFERRED[:2], FOREST, "ridge"))
    assert found is not None
    assert found["head"] == FOREST
    lost = found["lost"]
    assert (lost["to"], lost["used"]) == (FOREST, True)
    assert lost["by"] == pytest.approx(0.09)
    assert (lost["r_precision"], lost["own"]) == (pytest.approx(0.62), pytest.approx(0.53))
    assert json.loads(json.dumps(found)) == found


def test_a_winner_that_is_not_used_is_named_all_the_same():
    runs = [run({OWN: (0.53, 0.2), FOREST: (0.62, 0.4), "ridge": (0.6, 0.3)})]
    found = choose(runs, [OWN])
    assert found is not None
    assert found["head"] == OWN
    assert (found["lost"]["to"], found["lost"]["used"]) == (FOREST, False)


def test_atomsets_did_not_lose_where_it_finds_most_or_was_not_tried():
    assert defeat([run({OWN: (0.6, 0.1), LINEAR: (0.7, 0.2), "ridge": (0.65, 0.3)})], OWN, "mean") is None
    assert defeat([run({OWN: (0.6, 0.1), LINEAR: (0.7, 0.2), "ridge": (0.65, 0.3)})], LINEAR, "mean") is None
    assert defeat([run({OWN: (0.7, 0.1), "ridge": (0.65, 0.3)})], OWN, "mean") is None
    assert defeat([run({"ridge": (0.65, 0.3)})], "ridge", "mean") is None


def test_heads_that_a_repeat_had_no_time_for_are_passed_over():
    runs = [run({OWN: (0.5, 0.2), "ridge": (0.9, 0.1)}), run({OWN: (0.5, 0.2)})]
    found = choose(runs, [OWN, "ridge"])
    assert found is not None
    assert found["head"] == OWN
    assert list(found["compared"]) == [OWN]
    assert found["lost"] is None


def test_the_acquisition_of_the_used_head_counts_not_its_best():
    made = run({OWN: (0.5, 0.2), "ridge": (0.6, 0.1)})
    made["heads"]["ridge"]["acquisition"] |= {"mean": 0.55}
    assert defeat([made], "ridge", "mean")["by"] == pytest.approx(0.05)
    assert np.isclose(defeat([made], OWN, "mean")["by"], 0.1)


def test_the_mixture_is_used_where_it_finds_more_than_atomsets_by_more_than_noise():
    # One standard error of a best of 0.6 on 100 hidden rows is 0.049.
    for lead, used in ((0.04, OWN), (0.06, MIXTURE)):
        found = choose([run({OWN: (0.6 - lead, 0.2), MIXTURE: (0.6, 0.2), LINEAR: (0.59, 0.2)})], PREFERRED)
        assert found is not None
        assert found["head"] == used


def test_an_acquisition_has_to_lead_the_prediction_by_two_standard_errors():
    for lead, used in ((0.06, "mean"), (0.12, "ei")):
        made = run({OWN: (0.5, 0.2)})
        made["heads"][OWN]["acquisition"] |= {"ei": 0.5 + lead}
        found = choose([made], [OWN], ("mean", "ei"))
        assert found is not None
        assert found["acquisition"] == used
