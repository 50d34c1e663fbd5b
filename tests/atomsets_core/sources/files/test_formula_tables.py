"""Tables of formulas become compositions with their columns; tables of structures are left to their reader."""

import gzip
import json

import pandas as pd
import pytest

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.formula_tables import read_compositions
from atomsets_core.sources.pull import pull

CSV = "id,formula,gap,kind\n01,Fe2O3,2.1,oxide\n02,NaCl,8.5,salt\n03,nonsense,1,\n02,MgO,7.8,oxide\n05,GaAs,,\n"


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet", "split", "records"])
def test_every_kind_of_table_gives_the_same(tmp_path, form):
    table = pd.DataFrame([row.split(",") for row in CSV.split()][1:], columns=CSV.split()[0].split(","))
    path = tmp_path / f"t.{'json' if form in ('split', 'records') else form}"
    if form == "parquet":
        table.to_parquet(path)
    elif form in ("split", "records"):
        path.write_text(table.to_json(orient=form))
    else:
        path.write_bytes(gzip.compress(CSV.encode()) if form.endswith("gz") else CSV.encode())
    pulled = pull(str(path), compositions=True)
    assert list(pulled.structures.material_id) == ["01", "02", "05"]
    assert list(pulled.structures.formulas) == ["Fe2O3", "NaCl", "GaAs"]
    assert pulled.columns["gap"].tolist()[:2] == [2.1, 8.5]
    assert pulled.columns["kind"].tolist()[:2] == ["oxide", "salt"]
    reasons = {refusal.material_id: refusal.reason for refusal in pulled.refused}
    assert "not a chemical formula: 'nonsense'" in reasons["03"]
    assert "duplicate id" in reasons["02"]
    assert pulled.n_seen == 5
    assert len(pulled.provenance["sha256"]) == 64


def test_rows_without_identifier_are_called_by_file_and_number(tmp_path):
    path = tmp_path / "alloys.csv"
    path.write_text("Composition,y\nFe0.5Co0.5,1\nFe,2\n")
    pulled = read_compositions(path)
    assert list(pulled.structures.material_id) == ["alloys-0", "alloys-1"]
    assert list(pulled.structures.formulas) == ["FeCo", "Fe"]
    assert list(pulled.columns) == ["Composition", "y"]


def test_what_holds_structures_is_left_alone(tmp_path, elastic):
    import pyarrow.parquet as pq

    path = tmp_path / "s.parquet"
    pq.write_table(elastic.to_arrow().slice(0, 3), path)
    assert read_compositions(path) is None
    files = tmp_path / "files.csv"
    files.write_text("formula,file,y\nFe,a.cif,1\n")
    assert read_compositions(files) is None
    other = tmp_path / "x.json"
    other.write_text(json.dumps({"lattice": {}, "sites": []}))
    assert read_compositions(other) is None
    assert read_compositions(tmp_path / "nowhere.csv") is None
    assert read_compositions(tmp_path) is None


def test_without_being_asked_for_they_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    with pytest.raises(SourceError, match="atomsets train and predict take them"):
        pull(str(path))


def test_broken_and_empty_tables_are_named(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("{not json")
    with pytest.raises(SourceError, match=r"t\.json: not a readable table"):
        pull(str(path), compositions=True)
    empty = tmp_path / "e.csv"
    empty.write_text("formula,y\n")
    with pytest.raises(SourceError, match="the table has no rows"):
        pull(str(empty), compositions=True)


@pytest.mark.parametrize("header", ["Material", "Formel", "sample name"])
def test_the_only_column_of_formulas_is_found_by_what_it_holds(tmp_path, header):
    path = tmp_path / "a.csv"
    path.write_text(f"{header},phase,gap\n" + "".join(f"{f},A,1\n" for f in ("MgO", "CaO", "NaCl", "Si")))
    pulled = read_compositions(path)
    assert pulled is not None
    assert len(pulled.structures) == 4
    assert f"the column {header} holds the formulas" in pulled.provenance["notes"]


def test_a_column_of_names_is_no_column_of_formulas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Material,gap\nsteel,1\nbrass,2\nMgO,3\nA1,4\n")
    assert read_compositions(path) is None


@pytest.mark.parametrize("name", ["a.txt", "a.dat", "a.tab"])
def test_a_table_by_another_name_that_is_asked_for(tmp_path, name):
    (tmp_path / name).write_text("formula   gap\nMgO   7.5\nNaCl   8.5\n")
    pulled = pull(str(tmp_path / name), compositions=True)
    assert pulled.columns["gap"].tolist() == [7.5, 8.5]
    assert list(pulled.structures.material_id) == ["a-0", "a-1"]


def test_a_table_of_markdown(tmp_path):
    (tmp_path / "a.csv").write_text("| formula | gap |\n|:---|---:|\n| MgO | 7.5 |\n| NaCl | 8.5 |\n")
    pulled = pull(str(tmp_path / "a.csv"), compositions=True)
    assert pulled.columns["gap"].tolist() == [7.5, 8.5]
    assert not pulled.refused


def test_spreadsheets_of_other_kinds_are_named(tmp_path):
    (tmp_path / "a.ods").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"save it as \.xlsx or \.csv"):
        pull(str(tmp_path / "a.ods"), compositions=True)


@pytest.mark.parametrize("form", ["csv", "parquet", "split", "table", "columns", "index"])
@pytest.mark.parametrize("name", [None, "sample"])
def test_the_index_of_pandas_is_the_identifier(tmp_path, form, name):
    table = pd.DataFrame({"formula": ["MgO", "NaCl"], "gap": [7.8, 8.5]}, index=pd.Index(["a", "b"], name=name))
    if name and form in ("csv", "parquet"):
        table.index.name = "sample_id"
    path = tmp_path / f"t.{form if form in ('csv', 'parquet') else 'json'}"
    if form == "csv":
        table.to_csv(path)
    elif form == "parquet":
        table.to_parquet(path)
    else:
        path.write_text(table.to_json(orient=form))
    pulled = pull(str(path), compositions=True)
    assert list(pulled.structures.material_id) == ["a", "b"]
    assert list(pulled.columns) == ["formula", "gap"]
