"""The example campaigns of formulas run, on small data with invented values in place of those that people bring."""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atomsets_core.sources.generation import Generation, generate
from atomsets_core.storage.store import Store
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.screen import screen

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "campaigns"

SMALL = {
    "features": {"shard_size": 256},
    "model": {"members": 4, "folds": 2, "epochs": 30, "phi": [16], "rho": [16]},
    "discovery": {"seeds": 1, "heads": ["AtomSets", "ridge"]},
    "cluster": {"workers": 1},
}


def example(name):
    return tomllib.loads((EXAMPLES / f"{name}.toml").read_text())


@pytest.mark.parametrize("name", ["superconductors", "glass"])
def test_an_example_is_a_campaign(name):
    campaign = Campaign.model_validate(example(name))
    assert campaign.name == name
    assert campaign.discovery.seeds


def test_superconductors_are_crystals_ranked_by_formulas(tmp_path, elastic):
    raw = example("superconductors")
    formulas = list(dict.fromkeys(elastic.structures.formulas))[:100]
    # Invented: grows with the share of niobium, so that there is something to be found.
    values = [1.0 + 20.0 * ("Nb" in formula) + len(formula) % 5 for formula in formulas]
    table = pd.DataFrame({"formula": [*formulas, formulas[0], "MgB2"], "Tc": [*values, 1.9 * values[0], 0.0]})
    table.to_csv(tmp_path / "critical_temperatures.csv", index=False)
    known = {*formulas}
    rows = [i for i, formula in enumerate(elastic.structures.formulas) if formula not in known or i < 3][:60]
    Store(tmp_path).write_table("crystals.parquet", elastic.structures.take(rows).to_arrow())
    raw["training"]["source"] = str(tmp_path / raw["training"]["source"])
    raw["candidates"] |= {"source": str(tmp_path / "crystals.parquet"), "query": None}
    summary = screen(Campaign.model_validate({**raw, **SMALL}), str(tmp_path / "out"))
    assert summary["materials"] == {"training": "compositions", "candidates": "structures"}
    assert summary["counts"]["training"]["learned_from"] == 100
    assert summary["counts"]["candidates"]["filtered_by_reason"]["its composition is in the training data"] == 3
    reasons = pd.read_parquet(tmp_path / "out/failures.parquet")["reason"]
    assert reasons.str.contains("Tc is 0: log10 needs a positive value").sum() == 1
    ranking = pd.read_csv(tmp_path / "out/ranking.csv")
    assert "K" in summary["units"]["predicted"]
    # one prediction a composition, whatever the crystal
    assert (ranking.groupby("formula")["predicted"].agg(np.ptp) < 1e-3).all()


def test_glass_formers_are_alloys_on_a_grid(tmp_path):
    raw = example("glass")
    grid = generate(Generation(**raw["candidates"]["generation"])).structures
    rows = np.random.default_rng(0).choice(np.flatnonzero(grid.n_elements == 4), 80, replace=False)
    known = grid.take(np.sort(rows))
    # Invented: thickest near Zr55Cu30Ni5Al10.
    best = {40: 0.55, 29: 0.3, 28: 0.05, 13: 0.1}
    wanted = np.array([best[int(z)] for z in known.numbers]).reshape(-1, 4)
    off = ((known.fractions.reshape(-1, 4) - wanted) ** 2).sum(axis=1)
    table = pd.DataFrame({"formula": known.material_id, "Dmax": 20 * np.exp(-10 * off)})
    table.to_csv(tmp_path / "casting_thickness.csv", index=False)
    raw["training"]["source"] = str(tmp_path / raw["training"]["source"])
    summary = screen(Campaign.model_validate({**raw, **SMALL}), str(tmp_path / "out"))
    counts = summary["counts"]["candidates"]
    assert summary["materials"] == {"training": "compositions", "candidates": "compositions"}
    # points of a grid of 20 steps between 4 metals; those of fewer than 3 metals are filtered: 4 ends, 6 edges of 19
    assert counts["pulled"] == 1771
    assert counts["filtered_by_reason"] == {
        "n_elements below 3.0": 4 + 6 * 19,
        "its composition is in the training data": 80,
    }
    assert counts["ranked"] == 1771 - 118 - 80
    first = pd.read_csv(tmp_path / "out/ranking.csv")["formula"][:20]
    assert first.str.contains("Zr").all()
