"""What the report shows beside the shortlist is what the model and its training data say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from atomsets_core.features.shards import write_shard
from atomsets_core.features.stored import FeatureStore
from atomsets_core.jobs.evidence import write_evidence
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.report.results import read_evidence
from atomsets_core.storage.store import Store

LEVELS = ("V0", "V1", "V2", "V3")
N_TRAINED, N_SHORTLIST = 120, 4


@pytest.fixture(scope="module")
def finished(elastic, elastic_features, megnet, tmp_path_factory):
    """Store, model, features and structures of a small campaign that learned from the first and ranked the others."""
    features, values = elastic_features
    structures = elastic.structures.take(np.arange(len(values)))
    store = Store(tmp_path_factory.mktemp("evidence"))
    for start in range(0, len(values), 50):
        rows = np.arange(start, min(start + 50, len(values)))
        write_shard(store, "megnet", f"part{start}", features[rows], LEVELS)
    model = AtomSetsRegressor("megnet:V0+V1+V2+V3", transform="log10", members=2, folds=2, epochs=4)
    model.fit(features[np.arange(N_TRAINED)], values[:N_TRAINED])
    model.save(store, "models/m")
    names = {"material_id": structures.material_id, "formula": structures.formulas}
    trained = pd.DataFrame({**names, "value": values}).iloc[:N_TRAINED]
    store.write_table("models/m/out_of_fold.parquet", pa.Table.from_pandas(trained, preserve_index=False))
    ranked = pd.DataFrame({**names, "structure_hash": structures.hashes}).iloc[N_TRAINED:].reset_index(drop=True)
    ranked["predicted"] = model.predict(features[np.arange(N_TRAINED, len(values))])
    ranked = ranked.sort_values("predicted", ascending=False, ignore_index=True)
    ranked["shortlist"] = np.arange(len(ranked)) < N_SHORTLIST
    store.write_table("ranking.parquet", pa.Table.from_pandas(ranked, preserve_index=False))
    place = {name: row for row, name in enumerate(structures.material_id)}
    best = structures.take([place[name] for name in ranked["material_id"][:N_SHORTLIST]])
    write_evidence(store, FeatureStore(store, "megnet", megnet.digest, LEVELS), "models/m", best)
    return store, model, features, structures


def test_neighbours_are_the_nearest_training_structures_with_their_values(finished):
    store, model, features, structures = finished
    found, _, _ = read_evidence(store)
    trained = store.read_table("models/m/out_of_fold.parquet").to_pandas().set_index("material_id")
    assert len(found) == N_SHORTLIST
    reference = model.domain_.project(model.pooled(features[np.arange(N_TRAINED)])).astype(np.float64)
    for name, about in found.items():
        row = list(structures.material_id).index(name)
        own = model.domain_.project(model.pooled(features[np.array([row])])).astype(np.float64)
        distances = np.sort(np.linalg.norm(reference - own, axis=1))[:5]
        np.testing.assert_allclose([near["distance"] for near in about["neighbours"]], distances, rtol=1e-4)
        mean = model.predict_distribution(features[np.array([row])]).distance[0]
        assert np.mean(distances) == pytest.approx(mean, rel=1e-4)
        for near in about["neighbours"]:
            assert near["value"] == trained.loc[near["material_id"], "value"]


def test_the_structure_and_its_shares_are_those_of_the_candidate(finished):
    store, model, features, structures = finished
    for name, about in read_evidence(store)[0].items():
        row = list(structures.material_id).index(name)
        one = structures.take([row])
        np.testing.assert_allclose(about["lattice"], one.lattice[0], atol=1e-5)
        assert about["numbers"] == one.numbers.tolist()
        predicted = model.predict_distribution(features[np.array([row])]).mean[0]
        assert about["base"] + sum(about["sites"]) == pytest.approx(predicted, abs=0.01)


def test_the_map_shows_the_training_data_and_every_shortlisted_candidate(finished):
    store, model, features, _ = finished
    _, about, points = read_evidence(store)
    points = points.to_pandas()
    assert points["trained"].sum() == N_TRAINED
    assert points["shortlist"].sum() == N_SHORTLIST
    assert not points.duplicated(["material_id", "trained"]).any()
    assert len(points) == len(features)
    plane = model.domain_.project(model.pooled(features))[:, :2]
    place = {name: row for row, name in enumerate(features.material_id)}
    rows = [place[name] for name in points["material_id"]]
    np.testing.assert_allclose(points[["x", "y"]], plane[rows], atol=1e-3)
    assert 0 < about["explained"][1] <= about["explained"][0] < 1


def test_a_campaign_without_evidence_has_none(tmp_path):
    assert read_evidence(Store(tmp_path)) == ({}, None, None)


def test_of_another_head_there_are_neighbours_and_no_shares(finished, megnet, tmp_path):
    from atomsets_core.models.vectors.regressor import HeadRegressor

    store, _model, features, structures = finished
    other = HeadRegressor("megnet:V0+V1+V2+V3", head="ridge", transform="log10", members=2, folds=2)
    values = store.read_table("models/m/out_of_fold.parquet")["value"].to_numpy()
    other.fit(features[np.arange(N_TRAINED)], values)
    copy = Store(tmp_path)
    for name in ("models/m/out_of_fold.parquet", "ranking.parquet"):
        copy.write_table(name, store.read_table(name))
    other.save(copy, "models/m")
    best = structures.take([N_TRAINED, N_TRAINED + 1])
    write_evidence(copy, FeatureStore(store, "megnet", megnet.digest, LEVELS), "models/m", best)
    found, _, _ = read_evidence(copy)
    for about in found.values():
        assert about["base"] is about["sites"] is about["structure"] is None
        assert len(about["neighbours"]) == 5
