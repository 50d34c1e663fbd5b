"""Features that stay in shards: the same models, and a memory that doesn't grow with the structures."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score

from atomsets_core.features.making import featurize_into
from atomsets_core.features.shards import ShardError, folder
from atomsets_core.features.stored import FeatureStore
from atomsets_core.jobs.predict import predictions, stored_predictions, write_predictions
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.parents.base import Features
from atomsets_core.sources.base import Pulled
from atomsets_core.storage.store import Store
from atomsets_core.structures.batch import Refusal
from atomsets_core.structures.dimensionality import MATTER_KINDS

LEVELS = ("V0", "V1", "V2", "V3")


def of_megnet(store):
    return FeatureStore.of(store, "megnet", LEVELS)


@pytest.fixture(scope="module")
def stored(elastic, tmp_path_factory):
    """The first 200 elastic tensors' structures in a store of four shards."""
    store = Store(tmp_path_factory.mktemp("features"))
    for start in range(0, 200, 50):
        featurize_into(of_megnet(store), elastic.structures.take(np.arange(start, start + 50)))
    return featurize_into(of_megnet(store), elastic.structures.take(np.arange(200)))


def small(**changes):
    return AtomSetsRegressor(**{"members": 4, "folds": 2, "epochs": 4, "phi": (16,), "rho": (16,), **changes})


def test_what_is_stored_is_not_made_again(stored, elastic, monkeypatch):
    def never(*_):
        raise AssertionError("the parent was asked")

    monkeypatch.setattr("atomsets_core.features.stored.write_shard", never)
    assert len(stored.entries) == 4
    again = featurize_into(of_megnet(stored.store), elastic.structures.take([7, 7, 180]))
    np.testing.assert_array_equal(again.material_id, elastic.structures.material_id[[7, 7, 180]])
    np.testing.assert_array_equal(again.load().sites["V3"], stored[[7, 7, 180]].load().sites["V3"])


def test_loaded_features_are_those_of_the_parent(stored, elastic_features):
    features, _ = elastic_features
    rows = np.random.default_rng(0).permutation(200)[:60]
    found, expected = stored[rows].load(), features[rows]
    for name in ("material_id", "structure_hash", "formula", "n_atoms"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for level in LEVELS:
        np.testing.assert_allclose(found.sites[level], expected.sites[level], atol=1e-4)


def test_a_model_of_stored_features_is_that_of_the_same_features_in_memory(stored, elastic_features):
    _, values = elastic_features
    rows = np.random.default_rng(0).permutation(200)[:80]
    one, other = small().fit(stored[rows], values[rows]), small().fit(stored[rows].load(), values[rows])
    for name, value in one.network_.state_dict().items():
        np.testing.assert_array_equal(value, other.network_.state_dict()[name], err_msg=name)
    assert one.domain_.threshold == other.domain_.threshold
    one, other = (model.predict_distribution(X) for model, X in ((one, stored), (other, stored.load())))
    for name in ("value", "lower", "upper", "distance"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4)


def test_cross_validation_takes_stored_features(stored, elastic_features):
    scores = cross_val_score(small(epochs=20, transform="log10"), stored, elastic_features[1], cv=3)
    assert scores.min() > 0.3


def test_refused_structures_are_told_of_by_their_identifier(tmp_path, elastic):
    structures = elastic.structures.take(np.arange(3))
    structures.numbers[0] = 118
    found = featurize_into(of_megnet(Store(tmp_path)), structures)
    assert len(found) == 2
    np.testing.assert_array_equal(found.material_id, structures.material_id[1:])
    assert [(r.material_id, "does not cover Og" in r.reason) for r in found.refused] == [
        (structures.material_id[0], True)
    ]
    assert found.load().refused == found.refused


def test_parents_that_refuse_different_structures_are_joined_on_what_all_can_take(stored, elastic):
    part = replace(
        stored[1:3], refused=(Refusal(stored.material_id[0], "featurize", "too large", stored.structure_hash[0]),)
    )
    joined = Features.join({"megnet": stored[:3].load(), "smaller": part.load()})
    np.testing.assert_array_equal(joined.material_id, stored.material_id[1:3])
    assert [r.material_id for r in joined.refused] == [stored.material_id[0]]
    with pytest.raises(ValueError, match="not of the same structures"):
        Features.join({"megnet": stored[:3].load(), "smaller": stored[1:3].load()})


def test_a_damaged_shard_ends_the_reading_and_is_named(tmp_path, elastic):
    store = Store(tmp_path)
    stored = featurize_into(of_megnet(store), elastic.structures.take(np.arange(6)))
    entry = next(of_megnet(store).entries())
    path = store.local(f"{folder('megnet', stored.digest)}/{entry.key}.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    with pytest.raises(ShardError, match=entry.key):
        small(folds=0).fit(stored, np.arange(6.0) + 1)


def test_what_no_shard_holds_is_named(stored):
    with pytest.raises(KeyError, match=r"1 structures have no features, e\.g\. 0{32}"):
        of_megnet(stored.store).find(["0" * 32])


def test_a_feature_store_goes_to_another_process_as_names(stored):
    where = of_megnet(stored.store)
    sent = pickle.dumps(where)
    assert len(sent) < 500
    there = pickle.loads(sent)  # noqa: S301  # made one line above
    assert (there.store.root, there.parent, there.digest, there.levels) == (
        where.store.root, where.parent, where.digest, where.levels
    )  # fmt: skip
    np.testing.assert_array_equal(there.whole().structure_hash, where.whole().structure_hash)


def test_shards_without_the_levels_are_none_of_its_shards(stored):
    where = of_megnet(stored.store)
    assert [entry.key for entry in where.entries()] == sorted(entry.key for entry in stored.entries)
    assert list(replace(where, levels=("V0", "v")).entries()) == []
    assert len(list(replace(where, levels=("V2",)).entries())) == 4
    assert len(replace(where, levels=("V2",)).whole()) == len(set(stored.structure_hash))


def test_features_of_another_version_of_the_parent_are_not_made(stored, elastic):
    other = replace(of_megnet(stored.store), digest="0" * 16)
    with pytest.raises(ValueError, match="can't be made here, where the parent is"):
        featurize_into(other, elastic.structures.take(np.arange(2)))


def test_predictions_of_a_store_are_those_of_its_structures(stored, elastic, elastic_features, tmp_path):
    model = small(transform="log10").fit(stored[:80], elastic_features[1][:80])
    pulled = Pulled(elastic.structures.take(np.arange(200)), pd.DataFrame(index=range(200)), [], {})
    store = Store(tmp_path)
    assert write_predictions(predictions(pulled, model), store, "a.csv").predicted == 200
    written = write_predictions(stored_predictions(stored.store, model), store, "b.parquet")
    one, other = pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "b.parquet")
    assert (written.predicted, written.inside, written.refused) == (200, int(one["in_domain"].sum()), [])
    assert set(one.pop("matter")) <= set(MATTER_KINDS)  # a store holds no structures to tell it from
    of_hash = dict(zip(stored.structure_hash, stored.material_id, strict=True))
    other["material_id"] = other["material_id"].map(of_hash)
    one, other = one.sort_values("material_id"), other.sort_values("material_id")
    assert list(one["material_id"]) == list(other["material_id"])
    np.testing.assert_allclose(one["predicted"], other["predicted"], rtol=1e-3)
    np.testing.assert_allclose(one["upper"], other["upper"], rtol=1e-3)
    assert list(one.columns) == list(other.columns)


def test_half_written_predictions_leave_nothing(stored, elastic_features, tmp_path):
    model = small(folds=0).fit(stored[:20], elastic_features[1][:20])

    def stopped():
        yield next(stored_predictions(stored.store, model))
        raise KeyboardInterrupt

    for name in ("a.csv", "a.parquet"):
        with pytest.raises(KeyboardInterrupt):
            write_predictions(stopped(), Store(tmp_path), name)
    assert list(tmp_path.iterdir()) == []


MEASURE = """
import resource, sys
import numpy as np
from atomsets_core.models.networks.training_data import TrainingData
from atomsets_core.parents.base import Features

N, ATOMS, WIDTH = int(sys.argv[1]), 60, 112

class Many:
    n_atoms = np.full(N, ATOMS)
    def __len__(self):
        return N
    def blocks(self):
        for start in range(0, N, 500):
            names = np.array([""] * 500, dtype=object)
            kinds = np.random.default_rng(start).normal(size=(500, 2, WIDTH)).astype(np.float32)
            sites = np.repeat(kinds, ATOMS // 2, axis=1).reshape(-1, WIDTH)
            rows = np.arange(start, start + 500)
            yield rows, Features(names, names, names, np.full(500, ATOMS), {"x": sites}, {}, "d")

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = TrainingData.gathered(Many(), lambda f: f.site_matrix(["x"]), lambda f: f.structure_matrix([]))
assert len(data.sites) == 2 * N
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_grows_by_what_is_left_after_merging():
    """Ten times the structures cost the merged features of the new ones and hardly more, not their 30-fold sites."""
    few, many = (
        int(subprocess.run([sys.executable, "-c", MEASURE, n], capture_output=True, text=True, check=True).stdout)
        for n in ("1000", "10000")
    )
    merged = 9000 * 2 * 112 * 4 / 1024
    unmerged = 9000 * 60 * 112 * 4 / 1024
    assert many - few < 3 * merged < 0.15 * unmerged


def test_features_and_stored_features_offer_the_same_blocks(stored):
    assert isinstance(stored.load(), Features)
    rows = np.concatenate([rows for rows, _ in stored.blocks()])
    np.testing.assert_array_equal(np.sort(rows), np.arange(200))
