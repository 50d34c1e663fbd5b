"""Labels and candidates that are structures or formulas: which go together, and what is said of the others."""

import numpy as np
import pytest

from atomsets_core.features.shards import write_queue
from atomsets_core.features.stored import FeatureStore
from atomsets_core.jobs.structures import agreed_kinds, featurize_shard, refuse_structure
from atomsets_core.parents.registry import load_parent
from atomsets_core.sources.base import SourceError
from atomsets_core.storage.store import Store
from atomsets_core.structures.compositions import as_compositions


def test_structures_may_be_ranked_by_labels_of_formulas(elastic):
    (said,) = agreed_kinds(as_compositions(["Fe2O3", "Nb3Co"]), elastic.structures)
    assert "each is ranked by its composition alone" in said
    assert agreed_kinds(elastic.structures, elastic.structures) == []
    assert agreed_kinds(as_compositions(["Fe2O3"]), as_compositions(["MgO"])) == []


def test_formulas_are_not_ranked_by_labels_of_structures(elastic):
    with pytest.raises(SourceError, match='set training.take = "compositions" to learn from the compositions'):
        agreed_kinds(elastic.structures, as_compositions(["MgO"]))


def test_no_element_in_common_is_told():
    reason = "no candidate holds an element that any label is of: labels are of O, Fe, candidates of Na, Cl"
    with pytest.raises(SourceError, match=reason):
        agreed_kinds(as_compositions(["Fe2O3"]), as_compositions(["NaCl"]))


def test_an_element_without_a_vector_costs_its_formula_alone(tmp_path):
    store = Store(tmp_path)
    batch = as_compositions(["Fe2O3", "AmO2", "Pb0.1Sn0.9Te"], ["a", "b", "c"])
    (hashes,) = write_queue(store, "queue.parquet", [batch])
    assert hashes == list(batch.hashes)
    features = FeatureStore.of(store, "megnet", ["V0"])
    done = featurize_shard(store, "queue.parquet", 0, features, features.shard_key(hashes))
    assert (done["rows"], done["refused"], done["sites"]) == (2, 1, 5)
    located = features.locate(hashes)
    assert list(located.found) == [True, False, True]
    assert "megnet does not cover Am (atomic number 95)" in located.refused[hashes[1]]
    found = features.find([hashes[2], hashes[0]]).load()
    np.testing.assert_allclose(found.weights, [0.45, 0.5, 0.05, 0.6, 0.4], atol=1e-6)
    in_memory = load_parent("megnet").featurize(batch.take([2, 0]), ["V0"])
    np.testing.assert_array_equal(found.sites["V0"], in_memory.sites["V0"])


def test_one_formula_of_the_queue_can_be_refused_by_itself(tmp_path):
    store = Store(tmp_path)
    batch = as_compositions(["Fe2O3", "MgO"])
    write_queue(store, "queue.parquet", [batch])
    features = FeatureStore.of(store, "composition", ["site"])
    counts = refuse_structure(store, "queue.parquet", 0, features, "0" * 32, 1, "it broke its worker")
    assert (counts["rows"], counts["refused"]) == (0, 1)
    assert features.locate(list(batch.hashes)).refused == {batch.hashes[1]: "it broke its worker"}
