"""A campaign whose property is a class: from labels to a ranking by probability, stopped, gone on with, and changed."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomsets_core.campaigns.last_run import read_changes
from atomsets_core.campaigns.verification import verify
from atomsets_core.sources.base import SourceError
from atomsets_core.storage.store import Store
from atomsets_flows.campaign.estimate import estimate
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.retrain import retrain
from atomsets_flows.runs.screen import CampaignRun, screen
from atomsets_flows.runs.states import NOTHING_NEW

N_TRAIN, N_CANDIDATES = 150, 40
WORK = ("shards_made", "models_trained", "discoveries_simulated", "shards_predicted")
HEADS = ["AtomSets", "logistic regression, composition", "random forest, composition"]


@pytest.fixture(scope="module")
def structures(elastic):
    return elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])


def kinds(structures):
    k = structures["K_VRH"].to_numpy()
    return np.where(k > 150, "stiff", np.where(k > 60, "middling", "soft")).astype(object)


@pytest.fixture
def write(structures, tmp_path):
    """Write labels, as (n,) classes of the first n structures, and the candidates; their folder."""

    def write(classes):
        known = structures.slice(0, len(classes)).drop_columns(["K_VRH"])
        pq.write_table(known.append_column("kind", pa.array(list(classes))), tmp_path / "training.parquet")
        offered = structures.slice(N_TRAIN, N_CANDIDATES).drop_columns(["K_VRH"])
        pq.write_table(offered, tmp_path / "candidates.parquet")
        return tmp_path

    return write


def campaign(folder, **sections):
    raw = {
        "name": "stiff",
        "training": {"source": str(folder / "training.parquet"), "target": "kind", "task": "class"},
        "candidates": {"source": str(folder / "candidates.parquet")},
        "objective": {"value": "stiff", "shortlist": 5},
        "features": {"shard_size": 64},
        "model": {"members": 4, "folds": 2, "epochs": 4, "phi": [16], "rho": [16]},
        "discovery": {"seeds": 2, "heads": HEADS},
        "cluster": {"workers": 1},
    }
    for name, changes in sections.items():
        raw[name] = {**raw.get(name, {}), **changes}
    return Campaign.model_validate(raw)


def test_from_labels_to_a_ranking_stopped_and_changed(structures, write, tmp_path, monkeypatch):
    classes = kinds(structures)[:N_TRAIN]
    classes[3] = None
    folder, out = write(classes), str(tmp_path / "out")

    # Stopped before the predictions: what was learned by then stays.
    def stop(*_):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(CampaignRun, "predict", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            screen(campaign(folder), out)
    summary = screen(campaign(folder), out)
    assert [summary["done"][name] for name in WORK] == [0, 0, 0, 1]
    whole = screen(campaign(folder), str(tmp_path / "whole"))
    assert whole["done"]["models_trained"] == 1
    ranking = (tmp_path / "out/ranking.csv").read_text()
    assert ranking == (tmp_path / "whole/ranking.csv").read_text()

    # The summary speaks of the class and of nothing that only numbers have.
    n = int((classes == "stiff").sum())
    assert summary["class"]["wanted"] == "stiff"
    assert summary["class"]["counts"]["stiff"] == n
    assert sum(summary["class"]["counts"].values()) == N_TRAIN - 1
    assert summary["unit"] == "probability"
    model = summary["model"]
    assert model["share"] == pytest.approx(n / (N_TRAIN - 1))
    assert sum(model["confusion"].values()) == N_TRAIN - 1
    assert 0.5 < model["roc_auc"] <= 1
    assert "mae" not in model
    found = summary["discovery"]
    assert len(set(found["what"])) == 2, "every seed hides another chemistry"
    assert {row["head"] for row in found["heads"]} == {*HEADS, "random", "oracle"}
    assert summary["choice"]["acquisition"] in ("mean", "ucb")

    # The ranking is by probability, and every number of it is one.
    rows = pd.read_parquet(tmp_path / "out/ranking.parquet")
    assert pq.read_schema(tmp_path / "out/ranking.parquet").metadata[b"unit:predicted"] == b"probability"
    numbers = rows[["lower", "predicted", "upper"]].to_numpy()
    assert (np.diff(numbers, axis=1) >= 0).all()
    assert numbers.min() >= 0
    assert numbers.max() <= 1
    assert (rows["std"] > 0).all()
    inside = rows[rows["in_domain"]]
    assert inside["score"].is_monotonic_decreasing
    assert (rows[rows["shortlist"]]["predicted"] >= model["share"]).all()
    k = structures["K_VRH"].to_numpy()[N_TRAIN : N_TRAIN + N_CANDIDATES]
    truth = dict(zip(structures["material_id"].to_pylist()[N_TRAIN:][:N_CANDIDATES], k > 150, strict=True))
    right = rows["material_id"].map(truth).to_numpy(dtype=bool)
    half = len(rows) // 2
    assert right[:half].mean() > 2 * right[half:].mean()

    # What people read says so in their words.
    report = (tmp_path / "out/report.html").read_text()
    for text in ("is stiff?" if len(rows) == 1 else "are stiff?", "probability of being stiff", "not stiff",
                 "Are the probabilities right?", "balanced accuracy", "In chemistry it has never seen"):  # fmt: skip
        assert text in report, text
    assert "R²" not in report
    card = (tmp_path / "out" / model["folder"] / "MODEL.md").read_text()
    assert "probability of stiff" in card
    assert "mistaken for it" in card
    json.dumps(summary, allow_nan=False)
    assert verify(Store(out)).findings == ()

    # A second run has nothing to do.
    state = screen(campaign(folder), out, return_state=True)
    assert state.name == NOTHING_NEW
    assert (tmp_path / "out/ranking.csv").read_text() == ranking

    # Another label: no feature is made again, the model is; a label of one that was ranked is held against it.
    classes[5] = "soft" if classes[5] == "stiff" else "stiff"
    more = [*classes, *kinds(structures)[N_TRAIN : N_TRAIN + 6]]
    write(more)
    asked = campaign(folder, standing={"new_labels": "challenge"})
    changed = screen(asked, out)
    assert changed["done"]["shards_made"] <= 1, "at most that of structures that had none"
    assert changed["done"]["models_trained"] == 1
    assert changed["done"]["discoveries_simulated"] == 2
    record = read_changes(Store(out))["latest"]
    assert record["confronted"]["now"]["n"] == 6
    assert record["confronted"]["now"]["log_loss"] > 0
    assert "log loss of" in record["duel"]["why"]
    assert "met a class so far" in (tmp_path / "out/report.html").read_text()
    assert retrain(asked, out, return_state=True).name == NOTHING_NEW


def test_a_class_is_asked_for_without_a_check(structures, write, tmp_path):
    summary = screen(campaign(write(kinds(structures)[:60]), discovery={"seeds": 0, "heads": HEADS[1:]}),
                     str(tmp_path / "out"))  # fmt: skip
    assert summary["discovery"] is None
    assert summary["choice"] == {"head": HEADS[1], "acquisition": "mean"}
    assert "Not tested" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("classes", "wanted", "message"),
    [
        (None, "glass", r"'glass' is no class of 'kind': name one of .*stiff \(\d+ rows\)"),
        (["metal"] + ["rest"] * 39, "metal", r"'metal' in 'kind' has 1 row alone \(mp-.*Add labels"),
        (["metal"] + ["rest"] * 39, "rest", r"what is not 'rest' in 'kind' has 1 row alone"),
        (["metal"] * 40, "metal", "all 40 rows of 'kind' are of one class, 'metal': rows of another"),
        (np.arange(40.0) + 0.5, "1", "holds numbers such as 0.5.*set training.task = 'number'"),
        ([f"c{k}" for k in range(40)], "c1", "holds 40 different classes, and 20 classes are the most"),
    ],
)
def test_classes_that_cannot_be_learned_are_named_by_run_and_dry_run(structures, write, tmp_path, classes, wanted,
                                                                     message):  # fmt: skip
    asked = campaign(write(kinds(structures)[:40] if classes is None else classes), objective={"value": wanted})
    with pytest.raises(SourceError, match=message):
        screen(asked, str(tmp_path / "out"))
    with pytest.raises(SourceError, match=message):
        estimate(asked, str(tmp_path / "out"))


def test_a_dry_run_knows_how_many_have_a_class(structures, write, tmp_path):
    classes = kinds(structures)[:60]
    classes[7] = None
    found = estimate(campaign(write(classes)), str(tmp_path / "out"))
    assert found.labelled == 59
    assert found.trainings == 3
