"""Whole campaigns of formulas on a real server and cluster: stopped, gone on with, and labels of formulas alone."""

import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from atomsets_core.campaigns.layout import is_known, is_passing
from atomsets_core.campaigns.verification import verify
from atomsets_core.models.trained import load_regressor
from atomsets_core.sources.base import SourceError
from atomsets_core.storage.store import Store
from atomsets_core.structures.compositions import as_compositions
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.screen import CampaignRun, screen

N_TRAIN, N_CANDIDATES = 90, 40
WORK = ("shards_made", "models_trained", "discoveries_simulated", "shards_predicted")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, elastic):
    """90 labelled formulas, one twice and one twice with about the same value, 40 others, and unusable rows."""
    folder = tmp_path_factory.mktemp("formulas")
    known = pd.Series(elastic.columns["K_VRH"].to_numpy()).groupby(elastic.structures.formulas, sort=False).median()
    labels = [[formula, round(value, 3)] for formula, value in known.iloc[:N_TRAIN].items()]
    twice, again = [labels[0][0], 3 * labels[0][1]], [f"({labels[1][0]})2", 1.001 * labels[1][1]]
    rows = [*labels, twice, again, ["Xx2O3", 100.0], ["MgSiN2", None], ["MgGeN2", -3.0]]
    pd.DataFrame(rows, columns=["composition", "K (GPa)"]).to_csv(folder / "labels.csv", index=False)
    others = [formula for formula in known.index[N_TRAIN:] if "O" not in formula][:N_CANDIDATES]
    frame = pd.DataFrame({"formula": [*others, f"({others[1]})2", labels[3][0], "Fe?", "MgRb2O9"], "price": 1.0})
    frame.loc[0, "price"] = np.nan
    frame.to_csv(folder / "candidates.csv", index=False)
    return folder


def campaign(inputs, **sections):
    raw = {
        "name": "formulas-test",
        "training": {"source": str(inputs / "labels.csv"), "target": "K", "unit": "GPa", "transform": "log10"},
        "candidates": {
            "source": str(inputs / "candidates.csv"),
            "filters": {"price": {"max": 2.0}, "n_elements": {"max": 4}},
            "exclude_elements": ["O"],
            "deduplicate": ["content"],
        },
        "objective": {"shortlist": 5},
        "features": {"shard_size": 32},
        "model": {"members": 4, "folds": 2, "epochs": 40, "phi": [16], "rho": [16]},
        "discovery": {"seeds": 1, "heads": ["AtomSets", "ridge, composition"], "choose": False},
        "standing": {"new_labels": "replace"},
        "cluster": {"workers": 1},
    }
    for name, changes in sections.items():
        raw[name] = {**raw[name], **changes}
    return Campaign.model_validate(raw)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("campaign")
    return out, screen(campaign(inputs), str(out))


def by_formula(out, summary, ranking):
    """(n,) what the model says of the formulas of a ranking, log10(GPa)."""
    model = load_regressor(Store(out), summary["model"]["folder"])
    return model.predict_distribution(as_compositions(ranking["formula"].tolist())).mean


def stop(*_):
    raise RuntimeError("stopped here")


def test_every_formula_is_accounted_for(finished):
    out, summary = finished
    training, candidates = summary["counts"]["training"], summary["counts"]["candidates"]
    assert summary["materials"] == {"training": "compositions", "candidates": "compositions"}
    assert training["learned_from"] == N_TRAIN + 1
    assert training["failed_by_stage"] == {"parse": 1, "label": 3}
    assert candidates["filtered_by_reason"] == {
        "price is missing": 1,
        "holds O": 1,
        "its composition is in the training data": 1,
    }
    assert candidates["failed_by_stage"] == {"parse": 1, "pull": 1}
    assert candidates["ranked"] == N_CANDIDATES - 1
    assert json.loads((out / "changes.json").read_text())["latest"]["labels"]["changed"] == 0
    reasons = pd.read_parquet(out / "failures.parquet")["reason"]
    assert reasons.str.contains("one of 2 labels of the same content").sum() == 1
    assert reasons.str.contains("unknown element 'Xx'").sum() == 1
    assert reasons.str.contains("not a chemical formula: 'Fe\\?'").sum() == 1
    assert reasons.str.contains("which comes first: the same composition").sum() == 1


def test_the_ranking_has_nothing_of_cells(finished):
    out, summary = finished
    ranking = pd.read_parquet(out / "ranking.parquet")
    assert not {"matter", "n_atoms", "e_above_hull"} & set(ranking.columns)
    assert list(pd.read_csv(out / "ranking.csv").columns) == list(ranking.columns)
    assert ranking["score"].is_monotonic_decreasing
    assert np.isfinite(ranking[["predicted", "std", "score", "distance"]].to_numpy()).all()
    assert summary["model"]["features"] == "composition:site"
    np.testing.assert_allclose(np.log10(ranking["predicted"]), by_formula(out, summary, ranking), atol=1e-5)


def test_the_report_speaks_of_compositions(finished):
    out, _ = finished
    text = (out / "report.html").read_text()
    body = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert "They are compositions: no crystal structure is known or assumed" in body
    assert "Structures (CIFs)" not in body
    assert 'class="crystal-box"' not in body
    assert "3Dmol" not in text
    assert "one composition a formula" in body
    assert " at.% " in body.replace("\N{NO-BREAK SPACE}", " ")
    assert "structure of the same formula" not in body


def test_its_folder_is_whole_and_a_second_run_finds_nothing_new(finished, inputs):
    out, summary = finished
    assert [name for name in Store(out).all_names(".") if not is_known(name) or is_passing(name)] == []
    assert list(verify(Store(out)).findings) == []
    before = (out / "ranking.csv").read_bytes()
    again = screen(campaign(inputs), str(out))
    assert {again["done"][name] for name in WORK} == {0}
    assert "rank" not in again["seconds"]
    assert again["counts"] == summary["counts"]
    assert (out / "ranking.csv").read_bytes() == before


def test_a_stopped_campaign_goes_on_and_a_changed_label_does_again_what_depends_on_it(
    finished, inputs, tmp_path, monkeypatch
):
    out, _ = finished
    for name in ("labels.csv", "candidates.csv"):
        (tmp_path / name).write_bytes((inputs / name).read_bytes())
    asked, folder = campaign(tmp_path), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(CampaignRun, "predict", stop)
        with pytest.raises(RuntimeError, match="stopped here"):
            screen(asked, str(folder))
    went_on = screen(asked, str(folder))
    assert {name: went_on["done"][name] for name in WORK} == {
        "shards_made": 0, "models_trained": 0, "discoveries_simulated": 0, "shards_predicted": 2,
    }  # fmt: skip
    assert (folder / "ranking.csv").read_bytes() == (out / "ranking.csv").read_bytes()

    labels = (tmp_path / "labels.csv").read_text().splitlines()
    formula, _, value = labels[5].partition(",")
    labels[5] = f"{formula},{2 * float(value):.3f}"
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    changed = screen(asked, str(folder))
    assert {name: changed["done"][name] for name in WORK} == {
        "shards_made": 0, "models_trained": 1, "discoveries_simulated": 1, "shards_predicted": 2,
    }  # fmt: skip
    assert changed["model"]["folder"] != went_on["model"]["folder"]


def test_structures_are_ranked_by_labels_of_formulas(inputs, elastic, tmp_path):
    part = elastic.structures.take(np.arange(N_TRAIN, N_TRAIN + 40))
    store = Store(tmp_path)
    moduli = pa.array(elastic.columns["K_VRH"].to_numpy()[N_TRAIN : N_TRAIN + 40])
    store.write_table("structures.parquet", part.to_arrow().append_column("K", moduli))
    mixed = {"source": str(tmp_path / "structures.parquet"), "filters": {"n_atoms": {"max": 30}}}
    summary = screen(campaign(inputs, candidates=mixed), str(tmp_path / "out"))
    assert summary["materials"] == {"training": "compositions", "candidates": "structures"}
    ranking = pd.read_parquet(tmp_path / "out/ranking.parquet")
    assert {"matter", "n_atoms"} <= set(ranking.columns)
    # The network sees an element once for each site, or once with its fraction: the same up to rounding.
    expected = by_formula(tmp_path / "out", summary, ranking)
    np.testing.assert_allclose(np.log10(ranking["predicted"]), expected, atol=1e-4)
    text = (tmp_path / "out/report.html").read_text()
    assert "crystals of one composition are predicted the same" in text
    assert "Structures (CIFs)" in text
    with pytest.raises(SourceError, match=r"labels are of structures and the candidates are formulas.*training\.take"):
        screen(
            campaign(inputs, training={"source": str(tmp_path / "structures.parquet")}),
            str(tmp_path / "reverse"),
        )
