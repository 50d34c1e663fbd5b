"""Compositions from tables: CSV, Parquet and pandas JSON with a column of formulas and no structures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.base import (
    Pulled,
    SourceError,
    StructureFile,
    default_id,
    reason_of,
    without_duplicates,
)
from atomsets_core.sources.columns import read_columns, with_notes
from atomsets_core.sources.files.formats import JSON, PARQUET, TABLES, file_on_disk, kind_and_stem, read_table_file
from atomsets_core.sources.files.text_tables import FILE_COLUMNS, FORMULA_NAMES, FOUND_OUT, TableOptions, TextTable
from atomsets_core.sources.identifiers import DEFAULT, id_columns, key_of, lacking, row_ids
from atomsets_core.storage import probe_content, probe_file, read_parquet, sha256_of
from atomsets_core.structures import Compositions, Refusal, from_formulas

GLANCE = 1 << 20
"""Bytes of a JSON file in which structures show, if it holds any."""

STRUCTURE_NAMES = ("lattice", "atoms", *FILE_COLUMNS)
"""A table with one of these holds structures or names them."""


def read_compositions(
    path: str | Path, id_column: str = DEFAULT, options: TableOptions = FOUND_OUT
) -> Pulled[Compositions] | None:
    """Compositions and the columns beside them; None for whatever is no table of formulas.

    Read are CSV (also .csv.gz), spreadsheets, Parquet, and JSON as pandas writes it in the orients split (matbench),
    records and table. An identifier is the column `id_column`, or another known one, else the file's name and the row.

    Args:
        path: file.
        id_column: name of the column of identifiers, or of several with commas between them.
        options: how a table is read where that isn't to be found out.

    Raises:
        SourceError: the table can't be read, is empty, or lacks the column of identifiers that was asked for.
    """
    place = Path(path).expanduser()
    kind, _ = kind_and_stem(place.name)
    if kind not in (*TABLES, PARQUET.name, JSON.name) or not place.is_file():
        return None
    if kind == PARQUET.name and _holds_structures(place):
        return None
    try:
        table = _table(replace(file_on_disk(place), table=options))
    except Exception as error:  # a parser's
        raise SourceError(f"{path}: {reason_of(error, 'not a readable table')}") from error
    names = list(map(str, table.frame.columns)) if table is not None else []
    column = _formula_column(names)
    if table is None or column is None or set(map(key_of, STRUCTURE_NAMES)) & set(map(key_of, names)):
        return None
    if not len(table.frame):
        raise SourceError(f"{path}: the table has no rows")
    if wrong := lacking(names, id_column):
        raise SourceError(f"{path}: {wrong}")
    return without_duplicates(_pulled(table, place, str(path), column, id_column))


def _formula_column(names: Sequence[str]) -> str | None:
    keys = {key_of(name): name for name in reversed(names)}
    return next((keys[key] for key in map(key_of, FORMULA_NAMES) if key in keys), None)


def _pulled(table: TextTable, place: Path, path: str, column: str, id_column: str) -> Pulled[Compositions]:
    frame = table.frame
    used = id_columns([name for name in frame.columns if name != column], id_column)
    stem = place.name.partition(".")[0]
    present = row_ids([frame[name].tolist() for name in used], len(frame))
    ids = [default_id(name, stem, row, len(present)) for row, name in enumerate(present)]
    batch, refused = from_formulas(frame[column].tolist(), [str(row) for row in range(len(frame))])
    beside = frame.drop(columns=list(used) if len(used) == 1 else [])
    read = read_columns(beside.drop(columns=column), table.mark, table.rows, table.units)
    columns = read.frame
    columns.insert(list(beside.columns).index(column), column, frame[column])  # as it was written
    rows = batch.material_id.astype(np.int64)
    provenance = {"name": place.name, "path": path, "files": 1, "sha256": sha256_of(place)}
    lost = [
        replace(refusal, material_id=ids[int(refusal.material_id)], reason=_where(refusal, table))
        for refusal in refused
    ]
    short = [Refusal(f"{place.name}, row {row}", "parse", reason) for row, reason in table.refused]
    return Pulled(
        replace(batch, material_id=np.array([ids[row] for row in rows], dtype=object)),
        columns.iloc[rows].reset_index(drop=True),
        [*lost, *short],
        with_notes(provenance, [*table.notes, *read.notes], read.units),
    )


def _where(refusal: Refusal, table: TextTable) -> str:
    return f"{refusal.reason} (row {table.rows[int(refusal.material_id)]})"


def _holds_structures(place: Path) -> bool:
    """Whether the schema of a Parquet file says so; a damaged one is left to whoever reads it."""
    try:
        probe_file(place)
        names = pq.read_schema(place).names
    except (pa.ArrowException, OSError, ValueError):
        return False
    return any(str(name).lower() in STRUCTURE_NAMES for name in names)


def _table(file: StructureFile) -> TextTable | None:
    if file.kind in TABLES:
        return read_table_file(file)
    content = file.content()
    if file.kind == PARQUET.name:
        probe_content(content)
        return _typed(read_parquet(pa.BufferReader(content), len(content)).to_pandas())
    if b'"lattice"' in content[:GLANCE]:  # structures: not worth reading twice
        return None
    document = json.loads(content)
    if isinstance(document, dict) and isinstance(document.get("data"), list) and "columns" in document:
        return _typed(pd.DataFrame(document["data"], columns=document["columns"]))
    if isinstance(document, dict) and isinstance(document.get("data"), list) and "schema" in document:
        document = document["data"]
    if isinstance(document, list) and document and all(isinstance(row, dict) for row in document):
        # Only a glance, since records of structures are large and none of this reader's.
        return _typed(pd.DataFrame(document)) if _formula_column(list(map(str, document[0]))) else None
    return None


def _typed(frame: pd.DataFrame) -> TextTable:
    """A table whose cells have types of their own; its first row is row 1."""
    return TextTable(frame.rename(columns=str), np.arange(1, len(frame) + 1))
