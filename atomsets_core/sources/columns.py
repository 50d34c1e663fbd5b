"""Columns beside structures: which become numbers, what can't be read, and which counts where a crystal has several.

A cell that can't be read leaves its number missing, and a sentence about it in the column `UNREAD`, which stays with
its row wherever the row goes, so that whoever uses the column later can say what stood there.

A model sees a structure and nothing beside it, so rows of one content are one question with several answers. With the
absolute loss the best single answer to it is their median, which one wrong value among three can't move: it is the
default. Where two functionals or temperatures are the reason, no rule makes one property of two, and the note that
names their column is what helps: keep the rows of one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources.identifiers import key_of
from atomsets_core.sources.numbers import Mark, is_missing, looks_like_numbers, read_numbers
from atomsets_core.sources.units import factor, name_and_unit
from atomsets_core.structures import Refusal

UNREAD = "unread"
"""Column that says in JSON, for each row, which of its cells couldn't be read as numbers and why."""

REPEATED = "repeated"
"""Column that says in JSON what later rows of an identifier hold otherwise: a list of column -> value for each."""

ERROR = "_error"
"""Behind the name of a column: the standard uncertainties that stood in its cells."""

ENERGY, CORRECTION = "energy", "correction"
"""Columns that entries of computations have, both of the whole cell."""

PER_CELL = "per_cell"
"""Key of a provenance: the columns that grow with the cell, so that cells of different size can't be compared."""


RULES = ("median", "mean", "latest", "drop", "keep")
"""What becomes of labels that differ: one of them all, the last of them, none, or every row as it is."""

APART = 0.05
"""Labels differ when their range is larger than this share of the largest of them."""

_DATES = {"date", "year", "updated", "lastupdated", "published", "publicationyear", "timestamp", "datetime", "created"}

_TELLING = ("functional", "xc", "method", "source", "database", "run_type", "reference", "doi", "T", "temperature")
"""Columns that say why labels differ, before any others."""


@dataclass(frozen=True)
class ReadColumns:
    """Columns with numbers where text or mixed columns hold them.

    Attributes:
        frame: n rows.
        units: column -> unit, where cells, names or a row of units state one.
        notes: how columns were read whose cells aren't plain numbers.
    """

    frame: pd.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def told(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """A provenance with these units and notes among its own."""
        return with_notes(provenance, self.notes, self.units)


def with_notes(
    provenance: Mapping[str, Any], notes: Iterable[str], units: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A provenance with more notes and units; what it says of a unit itself stays."""
    found = dict(provenance)
    if all_notes := list(dict.fromkeys([*provenance.get("notes", []), *notes])):
        found["notes"] = all_notes
    if all_units := {**(units or {}), **provenance.get("units", {})}:
        found["units"] = all_units
    return found


def with_energies(provenance: Mapping[str, Any], corrected: bool) -> dict[str, Any]:
    """A provenance that says what the column `energy` is.

    Args:
        provenance: of entries of pymatgen (not corrected, the correction beside it), or of a calculator of ASE.
        corrected: a program added what it corrects by.
    """
    note = f"{ENERGY} is the total energy of each cell in eV, not per atom"
    note += "" if corrected else f" and not corrected: {CORRECTION}, of the cell too, is to be added"
    found = with_notes(provenance, [note], {ENERGY: "eV", **({} if corrected else {CORRECTION: "eV"})})
    return {**found, PER_CELL: [ENERGY, *([] if corrected else [CORRECTION])]}


def unit_of(provenance: Mapping[str, Any], targets: Sequence[str], unit: str) -> str:
    """The unit of labels: the one that is given, else what the source says of a single target.

    Raises:
        ValueError: the source says another one.
    """
    units = provenance.get("units", {})
    stated_units = [str(units.get(find_column(units, target) or target, "") or "") for target in targets]
    for target, stated in zip(targets, stated_units, strict=True):
        scale = factor(stated, unit) if stated and unit else 1.0
        if scale is not None and abs(scale - 1) > 1e-9:
            raise ValueError(f"{target} is in {stated} in the source, and you say {unit}: say {stated}")
    return unit or (stated_units[0] if len(targets) == 1 else "")


def sizes_differ(provenance: Mapping[str, Any], targets: Iterable[str], n_atoms: npt.NDArray[Any]) -> list[str]:
    """A sentence for each target that grows with the cell, where cells differ in size.

    Args:
        provenance: of the source.
        targets: columns that are learned.
        n_atoms: (n,) of each structure.
    """
    if not len(n_atoms) or n_atoms.min() == n_atoms.max():
        return []
    return [
        f"{name} is of the whole cell, and cells have {n_atoms.min()} to {n_atoms.max()} atoms: the model learns means "
        "over atoms, so divide it by the number of atoms first"
        for name in targets
        if name in provenance.get(PER_CELL, [])
    ]


def read_columns(
    frame: pd.DataFrame,
    mark: Mark = "",
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
    units: Mapping[str, str] | None = None,
) -> ReadColumns:
    """The same table with numbers and booleans where text or mixed columns hold them.

    A column holds numbers when at least half of its filled cells are numbers, however they are written.

    Args:
        frame: n rows, cells as they stand in a file.
        mark: the decimal mark of the table, where something shows it.
        rows: (n,) of the file, which sentences about cells name; without it they don't.
        units: column -> unit, as far as the table states them.
    """
    converted: dict[str, pd.Series] = {}
    unread = _unread_of(frame)
    known, notes = dict(units or {}), []
    for name in frame.columns:
        values = frame[name]
        if name == UNREAD:
            continue
        if (
            name == REPEATED
            or pd.api.types.is_numeric_dtype(values)
            or pd.api.types.infer_dtype(values, skipna=True) == "boolean"
        ):
            converted[name] = values
        elif (booleans := _booleans(values)) is not None:
            converted[name] = booleans
        elif looks_like_numbers(values) or values.map(is_missing).all():
            read = read_numbers(values, mark)
            converted[name] = _whole(read.values, values)
            if read.errors is not None and f"{name}{ERROR}" not in frame.columns:
                converted[f"{name}{ERROR}"] = pd.Series(read.errors, index=frame.index)
            if read.unit:
                known[name] = read.unit
            if read.how:
                notes.append(f"{name}: read with {read.how}")
            for row in np.flatnonzero(read.reasons != ""):
                where = "" if rows is None else f" (row {rows[int(row)]})"
                unread[int(row)] = {**unread.get(int(row), {}), str(name): f"{read.reasons[row]}{where}"}
        else:
            converted[name] = values.map(lambda value: None if is_missing(value) else str(value)).astype(object)
    if unread:
        converted[UNREAD] = _as_json(unread, frame.index)
    return ReadColumns(pd.DataFrame(converted, index=frame.index), known, notes)


def _booleans(values: pd.Series) -> pd.Series | None:
    """True and False where every filled cell says so; None for another column."""
    first = next((value for value in values if not is_missing(value)), None)
    if str(first).strip().lower() not in ("true", "false"):
        return None
    empty = values.map(is_missing)
    words = values[~empty].astype(str).str.strip().str.lower()
    if not len(words) or not words.isin(["true", "false"]).all():
        return None
    if not empty.any():
        return words == "true"
    return values.where(empty, values.astype(str).str.strip().str.lower() == "true").where(~empty, None)


def _whole(numbers: npt.NDArray[np.float64], values: pd.Series) -> pd.Series:
    """Whole numbers as such, where all cells are written so."""
    exact = np.isfinite(numbers).all() and (np.abs(numbers) < 2**53).all() and (numbers % 1 == 0).all()
    if exact and len(numbers) and not any("." in str(value) or "e" in str(value).lower() for value in values):
        return pd.Series(numbers.astype(np.int64), index=values.index)
    return pd.Series(numbers, index=values.index)


def _unread_of(frame: pd.DataFrame) -> dict[int, dict[str, str]]:
    """Row -> column -> sentence, of a table that was read before."""
    found: dict[int, dict[str, str]] = {}
    for row, text in enumerate(frame[UNREAD] if UNREAD in frame.columns else []):
        if isinstance(text, str):
            try:
                reasons = json.loads(text)
            except ValueError:  # somebody else's column of this name
                continue
            if isinstance(reasons, dict):
                found[row] = {str(name): str(reason) for name, reason in reasons.items()}
    return found


def _as_json(unread: Mapping[int, Mapping[str, str]], index: pd.Index) -> pd.Series:
    texts = [json.dumps(unread[row], ensure_ascii=False) if unread.get(row) else None for row in range(len(index))]
    return pd.Series(texts, index=index, dtype=object)


def joined(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The columns of two tables of the same rows beside each other; `other` replaces columns of its name."""
    replaced = [name for name in other.columns if name in one.columns]
    first, second = _unread_of(one), _unread_of(other)
    frame = pd.concat([one.drop(columns=replaced), other], axis="columns")
    unread = {
        row: {name: reason for name, reason in first.get(row, {}).items() if name not in replaced} | second.get(row, {})
        for row in {*first, *second}
    }
    return frame.drop(columns=UNREAD, errors="ignore").assign(
        **({UNREAD: _as_json(unread, frame.index)} if any(unread.values()) else {})
    )


def find_column(columns: Iterable[object], name: str) -> str | None:
    """The column that is meant by a name: that of this very name, else the only one of it up to its unit.

    "K" finds "K (GPa)" and "gap" finds "data.gap", unless there are two of them.
    """
    names = [str(column) for column in columns]
    if name in names:
        return name
    for same in (
        lambda column: name_and_unit(column)[0] == name,
        lambda column: column.rpartition(".")[2] == name,
    ):
        found = [column for column in names if same(column)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def numbers_of(frame: pd.DataFrame, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.object_]]:
    """The numbers of a column and why each missing one is missing.

    Args:
        frame: n rows.
        name: of a column of it.

    Returns:
        (n,) float64, NaN where there is none; (n,) str, "" for a number and for an empty cell, else what is wrong with
        the cell, as "is not a number: '5.2 eV' (row 7)".
    """
    column = frame[name]
    if pd.api.types.is_float_dtype(column):  # was read before
        values, reasons = (
            column.to_numpy(np.float64, na_value=np.nan, copy=True),
            np.full(len(column), "", dtype=object),
        )
    else:
        read = read_numbers(column)
        values, reasons = read.values.copy(), read.reasons.copy()
    for row, cells in _unread_of(frame).items():
        if name in cells and np.isnan(values[row]):
            reasons[row] = cells[name]
    marks = marks_for_missing(values)
    others = values[np.isfinite(values) & ~marks]
    for row in map(int, np.flatnonzero(marks)):
        reasons[row] = (
            f"is {values[row]:g}, which stands for a missing value: all others lie between {others.min():g} and "
            f"{others.max():g}"
        )
        values[row] = np.nan
    return values, reasons


_STAND_INS = (99.0, 999.0, 9999.0, 99999.0, 999999.0, 9999999.0, 888.0, 8888.0, 1e10, 1e20, 1e30, 1e36)
"""What programs and people write for a missing value, with either sign."""


def marks_for_missing(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(n,) which values are written for a missing one: -999, 9999, 1e20 and the like, far from all others."""
    finite = np.isfinite(values)
    nines = np.isin(np.abs(values), _STAND_INS) & finite
    others = values[finite & ~nines]
    if not nines.any() or len(others) < 5:
        return np.zeros(len(values), dtype=bool)
    low, high = float(others.min()), float(others.max())
    away = np.maximum(values - high, low - values)
    return nines & ((away > 3 * (high - low)) | ((values < 0) & (low >= 0)))


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
    keys: Sequence[Any] | npt.NDArray[Any] | None = None,
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
        keys: (n,) what rows of one crystal share, see `crystal_keys`; the content hashes without.

    Raises:
        ValueError: an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"repeats = {rule!r}: there are {', '.join(RULES)}")
    groups = apart(np.asarray(hashes if keys is None else keys, dtype=object), usable, values)
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
        what = "content" if len({str(hashes[row]) for row in rows}) == 1 else "crystal"
        span = f"one of {len(rows)} labels of the same {what}, {given.min():g} to {given.max():g}"
        done = "none of them is learned" if rule == "drop" else f"{target} {values[kept]:g} of {material_id[kept]} is"
        done += "" if rule == "drop" else f" learned, the {rule}"
        for row in rows:
            if rule == "drop" or row != kept:
                usable[row] = False
                refused.append(Refusal(str(material_id[row]), "label", f"{span}: {done}", str(hashes[row])))
    return Settled(usable, values, refused, notes)


def apart(
    hashes: npt.NDArray[np.object_], usable: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]
) -> list[npt.NDArray[np.int64]]:
    """(rows,) of each content whose labels differ: `hashes`, `usable` and `values` are (n,) of all rows."""
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
        if name in (target, UNREAD, REPEATED, f"{target}{ERROR}"):
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
