"""Which entries of a source are used, and why each other is not: a duplicate, unlabelled, already seen, filtered out.

Duplicates are of three kinds, each including the ones before it: the identifier, the content (lattice and sites to
1e-6), the crystal (whatever the cell and the setting). Crystals are compared within a reduced formula, a space group
and a range of volumes. That makes it fast, and keeps phases apart that pymatgen's StructureMatcher alone, with its wide
tolerances, takes for one: a distorted phase and the one it distorts, or one crystal at two pressures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pymatgen.core import Element

from atomsets_core.sources.base import Pulled, PulledFile, SourceError, without_duplicates
from atomsets_core.sources.catalogue import OWN, Catalogue, Lines, rewrite
from atomsets_core.sources.columns import REPEATED, UNREAD, Settled, apart, find_column, numbers_of, settle
from atomsets_core.sources.repeats import folded, one_each, unfolded
from atomsets_core.storage import HashIndex, Store
from atomsets_core.structures import (
    Compositions,
    CrystalsByFormula,
    Progress,
    ProgressLog,
    Refusal,
    Structures,
    same_crystal,
)
from atomsets_core.transforms import find_transform

Kind = Literal["id", "content", "structure"]

KINDS: tuple[Kind, ...] = ("id", "content", "structure")

LONGEST_SEARCH = 120.0
"""Seconds after which no more crystals with labels that differ are compared."""


def deduplicate(pulled: Pulled, by: Sequence[str], *, prefer: str | None = None, seconds: float = 600.0) -> Pulled:
    """One entry of each that are the same, and a refusal for each other one that says of which and by what.

    Args:
        pulled: from any source.
        by: any of "id", "content", "structure".
        prefer: column of which the entry with the lowest value is kept, e.g. "e_above_hull"; by default the first is.
        seconds: after which no more crystals are compared. `provenance["not_compared"]` counts those left out then.

    Raises:
        SourceError: an unknown kind, or no such column.
    """
    _check(by, prefer, list(pulled.columns))
    if "id" in by:
        pulled = without_duplicates(pulled)
    if "content" in by:
        order = _order(pulled, prefer)
        pulled = _keep(pulled, same_content(pulled.structures, order), "content", prefer)
    if "structure" in by:
        order = _order(pulled, prefer)
        found = same_crystal(pulled.structures, order, seconds=seconds)
        pulled = _keep(pulled, found.of, "structure", prefer)
        if found.not_compared:
            provenance = {**pulled.provenance, "not_compared": len(found.not_compared)}
            pulled = replace(pulled, provenance=provenance)
    return pulled


def deduplicate_file(
    store: Store, file: PulledFile, by: Sequence[str], *, prefer: str | None = None, seconds: float = 600.0
) -> PulledFile:
    """The same for a file, which is written anew where something goes; all of its sources leave identifiers unique.

    In memory are a line of each structure and, for "structure", those structures whose formula comes more than once.

    Args:
        store: of the file.
        file: from `pull_into`.
        by: any of "id", "content", "structure", as for `deduplicate`.
        prefer: column of which the entry with the lowest value is kept; by default the first is.
        seconds: after which no more crystals are compared.

    Raises:
        SourceError: an unknown kind, or no such column.
        StorageError: the file can't be written.
    """
    if not set(by) - {"id"} and prefer is None:
        _check(by, prefer, [])
        return file
    whole = Catalogue.open(store, file.name)
    _check(by, prefer, [name for name in whole.schema.names if name not in OWN])
    refused, provenance, catalogue = list(file.refused), dict(file.provenance), whole
    for kind in ("content", "structure"):
        if kind not in by:
            continue
        values = catalogue.columns([prefer])[prefer] if prefer else None
        order = _preferred(values, len(catalogue))
        if kind == "content":
            of = same_content(catalogue.lines, order)
        else:
            repeated = np.flatnonzero(pd.Series(catalogue.lines.formulas).duplicated(keep=False).to_numpy())
            part = catalogue.take(repeated).structures()
            place = np.full(len(catalogue), -1, dtype=np.int64)
            place[repeated] = np.arange(len(repeated))
            found = same_crystal(part, place[order[np.isin(order, repeated)]], seconds=seconds)
            of = np.arange(len(catalogue), dtype=np.int64)
            of[repeated] = repeated[found.of]
            if found.not_compared:
                provenance["not_compared"] = len(found.not_compared)
        refused += _refusals(catalogue.lines, of, kind, prefer)
        catalogue = catalogue.take(of == np.arange(len(of)))
    if len(catalogue) == len(whole):
        return replace(file, provenance=provenance)
    rewrite(catalogue)
    return replace(file, structures=len(catalogue), refused=refused, provenance=provenance)


def _check(by: Sequence[str], prefer: str | None, columns: Sequence[str]) -> None:
    if wrong := [kind for kind in by if kind not in KINDS]:
        raise SourceError(f"deduplicate: unknown {wrong[0]!r}; there are {', '.join(KINDS)}")
    if prefer is not None and prefer not in columns:
        raise SourceError(f"deduplicate: no column {prefer!r} to prefer by; found {', '.join(columns)}")


def same_content(structures: Structures | Lines, order: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """(n,) row of the first in `order` with the same content hash; linear in n."""
    order = np.arange(len(structures)) if order is None else order
    index = HashIndex(structures.hashes)
    first = np.empty(len(index), dtype=np.int64)
    first[index.inverse[order[::-1]]] = order[::-1]  # of equal ones the one written last stays
    return first[index.inverse]


def _order(pulled: Pulled, prefer: str | None) -> npt.NDArray[np.int64]:
    return _preferred(None if prefer is None else pulled.columns[prefer], len(pulled.structures))


def _preferred(values: pd.Series | None, n: int) -> npt.NDArray[np.int64]:
    """Rows, those to be kept first."""
    if values is None:
        return np.arange(n)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.argsort(numbers, kind="stable").astype(np.int64)  # NaN comes last


def _keep(pulled: Pulled, of: npt.NDArray[np.int64], kind: Kind, prefer: str | None) -> Pulled:
    refused = _refusals(pulled.structures, of, kind, prefer)
    if not refused:
        return pulled
    kept = np.flatnonzero(of == np.arange(len(of)))
    return replace(
        pulled,
        structures=pulled.structures.take(kept),
        columns=pulled.columns.iloc[kept].reset_index(drop=True),
        refused=[*pulled.refused, *refused],
    )


def _refusals(
    structures: Structures | Lines, of: npt.NDArray[np.int64], kind: Kind, prefer: str | None
) -> list[Refusal]:
    names, hashes = structures.material_id, structures.hashes
    what = "the same content" if kind == "content" else "the same crystal"
    why = "which comes first" if prefer is None else f"which has the lower {prefer}"
    return [
        Refusal(str(names[row]), "pull", f"duplicate of {names[of[row]]}, {why}: {what}", str(hashes[row]))
        for row in np.flatnonzero(of != np.arange(len(of)))
    ]


def usable_labels(pulled: Pulled[Any], target: str, transform: str) -> tuple[npt.NDArray[np.bool_], list[Refusal]]:
    """Which structures have a label to learn from, and a refusal for each other one.

    Args:
        pulled: n structures and their columns.
        target: column of the labels.
        transform: of the target, which says what values it accepts.

    Returns:
        (n,) bool which can be used, and the refusals.

    Raises:
        SourceError: there is no such column, or not one usable label in it.
        ValueError: an unknown transform.
    """
    scale = find_transform(transform)
    column = _column(pulled, target)
    values, unread = numbers_of(pulled.columns, column)
    cells = pulled.columns[column]
    refused = []
    usable = np.isfinite(values) & scale.accepts(values)
    for row in np.flatnonzero(~usable):
        if unread[row]:
            reason = f"{target} {unread[row]}"
        elif np.isnan(values[row]):
            cell = cells.iloc[row]
            reason = f"{target} is not a number: {cell!r}" if isinstance(cell, str) else f"{target} is missing"
        elif np.isinf(values[row]):
            reason = f"{target} is infinite"
        else:
            reason = f"{target} is {values[row]:g}: {scale.name} needs a {scale.needed} value"
        refused.append(
            Refusal(str(pulled.structures.material_id[row]), "label", reason, str(pulled.structures.hashes[row]))
        )
    if not usable.any():
        raise SourceError(
            f"none of the {len(values)} values of {target!r} can be learned from: {refused[0].reason}"
            if refused
            else f"no structure with a value of {target!r}"
        )
    return usable, refused


def label_values(pulled: Pulled[Any], target: str) -> npt.NDArray[np.float64]:
    """(n,) float64 labels, NaN where there is none or it can't be read.

    Raises:
        SourceError: there is no such column.
    """
    return numbers_of(pulled.columns, _column(pulled, target))[0]


def _column(pulled: Pulled[Any], target: str) -> str:
    """The column that is meant, see `find_column`.

    Raises:
        SourceError: there is none, or more than one.
    """
    column = find_column(pulled.columns.columns, target)
    if column is None:
        numeric = list(pulled.columns.select_dtypes("number").columns)
        others = [name for name in pulled.columns.columns if name not in numeric and name not in (UNREAD, REPEATED)]
        beside = f"; others are {others}" if others else ""
        raise SourceError(
            f"no column {target!r} in {pulled.provenance.get('name', 'the source')}; numeric are {numeric}{beside}"
        )
    return column


def usable_classes(pulled: Pulled, target: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.object_], list[Refusal]]:
    """Which rows have a class to learn from, the classes, and a refusal for each other row.

    Whole numbers count as classes whether they are written 1 or 1.0.

    Args:
        pulled: n structures and their columns.
        target: column of the classes.

    Returns:
        (n,) bool which can be used, (n,) the classes as int, bool or str, None where there is none, and the refusals.

    Raises:
        SourceError: there is no such column, or not two classes in it.
    """
    column = find_column(pulled.columns.columns, target)
    if column is None:
        raise SourceError(
            f"no column {target!r} in {pulled.provenance.get('name', 'the source')}; there are {list(pulled.columns)}"
        )
    raw = pulled.columns[column]
    missing = raw.isna().to_numpy(dtype=bool)
    values = np.array([None] * len(raw), dtype=object)
    for row in np.flatnonzero(~missing):
        value = raw.iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        values[row] = int(value) if isinstance(value, float) and value.is_integer() else value
    if len({value for value in values if value is not None}) < 2:
        raise SourceError(f"{target!r} does not hold two classes")
    refused = [
        Refusal(
            str(pulled.structures.material_id[i]), "label", f"{target} is missing", str(pulled.structures.hashes[i])
        )
        for i in np.flatnonzero(missing)
    ]
    return ~missing, values, refused


def settled_labels(
    pulled: Pulled[Any],
    target: str,
    transform: str,
    rule: str,
    crystals: Any,
    columns: Callable[[], pd.DataFrame] | None = None,
) -> Settled:
    """The label that each structure is learned with, those of later rows of its identifier included.

    Args:
        pulled: n structures, or their lines, with the column of the labels.
        target: that column.
        transform: which labels are usable depends on it.
        rule: what becomes of labels of one material that differ, see `settle`; by "keep" the first of an identifier
            is learned.
        crystals: the n structures, compositions or their catalogue, to find one crystal in other cells.
        columns: gives n rows of all columns, which may say why labels differ; those of `pulled` by default.

    Raises:
        SourceError: as `usable_labels`.
        ValueError: an unknown rule or transform.
    """
    of, frame = unfolded(pulled.columns)
    n = len(pulled.columns)
    lines = pulled.structures.lines if isinstance(pulled.structures, Catalogue) else pulled.structures
    wide = Pulled(lines.take(of) if len(of) > n else lines, frame, [], pulled.provenance)
    usable, unlabelled = usable_labels(wide, target, transform)
    values = label_values(wide, target)
    keys = crystal_keys(crystals, usable[:n], values[:n])[of]
    beside = frame
    if columns is not None and pd.Series(keys).duplicated().any():
        beside = unfolded(columns())[1]
    ids = wide.structures.material_id
    settled = settle(ids, wide.structures.hashes, usable, values, beside, target, rule, keys)
    refused = [*unlabelled, *settled.refused]
    if len(of) == n:
        return replace(settled, refused=refused)
    kept, labels = folded(of, n, settled.usable, settled.values)
    return Settled(kept, labels, one_each(refused, ids[n:], ids[:n][kept]), settled.notes)


def crystal_keys(
    structures: Any, usable: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.object_]:
    """(n,) content hashes; of a crystal that comes in another cell or setting, that of its first entry.

    Compared are only structures of formulas whose labels differ, for at most `LONGEST_SEARCH` seconds: what agrees
    needs no rule.

    Args:
        structures: n structures, compositions or a catalogue.
        usable: (n,) which of them have a label.
        values: (n,) the labels.
    """
    keys = np.array(structures.hashes, dtype=object)
    if isinstance(structures, Compositions):
        return keys
    formulas = np.asarray(
        (structures.lines if isinstance(structures, Catalogue) else structures).formulas, dtype=object
    )
    groups = apart(formulas, usable, values)
    if not groups:
        return keys
    rows = np.sort(np.concatenate(groups))
    part = structures.take(rows)
    found = same_crystal(part.structures() if isinstance(part, Catalogue) else part, seconds=LONGEST_SEARCH)
    keys[rows] = keys[rows[found.of]]
    return keys


def already_seen(candidates: Structures, training: Structures) -> npt.NDArray[np.object_]:
    """(n,) why each candidate counts as seen, "" where it doesn't.

    Compared are identifiers, content hashes, and the crystals themselves by `same_crystal`: another cell, setting or
    relaxation of a training crystal is seen, a distorted phase of it is not.
    """
    return _Training(training).reasons(candidates)


class _Training:
    """What candidates are compared with, the same for all blocks of them."""

    def __init__(self, structures: Structures) -> None:
        self.ids, self.hashes = set(structures.material_id), set(structures.hashes)
        self._structures = structures

    @cached_property
    def crystals(self) -> CrystalsByFormula:
        """Needed only where neither identifier nor content tells."""
        return CrystalsByFormula(self._structures)

    def reasons(
        self, candidates: Structures, tell: Progress | None = None, done: int = 0, total: int = 0
    ) -> npt.NDArray[np.object_]:
        """Why each counts as seen; `tell` hears of each, `done` of `total` having gone before."""
        reasons = np.full(len(candidates), "", dtype=object)
        for row in range(len(candidates)):
            if tell is not None:
                tell(done + row, total)
            if candidates.material_id[row] in self.ids:
                reasons[row] = "its identifier is in the training data"
            elif candidates.hashes[row] in self.hashes:
                reasons[row] = "its structure is in the training data"
            elif self.crystals.find(candidates, row) is not None:
                reasons[row] = "the same crystal is in the training data"
        return reasons


def already_seen_lines(
    candidates: Catalogue, training: Catalogue, progress: Progress | None = None
) -> npt.NDArray[np.object_]:
    """(n,) why each candidate counts as seen; read are only structures of formulas that both have, block by block.

    Args:
        candidates: n of them.
        training: what they are compared with.
        progress: is told how many of those to be compared are done; by default the log is told now and then.
    """
    reasons = np.full(len(candidates), "", dtype=object)
    reasons[candidates.lines.material_id.isin(training.lines.material_id)] = "its identifier is in the training data"
    shared = candidates.lines.formulas.isin(training.lines.formulas) & (reasons == "")
    if not shared.any():
        return reasons
    tell = ProgressLog("compared with the training data") if progress is None else progress
    known = _Training(training.take(training.lines.formulas.isin(candidates.lines.formulas[shared])).structures())
    rows, done = np.flatnonzero(shared), 0
    for positions, block, _ in candidates.take(shared).blocks():
        reasons[rows[positions]] = known.reasons(block, tell, done, len(rows))
        done += len(block)
    tell(len(rows), len(rows))
    return reasons


def filter_reasons(
    pulled: Pulled[Structures] | Pulled[Lines],
    bounds: Mapping[str, tuple[float | None, float | None]],
    exclude_elements: Sequence[str] = (),
    only_elements: Sequence[str] = (),
) -> npt.NDArray[np.object_]:
    """(n,) the first filter each structure fails, as a short sentence; "" where it passes all.

    Args:
        pulled: n structures and their columns; n_atoms and n_elements are known besides.
        bounds: column -> smallest and largest value that pass; a missing value passes no bound, one that can't be read
            is left to `unread_filters`.
        exclude_elements: symbols a candidate must not hold.
        only_elements: symbols a candidate may hold, and no others; any where none is given.

    Raises:
        SourceError: a column that isn't there or isn't numeric, or a symbol that is no element.
    """
    reasons = np.full(len(pulled.structures), "", dtype=object)
    for name, (low, high) in bounds.items():
        values, unread = _numeric_column(pulled, name)
        for failed, reason in (
            (np.isnan(values) & (unread == ""), f"{name} is missing"),
            (values < low if low is not None else np.zeros(len(values), bool), f"{name} below {low}"),
            (values > high if high is not None else np.zeros(len(values), bool), f"{name} above {high}"),
        ):
            reasons[failed & (reasons == "")] = reason
    for symbol in exclude_elements:
        if not Element.is_valid_symbol(symbol):
            raise SourceError(f"exclude_elements: {symbol!r} is not an element")
        reasons[pulled.structures.holds(Element(symbol).Z) & (reasons == "")] = f"holds {symbol}"
    if only_elements:
        for symbol in only_elements:
            if not Element.is_valid_symbol(symbol):
                raise SourceError(f"only_elements: {symbol!r} is not an element")
        others = np.setdiff1d(pulled.structures.elements, [Element(symbol).Z for symbol in only_elements])
        for number in others:
            symbol = Element.from_Z(int(number)).symbol
            reasons[pulled.structures.holds(int(number)) & (reasons == "")] = f"holds {symbol}"
    return reasons


def unread_filters(pulled: Pulled[Structures] | Pulled[Lines], names: Iterable[str]) -> dict[int, Refusal]:
    """Row -> refusal of each structure with a cell that a filter needs and that is no number.

    It is not known whether such a structure passes: it has failed, it was not filtered out.

    Args:
        pulled: n structures and their columns.
        names: columns that are filtered on; n_atoms and n_elements can always be read.

    Raises:
        SourceError: as `filter_reasons`.
    """
    found: dict[int, Refusal] = {}
    for name in names:
        _, unread = _numeric_column(pulled, name)
        for row in map(int, np.flatnonzero(unread != "")):
            found.setdefault(
                row,
                Refusal(
                    str(pulled.structures.material_id[row]),
                    "filter",
                    f"{name} {unread[row]}",
                    str(pulled.structures.hashes[row]),
                ),
            )
    return found


def _numeric_column(
    pulled: Pulled[Structures] | Pulled[Lines], name: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.object_]]:
    """(n,) the numbers of a column and (n,) why each that can't be read isn't."""
    structures = pulled.structures
    if name in ("n_atoms", "n_elements"):
        counts = structures.n_atoms if name == "n_atoms" else structures.n_elements
        return counts.astype(np.float64), np.full(len(counts), "", dtype=object)
    column = find_column(pulled.columns.columns, name)
    if column is None:
        known = ["n_atoms", "n_elements", *pulled.columns.select_dtypes("number").columns]
        source = pulled.provenance.get("name", "the source")
        raise SourceError(f"filter on {name!r}: {source} has no such column; there are {', '.join(known)}")
    values, unread = numbers_of(pulled.columns, column)
    if len(values) and np.isnan(values).all():
        raise SourceError(f"filter on {name!r}: the column holds no number")
    return values, unread
