"""Entries of a structure file, read one by one, and how they become a batch with columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from atomsets_core.sources.base import Pulled
from atomsets_core.structures import Refusal, from_pymatgen

ID_NAMES = ("material_id", "mp_id", "mbid", "id")
LONGEST_REASON = 200


@dataclass(frozen=True)
class StructureFile:
    """One file to read, on a disk or inside an archive.

    Attributes:
        name: relative name with "/" between folders; what refusals and default identifiers are made of.
        stem: the name without the extension of its format.
        content: gives the bytes, already decompressed; raises when they can't be had.
        path: where the file lies on a disk; None inside an archive.
        lone: it was asked for by itself, so no other file's identifiers can collide with its own.
    """

    name: str
    stem: str
    content: Callable[[], bytes]
    path: Path | None = None
    lone: bool = False

    def text(self) -> str:
        """The content as text; bytes that aren't UTF-8 (names in comments, mostly) are replaced."""
        return self.content().decode("utf-8-sig", errors="replace")


@dataclass(frozen=True)
class Entry:
    """One structure that could be parsed.

    Attributes:
        material_id: its identifier.
        structure: the pymatgen Structure.
        columns: what stood beside it; only numbers, strings, booleans and None become columns.
    """

    material_id: str
    structure: Structure
    columns: Mapping[str, Any] = field(default_factory=dict)


def pulled_from_entries(found: Sequence[Entry | Refusal]) -> Pulled:
    """One batch of the entries that describe an ordered, periodic crystal, and a refusal for each other one."""
    refused = [item for item in found if isinstance(item, Refusal)]
    entries = []
    for item in found:
        if isinstance(item, Refusal):
            continue
        if isinstance(item.structure, Structure) and not all(item.structure.lattice.pbc):
            refused.append(Refusal(item.material_id, "parse", "not periodic in all three directions"))
        else:
            entries.append(item)
    # identifiers may repeat within a file, positions don't
    positions = [str(i) for i in range(len(entries))]
    batch, rejected = from_pymatgen([entry.structure for entry in entries], positions)
    kept = [entries[int(position)] for position in batch.material_id]
    batch = replace(batch, material_id=np.array([entry.material_id for entry in kept], dtype=object))
    refused += [
        replace(refusal, material_id=entries[int(refusal.material_id)].material_id, reason=one_line(refusal.reason))
        for refusal in rejected
    ]
    rows = [{name: value for name, value in entry.columns.items() if np.isscalar(value)} for entry in kept]
    return Pulled(batch, with_numbers(pd.DataFrame(rows, index=range(len(kept)))), refused)


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


def default_ids(ids: Sequence[str | None], stem: str) -> list[str]:
    """The identifiers where there are any, else `stem` for an only entry and `stem-0`, `stem-1`, ... for several."""
    if len(ids) == 1:
        return [ids[0] or stem]
    return [name or f"{stem}-{i}" for i, name in enumerate(ids)]


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
