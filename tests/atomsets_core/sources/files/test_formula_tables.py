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
