"""One crystal, or one formula, with several labels that differ: said, and settled by a rule that is chosen.

A model sees a structure and nothing beside it, so rows of one content are one question with several answers. With the
absolute loss the best single answer to it is their median, which one wrong value among three can't move: it is the
default. Where two functionals or temperatures are the reason, no rule makes one property of two, and the note that
names their column is what helps: keep the rows of one of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources.columns import ERROR, UNREAD
from atomsets_core.sources.identifiers import key_of
from atomsets_core.structures import Refusal

RULES = ("median", "mean", "latest", "drop", "keep")
"""What becomes of labels that differ: one of them all, the last of them, none, or every row as it is."""

APART = 0.05
"""Labels differ when their range is larger than this share of the largest of them."""

_DATES = {"date", "year", "updated", "lastupdated", "published", "publicationyear", "timestamp", "datetime", "created"}

_TELLING = ("functional", "xc", "method", "source", "database", "run_type", "reference", "doi", "T", "temperature")
"""Columns that say why labels differ, before any others."""


@dataclass(frozen=True)
class Settled:
    """Labels of which each content has one.

    Attributes:
        usable: (n,) which rows are learned from.
        values: (n,) their labels.
        refused: one row for each label that went into another or was dropped.
        notes: what was found and done, in sentences.
    """

    usable: npt.NDArray[np.bool_]
    values: npt.NDArray[np.float64]
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def settle(
    material_id: Sequence[Any],
    hashes: Sequence[Any],
    usable: npt.NDArray[np.bool_],
    values: npt.NDArray[np.float64],
    columns: pd.DataFrame,
    target: str,
    rule: str = RULES[0],
) -> Settled:
    """One label for each content that has several which differ; a content whose labels agree stays as it is.

    Args:
        material_id: (n,) identifiers.
        hashes: (n,) content hashes.
        usable: (n,) which rows have a label.
        values: (n,) the labels.
        columns: n rows, what stood beside the structures.
        target: name of the labels.
        rule: one of `RULES`; "latest" goes by a column of dates or years, else by the order of the source.

    Raises:
        ValueError: an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"repeats = {rule!r}: there are {', '.join(RULES)}")
    groups = _apart(np.asarray(hashes, dtype=object), usable, values)
    if not groups:
        return Settled(usable, values)
    notes = [_said(groups, values, columns, target, rule, material_id)]
    if rule == "keep":
        return Settled(usable, values, notes=notes)
    usable, values, refused = usable.copy(), values.copy(), []
    when = _dates(columns)
    for rows in groups:
        given = values[rows]
        kept = rows[0]
        if rule == "latest":
            kept = rows[-1] if when is None else rows[int(np.lexsort((np.arange(len(rows)), when[rows]))[-1])]
        elif rule != "drop":
            values[kept] = np.median(given) if rule == "median" else np.mean(np.sort(given))
        span = f"one of {len(rows)} labels of the same content, {given.min():g} to {given.max():g}"
        done = "none of them is learned" if rule == "drop" else f"{target} {values[kept]:g} of {material_id[kept]} is"
        done += "" if rule == "drop" else f" learned, the {rule}"
        for row in rows:
            if rule == "drop" or row != kept:
                usable[row] = False
                refused.append(Refusal(str(material_id[row]), "label", f"{span}: {done}", str(hashes[row])))
    return Settled(usable, values, refused, notes)


def _apart(
    hashes: npt.NDArray[np.object_], usable: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]
) -> list[npt.NDArray[np.int64]]:
    """Rows of each content whose labels differ."""
    rows = np.flatnonzero(usable)
    repeated = rows[pd.Series(hashes[rows], dtype=object).duplicated(keep=False).to_numpy()]
    if not len(repeated):
        return []
    found = []
    for group in pd.Series(repeated).groupby(hashes[repeated].astype(str), sort=False):
        members = group[1].to_numpy(dtype=np.int64)
        given = values[members]
        if given.max() - given.min() > APART * np.abs(given).max():
            found.append(members)
    return found


def _said(
    groups: Sequence[npt.NDArray[np.int64]],
    values: npt.NDArray[np.float64],
    columns: pd.DataFrame,
    target: str,
    rule: str,
    material_id: Sequence[Any],
) -> str:
    """What was found and what is done with it."""
    spreads = [
        100 * np.ptp(values[rows]) / (np.abs(values[rows]).min() or np.abs(values[rows]).max()) for rows in groups
    ]
    named = " and ".join(name for name in (_telling(groups, columns, target), _databases(groups, material_id)) if name)
    why = f" They differ in {named}, which the model doesn't see." if named else ""
    done = {
        "keep": "all of them are learned",
        "drop": "none of them is learned",
        "latest": "the latest of each is learned",
    }.get(rule, f"the {rule} of each is learned")
    n = len(groups)
    return (
        f"{n} structure{'s' * (n != 1)} or formula{'s' * (n != 1)} with several values of {target} that differ by "
        f"{np.median(spreads):.0f} % (up to {max(spreads):.0f} %): {done}.{why} Other rules: repeats = "
        f"{', '.join(other for other in RULES if other != rule)}"
    )


def _databases(groups: Sequence[npt.NDArray[np.int64]], material_id: Sequence[Any]) -> str:
    """The databases that identifiers name (mp-149, oqmd-3), where these tell rows apart; "" where they don't."""
    names = [
        [found.group() if (found := re.match(r"[A-Za-z]+", str(material_id[row]))) else "" for row in rows]
        for rows in groups[:200]
    ]
    if np.mean([len(set(inside)) == len(inside) for inside in names]) <= 0.8:
        return ""
    shown = list(dict.fromkeys(name for inside in names for name in inside))
    return f"their identifiers ({', '.join(f'{name}-...' for name in shown[:3])})" if len(shown) <= 5 else ""


def _telling(groups: Sequence[npt.NDArray[np.int64]], columns: pd.DataFrame, target: str) -> str:
    """The columns that tell the rows of most groups apart, with some of their values; "" where none does."""
    some = groups[:200]
    found = []
    for name in columns.columns:
        if name in (target, UNREAD, f"{target}{ERROR}"):
            continue
        values = columns[name].to_numpy(dtype=object)
        apart = [len({str(value) for value in values[rows]}) == len(rows) for rows in some]
        different = len({str(value) for rows in some for value in values[rows]})
        # labels beside the target differ as it does; what tells rows apart comes again in other groups
        if np.mean(apart) > 0.8 and (different <= max(3, len(some)) or _rank(name) < len(_TELLING)):
            shown = list(dict.fromkeys(str(value) for rows in some for value in values[rows]))[:3]
            found.append((_rank(name), f"the column {name} ({', '.join(shown)})"))
    return " and ".join(words for _, words in sorted(found)[:2])


def _rank(name: str) -> int:
    keys = [key_of(telling) for telling in _TELLING]
    return keys.index(key_of(name)) if key_of(name) in keys else len(keys)


def _dates(columns: pd.DataFrame) -> npt.NDArray[np.float64] | None:
    """(n,) when each row is from, as far as a column says; None where none does."""
    for name in columns.columns:
        if key_of(name) in _DATES:
            cells = columns[name]
            if pd.api.types.is_numeric_dtype(cells):
                return cells.to_numpy(dtype=np.float64, na_value=-np.inf)
            when = pd.to_datetime(cells, errors="coerce", utc=True, format="mixed")
            if when.notna().any():
                seconds = (when - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
                return seconds.to_numpy(dtype=np.float64, na_value=-np.inf)
    return None
