"""Labels in a table of their own, joined to the structures they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.columns import joined, read_columns, with_notes
from atomsets_core.sources.files.formats import FORMATS, kind_and_stem
from atomsets_core.sources.files.text_tables import FILE_COLUMNS, TextTable
from atomsets_core.sources.identifiers import ID_NAMES, id_columns, identifier, key_of, spellings
from atomsets_core.sources.repeats import differences, with_repeated
from atomsets_core.structures import Refusal

_KEY_NAMES = (*ID_NAMES, "name", "filename", *FILE_COLUMNS)

Key = tuple[str, ...]
"""Columns that name a structure together; one as a rule."""


def join_labels(pulled: Pulled, files: Sequence[str], labels: TextTable, where: str, id_column: str) -> Pulled:
    """Columns of `labels` beside the structures they name; structures that none names get NaN.

    A row names a structure by its identifier in any of its spellings, by the relative name of its file or, where only
    one file has it, by the file's bare name, each with or without extension; a POSCAR or CONTCAR also by its folder.
    A row that names no structure becomes a refusal, unless the structure it names was refused itself.

    Args:
        pulled: the structures; columns that `labels` has too are replaced.
        files: (n,) relative name of each structure's file.
        labels: the table.
        where: what messages call the labels.
        id_column: the column looked for first; see `_KEY_NAMES` for the others. The one that names most wins.

    Raises:
        SourceError: no column can name structures, or no row names one.
    """
    tiers = _name_tiers(pulled, files)
    tried = _candidates(labels.frame, id_column, where, tiers)
    matches = {key: [_find(tiers, name) for name in _names(labels.frame, key)] for key in tried}
    key = max(tried, key=lambda key: sum(bool(found) for found in matches[key]))
    if len(labels.frame) and len(files) and not any(matches[key]):
        raise SourceError(_nothing_joined(pulled, labels.frame, tried, tiers, where))
    refused_names = {name for refusal in pulled.refused for names in _names_of(refusal.material_id) for name in names}
    row_of: dict[int, int] = {}
    later: dict[int, list[int]] = defaultdict(list)
    refused = [Refusal(f"{where}, row {row}", "pull", reason) for row, reason in labels.refused]
    for row, (name, found) in enumerate(zip(_names(labels.frame, key), matches[key], strict=True)):
        called = name or f"row {labels.rows[row]} of {where}"
        if len(found) == 1 and found[0] not in row_of:
            row_of[found[0]] = row
        elif len(found) == 1:
            later[found[0]].append(row)
            differing = _differing(labels.frame.drop(columns=list(key)), row_of[found[0]], row)
            refused.append(Refusal(called, "pull", f"{where} names it again{differing}"))
        elif found:
            refused.append(Refusal(called, "pull", f"{where} has a label for it, but {len(found)} structures go by it"))
        elif refused_names.isdisjoint(_names_of(called)[0]):
            refused.append(Refusal(called, "pull", f"{where} has a label for it, but there's no structure file for it"))
    beside = labels.frame.drop(columns=list(key) if len(key) == 1 else [])
    read = read_columns(beside, labels.mark, labels.rows, labels.units)
    values = {
        row_of[i]: [differences(read.frame.iloc[row_of[i]].to_dict(), read.frame.iloc[row].to_dict()) for row in rows]
        for i, rows in later.items()
    }
    told = with_repeated(read.frame, values)
    rows = told.reindex([row_of.get(i, -1) for i in range(len(files))]).reset_index(drop=True)
    notes = [f"{where}: {note}" for note in (*labels.notes, *read.notes)]
    return replace(
        pulled,
        columns=joined(pulled.columns, rows),
        refused=[*pulled.refused, *refused],
        provenance=with_notes(pulled.provenance, notes, read.units),
    )


def _candidates(table: pd.DataFrame, id_column: str, where: str, tiers: Sequence[dict[str, list[int]]]) -> list[Key]:
    """The columns that may name structures, the one asked for first.

    Raises:
        SourceError: there are none.
    """
    names = [str(name) for name in table.columns]
    asked = id_columns(names, id_column)
    known = set(map(key_of, _KEY_NAMES))
    found = dict.fromkeys([*([asked] if asked else []), *((name,) for name in names if key_of(name) in known)])
    if not found:
        raise SourceError(
            f"{where}: no column says which structure a label belongs to; call it one of "
            f"{', '.join(dict.fromkeys((id_column, *_KEY_NAMES)))}, or name it as id_column; found {', '.join(names)}"
            f"{_best_other(table, (), tiers)}"
        )
    return list(found)


def _names(table: pd.DataFrame, key: Key) -> list[str]:
    if len(key) == 1:
        return [_clean(value) for value in table[key[0]]]
    return [identifier(values) or "" for values in zip(*(table[name] for name in key), strict=True)]


def _nothing_joined(
    pulled: Pulled, table: pd.DataFrame, tried: Sequence[Key], tiers: Sequence[dict[str, list[int]]], where: str
) -> str:
    """Why no label has a structure: what was tried, what structures are called, and which column does name them."""
    shown = ", ".join(
        f"{' and '.join(map(repr, key))} ({', '.join(repr(name) for name in _names(table, key)[:2])}, ...)"
        for key in tried
    )
    called = ", ".join(repr(str(name)) for name in pulled.structures.material_id[:2])
    hint = _best_other(table, tried, tiers)
    return (
        f"{where}: none of its {len(table)} rows names a structure. Tried: {shown}. Structures are called {called}, "
        f"...{hint or '; name the column that holds these as id_column'}"
    )


def _best_other(table: pd.DataFrame, tried: Sequence[Key], tiers: Sequence[dict[str, list[int]]]) -> str:
    """The end of a sentence that says which other column does name structures; "" where none does."""
    others = [(str(name),) for name in table.columns if (str(name),) not in tried]
    counts = {key: sum(bool(_find(tiers, name)) for name in _names(table, key)) for key in others}
    best = max(counts, key=lambda key: counts[key], default=None)
    return f"; column {best[0]!r} names {counts[best]} of them: give it as id_column" if best and counts[best] else ""


def _differing(table: pd.DataFrame, first: int, second: int) -> str:
    """The cells in which two rows differ, as the end of a sentence."""
    differs = [name for name in table.columns if table[name].iloc[first] != table[name].iloc[second]]
    shown = [f"{name} {table[name].iloc[first]} and {table[name].iloc[second]}" for name in differs[:2]]
    return f": {', '.join(shown)}"[:120] if shown else ""


def _names_of(file: str) -> tuple[list[str], list[str]]:
    """What a label may call a file: its relative names, and the bare names at their ends."""
    kind, stem = kind_and_stem(file)
    relative = [file, file.removesuffix(".gz"), stem]
    prefixes = [prefix for known in FORMATS if known.name == kind for prefix in known.prefixes]
    if stem.upper().endswith(tuple(f"/{prefix}" for prefix in prefixes)):
        relative.append(str(PurePosixPath(stem).parent))
    relative = list(dict.fromkeys(relative))
    return relative, list(dict.fromkeys(PurePosixPath(name).name for name in relative))


def _name_tiers(pulled: Pulled, files: Sequence[str]) -> list[dict[str, list[int]]]:
    """Structures by identifier, by relative name, by bare name of the file, by other identifiers, without capitals."""
    tiers: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(5)]
    others = [name for name in pulled.columns.columns if key_of(name.rpartition(".")[2]) in set(map(key_of, ID_NAMES))]
    beside = [pulled.columns[name].tolist() for name in others]
    for i, (material_id, file) in enumerate(zip(pulled.structures.material_id, files, strict=True)):
        own = str(material_id)
        more = [name for values in beside if (name := identifier((values[i],)))]
        more += [own.replace("#", "-")] if "#" in own else []  # a frame by its file and number, in two columns
        lower = [name.lower() for name in (own, *spellings(own), *_names_of(file)[1])]
        for tier, names in zip(tiers, ([own], *_names_of(file), more, dict.fromkeys(lower)), strict=True):
            for name in names:
                tier[name].append(i)
    return tiers


def _find(tiers: Iterable[dict[str, list[int]]], name: str) -> list[int]:
    """Positions of the structures a label names, by the surest name that any has, written as surely as possible."""
    if not name:
        return []
    for spelling in _spellings(name):
        for tier in tiers:
            if spelling in tier:
                return tier[spelling]
    return []


def _spellings(name: str) -> Iterable[str]:
    """What is written first; looked further at only where that names nothing."""
    yield name
    for spelling in spellings(name):
        yield spelling
        yield from _names_of(spelling)[1]
        yield from (bare.lower() for bare in _names_of(spelling)[1])


def _clean(key: object) -> str:
    return key.strip().replace("\\", "/").removeprefix("./") if isinstance(key, str) else ""
