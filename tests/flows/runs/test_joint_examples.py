"""The example campaigns of several properties run, on small data in place of what people bring."""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import LocalCluster

from atomsets_core.sources.embedded import load_dielectric
from atomsets_core.storage.store import Store
from atomsets_flows.campaign.joint import JointCampaign
from atomsets_flows.runs.joint import screen_jointly

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "campaigns"

SMALL = {
    "features": {"shard_size": 256},
    "model": {"members": 2, "folds": 2, "epochs": 10, "phi": [16], "rho": [16]},
    "discovery": {"seeds": 1, "heads": ["AtomSets", "ridge, composition"]},
}


def example(name):
    return tomllib.loads((EXAMPLES / f"{name}.toml").read_text())


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as started:
        yield {"address": started.scheduler_address}


@pytest.mark.parametrize("name", ["hard_and_light", "wide_gap_dielectric", "thermoelectric"])
def test_an_example_is_a_campaign(name):
    campaign = JointCampaign.model_validate(example(name))
    assert campaign.name == name.replace("_", "-")
    assert len(campaign.objectives) > 1


def test_a_dielectric_has_a_gap_or_is_left_out(tmp_path, elastic, cluster):
    raw = example("wide_gap_dielectric")
    known = load_dielectric()
    labelled = known.structures.take(np.arange(90)).to_arrow()
    for name in ("n", "band_gap"):
        labelled = labelled.append_column(name, pa.array(known.columns[name].to_numpy()[:90]))
    Store(tmp_path).write_table("labelled.parquet", labelled)
    offered = elastic.structures.take(np.arange(50)).to_arrow()
    Store(tmp_path).write_table("offered.parquet", offered.append_column("e_above_hull", pa.array(np.zeros(50))))
    for one in raw["properties"]:
        one["training"]["source"] = str(tmp_path / "labelled.parquet")
    raw["candidates"]["source"] = str(tmp_path / "offered.parquet")
    # The candidates here are metals: nearly all would be left out at 3 eV.
    raw["objectives"][1] |= {"value": 2.3, "at_least": 0.5}
    asked = JointCampaign.model_validate({**raw, **SMALL, "cluster": cluster})
    summary = screen_jointly(asked, str(tmp_path / "out"))
    ranking = pd.read_parquet(tmp_path / "out" / "ranking.parquet")
    counts = summary["counts"]["candidates"]
    left_out = counts["filtered_by_reason"]["gap is above 2.3 eV with less than 50%"]
    assert counts["ranked"] + left_out == 50
    assert (ranking["gap_probability"] >= 0.5).all()
    assert summary["together"]["n"] == 90
    strategies = {row["strategy"] for row in summary["together"]["strategies"]}
    assert strategies == {"hypervolume", "weights", "n alone", "random"}
    assert ranking["p_front"].isna().all(), "one direction has no front"


def test_weak_labels_of_formulas_rank_crystals(tmp_path, elastic, cluster):
    """Labels of three properties cover different formulas; nobody knows the front, and that is said."""
    raw = example("thermoelectric")
    formulas = list(dict.fromkeys(elastic.structures.formulas))
    random = np.random.default_rng(0)
    for one, rows in zip(raw["properties"], (slice(0, 60), slice(60, 120), slice(120, 180)), strict=True):
        name, some = one["name"], formulas[rows]
        # Invented numbers: lengths of formulas, so that there is something to learn.
        values = [1.0 + 0.1 * len(formula) + 0.05 * random.random() for formula in some]
        path = tmp_path / one["training"]["source"]
        pd.DataFrame({"formula": some, name: values}).to_csv(path, index=False)
        one["training"]["source"] = str(path)
    fresh = [i for i, formula in enumerate(elastic.structures.formulas) if formula not in set(formulas[:180])]
    Store(tmp_path).write_table("crystals.parquet", elastic.structures.take(np.array(fresh[:40])).to_arrow())
    raw["candidates"] = {"source": str(tmp_path / "crystals.parquet")}
    raw["objectives"][-1] |= {"low": 1.0, "high": 3.0}
    asked = JointCampaign.model_validate({**raw, **SMALL, "cluster": cluster})
    summary = screen_jointly(asked, str(tmp_path / "out"))
    counts = summary["counts"]["candidates"]
    assert counts["pulled"] == 40 == counts["ranked"] + counts["filtered"] + counts["failed"]
    assert counts["ranked"] > 0
    assert "of 0 materials all values are known" in summary["together"]["why"]
    ranking = pd.read_parquet(tmp_path / "out" / "ranking.parquet")
    assert {"S", "kappa", "gap", "gap_probability", "p_front"} <= set(ranking.columns)
    assert all(about["model"]["features"].startswith("composition") for about in summary["properties"].values())
