"""The report says what the files say, whatever they hold: one file, no network, nothing from data as markup."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zipfile
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pymatgen.core import Structure

from atomsets_core.discovery.simulate import summarize
from atomsets_core.report.candidates.drawing import draw
from atomsets_core.report.downloads import bibtex, cif_zip, data_sets
from atomsets_core.report.markup import formula, material, script_json
from atomsets_core.report.page import write_report
from atomsets_core.report.periodic import place, tables
from atomsets_core.report.plotting import thin, ticks
from atomsets_core.report.results import elements_in, read_results
from atomsets_core.report.words import factor, interval_sentences, number, number_rows, number_sentences
from atomsets_core.sources.ledger import LEDGER
from atomsets_core.storage.store import StorageError, Store

HEADS = ("AtomSets", "ridge, composition", "random forest, composition", "random", "oracle")
HOSTILE = "<script>alert(1)</script>"
BREAKOUT = "</script><img src=x onerror=alert(2)>{{ 7*7 }}"
LINKS = r"#|https://next-gen\.materialsproject\.org/materials[/?]|https://doi\.org/|https://scholar\.google\.com/scholar\?q="
N_HIDDEN, N_POOL, N_TRAINED, N_RANKED, N_SHORTLIST = 6, 18, 60, 40, 5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def discovery_run(rng: np.random.Generator, seed: int) -> dict[str, Any]:
    """One simulated discovery in which AtomSets finds all but one, with the scores of `discovery.simulate`."""
    heads = {}
    for head in HEADS:
        found = N_HIDDEN - HEADS.index(head) % 4
        hits = np.minimum(np.arange(1, N_POOL + 1), found).tolist()
        heads[head] = {"r_precision": found / N_HIDDEN, "enrichment": 3 * found / N_HIDDEN, "hits": hits}
        if head not in ("random", "oracle"):
            errors = {"mae_outside": 0.1, "mae_inside": 0.05, "bias_outside": -0.08, "spearman_outside": 0.5}
            errors |= {"coverage_outside": 0.6, "coverage_inside": 0.9, "width_outside": 0.3, "width_inside": 0.2}
            errors |= {"unlike": 4.0, "coverage_unlike": 0.7, "bias_unlike": -0.03, "width_unlike": 0.4}
            heads[head] |= {name: value * rng.uniform(0.9, 1.1) for name, value in errors.items()}
    sizes = {"n_train": 40, "n_pool": N_POOL, "n_hidden": N_HIDDEN}
    return {"seed": seed, **sizes, "boundary": 2.0, "heads": heads}


def predictions(rng: np.random.Generator, n: int, prefix: str, transform: str) -> pd.DataFrame:
    mean = rng.normal(2.0, 0.3, n)
    back = (lambda x: 10**x) if transform == "log10" else (lambda x: x - 2.0)
    return pd.DataFrame(
        {
            "material_id": [f"{prefix}-{i}" for i in range(n)],
            "formula": [f"Al{i + 2}O3" for i in range(n)],
            "structure_hash": [f"{i:032x}" for i in range(n)],
            "predicted": back(mean),
            "lower": back(mean - 0.2),
            "upper": back(mean + 0.2),
            "mean": mean,
            "std": np.log(10) * 0.1 * back(mean) if transform == "log10" else 0.1,
            "std_scale": 0.1,
            "distance": rng.uniform(1, 5, n),
            "in_domain": rng.random(n) < 0.6,
        }
    )


def campaign(
    rng: np.random.Generator,
    folder: Path,
    *,
    goal: str = "maximize",
    transform: str = "log10",
    n_ranked: int = N_RANKED,
    discoveries: int = 2,
    with_hull: bool = True,
    with_evidence: bool = True,
    failures: list[tuple[str, ...]] | None = None,
    change: dict[str, Any] | None = None,
) -> Store:
    """Write what a finished run leaves, as flows/runs/screen.py does; `change` replaces keys of the summary."""
    store = Store(folder)
    trained = predictions(rng, N_TRAINED, "mp", transform)
    trained["value"] = trained["predicted"] * rng.uniform(0.9, 1.1, N_TRAINED)
    store.write_table("models/m/out_of_fold.parquet", pa.Table.from_pandas(trained, preserve_index=False))
    ranking = predictions(rng, n_ranked, "mp", transform)
    ranking["score"] = {"maximize": ranking["mean"], "minimize": -ranking["mean"]}.get(goal, -abs(ranking["mean"] - 2))
    ranking = ranking.sort_values("score", ascending=False, ignore_index=True)
    ranking["rank"], ranking["shortlist"] = np.arange(1, n_ranked + 1), np.arange(n_ranked) < N_SHORTLIST
    ranking["e_above_hull"] = rng.uniform(0, 0.1, n_ranked) if with_hull else np.nan
    ranking["remark"], ranking["n_atoms"] = "", 5
    store.write_table("ranking.parquet", pa.Table.from_pandas(ranking, preserve_index=False))
    rows = failures if failures is not None else [("candidates", "mp-99", "featurize", "isolated atom: site 0", "ab")]
    columns = zip(*rows, strict=True) if rows else ([] for _ in LEDGER)
    store.write_table(
        "failures.parquet",
        pa.table({name: pa.array(list(column), pa.string()) for name, column in zip(LEDGER, columns, strict=True)}),
    )
    runs = [discovery_run(rng, seed) for seed in range(discoveries)]
    for run in runs:
        store.write_json(f"discovery/d-seed-{run['seed']}.json", run)
    store.write_json("summary.json", summary(trained, ranking, runs, goal, transform, len(rows)) | (change or {}))
    if with_evidence:
        write_evidence(store, ranking, trained)
    return store


def write_evidence(store: Store, ranking: pd.DataFrame, trained: pd.DataFrame) -> None:
    """Rock salt for every shortlisted candidate, and a map of everything."""
    near = trained[["material_id", "formula", "value"]].iloc[:3].to_dict("records")
    store.write_json(
        "evidence.json",
        {
            "candidates": [
                {
                    "material_id": name,
                    "lattice": (2.82 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])).tolist(),
                    "numbers": [11, 17],
                    "frac": [[0, 0, 0], [0.5, 0.5, 0.5]],
                    "occupancy": None,
                    "neighbours": [{**row, "distance": 1.5 + k} for k, row in enumerate(near)],
                    "base": 2.0,
                    "sites": [0.3, -0.1],
                    "structure": 0.0,
                }
                for name in ranking.loc[ranking["shortlist"], "material_id"]
            ],
            "map": {"explained": [0.4, 0.2]},
        },
    )
    both = pd.concat([trained.assign(trained=True, shortlist=False), ranking.assign(trained=False)], ignore_index=True)
    both["value"] = np.where(both["trained"], both["value"], both["predicted"])
    both["x"], both["y"] = both["mean"], both["distance"]
    columns = ["x", "y", "material_id", "formula", "value", "trained", "shortlist"]
    store.write_table("map.parquet", pa.Table.from_pandas(both[columns], preserve_index=False))


def summary(
    trained: pd.DataFrame, ranking: pd.DataFrame, runs: list[dict[str, Any]], goal: str, transform: str, failed: int
) -> dict[str, Any]:
    n_ranked, value = len(ranking), {"target": 100.0 if transform == "log10" else 0.1}.get(goal)
    found = {
        "files": [f"discovery/d-seed-{run['seed']}.json" for run in runs],
        "n_hidden": N_HIDDEN,
        "n_pool": N_POOL,
        "n_train": [run["n_train"] for run in runs],
        "heads": summarize(runs) if runs else [],
    }
    objective = {"goal": goal, "value": value, "acquisition": "ucb", "kappa": 1.0, "shortlist": 5, "diversity": 0.2}
    model = {"members": 10, "folds": 5, "phi": [128], "rho": [128], "pooling": ["mean"], "activation": "relu"}
    model |= {"epochs": 100, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-4, "loss": "absolute"}
    filters = {"e_above_hull": {"min": None, "max": 0.1}}
    return {
        "campaign": "small",
        "finished": "2026-01-02T03:04:05+00:00",
        "settings": {
            "training": {"source": "labels.csv"},
            "candidates": {"source": "cifs", "filters": filters, "exclude_elements": ["Pb"], "exclude_seen": True},
            "objective": objective,
            "features": {"parent": "megnet", "levels": ["V0", "V1"]},
            "model": {**model, "coverage": 0.9, "seed": 0},
            "discovery": {"seeds": len(runs), "quantile": 0.1, "pool_share": 0.2},
        },
        "target": "K_VRH",
        "unit": "GPa" if transform == "log10" else "",
        "transform": transform,
        "counts": {
            "training": {"pulled": 61, "learned_from": 60, "failed": 1, "failed_by_stage": {"label": 1}},
            "candidates": {
                "pulled": n_ranked + 1234 + failed,
                "ranked": n_ranked,
                "filtered": 1234,
                "failed": failed,
                "filtered_by_reason": {"e_above_hull above 0.1": 1234},
                "failed_by_stage": {"featurize": failed} if failed else {},
                "in_domain": int(ranking["in_domain"].sum()),
                "shortlist": int(ranking["shortlist"].sum()),
            },
        },
        "choice": {
            "head": HEADS[0],
            "acquisition": "ucb",
            "compared": {HEADS[0]: {"mean": 0.8, "ucb": 0.9}, "AtomSets, linear readout": {"mean": 0.7, "ucb": 0.75}},
            "r_precision": 0.9,
            "prevalence": 1 / 3,
            "chance": 0.6,
            "better_than_random": True,
        },
        "done": {"models_trained": 1},
        "model": {
            "folder": "models/m",
            "features": "megnet:V0+V1",
            "parent_digest": "0123456789abcdef",
            "mae": 0.04,
            "rmse": 0.06,
            "r2": 0.95,
            "spearman": 0.97,
            "mae_in_unit": 9.0,
            "value_min": float(trained["value"].min()),
            "value_max": float(trained["value"].max()),
            "coverage": 0.9,
            "coverage_out_of_fold": 0.91,
            "domain_threshold": 4.0,
        },
        "discovery": found if runs else None,
        "sources": {"training": {"name": "labels.csv", "sha256": "12ab"}, "candidates": {"title": "Some crystals"}},
        "overlap": "The parent may have seen them.",
        "seconds": {"pull": 1.0, "total": 2.0},
        "versions": {"python": "3.11.7", "atomsets-screening": "0.1.0"},
        "machine": {"system": "Linux", "cores": 2},
    }


class Page(HTMLParser):
    """The elements, attributes and visible text of a page; scripts and styles apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text, self._inside = "", ""
        self.feed(html)
        self.text = " ".join(self.text.replace("\N{MINUS SIGN}", "-").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside
        if tag in ("td", "th", "dt", "dd"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        elif not self._inside:
            self.text += data

    def figures(self) -> dict[str, dict[str, Any]]:
        scripts = [attrs for tag, attrs in self.elements if tag == "script"]
        both = zip(scripts, self.scripts, strict=True)
        return {str(a["data-plot"]): json.loads(text) for a, (_, text) in both if "data-plot" in a}


def page(store: Store) -> Page:
    write_report(store)
    return Page(store.read("report.html").decode())


def test_one_file_needs_no_network_and_is_the_same_each_time(rng, tmp_path):
    store = campaign(rng, tmp_path)
    shown = page(store)
    first = store.read("report.html")
    assert len(first) < 2_500_000
    for tag, attrs in shown.elements:
        assert "src" not in attrs, (tag, attrs)
        if tag == "link":
            assert attrs["href"] == "data:,"
        elif "href" in attrs:
            assert tag == "a"
            saved = "download" in attrs
            assert re.match("data:" if saved else LINKS, attrs["href"])
    style = re.search(r"<style>(.*?)</style>", first.decode(), re.S)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert sum("plotly.js (basic - minified) v" in text for _, text in shown.scripts) == 1
    assert sum("3Dmol" in text[:200] for _, text in shown.scripts) == 1
    write_report(store)
    assert store.read("report.html") == first


def test_counts_and_key_numbers_are_shown(rng, tmp_path):
    text = page(campaign(rng, tmp_path)).text
    assert "Which of 40 candidates have the highest K_VRH (GPa)?" in text
    assert "pulled 1,275 filtered: e_above_hull above 0.1 -1,234 failed: featurize -1 ranked 40" in text
    assert "pulled 61 failed: label -1 learned from 60" in text
    assert "Typical error 9.6%" in text
    assert "91.0% of the training values lie inside" in text
    assert "The parent may have seen them." in text
    assert "underestimates the hidden values by" in text
    assert "10.1038/s41524-021-00639-w" in text
    assert "e_above_hull ≤ 0.1; without Pb" in text


def test_all_figures_have_data(rng, tmp_path):
    figures = page(campaign(rng, tmp_path)).figures()
    assert list(figures) == [
        f"plot-{name}" for name in ("parity", "calibration", "discovery", "map", "hull", "distributions")
    ]
    assert figures["plot-parity"]["layout"]["xaxis"]["type"] == "log"
    assert [trace["name"] for trace in figures["plot-discovery"]["data"][1:]] == list(HEADS)


@pytest.mark.parametrize(
    ("options", "shown", "hidden"),
    [
        ({"goal": "minimize"}, ["have the lowest K_VRH", "below the smallest training value"], []),
        ({"goal": "target", "discoveries": 0}, ["come closest to K_VRH = 100 GPa", "needs the goal maximize"], []),
        ({"transform": "none"}, ["have the highest K_VRH?", "Typical error 0.0400"], ["log10", "GPa"]),
        ({"transform": "none", "goal": "target", "discoveries": 0}, ["come closest to K_VRH = 0.100?"], []),
        ({"discoveries": 0}, ["asked for no simulated discovery"], ["R-precision", "Simulated discovery"]),
        ({"discoveries": 1}, ["1 repeat)"], ["±"]),
        ({"with_hull": False}, ["Shortlist"], ["above hull", "Prediction and stability"]),
        ({"failures": []}, ["None: every structure and label that was pulled could be used"], ["failed: featurize"]),
        ({"with_evidence": False}, ["Shortlist"], ["Map of the candidates", "Nearest known"]),
        ({"n_ranked": 0}, ["No candidate could be ranked", "It is empty"], ["What was learned from, what is"]),
        ({"n_ranked": 1}, ["Which of 1 candidate has the highest"], []),
    ],
)
def test_every_kind_of_campaign_renders(rng, tmp_path, options, shown, hidden):
    text = page(campaign(rng, tmp_path, **options)).text
    for part in shown:
        assert part in text
    for part in hidden:
        assert part not in text
    assert "nan" not in text.lower().split()
    assert "None" not in text.replace("None is", "").replace("None of", "").replace("None: every", "").split()


def test_nothing_from_data_becomes_markup(rng, tmp_path):
    plain = page(campaign(rng, tmp_path / "plain"))
    store = campaign(
        rng,
        tmp_path / "hostile",
        failures=[("candidates", HOSTILE, BREAKOUT, BREAKOUT, HOSTILE)],
        change={
            "campaign": BREAKOUT,
            "target": HOSTILE,
            "unit": BREAKOUT,
            "overlap": BREAKOUT,
            "sources": {
                "training": {"title": HOSTILE, "citation": BREAKOUT, "doi": "javascript:alert(1)", "licence": HOSTILE},
                "candidates": {"name": BREAKOUT, "citation": HOSTILE, "doi": '10.1234/x"onclick="alert(1)'},
            },
        },
    )
    for name, columns in (
        ("ranking.parquet", ("material_id", "formula", "remark")),
        ("models/m/out_of_fold.parquet", ("material_id", "formula")),
    ):
        frame = store.read_table(name).to_pandas()
        for column, text in zip(columns, (HOSTILE, BREAKOUT, HOSTILE), strict=False):
            frame[column] = text
        store.write_table(name, pa.Table.from_pandas(frame, preserve_index=False))
    evidence = store.read_json("evidence.json")
    for row in evidence["candidates"]:
        row["material_id"] = HOSTILE
        row["neighbours"] = [{"material_id": HOSTILE, "formula": BREAKOUT, "value": 1.0, "distance": 2.0}]
    store.write_json("evidence.json", evidence)
    points = store.read_table("map.parquet").to_pandas()
    points["material_id"], points["formula"] = HOSTILE, BREAKOUT
    store.write_table("map.parquet", pa.Table.from_pandas(points, preserve_index=False))
    shown = page(store)
    assert sum(tag == "script" for tag, _ in shown.elements) == sum(tag == "script" for tag, _ in plain.elements)
    assert not any(tag == "img" for tag, _ in shown.elements)
    assert not any(name.startswith("on") for _, attrs in shown.elements for name in attrs)
    assert not any((attrs.get("href") or "").startswith("javascript") for _, attrs in shown.elements)
    assert shown.text.count(HOSTILE) > N_SHORTLIST
    assert BREAKOUT in shown.text
    points = shown.figures()["plot-parity"]["data"][1]["customdata"][0]
    assert points[0] == HOSTILE.replace("<", "&lt;").replace(">", "&gt;")
    assert "<img" not in points[1]


@pytest.mark.parametrize(
    ("name", "linked"),
    [("mp-149", True), ("mp-abc1", True), ("mp-149\n", False), ("mp-149/../x", False), ("MP-1", False), ("x", False)],
)
def test_only_materials_project_identifiers_are_linked(name, linked):
    assert ("href" in material(name)) == linked


def test_shortlist_rows_link_to_their_material(rng, tmp_path):
    store = campaign(rng, tmp_path)
    ranking = store.read_table("ranking.parquet").to_pandas()
    ranking.loc[1, "material_id"] = "mine-7"
    store.write_table("ranking.parquet", pa.Table.from_pandas(ranking, preserve_index=False))
    shown = page(store)
    links = {
        attrs["href"].rpartition("/")[2] for tag, attrs in shown.elements if "materials/" in str(attrs.get("href"))
    }
    assert set(ranking["material_id"][[0, 2, 3, 4]]) <= links
    assert "mine-7" in shown.text
    assert "mine-7" not in links


def test_headings_of_the_shortlist_are_buttons_with_a_sort_state(rng, tmp_path):
    elements = page(campaign(rng, tmp_path)).elements
    sortable = [i for i, (tag, attrs) in enumerate(elements) if tag == "th" and "aria-sort" in attrs]
    assert len(sortable) == 10
    assert all(elements[i + 1][0] == "button" for i in sortable)


def test_a_simpler_model_that_wins_is_named(rng, tmp_path):
    store = campaign(rng, tmp_path)
    content = store.read_json("summary.json")
    content["discovery"]["heads"][1]["mae_outside"] = 0.002
    content["discovery"]["heads"][2] |= {"r_precision": 1.0, "mae_outside": 0.001}
    content["discovery"]["heads"][0]["r_precision"] = 0.5
    store.write_json("summary.json", content)
    text = page(store).text
    assert "error outside (ridge, composition 0.00200; random forest, composition 0.00100; AtomSets 0." in text
    assert "random forest, composition wins" in text


def test_the_choice_is_told_with_its_numbers(rng, tmp_path):
    text = page(campaign(rng, tmp_path)).text
    assert "AtomSets, ranked by the prediction plus a part of its uncertainty, found 90% of the hidden best" in text
    assert "AtomSets, linear readout 75%" in text
    assert "Warning" not in text


LOST = {"to": "ridge, composition", "r_precision": 0.95, "own": 0.9, "by": 0.05, "used": False}


def test_to_whom_atomsets_lost_is_said_first(rng, tmp_path):
    store = campaign(rng, tmp_path)
    content = store.read_json("summary.json")
    content["choice"]["lost"] = LOST
    content["settings"]["discovery"]["choose"] = True
    store.write_json("summary.json", content)
    text = page(store).text
    said = "AtomSets lost to ridge, composition where the answer is known: it found 90% of the hidden best, ridge, "
    assert f"How far to trust it {said}" in text
    # In the answer at the top of the page, too.
    assert text.index(said) < text.index("How far to trust it")
    assert "composition 95%, 5.0 points more; a lead within the noise of" in text
    content["settings"]["discovery"]["choose"] = False
    store.write_json("summary.json", content)
    assert "but the campaign leaves no choice: AtomSets is used" in page(store).text


def test_heads_there_was_no_time_for_are_named(rng, tmp_path):
    store = campaign(rng, tmp_path)
    content = store.read_json("summary.json")
    content["discovery"] |= {"minutes": 5.0, "left_out": ["random forest", "AtomSets, linear readout"]}
    store.write_json("summary.json", content)
    said = "Within 5.00 minutes there was no time to compare random forest and AtomSets, linear readout."
    assert said in page(store).text


def test_a_page_of_another_head_says_what_it_is_and_has_no_shares(rng, tmp_path):
    store = campaign(rng, tmp_path)
    content, evidence = store.read_json("summary.json"), store.read_json("evidence.json")
    content["choice"] |= {"head": "ridge, composition", "lost": {**LOST, "used": True}}
    for about in evidence["candidates"]:
        about |= {"base": None, "sites": None, "structure": None}
    store.write_json("summary.json", content)
    store.write_json("evidence.json", evidence)
    text = page(store).text
    assert "5.0 points more; so it is used here." in text
    assert "were ranked with a ridge, composition model" in text
    assert "A ridge regression of statistics of the composition" in text
    assert "Nearest known materials" in text
    assert "What each element adds" not in text


def test_a_ranking_no_better_than_random_is_warned_of_first(rng, tmp_path):
    choice = {"head": "AtomSets", "acquisition": "mean", "compared": {"AtomSets": {"mean": 0.4}}}
    choice |= {"r_precision": 0.4, "prevalence": 1 / 3, "chance": 0.6, "better_than_random": False}
    text = page(campaign(rng, tmp_path, change={"choice": choice})).text
    assert "How far to trust it Warning: where the answer is known, this ranking was no better" in text


def test_predictions_beyond_the_training_range_are_counted(rng, tmp_path):
    store = campaign(rng, tmp_path)
    ranking = store.read_table("ranking.parquet").to_pandas()
    ranking.loc[:2, "predicted"] = 1e5
    store.write_table("ranking.parquet", pa.Table.from_pandas(ranking, preserve_index=False))
    assert "3 are predicted above the largest training value" in page(store).text


def test_a_missing_file_is_named(rng, tmp_path):
    store = campaign(rng, tmp_path)
    store.remove("ranking.parquet")
    with pytest.raises(StorageError, match=r"ranking\.parquet does not exist"):
        write_report(store)


def test_a_card_says_what_is_known_and_why(rng, tmp_path):
    text = page(campaign(rng, tmp_path)).text
    assert "average sites 100 GPa" in text
    assert "Na \N{MULTIPLICATION SIGN} 2.00" in text
    assert "Cl \N{MULTIPLICATION SIGN} 0.794" in text
    assert "Space group Fm3\N{COMBINING OVERLINE}m (225), cubic" in text
    assert "Cell a = b = c = 5.640 Å, α = β = γ = 90°; 8 atoms (primitive: 2)" in text  # noqa: RUF001
    assert "Sites Na 4a; Cl 4b" in text
    assert "Density 2.16 g/cm³, 22.4 Å³ an atom" in text
    assert text.count("Nearest known materials") == N_SHORTLIST


def test_what_is_saved_is_what_is_shown(rng, tmp_path):
    store = campaign(rng, tmp_path)
    files = {
        str(attrs["download"]): base64.b64decode(str(attrs["href"]).partition("base64,")[2])
        for tag, attrs in page(store).elements
        if tag == "a" and "download" in attrs
    }
    assert list(files) == ["small-shortlist.csv", "small-cifs.zip", "small.bib"]
    ranking = store.read_table("ranking.parquet").to_pandas().iloc[:N_SHORTLIST]
    table = pd.read_csv(io.BytesIO(files["small-shortlist.csv"]))
    assert table["material_id"].tolist() == ranking["material_id"].tolist()
    np.testing.assert_allclose(table["predicted"], ranking["predicted"], rtol=1e-5)
    with zipfile.ZipFile(io.BytesIO(files["small-cifs.zip"])) as archive:
        assert len(archive.namelist()) == 2 * N_SHORTLIST
        first = {name.partition("/")[0]: archive.read(name).decode() for name in archive.namelist()[:2]}
    salts = {kind: Structure.from_str(text, fmt="cif") for kind, text in first.items()}
    assert {kind: salt.composition.formula for kind, salt in salts.items()} == {
        "primitive": "Na1 Cl1",
        "conventional": "Na4 Cl4",
    }
    assert {salt.get_space_group_info()[0] for salt in salts.values()} == {"Fm-3m"}
    assert "_symmetry_Int_Tables_number   225" in first["conventional"]
    bib = files["small.bib"].decode()
    assert "@article{chen2021," in bib
    assert "@dataset" not in bib  # of a file of one's own there is nothing to cite
    assert "doi = {10.1038/s41524-021-00639-w}" in bib


def test_what_does_not_fit_into_the_zip_is_left_out_from_the_end():
    cell = (3.0 * np.eye(3)).tolist()
    rows = [{"material_id": f"x/{k}", "lattice": cell, "numbers": [26], "frac": [[0, 0, 0]]} for k in range(50)]
    data, kept = cif_zip(rows, most=20_000)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        folders = ("primitive", "conventional")
        assert archive.namelist() == [f"{folder}/{k + 1:03d}-x-{k}.cif" for k in range(kept) for folder in folders]
    assert 0 < kept < 50
    assert len(data) < 24_000


def test_references_become_bibtex_that_nothing_can_break():
    sources = [
        {"citation": "A. Müller, X (2020)", "doi": "10.1234/a_b"},
        {"citation": "B. Müller, Y {50%} & z\\end (2020)"},
        {"citation": "nobody"},
        {"citation": "C. C (2020)", "bibtex": {"entry": "misc{x}", "key": "c 20,}20", "title": "C"}},
    ]
    text = bibtex(sources)
    assert re.findall(r"@misc\{(\w+),", text) == ["muller2020", "muller2020b", "reference"]
    assert "@miscx{c2020,\n  title = {C}\n}" in text
    assert r"Y 50\% \& zend (2020)" in text
    assert text.count("{") == text.count("}")


def test_published_data_sets_are_cited_with_their_version_and_licence():
    published = {"name": "mp", "title": "Materials Project", "db_version": "2025.9.25", "licence": "CC BY 4.0"}
    sources = {"training": {"name": "labels.csv", "sha256": "12ab"}, "candidates": {**published, "sha256": "34cd"}}
    assert bibtex(data_sets(sources)) == (
        "@dataset{datamp,\n  title = {Materials Project},\n  version = {2025.9.25},\n"
        "  note = {sha256 34cd; licence: CC BY 4.0}\n}\n"
    )
    assert len(data_sets({"training": published, "candidates": published})) == 1


def test_a_drawing_has_images_on_the_faces_and_bonds_between_neighbours():
    cubic = draw(4.2 * np.eye(3), [55, 17], np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))
    assert cubic.symbol.count("Cs") == 8
    assert cubic.symbol.count("Cl") == 1
    assert len(cubic.bonds) == 8
    turned, corners = cubic.turned()
    np.testing.assert_allclose(np.linalg.norm(turned[0] - turned[1:8], axis=1).min(), 4.2, atol=1e-9)
    assert np.abs(corners.mean(axis=0)).max() < 1e-9


def test_the_periodic_tables_count_candidates_and_place_elements(rng, tmp_path):
    results = read_results(campaign(rng, tmp_path))
    assert results.element_counts() == {"Al": (N_RANKED, N_SHORTLIST), "O": (N_RANKED, N_SHORTLIST)}
    assert elements_in("Co(BW)2 <b>Xx") == {"Co", "B", "W"}
    assert [place(symbol) for symbol in ("H", "He", "O", "La", "Lu", "Hf", "U")] == [
        (1, 1), (1, 18), (2, 16), (8, 3), (8, 17), (6, 4), (9, 6)
    ]  # fmt: skip
    screened, chosen = tables({"Fe": (50, 0), "O": (100, 2)}, 100, 2)
    assert "O (100%) and Fe (50%)" in screened.caption
    assert "Fe" not in chosen.caption


def test_rows_of_the_ranking_are_read_by_position(rng, tmp_path):
    store = campaign(rng, tmp_path)
    whole = store.read_table("ranking.parquet").to_pandas()
    found = read_results(store).rows([7, 2], ["material_id", "predicted"])
    assert found.index.tolist() == [2, 7]
    assert found["material_id"].tolist() == whole["material_id"][[2, 7]].tolist()


def test_the_libraries_are_those_that_are_written_down():
    folder = resources.files("atomsets_core.report").joinpath("vendor")
    known = json.loads(folder.joinpath("vendor.json").read_text())
    files = {name: digest for row in known.values() for name, digest in row["files"].items()}
    assert files.keys() == {file.name for file in folder.iterdir()} - {"vendor.json"}
    for name, digest in files.items():
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest, name
    assert {row["licence"] for row in known.values()} == {"BSD-3-Clause", "MIT"}


def test_formulas_and_json_are_safe_and_complete():
    assert formula("Li2Ta3N5") == "Li<sub>2</sub>Ta<sub>3</sub>N<sub>5</sub>"
    assert formula("Co(BW)2") == "Co(BW)<sub>2</sub>"
    assert formula("<b>2") == "&lt;b&gt;2"
    assert json.loads(script_json(json.dumps(BREAKOUT))) == BREAKOUT
    assert "<" not in script_json(json.dumps(BREAKOUT))


def test_numbers_keep_their_significant_digits():
    assert [number(x) for x in (319.78, 0.038211, 1234567.0, 0.0)] == ["320", "0.0382", "1,234,567", "0"]
    assert [number(x) for x in (-0.0283, 2.5e-9)] == ["\N{MINUS SIGN}0.0283", "2.50e\N{MINUS SIGN}09"]
    assert [number(x) for x in (None, float("nan"))] == ["\N{EN DASH}"] * 2
    assert factor(10**0.0382) == "9.2%"
    assert factor(10.0) == "a factor of 10.0"


def test_small_errors_are_not_rounded_away_in_the_discovery_table():
    head = {"head": "AtomSets", "r_precision": 0.9, "r_precision_se": None, "enrichment": 2.0}
    head |= {"mae_outside": 0.00042, "mae_inside": 0.012, "bias_outside": -0.0, "spearman_outside": None}
    row = number_rows({"discovery": {"heads": [head]}})[0]
    assert row == ("AtomSets", "0.900", "2.00", "0.00042", "0.012", "-0.000", "", "", "")


def test_what_intervals_were_worth_beyond_the_range_and_the_domain_is_said():
    head = {"head": "AtomSets", "bias_outside": -0.08, "coverage_outside": 0.6, "coverage_inside": 0.9}
    head |= {"width_outside": 0.3, "width_inside": 0.2}
    summary = {"transform": "log10", "unit": "GPa", "choice": {"head": "AtomSets"}, "discovery": {"heads": [head]}}
    assert number_sentences(summary) == [
        "Intervals of AtomSets as trained, meant to hold 90%, held 60% (median width 0.300 log10 GPa, bias "
        "\N{MINUS SIGN}0.0800 log10 GPa) of the hidden values beyond the training range, 90% of the others (median "
        "width 0.200 log10 GPa)."
    ]
    head |= {"unlike": 4.25, "coverage_unlike": 0.7, "bias_unlike": 0.03, "width_unlike": 0.4}
    # Those outside the domain have one figure on the page, that of all training values: see `findings`.
    assert "outside the domain" not in number_sentences(summary)[0]
    assert number_sentences({**summary, "choice": {"head": "ridge"}}) == []
    assert number_sentences({**summary, "discovery": None}) == []


def test_figures_stay_small_and_their_ticks_round():
    rows, note = thin(pd.DataFrame({"x": np.arange(100_000)}))
    assert len(rows) == 4000
    assert note == " 4,000 of 100,000 are shown."
    assert ticks(6.0, 436.0) == [10, 20, 50, 100, 200]
    assert ticks(1e-3, 1e3) == [1e-3, 1e-2, 1e-1, 1, 10, 100, 1000]


def test_candidates_that_look_like_the_training_data_are_not_called_unlike_it():
    trust = {"coverage": 0.9, "expected": 0.91, "effective_rows": 154.0, "rows": 154, "factor": 0.998}
    summary = {"intervals": {"candidates": trust, "beyond": None}, "transform": "log10", "unit": ""}
    assert interval_sentences(summary) == [
        "Candidates can't be told from the training data by their features, so intervals are as wide as held-out "
        "values need them, 0.998 times as wide as trained."
    ]
    trust |= {"effective_rows": 80.0, "factor": 1.4, "expected": 0.7}
    assert "would hold 70% of the candidates" in interval_sentences(summary)[0]
