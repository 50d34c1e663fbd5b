"""Compositions from tables: CSV, Parquet and pandas JSON with a column of formulas and no structures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from atomsets_core.sources.files.formats import JSON, PARQUET, TABLES, file_on_disk, read_table_file
from atomsets_core.sources.files.text_tables import FILE_COLUMNS, FORMULA_NAMES, FOUND_OUT, TableOptions, TextTable
from atomsets_core.sources.identifiers import DEFAULT, PANDAS_INDEX, id_columns, key_of, lacking, row_ids
from atomsets_core.storage import probe_content, probe_file, read_parquet, sha256_of
from atomsets_core.structures import Compositions, Refusal, from_formulas

FIRST_BYTES = 1 << 20
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
    kind = file_on_disk(place, lone=True).kind if place.is_file() else ""
    if kind not in (*TABLES, PARQUET.name, JSON.name):
        return None
    if kind == PARQUET.name and _holds_structures(place):
        return None
    try:
        table = _table(replace(file_on_disk(place, lone=True), table=options))
    except Exception as error:  # a parser's
        raise SourceError(f"{path}: {reason_of(error, 'not a readable table')}") from error
    names = list(map(str, table.frame.columns)) if table is not None else []
    column = _formula_column(names)
    if table is not None and column is None and kind in TABLES:
        column = _formulas_by_content(table.frame, id_column)
        table = replace(table, notes=[*table.notes, f"the column {column} holds the formulas"]) if column else table
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


GLANCE, MOSTLY = 200, 0.8
"""Cells of a column that are tried, and the share of them that has to be formulas."""


def _formulas_by_content(frame: pd.DataFrame, id_column: str) -> str | None:
    """The only column of texts most of which are formulas, most of these of several elements; None without one."""
    ids = set(id_columns(list(map(str, frame.columns)), id_column))
    found = []
    for name in frame.columns:
        cells = [cell for cell in frame[name][:GLANCE] if isinstance(cell, str) and cell.strip()]
        if len(cells) < 3 or name in ids:
            continue
        made, _ = from_formulas(cells, [str(row) for row in range(len(cells))])
        if len(made) >= MOSTLY * len(cells) and 2 * int((made.n_elements > 1).sum()) > len(cells):
            found.append(str(name))
    return found[0] if len(found) == 1 else None


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
        # ignore_metadata: an index is a column, which may hold the identifiers
        return _typed(read_parquet(pa.BufferReader(content), len(content)).to_pandas(ignore_metadata=True))
    if b'"lattice"' in content[:FIRST_BYTES]:  # structures: not worth reading twice
        return None
    return _json_table(json.loads(content))


def _json_table(document: Any) -> TextTable | None:
    """A table in any orient that pandas writes, or a list of records; its index is a column unless it only counts."""
    if isinstance(document, dict) and isinstance(document.get("data"), list) and "columns" in document:
        return _typed(pd.DataFrame(document["data"], columns=document["columns"]), document.get("index"))
    keys: Any = []
    if isinstance(document, dict) and isinstance(document.get("data"), list) and "schema" in document:
        keys = document["schema"].get("primaryKey") or [] if isinstance(document["schema"], dict) else []
        document = document["data"]
    if isinstance(document, dict) and document and all(isinstance(values, dict) for values in document.values()):
        if _formula_column(list(map(str, document))):  # orient "columns"
            frame = pd.DataFrame(document)
            return _typed(frame.reset_index(drop=True), list(frame.index))
        if _formula_column(list(map(str, next(iter(document.values()))))):  # orient "index"
            return _typed(pd.DataFrame(list(document.values())), list(document))
    if isinstance(document, list) and document and all(isinstance(row, dict) for row in document):
        # Only a glance, since records of structures are large and none of this reader's.
        if not _formula_column(list(map(str, document[0]))):
            return None
        frame = pd.DataFrame(document)
        if len(keys) == 1 and keys[0] in frame.columns:
            return _typed(frame.drop(columns=keys[0]), frame[keys[0]].tolist())
        return _typed(frame)
    return None


def _typed(frame: pd.DataFrame, index: Any = None) -> TextTable:
    """A table whose cells have types of their own; its first row is row 1."""
    names = list(index) if isinstance(index, list) and len(index) == len(frame) else []
    if names and [str(name) for name in names] != [str(row) for row in range(len(names))]:
        frame = frame.assign(**{PANDAS_INDEX: [str(name) for name in names]})
    return TextTable(frame.rename(columns=str), np.arange(1, len(frame) + 1))
