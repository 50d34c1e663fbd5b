"""Documents of the Materials Project to columns, without a pymatgen object for each structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from atomsets_core.sources.base import reason_of
from atomsets_core.sources.identifiers import normalise
from atomsets_core.sources.materials_project.fields import Column
from atomsets_core.structures import Refusal, Structures, empty_structures, validate


@dataclass(frozen=True)
class Documents:
    """What some documents of the summary hold.

    Attributes:
        ids: (n,) identifiers of all of them, in one spelling.
        last_updated: (n,) when each changed last, "" where it doesn't say.
        table: the structures that can be used, and the columns beside them; at most n rows.
        refused: a reason for each of the others.
    """

    ids: list[str]
    last_updated: list[str]
    table: pa.Table
    refused: list[Refusal]


def updated(document: Mapping[str, Any]) -> str:
    """When a document changed last, as it stands there; "" where it doesn't say."""
    value = document.get("last_updated")
    if isinstance(value, dict):  # extended JSON
        value = value.get("$date")
    return "" if value is None else str(value)


def read_documents(documents: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Documents:
    """Structures and columns of documents of the summary.

    Raises:
        ValueError: a document has no identifier.
    """
    ids = [normalise(document.get("material_id")) for document in documents]
    refused: list[Refusal] = []
    kept, cells, counts, numbers, fracs = [], [], [], [], []
    for row, (name, document) in enumerate(zip(ids, documents, strict=True)):
        try:
            cell, elements, frac = _sites(document.get("structure"))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            refused.append(Refusal(name, "parse", reason_of(error)))
            continue
        kept.append(row)
        cells.append(cell)
        counts.append(len(elements))
        numbers.extend(elements)
        fracs.append(frac)
    batch, more = validate(_batch([ids[row] for row in kept], cells, counts, numbers, fracs))
    table = batch.to_arrow()
    accepted = _rows_of(batch, ids, kept)
    for name, values in read_columns([documents[row] for row in accepted], columns).items():
        table = table.append_column(name, values)
    return Documents(ids, [updated(document) for document in documents], table, refused + more)


def read_columns(documents: Sequence[Mapping[str, Any]], columns: Iterable[Column]) -> dict[str, pa.Array]:
    """Column -> (n,) the numbers (float64) and flags (bool) of n documents; null where a document has none."""
    return {
        column.name: pa.array(
            [_value(document, column) for document in documents], pa.bool_() if column.is_flag else pa.float64()
        )
        for column in columns
    }


def _value(document: Mapping[str, Any], column: Column) -> float | bool | None:
    found: Any = document
    for key in column.path:
        found = found.get(key) if isinstance(found, Mapping) else None
    if column.is_flag:
        return found if isinstance(found, bool) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _sites(structure: Any) -> tuple[list[list[float]], list[int], np.ndarray]:
    """Lattice (3, 3), atomic numbers (n) and fractional coordinates (n, 3) of a structure as pymatgen writes it."""
    if not isinstance(structure, dict):
        raise ValueError("the document has no structure")
    cell, sites = structure["lattice"]["matrix"], structure["sites"]
    known = _atomic_numbers()
    species = [site["species"] for site in sites]
    for found in species:
        if len(found) != 1 or found[0].get("occu", 1) != 1:
            text = ", ".join(f"{item.get('element')}:{item.get('occu', 1):g}" for item in found)
            raise ValueError(f"partial occupancy ({text}): only ordered structures have a graph")
    try:
        numbers = [known[found[0]["element"]] for found in species]
    except KeyError as error:
        raise ValueError(f"unknown element {error.args[0]!r}") from None
    frac = np.array([site["abc"] for site in sites], dtype=np.float64)
    if np.shape(cell) != (3, 3) or (len(sites) and frac.shape != (len(sites), 3)):
        raise ValueError("the lattice or the coordinates have the wrong shape")
    return cell, numbers, frac.reshape(-1, 3)


@lru_cache(maxsize=1)
def _atomic_numbers() -> dict[str, int]:
    from pymatgen.core import Element

    return {**{element.symbol: element.Z for element in Element}, "D": 1, "T": 1}


def _batch(
    ids: list[str], cells: list[Any], counts: list[int], numbers: list[int], fracs: list[np.ndarray]
) -> Structures:
    if not ids:
        return empty_structures()
    return Structures(
        np.array(ids, dtype=object),
        np.array(cells, dtype=np.float64),
        np.array(counts, dtype=np.int64),
        np.array(numbers, dtype=np.int64),
        np.concatenate(fracs),
    )


def _rows_of(batch: Structures, ids: list[str], kept: list[int]) -> list[int]:
    """Rows of the documents whose structures are in the batch: `kept`, in order, without those `validate` took out."""
    rows = iter(kept)
    return [next(row for row in rows if ids[row] == name) for name in batch.material_id]
