"""Which entries of a source are one and the same, so that a campaign ranks each crystal once.

Three kinds of sameness, each including the ones before it: the identifier, the content (lattice and sites to 1e-6), the
crystal (whatever the cell and the setting). Crystals are compared within a reduced formula, a space group and a range
of volumes. That makes it fast, and keeps phases apart that pymatgen's StructureMatcher alone, with its wide tolerances,
takes for one: a distorted phase and the one it distorts, or one crystal at two pressures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources.base import Pulled, PulledFile, SourceError, without_duplicates
from atomsets_core.sources.catalogue import OWN, Catalogue, Lines, rewrite
from atomsets_core.storage import HashIndex, Store
from atomsets_core.structures import Refusal, Structures, same_crystal

Kind = Literal["id", "content", "structure"]

KINDS: tuple[Kind, ...] = ("id", "content", "structure")


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
