"""A whole campaign on a real Prefect server and a real Dask cluster: counts, resume, damage, bad input."""

import asyncio
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from atomsets_core.campaigns.layout import OUTPUTS, STRUCTURES, is_known, is_passing, model_files
from atomsets_core.campaigns.verification import verify
from atomsets_core.discovery.choice import PREFERRED
from atomsets_core.models.trained import load_regressor
from atomsets_core.sources.base import SourceError
from atomsets_core.storage.store import StorageError, Store
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.screen import screen

pytestmark = pytest.mark.usefixtures("forked_workers")

N_TRAIN, N_CANDIDATES = 90, 50


def with_bad_rows(table: pa.Table, rows: list[dict]) -> pa.Table:
    frame = table.to_pandas()
    return pa.Table.from_pandas(pd.concat([frame, pd.DataFrame(rows)], ignore_index=True), preserve_index=False)


def row(name, z=(11, 17), frac=(0, 0, 0, 0.5, 0.5, 0.5), a=4.0, **columns):
    return {
        "material_id": name,
        "lattice": [a, 0, 0, 0, a, 0, 0, 0, a],
        "Z": list(z),
        "frac": list(frac),
        **columns,
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, elastic):
    """90 labelled structures and 50 candidates from files, and one of every kind of bad row."""
    folder = tmp_path_factory.mktemp("inputs")
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])
    training = with_bad_rows(
        table.slice(0, N_TRAIN),
        [
            row("nan-label", K_VRH=np.nan),
            row("infinite-label", K_VRH=np.inf),
            row("negative-label", K_VRH=-1.0),
            row("zero-label", K_VRH=0.0),
            row("mp-10003", K_VRH=100.0),
            row("unknown-element", z=(0, 17), K_VRH=100.0),
        ],
    )
    candidates = table.slice(N_TRAIN, N_CANDIDATES).drop_columns(["K_VRH"])
    hull = np.linspace(0.0, 0.2, N_CANDIDATES)
    candidates = candidates.append_column("e_above_hull", pa.array(hull))
    seen = table.slice(0, 1).drop_columns(["K_VRH"]).to_pylist()[0]
    candidates = with_bad_rows(
        candidates,
        [
            row("heavy", z=(95, 17), e_above_hull=0.0),
            row("isolated", a=30.0, z=(2,), frac=(0, 0, 0), e_above_hull=0.0),
            row("overlapping", frac=(0, 0, 0, 0, 0, 0.01), e_above_hull=0.0),
            row("nan-coordinate", frac=(0, 0, np.nan, 0.5, 0.5, 0.5), e_above_hull=0.0),
            row("wrong-length", frac=(0, 0, 0), e_above_hull=0.0),
            row("no-hull", e_above_hull=np.nan),
            row("seen-under-another-name", z=seen["Z"], frac=seen["frac"], e_above_hull=0.0)
            | {"lattice": seen["lattice"]},
        ],
    )
    pq.write_table(training, folder / "training.parquet")
    pq.write_table(candidates, folder / "candidates.parquet")
    return folder


def campaign(inputs, **sections):
    raw = {
        "name": "test",
        "training": {
            "source": str(inputs / "training.parquet"),
            "target": "K_VRH",
            "unit": "GPa",
            "transform": "log10",
        },
        "candidates": {"source": str(inputs / "candidates.parquet"), "filters": {"e_above_hull": {"max": 0.1}}},
        "objective": {"shortlist": 5},
        "features": {"shard_size": 16},
        "model": {"members": 4, "folds": 2, "epochs": 5, "phi": [16], "rho": [16]},
        "discovery": {"seeds": 2},
        "cluster": {"workers": 2},
    }
    for name, changes in sections.items():
        raw[name] = {**raw[name], **changes} if isinstance(changes, dict) else changes
    return Campaign.model_validate(raw)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("campaign")
    return out, screen(campaign(inputs), str(out))


def test_counts_add_up(finished):
    _, summary = finished
    training, candidates = summary["counts"]["training"], summary["counts"]["candidates"]
    assert training["pulled"] == N_TRAIN + 6
    assert training["learned_from"] == N_TRAIN
    assert training["failed_by_stage"] == {"pull": 1, "validate": 1, "label": 4}
    assert candidates["pulled"] == N_CANDIDATES + 7
    assert candidates["failed_by_stage"] == {"parse": 1, "validate": 2, "featurize": 2}
    assert candidates["filtered_by_reason"]["e_above_hull is missing"] == 1
    assert candidates["filtered_by_reason"]["its structure is in the training data"] == 1
    assert candidates["pulled"] == candidates["ranked"] + candidates["filtered"] + candidates["failed"]


def test_every_failure_has_a_row_with_its_reason(finished):
    out, _ = finished
    ledger = pd.read_parquet(out / "failures.parquet").set_index("material_id")["reason"]
    for name, reason in {
        "nan-label": "K_VRH is missing",
        "infinite-label": "K_VRH is infinite",
        "negative-label": "K_VRH is -1: log10 needs a positive value",
        "zero-label": "K_VRH is 0: log10 needs a positive value",
        "mp-10003": "duplicate id",
        "unknown-element": "unknown element: atomic number 0",
        "heavy": "megnet does not cover Am (atomic number 95)",
        "isolated": "isolated atom",
        "overlapping": "overlapping atoms",
        "nan-coordinate": "a coordinate is NaN",
        "wrong-length": "3 coordinates for 2 sites, 6 are needed",
    }.items():
        assert reason in ledger[name], name


def test_ranking(finished):
    out, summary = finished
    ranking = pd.read_parquet(out / "ranking.parquet")
    assert len(ranking) == summary["counts"]["candidates"]["ranked"]
    assert list(ranking["rank"]) == list(range(1, len(ranking) + 1))
    assert ranking["score"].is_monotonic_decreasing
    assert (ranking["lower"] < ranking["predicted"]).all()
    assert (ranking["predicted"] < ranking["upper"]).all()
    assert (ranking["e_above_hull"] <= 0.1).all()
    assert ranking["shortlist"].sum() == 5
    assert ranking[ranking["shortlist"]]["formula"].is_unique
    np.testing.assert_allclose(pd.read_csv(out / "ranking.csv")["predicted"], ranking["predicted"], rtol=1e-5)


def test_everything_promised_is_there(finished):
    out, summary = finished
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (out / summary["model"]["folder"] / "model.safetensors").is_file()
    assert "<html" in (out / "report.html").read_text()
    names = Store(out).all_names(".")
    assert [name for name in names if not is_known(name) or is_passing(name)] == []
    assert set(names) >= {*OUTPUTS, *STRUCTURES, *model_files(summary["model"]["folder"])}
    heads = [row["head"] for row in summary["discovery"]["heads"]]
    # The one that was chosen stands first, and its readout is that of the saved model.
    assert heads[0] == summary["choice"]["head"]
    assert set(heads) == {*PREFERRED, "random", "oracle"}
    assert list(summary["choice"]["compared"]) == list(PREFERRED)
    assert summary["discovery"]["left_out"] == summary["choice"]["left_out"] == []
    saved = json.loads((out / summary["model"]["folder"] / "model.json").read_text())
    readout = [] if heads[0] == "AtomSets, linear readout" else [16]
    assert saved["parameters"]["rho"] == summary["settings"]["model"]["rho"] == readout
    assert saved["parameters"].get("head", heads[0]) == heads[0]
    assert summary["settings"]["objective"]["acquisition"] == summary["choice"]["acquisition"]
    assert summary["done"]["shards_made"] == 6 + 2


def test_a_second_run_does_nothing_again_and_says_the_same(finished, inputs):
    out, summary = finished
    before = {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if "features" in path.parts or "models" in path.parts
    }
    again = screen(campaign(inputs), str(out))
    assert {
        again["done"][key] for key in ("shards_made", "models_trained", "discoveries_simulated", "shards_predicted")
    } == {0}
    assert again["counts"] == summary["counts"]
    assert again["model"] == summary["model"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_folder_gives_the_same_ranking_and_shares_features(finished, inputs, tmp_path):
    out, _ = finished
    shared = {"shard_size": 16, "store": str(out / "features")}
    summary = screen(campaign(inputs, features=shared, cluster={"workers": 1}), str(tmp_path))
    assert summary["done"]["shards_made"] == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "ranking.parquet"), pd.read_parquet(out / "ranking.parquet")
    )


def test_a_truncated_shard_is_found_and_made_again(finished, inputs):
    out, _ = finished
    expected = (out / "ranking.csv").read_text()
    shard = next(iter(sorted((out / "features").rglob("*.parquet"))))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-50])
    again = screen(campaign(inputs), str(out))
    assert again["done"]["shards_made"] == 1
    assert len(shard.read_bytes()) == len(whole)
    assert (out / "ranking.csv").read_text() == expected


def test_artifacts_are_on_the_server(finished):
    async def read(key):
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))

    shortlist = asyncio.run(read("test-shortlist"))[0]
    assert shortlist.type == "table"
    assert len(json.loads(shortlist.data)) == 5
    assert "Simulated discovery" in asyncio.run(read("test-summary"))[0].data
    assert asyncio.run(read("test-report"))[0].data.endswith("report.html)")
    progress = asyncio.run(read("test-featurize-training"))
    assert any(float(artifact.data) == 100.0 for artifact in progress)


def test_minimize_and_target(inputs, finished, tmp_path):
    out, _ = finished
    shared = {"shard_size": 16, "store": str(out / "features")}
    lowest = screen(campaign(inputs, features=shared, objective={"goal": "minimize"}), str(tmp_path / "a"))
    ranking = pd.read_parquet(tmp_path / "a/ranking.parquet")
    assert ranking["predicted"].iloc[:5].mean() < ranking["predicted"].iloc[-5:].mean()
    assert lowest["discovery"] is not None
    near = {"goal": "target", "value": 100.0, "acquisition": "mean"}
    screen(campaign(inputs, features=shared, objective=near), str(tmp_path / "b"))
    ranking = pd.read_parquet(tmp_path / "b/ranking.parquet")
    off = np.abs(np.log10(ranking["predicted"]) - 2.0)
    assert off.is_monotonic_increasing


def test_wrong_requests_are_named(inputs, tmp_path):
    with pytest.raises(SourceError, match="no column 'bulk'.*numeric are"):
        screen(campaign(inputs, training={"target": "bulk"}), str(tmp_path))
    with pytest.raises(SourceError, match="filter on 'hull'.*no such column; there are n_atoms"):
        screen(campaign(inputs, candidates={"filters": {"hull": {"max": 1}}}), str(tmp_path))
    with pytest.raises(SourceError, match="nowhere"):
        screen(campaign(inputs, training={"source": str(tmp_path / "nowhere")}), str(tmp_path))


def test_a_campaign_is_run_once_at_a_time(inputs, tmp_path):
    with Store(tmp_path).lock(), pytest.raises(StorageError, match="another run is at work"):
        screen(campaign(inputs), str(tmp_path))


def test_a_filter_that_nothing_passes_is_named(inputs, tmp_path):
    with pytest.raises(SourceError, match="no candidate is left"):
        screen(campaign(inputs, candidates={"filters": {"e_above_hull": {"min": 9.0}}}), str(tmp_path))


def test_a_campaign_of_another_head_ends_like_any(inputs, tmp_path):
    heads = ["random forest, composition", "ridge"]
    asked = campaign(inputs, discovery={"seeds": 1, "heads": heads, "choose": False})
    summary = screen(asked, str(tmp_path))
    assert summary["choice"]["head"] == heads[0]
    assert [row["head"] for row in summary["discovery"]["heads"]][:2] == heads
    store = Store(tmp_path)
    model = load_regressor(store, summary["model"]["folder"])
    assert model.head == heads[0]
    ranking = pd.read_parquet(tmp_path / "ranking.parquet")
    assert np.isfinite(ranking[["predicted", "lower", "upper", "std", "score"]].to_numpy()).all()
    assert summary["model"]["r2"] > -1
    text = (tmp_path / "report.html").read_text()
    assert "were ranked with a random forest, composition model" in text
    assert "What each element adds" not in text
    assert verify(store).findings == ()
