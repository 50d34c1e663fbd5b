"""Entries of a structure file, read one by one, and how they become a batch with columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pymatgen.core import Structure

from atomsets_core.sources.base import Pulled
from atomsets_core.structures import Refusal, Structures, from_pymatgen, validate

ID_NAMES = ("material_id", "mp_id", "mbid", "id")
LONGEST_REASON = 200
_BLOCK = 1024  # entries that are held as objects at the same time


@dataclass(frozen=True)
class Crystal:
    """An ordered, periodic structure as bare numbers, for readers that need no pymatgen object.

    Attributes:
        lattice: (3, 3) float64, rows are the lattice vectors in Angstrom.
        numbers: (n,) int64, atomic numbers.
        frac: (n, 3) float64, fractional coordinates.
    """

    lattice: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    frac: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """One structure that could be parsed.

    Attributes:
        material_id: its identifier.
        structure: the pymatgen Structure, or its bare numbers.
        columns: what stood beside it; only numbers, strings, booleans and None become columns.
    """

    material_id: str
    structure: Structure | Crystal
    columns: Mapping[str, Any] = field(default_factory=dict)


def pulled_from_entries(found: Iterable[Entry | Refusal], *, convert: bool = True) -> Pulled:
    """One batch of the entries that describe an ordered, periodic crystal, and a refusal for each other one.

    Entries are taken as they come and turned into columns in blocks, so that a reader that yields them one by one
    never holds the structures of a large file as objects.

    Args:
        found: what was read.
        convert: make numbers of text columns, see `with_numbers`; not for a part of what is to be one table.
    """
    parts, refused, rows = [], [], []
    iterator = iter(found)
    while block := list(itertools.islice(iterator, _BLOCK)):
        batch, columns, rejected = _batch(block)
        parts.append(batch)
        rows += columns
        refused += rejected
    frame = pd.DataFrame(rows, index=range(len(rows)))
    return Pulled(Structures.concat(parts), with_numbers(frame) if convert else frame, refused)


def _batch(block: Sequence[Entry | Refusal]) -> tuple[Structures, list[dict[str, Any]], list[Refusal]]:
    """Structures in the order of the block, the columns of each, and the refusals."""
    refused = [item for item in block if isinstance(item, Refusal)]
    entries = []
    for item in block:
        if isinstance(item, Refusal):
            continue
        if isinstance(item.structure, Structure) and not all(item.structure.lattice.pbc):
            refused.append(Refusal(item.material_id, "parse", "not periodic in all three directions"))
        else:
            entries.append(item)
    # identifiers may repeat within a file, positions don't
    bare = [i for i, entry in enumerate(entries) if isinstance(entry.structure, Crystal)]
    others = [i for i, entry in enumerate(entries) if not isinstance(entry.structure, Crystal)]
    made, rejected = from_pymatgen([entries[i].structure for i in others], [str(i) for i in others])
    joined, more = _from_crystals([entries[i].structure for i in bare], bare)  # type: ignore[misc]
    batch = Structures.concat([made, joined])
    positions = np.array([int(name) for name in batch.material_id], dtype=np.int64)
    batch = batch.take(np.argsort(positions))
    kept = [entries[i] for i in np.sort(positions)]
    batch = replace(batch, material_id=np.array([entry.material_id for entry in kept], dtype=object))
    refused += [
        replace(refusal, material_id=entries[int(refusal.material_id)].material_id, reason=one_line(refusal.reason))
        for refusal in sorted([*rejected, *more], key=lambda refusal: int(refusal.material_id))
    ]
    rows = [{name: value for name, value in entry.columns.items() if np.isscalar(value)} for entry in kept]
    return batch, rows, refused


def _from_crystals(crystals: Sequence[Crystal], positions: Sequence[int]) -> tuple[Structures, list[Refusal]]:
    if not crystals:
        return Structures.concat([]), []
    return validate(
        Structures(
            np.array([str(position) for position in positions], dtype=object),
            np.array([crystal.lattice for crystal in crystals], dtype=np.float64),
            np.array([len(crystal.numbers) for crystal in crystals], dtype=np.int64),
            np.concatenate([crystal.numbers for crystal in crystals]).astype(np.int64),
            np.concatenate([crystal.frac for crystal in crystals]).reshape(-1, 3),
        )
    )


def with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with numbers and booleans where text or mixed columns hold them.

    A column counts as numeric when at least half of its entries parse; the others of it become NaN, for the stage
    that uses the label to refuse.
    """
    converted = {}
    for name in frame.columns:
        values = frame[name]
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.infer_dtype(values, skipna=True) == "boolean":
            converted[name] = values
            continue
        filled = values.dropna()
        words = filled.astype(str).str.strip().str.lower()
        numbers = pd.to_numeric(values, errors="coerce")
        if len(filled) and words.isin(["true", "false"]).all():
            converted[name] = values.where(values.isna(), values.astype(str).str.strip().str.lower() == "true")
            if len(filled) == len(values):
                converted[name] = converted[name].astype(bool)
        elif 2 * numbers.notna().sum() >= len(filled):
            converted[name] = numbers
        else:
            converted[name] = values.where(values.isna(), values.astype(str)).astype(object)
    return pd.DataFrame(converted, index=frame.index)


def split_id(record: Mapping[str, Any], id_column: str) -> tuple[str | None, dict[str, Any]]:
    """The identifier inside a record, None where there is none, and the other columns."""
    for name in (id_column, *ID_NAMES):
        value = record.get(name)
        if np.isscalar(value) and not pd.isna(value) and str(value).strip():
            return str(value).strip(), {key: other for key, other in record.items() if key != name}
    return None, dict(record)


def default_id(name: str | None, stem: str, position: int, n: int) -> str:
    """The identifier where there is any, else `stem` for an only entry and `stem-0`, `stem-1`, ... for n of them."""
    return name or (stem if n == 1 else f"{stem}-{position}")


def reason_of(error: Exception, what: str = "") -> str:
    """What an exception of a parser says, as one sentence of at most 200 characters.

    Args:
        error: the exception.
        what: how the sentence begins, e.g. "not a readable CIF".
    """
    if isinstance(error, KeyError) and error.args:
        text = f"{error.args[0]!r} is missing"
    elif isinstance(error, IndexError):
        text = "it ends too early, or a line of it is incomplete"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error) or type(error).__name__
    return one_line(f"{what}: {text}" if what else text)


def one_line(text: str) -> str:
    """The text on one line, cut at 200 characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
