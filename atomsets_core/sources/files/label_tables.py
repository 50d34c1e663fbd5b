"""Labels in a CSV of their own, joined to the structures they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from atomsets_core.sources.base import ID_NAMES, Pulled, SourceError, with_numbers
from atomsets_core.sources.files.formats import FILE_COLUMNS, FORMATS, kind_and_stem
from atomsets_core.structures import Refusal

_KEY_NAMES = (*ID_NAMES, "name", "filename", *FILE_COLUMNS)


def join_labels(pulled: Pulled, files: Sequence[str], labels: pd.DataFrame, where: str, id_column: str) -> Pulled:
    """Columns of `labels` beside the structures they name; structures that none names get NaN.

    A row names a structure by its identifier, by the relative name of its file or, where only one file has it, by
    the file's bare name, each with or without extension; a POSCAR or CONTCAR also by its folder. A row that names
    no structure becomes a refusal, unless the structure it names was refused itself.

    Args:
        pulled: the structures; columns that `labels` has too are replaced.
        files: (n,) relative name of each structure's file.
        labels: as `read_csv` gives it.
        where: what messages call the labels.
        id_column: the column looked for first; see `_KEY_NAMES` for the others. The one that names most wins.

    Raises:
        SourceError: no column can name structures.
    """
    candidates = [name for name in dict.fromkeys((id_column, *_KEY_NAMES)) if name in labels.columns]
    if not candidates:
        raise SourceError(
            f"{where}: no column says which structure a label belongs to; call it one of "
            f"{', '.join(dict.fromkeys((id_column, *_KEY_NAMES)))}; found {', '.join(labels.columns)}"
        )
    tiers = _name_tiers(pulled, files)
    matches = {name: [_find(tiers, key) for key in labels[name]] for name in candidates}
    key_column = max(candidates, key=lambda name: sum(bool(found) for found in matches[name]))
    refused_names = {name for refusal in pulled.refused for names in _names_of(refusal.material_id) for name in names}
    row_of: dict[int, int] = {}
    refused = []
    for row, found in enumerate(matches[key_column]):
        name = _clean(labels[key_column].iloc[row]) or f"row {row + 1} of {where}"
        if len(found) == 1 and found[0] not in row_of:
            row_of[found[0]] = row
        elif len(found) == 1:
            refused.append(Refusal(name, "pull", f"{where} names it twice, the first label was kept"))
        elif found:
            refused.append(Refusal(name, "pull", f"{where} has a label for it, but {len(found)} structures go by it"))
        elif refused_names.isdisjoint(_names_of(name)[0]):
            refused.append(Refusal(name, "pull", f"{where} has a label for it, but there's no structure file for it"))
    joined = labels.drop(columns=key_column).reindex([row_of.get(i, -1) for i in range(len(files))])
    joined = with_numbers(joined.reset_index(drop=True))
    columns = pulled.columns.drop(columns=[name for name in joined.columns if name in pulled.columns])
    return replace(pulled, columns=pd.concat([columns, joined], axis="columns"), refused=[*pulled.refused, *refused])


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
    """Structures by identifier, by relative name and by bare name of the file."""
    tiers: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(3)]
    for i, (material_id, file) in enumerate(zip(pulled.structures.material_id, files, strict=True)):
        for tier, names in zip(tiers, ([str(material_id)], *_names_of(file)), strict=True):
            for name in names:
                tier[name].append(i)
    return tiers


def _find(tiers: Iterable[dict[str, list[int]]], key: object) -> list[int]:
    """Positions of the structures a label names, by the surest name that any has."""
    name = _clean(key)
    return next((tier[name] for tier in tiers if name in tier), [])


def _clean(key: object) -> str:
    return key.strip().replace("\\", "/").removeprefix("./") if isinstance(key, str) else ""
