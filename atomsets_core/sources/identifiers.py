"""Identifiers as people write them: columns that hold them, two columns as one, and the spellings of one identifier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from atomsets_core.sources.numbers import is_missing

DEFAULT = "material_id"
"""The column of identifiers where nobody says another."""

ID_NAMES = ("material_id", "mp_id", "mpid", "mbid", "id", "jid", "matpes_id", "mat_id", "immutable_id", "entry_id",
            "structure_id", "identifier", "cod_id", "icsd_id", "oqmd_id", "auid", "sid", "task_id", "aflow_id",
            "jarvis_id", "nomad_id", "uid", "uuid", "calc_id", "compound_id", "sample_id")  # fmt: skip
"""Columns of identifiers, however they are capitalised and joined (MaterialId, "Material ID"); the first counts."""

PANDAS_INDEX = "__index_level_0__"
"""What pandas calls an index without a name in Parquet: the identifiers, where no column is."""

TOGETHER = ","
"""Between columns that are an identifier together: "split,id"."""


def key_of(name: object) -> str:
    """A column's name without capitals, spaces and underscores: what two spellings of it share."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


_ID_KEYS = {key_of(name): place for place, name in reversed(list(enumerate(ID_NAMES)))}


def id_columns(columns: Iterable[str], id_column: str = DEFAULT) -> tuple[str, ...]:
    """Which columns hold the identifiers: the one asked for or those asked for together, else the first known one.

    Args:
        columns: that there are.
        id_column: asked for; several with commas between them.

    Returns:
        Names as they stand there; none where there is no such column.
    """
    names = [str(name) for name in columns]
    if id_column in names:
        return (id_column,)
    asked = tuple(part.strip() for part in id_column.split(TOGETHER))
    if len(asked) > 1 and set(asked) <= set(names):
        return asked
    known = sorted((_ID_KEYS[key_of(name)], place) for place, name in enumerate(names) if key_of(name) in _ID_KEYS)
    if known:
        return (names[known[0][1]],)
    return (PANDAS_INDEX,) if PANDAS_INDEX in names else ()


def lacking(columns: Iterable[str], id_column: str) -> str:
    """A sentence where a column of identifiers was asked for by name that isn't there; "" where all is well."""
    names = [str(name) for name in columns]
    if id_column == DEFAULT or not id_column or id_column in names:
        return ""
    missing = [part.strip() for part in id_column.split(TOGETHER) if part.strip() not in names]
    if not missing:
        return ""
    return f"no column {missing[0]!r} for the identifiers (id_column); found {', '.join(names)}"


def identifier(values: Iterable[Any]) -> str | None:
    """One identifier of what stands in its columns; None where one of them is empty."""
    parts = []
    for value in values:
        if not np.isscalar(value) or is_missing(value) or not str(value).strip():
            return None
        parts.append(_as_text(value))
    return spelled("-".join(parts)) if parts else None


def row_ids(columns: Sequence[Sequence[Any]], n: int) -> list[str | None]:
    """Identifiers of n rows from the columns that hold them together; None where one is empty.

    Args:
        columns: each of n values; none where a table has no identifiers.
        n: rows.
    """
    if not columns:
        return [None] * n
    if len(columns) == 1:
        return [
            (name.strip() or None if not name.startswith("mp-aaa") else spelled(name.strip()))
            if isinstance(name, str)
            else identifier((name,))
            for name in columns[0]
        ]
    return [identifier(values) for values in zip(*columns, strict=True)]


def _as_text(value: Any) -> str:
    """A whole number that became a float on its way (an index with gaps) is written without the point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).strip()


def split_id(record: Mapping[str, Any], id_column: str) -> tuple[str | None, dict[str, Any]]:
    """The identifier inside a record, None where there is none, and the other columns.

    Entries of databases carry it themselves, or in their "data".
    """
    filled = [str(name) for name, value in record.items() if np.isscalar(value) and not is_missing(value)]
    used = id_columns(filled, id_column)
    if used and (found := identifier(record[name] for name in used)) is not None:
        # one of two columns alone says something else besides: the part of a split, a database
        return found, {key: value for key, value in record.items() if len(used) > 1 or key not in used}
    data = record.get("data")
    if isinstance(data, Mapping):
        inside = id_columns([str(name) for name, value in data.items() if np.isscalar(value)], id_column)
        if inside and (found := identifier(data[name] for name in inside)) is not None:
            return found, dict(record)
    return None, dict(record)


_PLAIN_ID = re.compile(r"mp-[1-9][0-9]{0,5}")


@lru_cache(maxsize=4096)
def _spelled(identifier: str) -> str:
    from emmet.core.mpid import AlphaID

    alpha = AlphaID(identifier)
    return str(alpha.string) if alpha._prefix else identifier


def normalise(identifier: Any) -> str:
    """An identifier in the spelling that the Materials Project shows: "mp-8039", also where it sends "mp-lxf".

    Identifiers younger than those with numbers stay in letters.

    Raises:
        ValueError: it is no identifier.
    """
    if not isinstance(identifier, str) or not identifier:
        raise ValueError("a document without material_id")
    if _PLAIN_ID.fullmatch(identifier):
        return identifier
    try:
        return _spelled(identifier)
    except (ValueError, KeyError):
        return identifier


_LETTERS = re.compile(r"mp-aaa[a-z]{5}")
"""How documents of the Materials Project write a number, with zeros (a) in front; younger ones have letters alone."""


def spelled(name: str) -> str:
    """An identifier as the Materials Project shows it: "mp-22862", also where a document says "mp-aaaabhvi"."""
    if not _LETTERS.fullmatch(name):
        return name
    return normalise(name)


_MATERIALS_PROJECT = re.compile(r"(?P<base>(?:mp|mvc)[-_]?(?:\d+|[a-z]{3,8}))(?P<rest>[-_ ].*)?", re.IGNORECASE)


def spellings(name: str) -> list[str]:
    """What else a label may mean by this name, the surest first: for joins alone, where a wrong one finds nothing.

    An address or path is named by its end; mp_10037, MP-10037 and mp-aaaaaoxz are mp-10037. What stands behind a
    number of the Materials Project (mp-101-GGA, mp-10025_SiRu2) is a calculation or a formula.
    """
    found = [spelled(name)]
    address = unquote(urlsplit(name).path) if "://" in name else name
    tail = re.split(r"[/\\]", address.rstrip("/\\"))[-1].strip()
    found += [spelled(tail), tail.lower()]
    if of_project := _MATERIALS_PROJECT.fullmatch(tail):
        base = re.sub(r"^(mp|mvc)[-_]?", r"\1-", of_project["base"].lower())
        found += [_in_numbers(base)]
    return [spelling for spelling in dict.fromkeys(found) if spelling]


def project_id(name: object) -> str | None:
    """The identifier of the Materials Project that is meant, as it shows it (mp-22862); None where none is."""
    for spelling in spellings(str(name).strip()):
        if re.fullmatch(r"(?:mp|mvc)-(?:[1-9]\d*|[a-z]{3,8})", spelling):
            return spelling
    return None


def _in_numbers(name: str) -> str:
    if re.fullmatch(r"(?:mp|mvc)-\d+", name):
        return name
    return normalise(name)
