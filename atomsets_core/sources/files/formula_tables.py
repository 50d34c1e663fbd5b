"""Compositions from tables: CSV, Parquet and pandas JSON with a column of formulas and no structures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.base import (
    ID_NAMES,
    Pulled,
    SourceError,
    default_id,
    reason_of,
    with_numbers,
    without_duplicates,
)
from atomsets_core.sources.files.formats import CSV, FILE_COLUMNS, JSON, PARQUET, file_on_disk, kind_and_stem, read_csv
from atomsets_core.storage import probe_content, probe_file, read_parquet, sha256_of
from atomsets_core.structures import Compositions, from_formulas

FORMULA_NAMES = ("formula", "composition")
"""Columns of formulas, however they are capitalised; the first that is there is used."""

STRUCTURE_NAMES = ("lattice", *FILE_COLUMNS)
"""A table with one of these holds structures or names them."""


def read_compositions(path: str | Path, id_column: str = "material_id") -> Pulled[Compositions] | None:
    """Compositions and the columns beside them; None for whatever is no table of formulas.

    Read are CSV (also .csv.gz), Parquet, and JSON as pandas writes it in the orients split (matbench) and records.
    An identifier is the column `id_column` (or material_id, mp_id, mbid, id), else the file's name and the row.

    Args:
        path: file.
        id_column: name of the column of identifiers.

    Raises:
        SourceError: the table can't be read or is empty.
    """
    place = Path(path).expanduser()
    kind, _ = kind_and_stem(place.name)
    if kind not in (CSV.name, PARQUET.name, JSON.name) or not place.is_file():
        return None
    if kind == PARQUET.name and _holds_structures(place):
        return None
    try:
        table = _table(file_on_disk(place).content(), kind)
    except Exception as error:  # a parser's
        raise SourceError(f"{path}: {reason_of(error, 'not a readable table')}") from error
    lower = {str(name).lower(): str(name) for name in table.columns} if table is not None else {}
    column = next((lower[name] for name in FORMULA_NAMES if name in lower), None)
    if table is None or column is None or any(name in lower for name in STRUCTURE_NAMES):
        return None
    if not len(table):
        raise SourceError(f"{path}: the table has no rows")
    used = next((name for name in (id_column, *ID_NAMES) if name in table.columns), None)
    stem = place.name.partition(".")[0]
    present = [None if used is None or pd.isna(name) else str(name).strip() for name in table[used or column]]
    ids = [default_id(name, stem, row, len(present)) for row, name in enumerate(present)]
    batch, refused = from_formulas(table[column].tolist(), [str(row) for row in range(len(table))])
    rows = batch.material_id.astype(np.int64)
    columns = with_numbers(table.drop(columns=[used] if used else []).iloc[rows].reset_index(drop=True))
    pulled: Pulled[Compositions] = Pulled(
        replace(batch, material_id=np.array([ids[row] for row in rows], dtype=object)),
        columns,
        [replace(refusal, material_id=ids[int(refusal.material_id)]) for refusal in refused],
        {"name": place.name, "path": str(path), "files": 1, "sha256": sha256_of(place)},
    )
    return without_duplicates(pulled)


def _holds_structures(place: Path) -> bool:
    """Whether the schema of a Parquet file says so; a damaged one is left to whoever reads it."""
    try:
        probe_file(place)
        names = pq.read_schema(place).names
    except (pa.ArrowException, OSError, ValueError):
        return False
    return any(str(name).lower() in STRUCTURE_NAMES for name in names)


def _table(content: bytes, kind: str) -> pd.DataFrame | None:
    if kind == CSV.name:
        return read_csv(content)
    if kind == PARQUET.name:
        probe_content(content)
        return read_parquet(pa.BufferReader(content), len(content)).to_pandas()
    document = json.loads(content)
    if isinstance(document, dict) and isinstance(document.get("data"), list) and "columns" in document:
        return pd.DataFrame(document["data"], columns=document["columns"])
    if isinstance(document, list) and document and all(isinstance(row, dict) for row in document):
        # Only a glance, since records of structures are large and none of this reader's.
        return pd.DataFrame(document) if any(str(name).lower() in FORMULA_NAMES for name in document[0]) else None
    return None
