"""What features cost, and which are chosen on labelled structures."""

import numpy as np
import pytest

from atomsets_core.features.making import featurize_into
from atomsets_core.features.several import open_features
from atomsets_core.features.shards import write_queue
from atomsets_core.jobs.choose import Choosing, chosen, price_features, prices
from atomsets_core.storage.store import Store

SPECS = ("megnet:V0+V1,amount:fraction+log", "megnet:V0")


def test_a_price_is_that_of_all_parents(elastic, tmp_path):
    few = elastic.structures.take(np.arange(8))
    found = prices(few, [*SPECS, "megnet:V9", "nobody:x"])
    assert list(found) == list(SPECS)
    assert [part.parent for part in found[SPECS[0]]] == ["megnet", "amount"]
    write_queue(Store(tmp_path), "structures/queue-sample.parquet", [few])
    told = price_features(Store(tmp_path), "structures/queue-sample.parquet", SPECS)
    assert told[SPECS[0]]["bytes"] == sum(part.size for part in found[SPECS[0]])
    assert 0 < told[SPECS[1]]["bytes"] < told[SPECS[0]]["bytes"]
    assert all(price["seconds"] > 0 for price in told.values())


@pytest.fixture(scope="module")
def choosing(elastic, tmp_path_factory):
    features = open_features(Store(tmp_path_factory.mktemp("store")), *SPECS)
    few = elastic.structures.take(np.arange(60))
    for part in features.parts:
        featurize_into(part, few)
    return Choosing(features, SPECS, ("pooling", "epochs")), few


def test_features_that_tell_the_values_are_chosen(choosing, elastic):
    asked, few = choosing
    found = asked.features.find(list(few.hashes))
    values = elastic.columns["K_VRH"].to_numpy()[:60]
    told = chosen(found, values, asked, {"transform": "log10", "seed": 0})
    assert told["features"] in SPECS
    assert set(told["parameters"]) == {"pooling", "epochs"}  # what was left open, and nothing else
    assert [row["features"] for row in told["report"] if "error" in row] == list(SPECS)


def test_only_the_rows_given_are_looked_at(choosing, elastic):
    asked, few = choosing
    found = asked.features.find(list(few.hashes))
    values = elastic.columns["K_VRH"].to_numpy()[:60].copy()
    parameters = {"transform": "log10", "seed": 3}
    first = chosen(found[np.arange(40)], values[:40], asked, parameters)
    values[40:] = 1e6
    again = chosen(found[np.arange(40)], values[:40], asked, parameters)
    errors = [[row["error"] for row in told["report"] if "error" in row] for told in (first, again)]
    assert errors[0] == errors[1]
