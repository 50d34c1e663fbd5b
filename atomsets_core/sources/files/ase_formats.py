"""Readers of extended XYZ and of ASE databases, through ASE, which is an optional dependency."""

from __future__ import annotations

import importlib
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from atomsets_core.sources.base import Crystal, Entry, SourceError, StructureFile, default_id, reason_of
from atomsets_core.sources.identifiers import id_columns, split_id
from atomsets_core.storage import check_arrays
from atomsets_core.structures import Refusal


def installed_ase(module: str) -> Any:
    """A module of ASE.

    Raises:
        SourceError: ASE isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError(
            "extended XYZ, ASE databases and outputs of calculations are read with ASE: pip install ase"
        ) from error


def crystal_from_atoms(atoms: Any) -> Crystal:
    """The crystal of ASE's atoms.

    Raises:
        ValueError: they are none.
    """
    if not all(atoms.pbc):
        raise ValueError("not periodic in all three directions: a crystal needs a cell (Lattice=... and pbc=T T T)")
    cell = np.array(atoms.cell.array, dtype=np.float64)
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-12:
        raise ValueError("its cell has no volume")
    if "occupancy" in atoms.info:  # how ASE keeps what it read of a disordered crystal
        raise ValueError("it has partial occupancies: only ordered structures have a graph")
    return Crystal(cell, np.array(atoms.numbers, dtype=np.int64), atoms.positions @ np.linalg.inv(cell))


def read_xyz(file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    """The frames of an extended XYZ file, with their info and results as columns.

    Raises:
        SourceError: ASE isn't installed.
        ValueError: the file can't be read.
    """
    return _xyz_entries(installed_ase("ase.io.extxyz").read_xyz, file, id_column)


def _xyz_entries(read_xyz: Any, file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    frames = list(_xyz_frames(file.text()))
    if not frames:
        yield Refusal(file.stem, "parse", "the file is empty")
    for position, frame in enumerate(frames):
        material_id = default_id(None, file.stem, position, len(frames))
        try:
            _check_frame(frame)
            atoms = next(read_xyz(io.StringIO(frame), index=0))
            columns = _atoms_columns(atoms)
            # as it is written: ASE makes a number of 0012345678, and infinity of 12345e6789
            written = _texts(frame) if set(id_columns(columns, id_column)) else {}
            inside, columns = split_id(
                {
                    name: written.get(name, value) if name in id_columns(columns, id_column) else value
                    for name, value in columns.items()
                },
                id_column,
            )
            material_id = inside or material_id
            yield Entry(material_id, crystal_from_atoms(atoms), columns)
        except Exception as error:
            yield Refusal(material_id, "parse", reason_of(error))


_PAIR = re.compile(r"""(?:^|\s)(?P<key>[^\s="']+|"[^"]*")\s*=\s*(?P<value>"(?:\\.|[^"\\])*"|'[^']*'|[^\s"'{\[(]\S*)""")


def _texts(frame: str) -> dict[str, str]:
    """The values of a frame's comment line as they are written, by their keys; lists and tables left out."""
    lines = frame.split("\n", 2)
    found: dict[str, str] = {}
    for pair in _PAIR.finditer(lines[1] if len(lines) > 1 else ""):
        key, value = pair["key"].strip('"'), pair["value"]
        found.setdefault(key, value[1:-1] if value[:1] in ('"', "'") and value[-1:] == value[:1] else value)
    return found


def _check_frame(frame: str) -> None:
    """Raise ValueError where a frame announces more than it has, columns or atoms: ASE makes them all, however many."""
    lines = frame.splitlines()
    header = lines[0].strip() if lines else ""
    if header.isdecimal() and int(header) > len(lines) - 2:
        raise ValueError(f"{int(header)} atoms are announced, {max(len(lines) - 2, 0)} lines follow")
    if len(lines) > 2:
        # by ASE's own reading of the line: quotes, repeated keys and numbers have more forms than one thinks of
        stated = installed_ase("ase.io.extxyz").key_val_str_to_dict(lines[1].strip()).get("Properties", "")
        widths = [int(part) for part in str(stated).split(":")[2::3]]
        if sum(widths) > len(lines[2].split()) or min(widths, default=1) < 1:
            raise ValueError(f"{sum(widths):.3g} columns are announced, a line of it has {len(lines[2].split())}")


def _xyz_frames(text: str) -> Iterator[str]:
    """The frames one by one, so that a broken one doesn't take the others with it."""
    lines = text.rstrip().splitlines(keepends=True)
    start = 0
    while start < len(lines):
        header = lines[start].strip()
        n_lines = int(header) + 2 if header.isdecimal() and len(header) < 10 else len(lines)
        yield "".join(lines[start : start + n_lines])
        start += n_lines


def _atoms_columns(atoms: Any) -> dict[str, Any]:
    results = getattr(atoms.calc, "results", {})
    columns = {**results, **atoms.info}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in columns.items()}


def read_ase_database(file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    """The rows of an ASE database in SQLite.

    Raises:
        SourceError: ASE isn't installed.
        ValueError: the file is no such database.
    """
    installed_ase("ase.db")
    if file.member:
        return ase_rows(file, id_column, "db")
    _check_ase_database(file.path)
    return ase_rows(file, id_column, "db")


def _check_ase_database(path: Path) -> None:
    """Raise ValueError for another SQLite file, into which ASE would write its tables."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'systems'").fetchall()
        except sqlite3.DatabaseError as error:
            raise ValueError(reason_of(error, "not an ASE database")) from error
        if not tables:
            raise ValueError("not an ASE database: a SQLite file without a table 'systems'")
        _check_columns(connection)


def _check_columns(connection: sqlite3.Connection) -> None:
    """Raise ValueError where a row announces an array that it doesn't hold, which ASE would allocate."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(systems)")]
    for column in {"key_value_pairs", "constraints", "calculator_parameters", "data"} & set(columns):
        where = f"typeof({column}) = 'text' AND {column} LIKE '%ndarray__%'"
        for (text,) in connection.execute(f"SELECT {column} FROM systems WHERE {where}"):  # noqa: S608  # names above
            check_arrays(json.loads(text))


def ase_rows(file: StructureFile, id_column: str, kind: str) -> Iterator[Entry | Refusal]:
    """The rows of an ASE database in SQLite or JSON, with its key-value pairs as columns."""
    connect = installed_ase("ase.db").connect
    with ExitStack() as stack:
        path = file.path
        if file.member or path.name.lower().endswith(".gz"):  # ASE opens files only
            path = Path(stack.enter_context(TemporaryDirectory())) / f"database.{kind}"
            path.write_bytes(file.content())
            if kind == "db":
                _check_ase_database(path)
        for row in connect(str(path), type=kind, use_lock_file=False).select():
            material_id = f"{file.stem}-{row.id}"
            try:
                inside, columns = split_id(row.key_value_pairs, id_column)
                material_id = inside or material_id
                if row.get("energy") is not None:
                    columns = {"energy": row.energy, **columns}
                yield Entry(material_id, crystal_from_atoms(row.toatoms()), columns)
            except Exception as error:
                yield Refusal(material_id, "parse", reason_of(error))
