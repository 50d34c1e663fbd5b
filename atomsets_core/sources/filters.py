"""Why candidates are left out: already in the training data (same identifier, content or crystal), or by a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from pymatgen.core import Element

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.catalogue import Catalogue, Lines
from atomsets_core.structures import CrystalsByFormula, Progress, ProgressLog, Structures


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
        self.crystals = CrystalsByFormula(structures)

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
    tell = ProgressLog("compared with the training data") if progress is None else progress
    reasons = np.full(len(candidates), "", dtype=object)
    reasons[candidates.lines.material_id.isin(training.lines.material_id)] = "its identifier is in the training data"
    shared = candidates.lines.formulas.isin(training.lines.formulas) & (reasons == "")
    if not shared.any():
        return reasons
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
        bounds: column -> smallest and largest value that pass; a missing value passes no bound.
        exclude_elements: symbols a candidate must not hold.
        only_elements: symbols a candidate may hold, and no others; any where none is given.

    Raises:
        SourceError: a column that isn't there or isn't numeric, or a symbol that is no element.
    """
    reasons = np.full(len(pulled.structures), "", dtype=object)
    for name, (low, high) in bounds.items():
        values = _numeric_column(pulled, name)
        for failed, reason in (
            (np.isnan(values), f"{name} is missing"),
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


def _numeric_column(pulled: Pulled[Structures] | Pulled[Lines], name: str) -> npt.NDArray[np.float64]:
    structures = pulled.structures
    if name == "n_atoms":
        return structures.n_atoms.astype(np.float64)
    if name == "n_elements":
        return structures.n_elements.astype(np.float64)
    if name not in pulled.columns:
        known = ["n_atoms", "n_elements", *pulled.columns.select_dtypes("number").columns]
        source = pulled.provenance.get("name", "the source")
        raise SourceError(f"filter on {name!r}: {source} has no such column; there are {', '.join(known)}")
    values = pd.to_numeric(pulled.columns[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if len(values) and np.isnan(values).all():
        raise SourceError(f"filter on {name!r}: the column holds no number")
    return values
