"""Identifiers stay what people call their structures, wherever a format keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.identifiers import id_columns, spelled
from atomsets_core.sources.pull import open_source
from atomsets_core.storage.store import Store
from atomsets_core.structures.reading import from_pymatgen

SALTS = [Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]) for edge in (5.6, 5.7, 5.8)]


def ids(path: Path, **options: str) -> list[str]:
    return list(read_path(path, **options).structures.material_id)


@pytest.mark.parametrize(
    "column", ["jid", "matpes_id", "mat_id", "MaterialId", "entry_id", "Material ID", "mbid", "ID"]
)
def test_known_columns_are_found_however_they_are_capitalised(tmp_path: Path, column: str):
    names = ["a-1", "b-2", "c-3"]
    records = [{column: name, "structure": salt.as_dict()} for name, salt in zip(names, SALTS, strict=True)]
    (tmp_path / "s.json").write_text(json.dumps(records))
    assert ids(tmp_path / "s.json") == names
    pd.DataFrame({column: names, "cif": [salt.to(fmt="cif") for salt in SALTS]}).to_csv(tmp_path / "s.csv", index=False)
    assert ids(tmp_path / "s.csv") == names
    table = from_pymatgen(SALTS)[0].to_arrow().drop_columns(["material_id"]).append_column(column, pa.array(names))
    pq.write_table(table, tmp_path / "s.parquet")
    assert ids(tmp_path / "s.parquet") == names
    assert list(open_source(str(tmp_path / "s.parquet"), Store(tmp_path / "x")).structures.material_id) == names


def test_identifiers_of_extended_xyz_are_read_as_they_are_written(tmp_path: Path):
    names = ["0001234567", "54321e9876", "1e5", "007", "'a b'", "T", "1_000"]
    (tmp_path / "s.xyz").write_text(
        "".join(
            f'2\nLattice="{a} 0 0 0 {a} 0 0 0 {a}" Properties=species:S:1:pos:R:3 gap=1e1 material_id={name} '
            f'pbc="T T T"\nNa 0 0 0\nCl {a / 2} {a / 2} {a / 2}\n'
            for a, name in enumerate(names, 4)
        )
    )
    pulled = read_path(tmp_path / "s.xyz")
    assert list(pulled.structures.material_id) == [name.strip("'") for name in names]
    assert pulled.columns["gap"].tolist() == [10.0] * len(names)
    assert not pulled.refused


def test_the_two_spellings_of_the_materials_project_are_one(tmp_path: Path):
    assert spelled("mp-aaaabhvi") == "mp-22862"
    assert spelled("mp-aragonit") == "mp-aragonit"  # somebody's own name
    assert spelled("mp-22862") == "mp-22862"
    (tmp_path / "s.json").write_text(json.dumps([{"material_id": "mp-aaaabhvi", "structure": SALTS[0].as_dict()}]))
    (tmp_path / "l.csv").write_text("material_id,K\nmp-22862,5\n")
    pulled = read_path(tmp_path / "s.json", labels=tmp_path / "l.csv")
    assert list(pulled.structures.material_id) == ["mp-22862"]
    assert pulled.columns["K"].tolist() == [5]


def test_the_index_of_pandas_names_the_rows(tmp_path: Path):
    frame = pd.DataFrame(
        {"structure": [salt.as_dict() for salt in SALTS], "gap": [1.0, 2, 3]}, index=["a1", "b2", "c3"]
    )
    frame.to_json(tmp_path / "table.json", orient="table")
    frame.to_json(tmp_path / "split.json", orient="split")
    beside = frame.assign(cif=[salt.to(fmt="cif") for salt in SALTS]).drop(columns="structure")
    beside.to_csv(tmp_path / "s.csv")
    for name in ("table.json", "split.json", "s.csv"):
        assert ids(tmp_path / name) == ["a1", "b2", "c3"], name
    beside.reset_index(drop=True).to_csv(tmp_path / "n.csv")
    assert ids(tmp_path / "n.csv") == ["n-0", "n-1", "n-2"]


def test_entries_are_named_and_say_what_their_energy_is(tmp_path: Path):
    entries = [
        ComputedStructureEntry(SALTS[0], -7.0, correction=-0.5, entry_id="mp-1-GGA", parameters={"run_type": "GGA"}),
        ComputedStructureEntry(SALTS[1] * (2, 1, 1), -14.0, correction=-1.0, data={"mat_id": "agm-2"}),
    ]
    (tmp_path / "e.json").write_text(json.dumps({"entries": [entry.as_dict() for entry in entries]}))
    pulled = read_path(tmp_path / "e.json")
    assert list(pulled.structures.material_id) == ["mp-1-GGA", "agm-2"]
    assert pulled.columns["energy"].tolist() == [-7.0, -14.0]
    assert pulled.columns["run_type"].tolist()[0] == "GGA"
    assert pulled.provenance["units"]["energy"] == "eV"
    assert "total energy of each cell in eV, not per atom and not corrected" in pulled.provenance["notes"][0]


def test_an_energy_of_ase_is_said_to_be_of_the_cell(tmp_path: Path):
    (tmp_path / "s.xyz").write_text(
        '2\nLattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 energy=-7.5 pbc="T T T"\n'
        "Na 0 0 0\nCl 2.5 2.5 2.5\n"
    )
    pulled = read_path(tmp_path / "s.xyz")
    assert pulled.columns["energy"].tolist() == [-7.5]
    assert pulled.provenance["notes"] == ["energy is the total energy of each cell in eV, not per atom"]
    assert pulled.provenance["units"] == {"energy": "eV"}


def test_which_column_it_is():
    assert id_columns(["gap", "Id", "material_id"]) == ("material_id",)
    assert id_columns(["a,b", "a", "b"], "a,b") == ("a,b",)
    assert id_columns(["a", "b"], "a, b") == ("a", "b")
    assert id_columns(["a", "id"], "a,z") == ("id",)
    assert id_columns(["gap"]) == ()


def test_a_column_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path):
    pq.write_table(from_pymatgen(SALTS)[0].to_arrow(), tmp_path / "s.parquet")
    for read in (lambda: read_path(tmp_path / "s.parquet", id_column="name"),
                 lambda: open_source(str(tmp_path / "s.parquet"), Store(tmp_path), id_column="name")):  # fmt: skip
        with pytest.raises(SourceError, match=r"no column 'name' for the identifiers \(id_column\); found material_id"):
            read()
