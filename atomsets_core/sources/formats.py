"""Formats of structure files: which there are, and a reader for each."""

from __future__ import annotations

import importlib
import io
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar

from atomsets_core.sources.base import Pulled, SourceError, pulled_from_arrow
from atomsets_core.sources.cif import read_cif
from atomsets_core.sources.entries import (
    ID_NAMES,
    Entry,
    StructureFile,
    default_ids,
    pulled_from_entries,
    reason_of,
    split_id,
)
from atomsets_core.structures import Refusal

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".contcar": "poscar",
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".db": "ase database",
    ".csv": "csv",
    ".zip": "zip",
}
_NEVER_COMPRESSED = ("parquet", "ase database", "zip")
KNOWN = "Parquet, pymatgen JSON, CIF, POSCAR, extended XYZ, an ASE database, CSV, or a folder or zip of those"

Item = tuple[str | None, Any, Mapping[str, Any]]
"""Identifier (None: unnamed), structure as it stands in the file, columns beside it."""


def kind_and_stem(name: str) -> tuple[str, str]:
    """Format of a file by its name ("" where unknown), and the name without the format's extension."""
    compressed = name.lower().endswith(".gz")
    plain = name[:-3] if compressed else name
    path = PurePosixPath(plain)
    kind = SUFFIXES.get(path.suffix.lower(), "")
    if kind and not (compressed and kind in _NEVER_COMPRESSED):
        return kind, plain[: -len(path.suffix)]
    if path.name.upper().startswith(("POSCAR", "CONTCAR")):
        return "poscar", plain
    return "", name


def read_file(file: StructureFile, kind: str, id_column: str) -> Pulled:
    """Structures and columns of one file of any format but CSV and zip.

    Raises:
        Exception: whatever a parser raises when nothing of the file can be read; `reason_of` puts it into words.
    """
    if kind == "cif":
        return pulled_from_entries(read_cif(file.text(), file.name, file.stem))
    if kind == "poscar":
        return pulled_from_entries([_poscar(file)])
    readers = {"parquet": _parquet, "json": _json, "xyz": _xyz, "ase database": _ase_database}
    return readers[kind](file, id_column)


def structure_from(value: Any) -> Structure:
    """A pymatgen structure from what stands in a table or JSON file: a dict, or CIF or JSON text.

    Raises:
        Exception: it is none of those, or can't be parsed.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json.loads(value)
    if isinstance(value, str):
        found = read_cif(value, "", "")
        if len(found) != 1 or isinstance(found[0], Refusal):
            reason = found[0].reason if isinstance(found[0], Refusal) else f"{len(found)} structures, one is needed"
            raise ValueError(reason)
        return found[0].structure
    if not isinstance(value, dict):
        raise ValueError(f"not a structure but a {type(value).__name__}")
    if "lattice" not in value or "sites" not in value:
        missing = "lattice" if "lattice" not in value else "sites"
        raise ValueError(f"a {value.get('@class', 'dict')} without {missing!r}, not a crystal structure")
    # site properties aren't used, and pymatgen would import the modules they name
    sites = [{"species": site["species"], "abc": site["abc"]} for site in value["sites"]]
    if any("element" not in species for site in sites for species in site["species"]):
        raise ValueError("a site has no element")
    return Structure.from_dict({"lattice": value["lattice"], "sites": sites})


def read_items(items: list[Item], stem: str) -> Pulled:
    """A batch from structures as they stand in a file; those that can't be parsed are refused one by one."""
    ids = default_ids([name for name, _, _ in items], stem)
    found: list[Entry | Refusal] = []
    for material_id, (_, value, columns) in zip(ids, items, strict=True):
        try:
            found.append(Entry(material_id, structure_from(value), columns))
        except Exception as error:
            found.append(Refusal(material_id, "parse", reason_of(error)))
    return pulled_from_entries(found)


def _parquet(file: StructureFile, id_column: str) -> Pulled:
    try:
        # not read_table: it would take folders named "key=value" for partitions
        table = pq.ParquetFile(file.path or io.BytesIO(file.content())).read()
    except pa.ArrowException as error:
        raise ValueError(reason_of(error, "not a readable Parquet file")) from error
    if "lattice" not in table.column_names and "structure" in table.column_names:
        return read_items([_item(row, id_column) for row in table.to_pylist()], file.stem)
    used = next((name for name in (id_column, *ID_NAMES) if name in table.column_names), id_column)
    present = table[used].to_pylist() if used in table.column_names else [None] * table.num_rows
    ids = [str(i if file.lone else f"{file.stem}-{i}") if name is None else str(name) for i, name in enumerate(present)]
    columns = {name: table[name] for name in table.column_names} | {used: pa.array(ids, pa.string())}
    try:
        return pulled_from_arrow(pa.table(columns), {}, used)
    except pa.ArrowException as error:
        raise ValueError(reason_of(error, "lattice, Z and frac must be lists of numbers")) from error


def _poscar(file: StructureFile) -> Entry:
    try:
        poscar = Poscar.from_str(file.text(), read_velocities=False)
    except Exception as error:
        raise ValueError(reason_of(error, "not a readable POSCAR")) from error
    if not poscar.true_names:  # pymatgen would call them H, He, Li, ...
        raise ValueError("no element symbols (VASP 4 format): write them in the line before the numbers of atoms")
    return Entry(file.stem, poscar.structure)


def _json(file: StructureFile, id_column: str) -> Pulled:
    try:
        document = json.loads(file.content())
    except ValueError as error:
        raise ValueError(reason_of(error, "not readable JSON")) from error
    return read_items(_json_items(document, id_column), file.stem)


def _is_structure(value: Any) -> bool:
    return isinstance(value, dict) and "lattice" in value and "sites" in value


def _item(record: Any, id_column: str, name: str | None = None) -> Item:
    """One element of a list, or value of a dict: a structure, or a record with one under "structure"."""
    if not isinstance(record, dict) or "structure" not in record:
        return name, record, {}
    inside, columns = split_id({key: value for key, value in record.items() if key != "structure"}, id_column)
    return name or inside, record["structure"], columns


def _json_items(document: Any, id_column: str) -> list[Item]:
    """The structures of the layouts listed in `read_path`, in the order of the file."""
    if _is_structure(document):
        return [(None, document, {})]
    if isinstance(document, list):
        return [_item(item, id_column) for item in document]
    if not isinstance(document, dict):
        raise ValueError(f"no structures in it: the JSON is a {type(document).__name__}")
    columns, rows, column = document.get("columns"), document.get("data"), document.get("structure")
    if isinstance(columns, list) and isinstance(rows, list):  # pandas, orient "split": matbench
        if "structure" not in columns:
            raise ValueError(f"no column 'structure', found {columns}")
        records = [dict(zip(columns, row, strict=False)) for row in rows]
        return _named_records(records, document.get("index", []), id_column)
    if isinstance(rows, list):  # pandas, orient "table"; replies of databases
        return [_item(item, id_column) for item in rows]
    if isinstance(column, str) or _is_structure(column):
        return [_item(document, id_column)]
    if isinstance(column, dict) and "@class" not in column:  # pandas, orient "columns"
        others = {key: values for key, values in document.items() if isinstance(values, dict)}
        records = [{key: values.get(row) for key, values in others.items()} for row in column]
        return _named_records(records, list(column), id_column)
    if not any(
        _is_structure(value) or (isinstance(value, dict) and "structure" in value) for value in document.values()
    ):
        raise ValueError(
            f"no structures in it: the JSON holds {', '.join(sorted(map(str, document))[:5]) or 'nothing'}"
        )
    return [_item(value, id_column, name) for name, value in document.items()]


def _named_records(records: list[dict[str, Any]], index: list[Any], id_column: str) -> list[Item]:
    """Records named by the column of identifiers, else by the index unless that only counts the rows."""
    counts = len(index) != len(records) or all(str(name) == str(i) for i, name in enumerate(index))
    items = [_item(record, id_column) for record in records]
    return [(name if counts else name or str(index[i]), *rest) for i, (name, *rest) in enumerate(items)]  # type: ignore[misc]


def _ase(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError("extended XYZ files and ASE databases are read with ASE: pip install ase") from error


def _from_atoms(atoms: Any) -> Structure:
    if not all(atoms.pbc):
        raise ValueError("not periodic in all three directions: a crystal needs a cell (Lattice=... and pbc=T T T)")
    return Structure(
        Lattice(atoms.cell.array), atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True
    )


def _xyz(file: StructureFile, id_column: str) -> Pulled:
    read_xyz = _ase("ase.io.extxyz").read_xyz
    frames = list(_xyz_frames(file.text()))
    found: list[Entry | Refusal] = []
    for position, frame in enumerate(frames):
        material_id = file.stem if len(frames) == 1 else f"{file.stem}-{position}"
        try:
            atoms = next(read_xyz(io.StringIO(frame), index=0))
            inside, columns = split_id(_atoms_columns(atoms), id_column)
            material_id = inside or material_id
            found.append(Entry(material_id, _from_atoms(atoms), columns))
        except Exception as error:
            found.append(Refusal(material_id, "parse", reason_of(error)))
    return pulled_from_entries(found)


def _xyz_frames(text: str) -> Iterator[str]:
    """The frames one by one, so that a broken one doesn't take the others with it."""
    lines = text.rstrip().splitlines(keepends=True)
    start = 0
    while start < len(lines):
        header = lines[start].strip()
        n_lines = int(header) + 2 if header.isdecimal() and int(header) < len(lines) else len(lines)
        yield "".join(lines[start : start + n_lines])
        start += n_lines


def _atoms_columns(atoms: Any) -> dict[str, Any]:
    results = getattr(atoms.calc, "results", {})
    columns = {**results, **atoms.info}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in columns.items()}


def _ase_database(file: StructureFile, id_column: str) -> Pulled:
    connect = _ase("ase.db").connect
    if file.path is None:
        raise ValueError("an ASE database can't be read inside a zip: unpack it first")
    # ASE would write its tables into any other SQLite file
    with closing(sqlite3.connect(f"{file.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'systems'").fetchall()
        except sqlite3.DatabaseError as error:
            raise ValueError(reason_of(error, "not an ASE database")) from error
    if not tables:
        raise ValueError("not an ASE database: a SQLite file without a table 'systems'")
    found: list[Entry | Refusal] = []
    for row in connect(str(file.path), type="db", use_lock_file=False).select():
        material_id = f"{file.stem}-{row.id}"
        try:
            inside, columns = split_id(row.key_value_pairs, id_column)
            material_id = inside or material_id
            if row.get("energy") is not None:
                columns = {"energy": row.energy, **columns}
            found.append(Entry(material_id, _from_atoms(row.toatoms()), columns))
        except Exception as error:
            found.append(Refusal(material_id, "parse", reason_of(error)))
    return pulled_from_entries(found)
