"""An identifier that comes twice with other labels: said, and settled by the same rules as one crystal twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from atomsets_core.jobs.structures import with_labels
from atomsets_core.sources.pull import open_source, pull, pull_into
from atomsets_core.sources.repeats import REPEATED, differences, unfolded
from atomsets_core.sources.selection import settled_labels
from atomsets_core.storage import Store
from atomsets_core.structures.reading import from_pymatgen
from tests.input_cases import salts

LABELS = (
    ("mp-10003", 100.0, "PBE", "2001-01-01"),
    ("mp-10010", 50.0, "PBE", "2001-01-01"),
    ("mp-10003", 130.0, "SCAN", "1999-05-05"),
    ("mp-10003", 300.0, "LDA", "2020-02-03"),
    ("mp-10010", 50.1, "SCAN", "2003-01-01"),
    ("mp-10017", None, "PBE", "2001-01-01"),
    ("mp-10017", 20.0, "SCAN", "2001-01-01"),
)  # fmt: skip
COLUMNS = ("material_id", "K", "functional", "date")
LEARNED = {
    "median": {"mp-10003": 130.0, "mp-10010": 50.0, "mp-10017": 20.0},
    "mean": {"mp-10003": 530 / 3, "mp-10010": 50.0, "mp-10017": 20.0},
    "latest": {"mp-10003": 300.0, "mp-10010": 50.0, "mp-10017": 20.0},
    "drop": {"mp-10010": 50.0, "mp-10017": 20.0},
    "keep": {"mp-10003": 100.0, "mp-10010": 50.0, "mp-10017": 20.0},
}


def frame() -> pd.DataFrame:
    return pd.DataFrame(LABELS, columns=COLUMNS)


def written(kind: str, place: Path) -> dict[str, str]:
    """Arguments of `pull` for the same labels in a file of this kind."""
    known, table = salts(), frame()
    if kind == "json":
        rows = [{**row, "structure": known[row["material_id"]].as_dict()} for row in table.to_dict("records")]
        (place / "k.json").write_text(json.dumps([{k: v for k, v in r.items() if v == v} for r in rows]))
        return {"source": str(place / "k.json")}
    if kind == "formulas":
        names = [known[name].composition.reduced_formula for name in table["material_id"]]
        table.assign(formula=names).to_csv(place / "k.csv", index=False)
        return {"source": str(place / "k.csv")}
    if kind == "parquet":
        batch, _ = from_pymatgen([known[name] for name in table["material_id"]], list(table["material_id"]))
        made = batch.to_arrow()
        for name in COLUMNS[1:]:
            made = made.append_column(name, [table[name].tolist()])
        pq.write_table(made, place / "k.parquet")
        return {"source": str(place / "k.parquet")}
    (place / "cifs").mkdir()
    for name in dict.fromkeys(table["material_id"]):
        known[name].to(str(place / f"cifs/{name}.cif"))
    table.to_csv(place / "labels.csv", index=False)
    return {"source": str(place / "cifs"), "labels": str(place / "labels.csv")}


@pytest.mark.parametrize("kind", ["json", "formulas", "parquet", "labels"])
def test_each_rule_counts_all_labels_of_an_identifier(kind: str, tmp_path: Path):
    arguments = written(kind, tmp_path)
    source = arguments.pop("source")
    pulled = open_source(source, Store(tmp_path), compositions=kind == "formulas", **arguments)
    ids = list(pulled.structures.material_id)
    assert ids == ["mp-10003", "mp-10010", "mp-10017"]
    again = [refusal.material_id for refusal in pulled.refused]
    assert sorted(again) == ["mp-10003", "mp-10003", "mp-10010", "mp-10017"]
    assert len(pulled.structures) + len(pulled.refused) == len(LABELS)
    for rule, learned in LEARNED.items():
        found = settled_labels(pulled, "K", "none", rule, pulled.structures)
        kept = {ids[i]: float(found.values[i]) for i in np.flatnonzero(found.usable)}
        assert kept == pytest.approx(learned), rule
        assert {refusal.material_id for refusal in found.refused} == set(ids) - set(learned)
        (note,) = found.notes
        assert "1 structure or formula with several values of K that differ by 200 %" in note
        assert "the column functional (PBE, SCAN, LDA)" in note


@pytest.mark.parametrize("kind", ["json", "parquet", "labels"])
def test_a_campaign_counts_them_too(kind: str, tmp_path: Path):
    store = Store(tmp_path / "out")
    file = pull_into(store, "structures/training.parquet", **written(kind, tmp_path))
    found = with_labels(store, file, "K", "none")
    training, values, refused, notes = found.structures, found.values, found.refused, found.notes
    assert dict(zip(training.material_id, values.tolist(), strict=True)) == pytest.approx(LEARNED["median"])
    assert not refused
    assert "the column functional (PBE, SCAN, LDA)" in notes[0]


def test_reasons_say_what_later_rows_hold(tmp_path: Path):
    pulled = pull(**written("json", tmp_path))
    assert "here is K 130, functional SCAN, date 1999-05-05" in pulled.refused[0].reason
    joined = pull(**written("labels", tmp_path))
    assert any("labels.csv names it again: K 100.0 and 130.0" in refusal.reason for refusal in joined.refused)


def test_another_structure_of_the_same_identifier_is_no_other_label(tmp_path: Path):
    one, other = list(salts().values())[:2]
    rows = [{"material_id": "a", "K": k, "structure": s.as_dict()} for k, s in ((1.0, one), (9.0, other))]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    pulled = pull(str(tmp_path / "k.json"))
    assert REPEATED not in pulled.columns
    assert "its structure is another one" in pulled.refused[0].reason
    assert settled_labels(pulled, "K", "none", "median", pulled.structures).values.tolist() == [1.0]


def test_a_column_of_this_name_that_is_somebody_elses_is_left_alone():
    table = pd.DataFrame({"K": [1.0, 2.0], REPEATED: ["twice", "[1, 2"]})
    of, wide = unfolded(table)
    assert of.tolist() == [0, 1]
    assert wide["K"].tolist() == [1.0, 2.0]
    assert differences({"K": 1.0, "a": "x"}, {"K": 1.0, "a": "x", "b": None}) == {}
