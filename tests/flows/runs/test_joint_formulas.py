"""Joint campaigns of formulas, of limits alone, and of labels that can't be learned from."""

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

from atomsets_core.sources.base import SourceError
from atomsets_flows.campaign.joint import JointCampaign
from atomsets_flows.runs.joint import screen_jointly


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as started:
        yield {"address": started.scheduler_address}


@pytest.fixture
def asked(tmp_path, elastic, cluster):
    """Two properties of 60 formulas each and 50 candidates."""
    table = elastic.to_arrow().select(["formula", "K_VRH", "G_VRH"]).to_pandas().drop_duplicates("formula")
    table.iloc[:60].to_csv(tmp_path / "K.csv", index=False)
    table.iloc[30:90].to_csv(tmp_path / "G.csv", index=False)
    offered = pd.DataFrame({"formula": table["formula"].iloc[90:140], "price (g)": np.linspace(1.0, 9.0, 50)})
    offered.to_csv(tmp_path / "offered.csv", index=False)

    def one(name):
        training = {"source": str(tmp_path / f"{name}.csv"), "target": f"{name}_VRH", "unit": "GPa"}
        return {"name": name, "training": {**training, "transform": "log10"}}

    return {
        "name": "formulas",
        "candidates": {"source": str(tmp_path / "offered.csv")},
        "properties": [one("K"), one("G")],
        "objectives": [{"property": "K", "goal": "maximize"}, {"property": "G", "goal": "exceed", "value": 20.0}],
        "choice": {"shortlist": 5},
        "model": {"members": 2, "folds": 2, "epochs": 2, "phi": [16], "rho": [16]},
        "discovery": {"seeds": 0},
        "cluster": cluster,
    }


def run(raw, out):
    summary = screen_jointly(JointCampaign.model_validate(raw), str(out))
    return summary, pd.read_parquet(out / "ranking.parquet"), (out / "report.html").read_text()


def test_formulas_are_ranked_by_several_properties(asked, tmp_path):
    asked["objectives"].append({"property": "price", "goal": "minimize"})
    summary, ranking, report = run(asked, tmp_path / "out")
    assert summary["counts"]["candidates"]["ranked"] == len(ranking) == 50
    assert not {"matter", "n_atoms", "e_above_hull"} & set(ranking), "a formula has no cell"
    assert ranking["price"].between(1.0, 9.0).all(), "a column is found up to its unit"
    assert summary["units"]["price"] == "g"
    assert 'class="card"' not in report, "and nothing to draw"


def test_limits_alone_rank_by_their_probability(asked, tmp_path):
    asked["objectives"] = [
        {"property": "K", "goal": "exceed", "value": 100.0},
        {"property": "G", "goal": "below", "value": 60.0},
    ]
    _, ranking, report = run(asked, tmp_path / "out")
    assert ranking["score"].tolist() == ranking["p_feasible"].tolist()
    product = ranking["K_probability"] * ranking["G_probability"]
    assert ranking["p_feasible"].tolist() == pytest.approx(product.tolist())
    assert "the front" not in report.partition("<body>")[2].partition('id="figures"')[0]


def test_labels_are_looked_at_before_anything_is_learned(asked, tmp_path):
    table = pd.read_csv(tmp_path / "G.csv")
    table["G_VRH"] = "unknown"
    table.to_csv(tmp_path / "G.csv", index=False)
    with pytest.raises(SourceError, match="G: none of the 60 values of 'G_VRH' can be learned from"):
        run(asked, tmp_path / "out")
    assert not (tmp_path / "out" / "properties" / "K" / "models").exists()


def test_a_cell_that_is_no_number_is_a_failure(asked, tmp_path):
    table = pd.read_csv(tmp_path / "offered.csv").astype({"price (g)": object})
    table.loc[3, "price (g)"] = "cheap"
    table.to_csv(tmp_path / "offered.csv", index=False)
    asked["objectives"].append({"property": "price", "goal": "minimize"})
    summary, ranking, _ = run(asked, tmp_path / "out")
    assert summary["counts"]["candidates"]["failed"] == 1
    failures = pd.read_parquet(tmp_path / "out" / "failures.parquet")
    assert "is not a number: 'cheap'" in failures.loc[failures["dataset"] == "candidates", "reason"].item()
    assert len(ranking) == 49
