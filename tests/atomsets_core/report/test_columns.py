"""A column of the shortlist is one entry of a table: page, download and the table on the server take it from there."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from atomsets_core.jobs.rank import COLUMNS as IN_FILE
from atomsets_core.report import columns, results
from atomsets_core.report.candidates.crystals import COLUMNS as MADE
from atomsets_core.report.columns import COLUMNS, Column, artifact_rows, headings, missing
from atomsets_core.report.results import read_results
from atomsets_core.storage.store import Store
from tests.atomsets_core.report.test_report import N_SHORTLIST, Page, campaign, page

ADDED = Column("n_atoms", "atoms", help="In the cell of {scale}", download=False)
"""As somebody might show a column of the ranking file that nobody has seen so far."""


@pytest.fixture
def store(tmp_path) -> Store:
    return campaign(np.random.default_rng(0), tmp_path)


def shown(page: Page) -> list[str]:
    """Headings of the shortlist."""
    elements = page.elements
    titles = [i for i, (tag, attrs) in enumerate(elements) if tag == "th" and "aria-sort" in attrs]
    return [str(elements[i + 1][1].get("title", "")) for i in titles]


def saved(page: Page) -> pd.DataFrame:
    """The CSV on the page."""
    link = next(a["href"] for tag, a in page.elements if tag == "a" and str(a.get("download")).endswith(".csv"))
    return pd.read_csv(io.BytesIO(base64.b64decode(str(link).partition("base64,")[2])))


def told(store: Store) -> list[dict]:
    """The rows of the artifact."""
    found = read_results(store)
    return artifact_rows(found.summary, found.shortlist)


def test_every_column_is_one_of_the_ranking_and_stands_once():
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert {column.name for column in COLUMNS if column.made} == set(MADE) - {"crystal_system"}
    names = [column.name for column in COLUMNS if not column.made]
    assert set(names) <= set(IN_FILE)
    assert len(set(names)) == len(names)
    assert all(column.heading for column in COLUMNS if column.page or column.artifact)
    assert set(names) <= {*results.NUMBERS, *results.WHOLE} <= set(IN_FILE)


def test_headings_have_the_units_that_are_stored(store, tmp_path):
    found = headings(store.read_json("summary.json"))
    assert found["predicted"] == "predicted (GPa)"
    assert found["e_above_hull"] == "above hull (eV/atom)"
    assert found["lower"] == "interval at 90%"
    assert found["score"] == "score"
    named = {**store.read_json("summary.json"), "title": "bulk modulus", "symbol": "K"}
    assert headings(named)["predicted"] == "predicted K (GPa)"
    assert headings({**named, "symbol": ""})["predicted"] == "predicted bulk modulus (GPa)"
    bare = campaign(np.random.default_rng(0), tmp_path / "bare", transform="none")
    assert headings(bare.read_json("summary.json"))["predicted"] == "predicted"


def test_one_more_column_is_on_the_page_in_the_download_and_on_the_server(store, monkeypatch):
    before = page(store)
    wanted = next(column for column in COLUMNS if column.name == "n_atoms")
    assert "n_atoms" in saved(before)
    assert "atoms" not in told(store)[0]
    monkeypatch.setattr(columns, "COLUMNS", tuple(ADDED if column is wanted else column for column in COLUMNS))
    after = page(store)
    assert [title for title in shown(after) if title not in shown(before)] == ["In the cell of log10 GPa"]
    assert "atoms" in after.text
    assert "n_atoms" not in saved(after)
    assert [row["atoms"] for row in told(store)] == [5] * N_SHORTLIST


def test_a_column_that_an_older_campaign_lacks_is_left_out(store):
    ranking = store.read_table("ranking.parquet")
    store.write_table("ranking.parquet", ranking.drop_columns(["n_atoms", "score"]))
    found = page(store)
    assert not any("On the model's scale" in title for title in shown(found))
    assert not {"n_atoms", "score"} & set(saved(found))


def test_rows_on_the_server_hold_numbers_that_can_be_sorted(store):
    table = store.read_table("ranking.parquet").to_pandas()
    table.loc[1, "remark"], table.loc[2, "e_above_hull"] = "odd", np.nan
    store.write_table("ranking.parquet", pa.Table.from_pandas(table, preserve_index=False))
    first, second, third, *_ = told(store)
    assert list(first) == [
        "rank", "material", "formula", "predicted (GPa)", "interval at 90%", "above hull (eV/atom)", "domain",
    ]  # fmt: skip
    assert first["rank"] == 1
    assert first["predicted (GPa)"] == float(f"{table['predicted'][0]:.4g}")
    assert first["above hull (eV/atom)"] == round(table["e_above_hull"][0], 3)
    assert first["domain"] in ("inside", "outside")
    assert second["remark"] == "odd"
    assert "above hull (eV/atom)" not in third


def test_what_is_missing():
    assert all(missing(value) for value in (None, "", float("nan")))
    assert not any(missing(value) for value in (0, 0.0, False, "a"))
