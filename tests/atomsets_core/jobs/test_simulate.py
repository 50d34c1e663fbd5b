"""A simulated discovery keeps to its time: the preferred head always, others from the cheapest on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.discovery.choice import BY_COST, PREFERRED
from atomsets_core.jobs.simulate import simulate_seed
from atomsets_core.storage.store import Store

PARAMETERS = {
    "features": "megnet:V0", "transform": "none", "members": 2, "folds": 2, "epochs": 2, "phi": [4], "rho": [4],
    "coverage": 0.8, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def offered(compounds, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("simulate"))
    values = np.random.default_rng(0).normal(size=len(compounds))
    table = pa.table({"structure_hash": list(compounds.structure_hash), "value": values})
    store.write_table("structures/labelled.parquet", table)
    return store, compounds


def options(minutes, heads=PREFERRED):
    return {
        "goal": "maximize", "quantile": 0.15, "pool_share": 0.3, "kappa": 0.5, "heads": list(heads), "minutes": minutes
    }  # fmt: skip


def test_with_time_every_head_is_tried(offered):
    store, features = offered
    done = simulate_seed(store, features, PARAMETERS, options(60.0), 0, "whole.json")
    found = store.read_json("whole.json")
    assert done["left_out"] == found["left_out"] == []
    assert list(found["seconds"]) == list(BY_COST)
    assert set(found["heads"]) == {*BY_COST, "random", "oracle"}


def test_without_time_the_preferred_head_is_tried_all_the_same(offered):
    store, features = offered
    simulate_seed(store, features, PARAMETERS, options(1e-9), 0, "none.json")
    found = store.read_json("none.json")
    assert list(found["seconds"]) == ["AtomSets"]
    assert found["left_out"] == [name for name in BY_COST if name != "AtomSets"]
    simulate_seed(store, features, PARAMETERS, options(1e-9, ["ridge", "AtomSets"]), 0, "ridge.json")
    assert list(store.read_json("ridge.json")["seconds"]) == ["ridge"]


def test_some_time_is_spent_on_the_cheapest(offered, monkeypatch):
    store, features = offered
    clock = iter(range(0, 100_000, 20))
    monkeypatch.setattr("atomsets_core.jobs.simulate.time.perf_counter", lambda: float(next(clock)))
    simulate_seed(store, features, PARAMETERS, options(2.0, ["AtomSets", "ridge", "ridge, composition"]), 0, "s.json")
    found = store.read_json("s.json")
    assert next(iter(found["seconds"])) == "ridge, composition"
    assert "AtomSets" in found["seconds"]
    assert {*found["seconds"], *found["left_out"]} == {"AtomSets", "ridge", "ridge, composition"}
