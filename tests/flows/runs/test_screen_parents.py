"""Campaigns on features of several parents, and on features that are chosen."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomsets_core.campaigns.layout import is_known, is_passing
from atomsets_core.campaigns.verification import verify
from atomsets_core.models import recipe
from atomsets_core.models.trained import load_regressor
from atomsets_core.storage.store import Store
from atomsets_core.structures.reading import from_arrow
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.retrain import retrain
from atomsets_flows.runs.screen import screen

pytestmark = pytest.mark.usefixtures("forked_workers")

SPEC, PLAIN = "megnet:V0+V1,amount:fraction+log", "megnet:V0"
WORK = ("shards_made", "models_trained", "discoveries_simulated", "shards_predicted")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, elastic):
    """90 labelled structures, 40 candidates, and one that MEGNet can't take."""
    folder = tmp_path_factory.mktemp("inputs")
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])
    pq.write_table(table.slice(0, 90), folder / "training.parquet")
    far = {"material_id": "far", "lattice": [[30.0, 0, 0], [0, 30.0, 0], [0, 0, 30.0]], "Z": [2], "frac": [[0, 0, 0]]}
    frame = table.slice(90, 40).drop_columns(["K_VRH"]).to_pandas()
    lattice = np.array(far["lattice"]).reshape(-1).tolist()
    frame = pd.concat([frame, pd.DataFrame([{**far, "lattice": lattice, "frac": [0, 0, 0]}])], ignore_index=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "candidates.parquet")
    return folder


def campaign(inputs, features, **sections):
    raw = {
        "name": "parents",
        "training": {
            "source": str(inputs / "training.parquet"),
            "target": "K_VRH",
            "unit": "GPa",
            "transform": "log10",
        },
        "candidates": {"source": str(inputs / "candidates.parquet")},
        "objective": {"shortlist": 5},
        "features": {"specification": features, "shard_size": 32},
        "model": {"members": 2, "folds": 2, "epochs": 5, "phi": [16], "rho": [16]},
        "discovery": {"seeds": 2, "heads": ["AtomSets", "ridge, composition"]},
        "standing": {"new_labels": "replace"},
        "cluster": {"workers": 1},
    }
    raw["features"] |= sections.pop("more", {})
    for name, changes in sections.items():
        raw[name] = {**raw[name], **changes}
    return Campaign.model_validate(raw)


@pytest.fixture(scope="module")
def several(inputs, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("several") / "out")
    return out, screen(campaign(inputs, SPEC), out)


def test_every_candidate_that_both_parents_take_is_ranked(several):
    out, summary = several
    counts = summary["counts"]["candidates"]
    assert (counts["pulled"], counts["ranked"], counts["failed"]) == (41, 40, 1)
    assert summary["model"]["features"] == SPEC
    assert set(summary["model"]["parents"]) == {"megnet", "amount"}
    assert summary["done"]["shards_made"] == 2 * (3 + 2)  # of both, 90 and 40 or 41 structures, 32 at a time
    assert verify(Store(out)).findings == ()
    names = Store(out).all_names(".", hidden=True)
    assert [name for name in names if not is_known(name) and not is_passing(name)] == [".lock"]
    ledger = Store(out).read_table("failures.parquet").to_pandas()
    assert ledger["material_id"].tolist() == ["far"]


def test_predictions_are_those_of_the_model_on_joined_features(several, inputs):
    out, summary = several
    model = load_regressor(Store(out), summary["model"]["folder"])
    ranking = pd.read_parquet(f"{out}/ranking.parquet")
    structures = from_arrow(pq.read_table(inputs / "candidates.parquet").slice(0, 40))[0]
    said = dict(zip(structures.material_id, model.predict(structures), strict=True))
    expected = [said[name] for name in ranking["material_id"]]
    np.testing.assert_allclose(ranking["predicted"], expected, rtol=1e-5)


def test_again_does_nothing_and_a_lost_shard_of_one_parent_is_made_again(several, inputs):
    out, _ = several
    again = screen(campaign(inputs, SPEC), out, return_state=True)
    assert again.name == "Nothing new"
    before = pd.read_parquet(f"{out}/ranking.parquet")
    shard = next(name for name in Store(out).all_names("features") if "amount-" in name and name.endswith(".parquet"))
    Store(out).remove(f"features/{shard}" if not shard.startswith("features/") else shard)
    mended = screen(campaign(inputs, SPEC), out)
    assert mended["done"]["shards_made"] == 1
    assert mended["done"]["models_trained"] == 0
    pd.testing.assert_frame_equal(pd.read_parquet(f"{out}/ranking.parquet"), before)


def test_features_are_chosen_once_and_by_every_repeat_for_itself(inputs, tmp_path, monkeypatch):
    dear = "megnet:V0+V1+V2+V3,amount:fraction+log"
    monkeypatch.setattr(recipe, "FOR_STRUCTURES", {dear: None, SPEC: None, PLAIN: None})
    monkeypatch.setattr(recipe, "NETWORK", {**recipe.NETWORK, "phi": (8,), "rho": (8,)})
    asked = campaign(inputs, "auto", model={"pooling": ["mean", "std"]})
    out = str(tmp_path / "out")
    summary = screen(asked, out)
    (name,) = Store(out).names("choices", ".json")
    decided = Store(out).read_json(name)
    assert summary["model"]["features"] == decided["features"]
    assert {row["features"] for row in decided["report"]} <= {dear, SPEC, PLAIN}
    # What the file says of the model counts; what it leaves open is chosen.
    assert summary["settings"]["model"]["pooling"] == ["mean", "std"]
    assert summary["settings"]["model"]["activation"] == "silu"
    assert "pooling" not in decided["parameters"]
    for discovery in summary["discovery"]["files"]:
        assert Store(out).read_json(discovery)["features"] in decided["priced"]
    assert json.loads(Store(out).read("campaign.json"))["features"]["specification"] == "auto"
    assert verify(Store(out)).findings == ()
    assert screen(asked, out, return_state=True).name == "Nothing new"
    assert retrain(asked, out)["outcome"] == "Nothing new"


def test_features_that_cost_too_much_are_left_out_but_for_the_cheapest(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "FOR_STRUCTURES", {"megnet:V0+V1+V2+V3": None, PLAIN: None})
    monkeypatch.setattr(recipe, "NETWORK", {**recipe.NETWORK, "phi": (8,), "rho": (8,)})
    asked = campaign(inputs, "auto", more={"cpu_hours": 1e-12}, discovery={"seeds": 0})
    out = str(tmp_path / "out")
    summary = screen(asked, out)
    (name,) = Store(out).names("choices", ".json")
    priced = Store(out).read_json(name)["priced"]
    assert [price["chosen_from"] for price in priced.values()].count(True) == 1
    assert priced[summary["model"]["features"]]["chosen_from"]
