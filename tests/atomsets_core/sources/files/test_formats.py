"""The table of formats: each is read, each file name belongs to one of them, and the documentation names all."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import openpyxl
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import Pulled, pulled_from_entries
from atomsets_core.sources.files.formats import (
    FORMATS,
    KNOWN,
    ZIP,
    Format,
    file_on_disk,
    format_called,
    kind_and_stem,
    read_file,
)
from atomsets_core.sources.files.reading import read_path
from atomsets_core.structures.reading import from_pymatgen

DOCS = Path(__file__).parents[4] / "docs"
IRON = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def write_parquet(path: Path) -> None:
    pq.write_table(from_pymatgen([IRON])[0].to_arrow(), path)


def write_csv(path: Path) -> None:
    (path.parent / "iron.cif").write_text(IRON.to(fmt="cif"))
    path.write_text("file\niron.cif\n")


def write_spreadsheet(path: Path) -> None:
    (path.parent / "iron.cif").write_text(IRON.to(fmt="cif"))
    book = openpyxl.Workbook()
    book.active.append(["file", "gap"])
    book.active.append(["iron.cif", 0.5])
    book.save(path)


def write_with_ase(path: Path) -> None:
    atoms = IRON.to_ase_atoms()
    if path.suffix == ".db":
        with pytest.importorskip("ase.db").connect(path) as database:
            database.write(atoms)
    else:
        pytest.importorskip("ase.io").write(path, atoms, format="extxyz")


def write_shelx(path: Path) -> None:
    atoms = "".join(f"Fe{i} 1 {' '.join(map(str, site.frac_coords))} 11.0\n" for i, site in enumerate(IRON))
    path.write_text(f"TITL x\nCELL 1 2.87 2.87 2.87 90 90 90\nLATT -1\nSFAC Fe\nUNIT 2\n{atoms}END\n")


def write_phonopy(path: Path) -> None:
    points = "".join(f"  - {{symbol: Fe, coordinates: {site.frac_coords.tolist()}}}\n" for site in IRON)
    path.write_text(f"unit_cell:\n  lattice: {IRON.lattice.matrix.tolist()}\n  points:\n{points}")


def write_xdatcar(path: Path) -> None:
    head, places = IRON.to(fmt="poscar").split("direct\n")
    path.write_text(f"{head}Direct configuration=     1\n{places}")


def write_lmdb(path: Path) -> None:
    path.write_bytes((DOCS.parent / "tests" / "data" / "formats" / "three.aselmdb").read_bytes())


def written_by_ase(**options):
    return lambda path: pytest.importorskip("ase.io").write(path, IRON.to_ase_atoms(), **options)


# Outputs of calculations, which only calculations write: tests of their own read real ones.
OUTPUTS = {"vasprun", "OUTCAR", "Quantum ESPRESSO output"}

WRITERS = {
    "Parquet": write_parquet,
    "pymatgen JSON": lambda path: path.write_text(json.dumps(IRON.as_dict())),
    "JSON lines": lambda path: path.write_text(json.dumps({"structure": IRON.as_dict()}) + "\n"),
    "FHI-aims": written_by_ase(format="aims"),
    "XSF": written_by_ase(format="xsf"),
    "CASTEP": written_by_ase(format="castep-cell"),
    "SHELX": write_shelx,
    "phonopy": write_phonopy,
    "Quantum ESPRESSO input": written_by_ase(format="espresso-in", pseudopotentials={"Fe": "Fe.upf"}),
    "XDATCAR": write_xdatcar,
    "CIF": lambda path: path.write_text(IRON.to(fmt="cif")),
    "POSCAR": lambda path: path.write_text(IRON.to(fmt="poscar")),
    "extended XYZ": write_with_ase,
    "ASE database": write_with_ase,
    "ASE database in LMDB": write_lmdb,
    "CSV": write_csv,
    "spreadsheet": write_spreadsheet,
}


def names(known: Format) -> list[str]:
    return [*(f"iron{suffix}" for suffix in known.suffixes), *known.prefixes, *(f"{p}_7" for p in known.prefixes)]


def read(path: Path, known: Format) -> Pulled:
    file = file_on_disk(path)
    assert file.kind == known.name
    found = read_file(file, "material_id")
    return found if isinstance(found, Pulled) else pulled_from_entries(found)


WRITTEN = [known for known in FORMATS if known.name not in OUTPUTS]


@pytest.mark.parametrize("known", WRITTEN, ids=lambda known: known.name)
def test_each_format_reads_a_file_under_each_of_its_names(known, tmp_path):
    for name in names(known):
        for written in (name, name.upper()):
            WRITERS[known.name](tmp_path / name)
            (tmp_path / name).rename(tmp_path / written)
            pulled = read(tmp_path / written, known)
            assert pulled.refused == []
            if known.name == "ASE database in LMDB":  # a file of its own package, see scripts/build_format_files.py
                assert set(pulled.structures.formulas) == {"FeO2"}
            else:
                assert list(pulled.structures.formulas) == ["Fe"]
                assert len(pulled.structures.numbers) == 2
            (tmp_path / written).unlink()


@pytest.mark.parametrize("known", WRITTEN, ids=lambda known: known.name)
def test_a_compressed_file_is_read_where_the_format_says_so(known, tmp_path):
    path = tmp_path / names(known)[0]
    WRITERS[known.name](path)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    if known.compressed:
        assert len(read(packed, known).structures) == 1
    else:
        assert kind_and_stem(packed.name) == ("", packed.name)


@pytest.mark.parametrize("known", [known for known in FORMATS if known.single], ids=lambda known: known.name)
def test_a_damaged_file_of_one_structure_is_a_row_of_the_ledger(known, tmp_path):
    path = tmp_path / names(known)[0]
    path.write_bytes(b"\x00 no such file")
    (refusal,) = read_path(path).refused
    assert refusal.material_id == path.name


def test_a_name_belongs_to_one_format():
    ends = Counter(suffix for known in FORMATS for suffix in known.suffixes)
    starts = Counter(prefix for known in FORMATS for prefix in known.prefixes)
    assert max(ends.values()) == max(starts.values()) == 1
    assert all(end == end.lower() and end.startswith(".") for end in ends)
    assert all(start == start.upper() for start in starts)
    assert f".{ZIP}" not in ends
    assert len({known.name for known in FORMATS}) == len(FORMATS)
    assert [format_called(known.name) for known in FORMATS] == list(FORMATS)


def test_names_without_an_end_of_their_own_are_of_no_format():
    assert kind_and_stem("folder/notes.txt") == ("", "folder/notes.txt")
    assert kind_and_stem("cif") == ("", "cif")
    assert kind_and_stem("a.b/POSCAR_3.GZ") == ("POSCAR", "a.b/POSCAR_3")
    assert kind_and_stem("x.ZIP") == (ZIP, "x")
    assert kind_and_stem("x.zip.gz") == ("", "x.zip.gz")


def test_messages_and_documentation_name_every_format():
    table = [line for line in (DOCS / "sources.md").read_text().splitlines() if line.startswith("|")]
    for known in FORMATS:
        assert known.name in KNOWN
        (row,) = [line for line in table if line.startswith(f"| {known.name} |")]
        shared = [known.shared] if known.shared else []
        for name in (*known.suffixes, *shared, *(f"{prefix}*" for prefix in known.prefixes)):
            assert f"`{name}`" in row


def test_the_table_of_formats_leaves_nothing_open():
    lines = (DOCS / "sources.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| format | names |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : start + 2 + len(FORMATS)]]
    assert rows[0] == [
        "format",
        "names",
        "one structure for each",
        "written by",
        "identifier",
        "columns, units",
        "left out",
    ]
    assert [row[0] for row in rows[2:]] == [known.name for known in FORMATS]
    assert all(cell for row in rows[2:] for cell in row)
