"""A whole campaign whose folder is in an object store: pull, features, training, predictions, ranking, report."""

import io
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from atomsets_core.storage.store import StorageError, Store
from atomsets_flows.campaign.credentials import needed
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.screen import screen


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, elastic):
    folder = tmp_path_factory.mktemp("inputs")
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])
    pq.write_table(table.slice(0, 60), folder / "training.parquet")
    pq.write_table(table.slice(60, 40).drop_columns(["K_VRH"]), folder / "candidates.parquet")
    return folder


def campaign(inputs):
    return Campaign.model_validate(
        {
            "name": "far-away",
            "training": {
                "source": str(inputs / "training.parquet"),
                "target": "K_VRH",
                "unit": "GPa",
                "transform": "log10",
            },
            "candidates": {"source": str(inputs / "candidates.parquet")},
            "objective": {"shortlist": 5},
            "features": {"shard_size": 16},
            "model": {"members": 2, "folds": 2, "epochs": 5, "phi": [16], "rho": [16]},
            "discovery": {"seeds": 0},
            "cluster": {"workers": 1},
        }
    )


def test_a_campaign_on_s3_is_the_one_on_a_disk(s3, inputs, tmp_path):
    url = f"{s3}/campaigns/far-away"
    summary = screen(campaign(inputs), url)
    here = screen(campaign(inputs), str(tmp_path))
    far = Store(url)
    assert json.loads(far.read("summary.json")) == summary
    assert summary["counts"] == here["counts"]
    assert summary["model"]["mae"] == here["model"]["mae"]
    ranking = far.read_table("ranking.parquet").to_pandas()
    pd.testing.assert_frame_equal(ranking, pd.read_parquet(tmp_path / "ranking.parquet"))
    assert len(pd.read_csv(io.BytesIO(far.read("ranking.csv")))) == len(ranking)
    assert b"<html" in far.read("report.html")
    # nothing of it is on this machine
    assert not list(tmp_path.glob("s3*"))
    again = screen(campaign(inputs), url)
    assert again["done"]["shards_made"] == again["done"]["models_trained"] == again["done"]["shards_predicted"] == 0


def test_keys_for_the_store_are_asked_for(inputs):
    assert needed(campaign(inputs), "s3://bucket/x") == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    assert needed(campaign(inputs), "campaigns/x") == []


def test_a_url_holds_no_key(s3):
    for url in ("s3://key:secret@bucket/x", "s3://bucket/x?endpoint_override=http://evil"):
        with pytest.raises(StorageError, match="keys go into AWS_ACCESS_KEY_ID") as error:
            Store(url)
        assert "secret@" not in str(error.value)
    with pytest.raises(StorageError, match="no bucket"):
        Store("s3:///x")


def test_a_bucket_that_isnt_there_is_named(s3):
    with pytest.raises(StorageError, match=r"s3://elsewhere/x/a can't be written.*there is no such bucket"):
        Store("s3://elsewhere/x").write("a", b"1")


def test_an_endpoint_that_is_none_is_named(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "objects.example.org")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL is 'objects.example.org', no address"):
        Store(f"{s3}/x")
