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
from atomsets_core.sources.catalogue import Catalogue, Lines, rewrite
from atomsets_core.sources.columns import REPEATED, UNREAD, Settled, apart, find_column, numbers_of, settle
from atomsets_core.sources.repeats import folded, one_each, unfolded
from atomsets_core.storage import HashIndex, Store
from atomsets_core.structures import (
    COMPOSITIONS,
    STRUCTURES,
    Compositions,
    CrystalsByFormula,
    IntArray,
    Progress,
    ProgressLog,
    Refusal,
    Structures,
    same_crystal,
)
from atomsets_core.transforms import find_transform

Kind = Literal["id", "content", "structure"]

KINDS: tuple[Kind, ...] = ("id", "content", "structure")

SAME_COMPOSITION = "its composition is in the training data"

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
    if "structure" in by and isinstance(pulled.structures, Compositions):
        # two compositions that are the same have the same content: there is nothing more to compare
        pulled = deduplicate(pulled, ["content"], prefer=prefer)
    elif "structure" in by:
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
    _check(by, prefer, [name for name in whole.schema.names if name not in whole.own])
    refused, provenance, catalogue = list(file.refused), dict(file.provenance), whole
    for kind in ("content", "structure"):
        if kind not in by:
            continue
        values = catalogue.columns([prefer])[prefer] if prefer else None
        order = _preferred(values, len(catalogue))
        if kind == "content" or whole.kind == COMPOSITIONS:
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
    structures: Structures | Compositions | Lines, of: npt.NDArray[np.int64], kind: Kind, prefer: str | None
) -> list[Refusal]:
    names, hashes = structures.material_id, structures.hashes
    what = "the same content" if kind == "content" else "the same crystal"
    if _kind(structures) == COMPOSITIONS:
        what = "the same composition"
    why = "which comes first" if prefer is None else f"which has the lower {prefer}"
    return [
        Refusal(str(names[row]), "pull", f"duplicate of {names[of[row]]}, {why}: {what}", str(hashes[row]))
        for row in np.flatnonzero(of != np.arange(len(of)))
    ]


def _kind(materials: Structures | Compositions | Lines) -> str:
    if isinstance(materials, Lines):
        return materials.kind
    return COMPOSITIONS if isinstance(materials, Compositions) else STRUCTURES


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
    alone = REPEATED not in pulled.columns.columns
    of, frame = (np.arange(len(pulled.columns)), pulled.columns) if alone else unfolded(pulled.columns)
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
    if isinstance(structures, Compositions) or (isinstance(structures, Catalogue) and structures.kind == COMPOSITIONS):
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


def already_seen(candidates: Structures | Compositions, training: Structures | Compositions) -> npt.NDArray[np.object_]:
    """(n,) why each candidate counts as seen, "" where it doesn't.

    Compared are identifiers, content hashes, and the crystals themselves by `same_crystal`: another cell, setting or
    relaxation of a training crystal is seen, a distorted phase of it is not. Where either has formulas alone, what has
    the reduced composition of a training material is seen, and nothing else: rows of tables are often just numbered.
    """
    if isinstance(candidates, Structures) and isinstance(training, Structures):
        return _Training(training).reasons(candidates)
    known = set(training.formulas)
    return np.array([SAME_COMPOSITION if name in known else "" for name in candidates.formulas], dtype=object)


class _Training:
    """What candidates are compared with, the same for all blocks of them."""

    def __init__(self, structures: Structures) -> None:
        self.ids = {str(name): row for row, name in reversed(list(enumerate(structures.material_id)))}
        self.hashes = {str(digest): row for row, digest in reversed(list(enumerate(structures.hashes)))}
        self._structures = structures

    @cached_property
    def crystals(self) -> CrystalsByFormula:
        """Needed only where neither identifier nor content tells."""
        return CrystalsByFormula(self._structures)

    def reasons(
        self, candidates: Structures, tell: Progress | None = None, done: int = 0, total: int = 0
    ) -> npt.NDArray[np.object_]:
        """Why each counts as seen; `tell` hears of each, `done` of `total` having gone before."""
        return self.seen(candidates, tell, done, total)[0]

    def seen(
        self, candidates: Structures, tell: Progress | None = None, done: int = 0, total: int = 0
    ) -> tuple[npt.NDArray[np.object_], IntArray]:
        """The same, with the row of the training structure that each is; -1 for those that aren't seen."""
        reasons, rows = np.full(len(candidates), "", dtype=object), np.full(len(candidates), -1, dtype=np.int64)
        for row in range(len(candidates)):
            if tell is not None:
                tell(done + row, total)
            name, digest = str(candidates.material_id[row]), str(candidates.hashes[row])
            if name in self.ids:
                reasons[row], rows[row] = "its identifier is in the training data", self.ids[name]
            elif digest in self.hashes:
                reasons[row], rows[row] = "its structure is in the training data", self.hashes[digest]
            elif (found := self.crystals.find(candidates, row)) is not None:
                reasons[row], rows[row] = "the same crystal is in the training data", found
        return reasons, rows


def already_seen_lines(
    candidates: Catalogue, training: Catalogue, progress: Progress | None = None
) -> npt.NDArray[np.object_]:
    """(n,) why each candidate counts as seen; see `seen_lines`."""
    return seen_lines(candidates, training, progress)[0]


def seen_lines(
    candidates: Catalogue, training: Catalogue, progress: Progress | None = None
) -> tuple[npt.NDArray[np.object_], IntArray]:
    """Which candidates are in the training data; read are only structures of formulas that both have, block by block.

    Args:
        candidates: n of them.
        training: what they are compared with.
        progress: is told how many of those to be compared are done; by default the log is told now and then.

    Returns:
        (n,) why each counts as seen, "" where it doesn't, and (n,) int64 the position of the training structure that it
        is, -1 where it isn't seen.
    """
    reasons = np.full(len(candidates), "", dtype=object)
    if COMPOSITIONS in (candidates.lines.kind, training.lines.kind):
        which = _first_place(candidates.lines.formulas, training.lines.formulas)
        reasons[which >= 0] = SAME_COMPOSITION
        return reasons, which
    which = _first_place(candidates.lines.material_id, training.lines.material_id)
    reasons[which >= 0] = "its identifier is in the training data"
    shared = candidates.lines.formulas.isin(training.lines.formulas) & (reasons == "")
    if not shared.any():
        return reasons, which
    tell = ProgressLog("compared with the training data") if progress is None else progress
    alike = np.flatnonzero(training.lines.formulas.isin(candidates.lines.formulas[shared]))
    known = _Training(training.take(alike).structures())
    rows, done = np.flatnonzero(shared), 0
    for positions, block, _ in candidates.take(shared).blocks():
        reasons[rows[positions]], found = known.seen(block, tell, done, len(rows))
        which[rows[positions]] = np.where(found >= 0, alike[found], -1)
        done += len(block)
    tell(len(rows), len(rows))
    return reasons, which


def _first_place(names: Any, known: Any) -> IntArray:
    """(n,) int64 the first position of each name among the known ones, -1 where it isn't."""
    places = pd.Series(np.arange(len(known)), index=pd.Index(known))
    return np.array(places[~places.index.duplicated()].reindex(names, fill_value=-1), dtype=np.int64)


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
    if name == "n_atoms" and _kind(structures) == COMPOSITIONS:
        raise SourceError("filter on 'n_atoms': formulas have no cell of atoms; n_elements counts their elements")
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
