"""Labels find their structures however these are spelled; what finds none is named, and none at all is an error."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.files.text_tables import TableOptions
from atomsets_core.sources.selection import label_values, usable_labels

SALTS = {"mp-10": 4.0, "mp-11": 4.1, "mp-12": 4.2, "mp-22862": 5.6, "agm-7": 5.7}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five cubes of NaCl of different size, each a CIF called by its identifier."""
    place = tmp_path / "cifs"
    place.mkdir()
    for name, edge in SALTS.items():
        Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]).to(place / f"{name}.cif")
    return place


def labels(folder: Path, text: str) -> Path:
    path = folder.parent / "labels.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mp-10", "mp-10"),
        (" mp-10 ", "mp-10"),
        ("MP-10", "mp-10"),
        ("mp_10", "mp-10"),
        ("mp-10.cif", "mp-10"),
        ("mp-10.CIF", "mp-10"),
        ("mp-10-GGA", "mp-10"),
        ("mp-10_NaCl", "mp-10"),
        ("cifs/mp-10.cif", "mp-10"),
        ("D:\\data\\cifs\\mp-10.cif", "mp-10"),
        ("https://next-gen.materialsproject.org/materials/mp-10", "mp-10"),
        ("mp-aaaabhvi", "mp-22862"),
        ("mp-bhvi", "mp-22862"),
        ("AGM-7", "agm-7"),
    ],
)
def test_each_spelling_of_an_identifier_finds_its_structure(folder: Path, written: str, meant: str):
    pulled = read_path(folder, labels=labels(folder, f"id,K\n{written},3.5\n"))
    values = dict(zip(pulled.structures.material_id, pulled.columns["K"], strict=True))
    assert values[meant] == 3.5
    assert sum(pd.notna(list(values.values()))) == 1
    assert pulled.refused == []


@pytest.mark.parametrize("written", ["10", "mvc-10", "mp-101", "mp-1"])
def test_what_may_be_another_structure_is_refused_by_its_name(folder: Path, written: str):
    pulled = read_path(folder, labels=labels(folder, f"id,K\n{written},3.5\nmp-12,4\n"))
    assert [(refusal.material_id, refusal.stage) for refusal in pulled.refused] == [(written, "pull")]
    assert pulled.columns["K"].notna().sum() == 1


def test_labels_that_name_no_structure_are_an_error_that_says_what_was_tried(folder: Path):
    path = labels(folder, "name,mp,K\nsalt,mp-10,1\nhalite,mp-11,2\n")
    with pytest.raises(SourceError, match=r"none of its 2 rows.*Tried: 'name' \('salt'.*column 'mp' names 2 of them"):
        read_path(folder, labels=path)
    pulled = read_path(folder, labels=path, id_column="mp")
    assert pulled.columns["K"].dropna().tolist() == [1, 2]


def test_two_columns_can_be_an_identifier_together(tmp_path: Path):
    salt = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]).to(fmt="cif")
    pd.DataFrame({"split": ["train", "test"], "id": ["1", "1"], "cif": [salt, salt], "K": [1, 2]}).to_csv(
        tmp_path / "s.csv", index=False
    )
    alone = read_path(tmp_path / "s.csv")
    assert "duplicate id" in alone.refused[0].reason
    pulled = read_path(tmp_path / "s.csv", id_column="split,id")
    assert list(pulled.structures.material_id) == ["train-1", "test-1"]
    assert pulled.columns["split"].tolist() == ["train", "test"]
    with pytest.raises(SourceError, match=r"no column 'number' .*id_column.*found split, id, cif, K"):
        read_path(tmp_path / "s.csv", id_column="number")


def test_a_cell_that_is_no_number_is_named_with_its_row(folder: Path):
    pulled = read_path(folder, labels=labels(folder, "id,K\nmp-10,1.5\nmp-11,~2\nmp-12,3\nmp-22862,<4\n"))
    usable, refused = usable_labels(pulled, "K", "none")
    reasons = {refusal.material_id: refusal.reason for refusal in refused}
    assert reasons["mp-11"] == "K is not a number: '~2' (row 3)"
    assert reasons["mp-22862"] == "K is a bound, not a value: '<4' (row 5)"
    assert reasons["agm-7"] == "K is missing"
    assert usable.sum() == 2


def test_what_a_table_says_of_units_marks_and_errors_stays_with_the_columns(folder: Path):
    pulled = read_path(folder, labels=labels(folder, "id;K (GPa);gap\nmp-10;1.234,5;2,3(1) eV\nmp-11;7,5;0,5(1) eV\n"))
    assert label_values(pulled, "K")[[1, 2]].tolist() == [1234.5, 7.5]
    assert pulled.columns["gap_error"].dropna().tolist() == [0.1, 0.1]
    assert pulled.provenance["units"] == {"K (GPa)": "GPa", "gap": "eV"}
    assert any("semicolons" in note for note in pulled.provenance["notes"])


def test_a_spreadsheet_holds_labels_too(folder: Path):
    import openpyxl

    made = openpyxl.Workbook()
    made.active.title = "first"
    made.active.append(["id", "K"])
    made.active.append(["mp-10", 1])
    other = made.create_sheet("other")
    other.append(["id", "K"])
    other.append(["mp-11", 2.5])
    made.save(folder.parent / "labels.xlsx")
    pulled = read_path(folder, labels=folder.parent / "labels.xlsx")
    assert dict(zip(pulled.structures.material_id, pulled.columns["K"], strict=True))["mp-10"] == 1
    pulled = read_path(folder, labels=folder.parent / "labels.xlsx", table=TableOptions(sheet="other"))
    assert dict(zip(pulled.structures.material_id, pulled.columns["K"], strict=True))["mp-11"] == 2.5


def test_a_label_for_the_second_time_is_told_with_both_values(folder: Path):
    pulled = read_path(folder, labels=labels(folder, "id,K\nmp-10,1.5\nMP-10,2.5\n"))
    assert "names it again: K 1.5 and 2.5" in pulled.refused[0].reason
