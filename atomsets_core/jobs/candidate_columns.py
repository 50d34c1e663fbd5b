"""Numbers of candidates that nobody predicts: columns of their source, and what a crystal or formula has of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pymatgen.core import Element

from atomsets_core.sources import REPEATED, UNREAD, Catalogue, Pulled, SourceError, find_column, numbers_of
from atomsets_core.structures import COMPOSITIONS

FloatArray = npt.NDArray[np.float64]

COMPUTED = {"density": "g/cm³", "n_atoms": "", "n_elements": ""}
"""Columns that every structure has, with their units, used where the source has none of that name."""

OF_FORMULAS = ("n_elements",)
"""Those of them that a formula has, too."""

GRAMS = 1.66053906660
"""Unified atomic mass units per cubic Å, in g/cm³ (CODATA 2018)."""


def computed(kind: str) -> tuple[str, ...]:
    """Names of the columns that materials have of themselves, by what they are, "structures" or "compositions"."""
    return OF_FORMULAS if kind == COMPOSITIONS else tuple(COMPUTED)


def source_numbers(pulled: Pulled[Any], name: str) -> tuple[FloatArray, npt.NDArray[np.object_]] | None:
    """(n,) numbers of a column of the source and (n,) why a cell isn't one; None where there is no such column.

    Args:
        pulled: n materials or their lines, with the column.
        name: of it, see `find_column`.

    Raises:
        SourceError: no cell of the column holds a number.
    """
    column = find_column(pulled.columns.columns, name)
    if column is None:
        return None
    values, unread = numbers_of(pulled.columns, column)
    if len(values) and np.isnan(values).all():
        reasons = [text for text in unread if text]
        why = f": {column} {reasons[0]}" if reasons else ""
        raise SourceError(f"no candidate has a number in the column {column!r}{why}")
    return values, unread


def candidate_numbers(candidates: Catalogue, name: str) -> tuple[FloatArray, npt.NDArray[np.object_]]:
    """(n,) numbers of a column of the candidates, NaN where there is none, and (n,) why a cell can't be read.

    Args:
        candidates: n of them.
        name: of the column; density (g/cm³), n_atoms and n_elements there are always, of formulas n_elements alone.

    Raises:
        SourceError: there is no such column, or it holds no number.
    """
    # With all names where this very one is missing: "K" may mean "K (GPa)".
    meant = find_column([one for one in candidates.schema.names if one not in candidates.own], name)
    found = source_numbers(candidates.pulled([meant or name], "candidates"), name)
    if found is not None:
        return found
    if name not in computed(candidates.kind):
        raise SourceError(f"{name!r} is no property of this campaign, and the candidates have no such column")
    values = densities(candidates) if name == "density" else getattr(candidates.lines, name).astype(np.float64)
    return values, np.full(len(values), "", dtype=object)


def candidate_column(candidates: Catalogue, name: str) -> FloatArray:
    """(n,) numbers of a column of the candidates, NaN where there is none; see `candidate_numbers`.

    Raises:
        SourceError: there is no such column, or it holds no number.
    """
    return candidate_numbers(candidates, name)[0]


def columns_there(candidates: Catalogue) -> list[str]:
    """Names of all columns that candidates have, those that they have of themselves last."""
    held = [name for name in candidates.schema.names if name not in {*candidates.own, UNREAD, REPEATED}]
    return list(dict.fromkeys([*held, *computed(candidates.kind)]))


def densities(candidates: Catalogue) -> FloatArray:
    """(n,) mass densities of structures, g/cm³; sites that are partly occupied count for that part."""
    mass = np.array([0.0] + [float(Element.from_Z(z).atomic_mass) for z in range(1, 119)])
    found = np.empty(len(candidates))
    for positions, block, _ in candidates.blocks():
        share = np.ones(len(block.numbers)) if block.occupancy is None else block.occupancy
        weight = np.add.reduceat(mass[block.numbers] * share, block.offsets[:-1])
        found[positions] = GRAMS * weight / np.abs(np.linalg.det(block.lattice))
    return found
