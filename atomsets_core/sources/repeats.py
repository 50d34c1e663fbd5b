"""Several rows of one identifier: the first is the entry, and what later ones say otherwise stays beside it.

A later row of the same content is the same material with other values, from another functional or a second
measurement. Its values go into the column `REPEATED` of the first row, which travels with that row through files and
selections, so that whoever learns from a column sees all labels of a material and can settle which counts
(`atomsets_core.sources.columns.settle`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources.columns import ERROR, REPEATED, UNREAD
from atomsets_core.sources.numbers import is_missing
from atomsets_core.structures import Refusal

LONGEST_TEXT = 200
"""Characters of a text that is kept."""

MOST = 50
"""Later rows of one identifier that are kept."""

Values = Mapping[str, Any]


def differences(first: Values, later: Values) -> dict[str, Any]:
    """Column -> value of a later row, where it says something else than the first.

    Args:
        first: column -> value of the row that is kept.
        later: of one that isn't.
    """
    found = {}
    for name, value in later.items():
        if name.startswith("\0") or name == REPEATED or not np.isscalar(value) or is_missing(value):
            continue
        value = value.item() if isinstance(value, np.generic) else value
        own = first.get(name)
        if value != own and not (isinstance(value, str) and len(value) > LONGEST_TEXT):
            found[name] = value
    return found


def as_text(rows: Iterable[Values]) -> str | None:
    """The cell of `REPEATED` for these differences; None where there are none."""
    kept = [dict(row) for row in rows if row][:MOST]
    return json.dumps(kept, ensure_ascii=False) if kept else None


def duplicate_reason(differing: Values, same_content: bool) -> str:
    """Why a later row of an identifier is no entry of its own.

    Args:
        differing: see `differences`; none where they aren't known.
        same_content: its structure is that of the first.
    """
    plain = "duplicate id: an earlier entry has it too, and that one was kept"
    if not same_content:
        return f"{plain}; its structure is another one"
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in differing.items() if name != UNREAD)
    return f"{plain}; here is {shown}"[:197] if shown else plain


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:30]


def with_repeated(frame: pd.DataFrame, later: Mapping[int, Sequence[Values]]) -> pd.DataFrame:
    """A table with the column `REPEATED`, where there is anything to tell.

    Args:
        frame: n rows; a column of this name stays where `later` says nothing of a row.
        later: row -> `differences` of later ones.
    """
    texts = {row: text for row, rows in later.items() if (text := as_text(rows))}
    if not texts:
        return frame
    before = frame[REPEATED] if REPEATED in frame.columns else [None] * len(frame)
    cells = [texts.get(row, None if is_missing(cell) else cell) for row, cell in enumerate(before)]
    return frame.assign(**{REPEATED: pd.Series(cells, index=frame.index, dtype=object)})


def unfolded(frame: pd.DataFrame) -> tuple[npt.NDArray[np.int64], pd.DataFrame]:
    """A table with the later rows of its identifiers behind its own.

    Args:
        frame: n rows.

    Returns:
        (m,) int64, to which row of `frame` each belongs, the first n their own; and m rows without `REPEATED`.
    """
    own = np.arange(len(frame), dtype=np.int64)
    if REPEATED not in frame.columns:
        return own, frame
    plain = frame.drop(columns=REPEATED).reset_index(drop=True)
    of, rows = list[int](), list[dict[str, Any]]()
    for row, text in enumerate(frame[REPEATED]):
        for differing in _read(text):
            values = {**plain.iloc[row].to_dict(), **{k: v for k, v in differing.items() if k in plain.columns}}
            if UNREAD in values:
                values[UNREAD] = differing.get(UNREAD)  # of this row, not of the first
            for name in plain.columns:
                if str(name).endswith(ERROR) and name not in differing and str(name)[: -len(ERROR)] in differing:
                    values[name] = None
            of.append(row)
            rows.append(values)
    if not rows:
        return own, plain
    wide = pd.concat([plain.astype(object), pd.DataFrame(rows, dtype=object)], ignore_index=True)
    for name in plain.columns:
        if pd.api.types.is_numeric_dtype(plain[name]):
            numbers = pd.to_numeric(wide[name], errors="coerce")
            lost = numbers.isna() & wide[name].map(lambda value: isinstance(value, str))
            wide[name] = wide[name] if lost.any() else numbers.astype(np.float64)
    return np.concatenate([own, np.array(of, dtype=np.int64)]), wide[list(plain.columns)]


def _read(text: Any) -> list[dict[str, Any]]:
    """The later rows of a cell; none where it is somebody else's column of this name."""
    if not isinstance(text, str) or not text.startswith("["):
        return []
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [row for row in rows[:MOST] if isinstance(row, dict)]


def folded(
    of: npt.NDArray[np.int64],
    n: int,
    usable: npt.NDArray[np.bool_],
    values: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which of n rows are learned from and their labels, of what was settled for m of `unfolded`.

    Args:
        of: (m,) to which of the n rows each belongs.
        n: rows.
        usable: (m,) which are learned from.
        values: (m,) their labels.

    Returns:
        (n,) and (n,), the first that is usable of each.
    """
    kept, labels = np.zeros(n, dtype=bool), values[:n].copy()
    for row in np.flatnonzero(usable)[::-1]:
        kept[of[row]], labels[of[row]] = True, values[row]
    return kept, labels


def one_each(refused: Iterable[Refusal], repeated: Iterable[str], used: Iterable[str]) -> list[Refusal]:
    """Refusals of which each identifier with later rows has one at most, and none where it is learned from.

    The later rows themselves are in the ledger already.

    Args:
        refused: of `unfolded` rows.
        repeated: identifiers with later rows.
        used: identifiers that are learned from.
    """
    several, learned, seen, kept = set(map(str, repeated)), set(map(str, used)), set[str](), []
    for refusal in refused:
        if refusal.material_id in several:
            if refusal.material_id in learned or refusal.material_id in seen:
                continue
            seen.add(refusal.material_id)
        kept.append(refusal)
    return kept
