"""Which candidates are already in the training data: the same identifier, the same file content, the same crystal."""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import numpy.typing as npt
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from atomsets_core.catalogue import Catalogue
from atomsets_core.structures import Structures


def already_seen(candidates: Structures, training: Structures) -> npt.NDArray[np.object_]:
    """(n,) why each candidate counts as seen, "" where it doesn't.

    Compared are identifiers, content hashes, and, within a reduced formula, the crystals themselves with pymatgen's
    StructureMatcher (its default tolerances; primitive cells, volumes scaled), which finds other cells, other settings
    and other relaxations of one crystal.
    """
    ids, hashes = set(training.material_id), set(training.hashes)
    by_formula: dict[str, list[int]] = defaultdict(list)
    for row, formula in enumerate(training.formulas):
        by_formula[formula].append(row)
    reasons = np.full(len(candidates), "", dtype=object)
    crystals: dict[str, list[Structure]] = {}
    matcher = StructureMatcher()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in range(len(candidates)):
            formula = candidates.formulas[row]
            if candidates.material_id[row] in ids:
                reasons[row] = "its identifier is in the training data"
            elif candidates.hashes[row] in hashes:
                reasons[row] = "its structure is in the training data"
            elif formula in by_formula:
                known = crystals.setdefault(formula, [])
                if not known:
                    known.extend(training.take(by_formula[formula]).to_pymatgen())
                own = candidates.take([row]).to_pymatgen()[0]
                if any(matcher.fit(own, other) for other in known):
                    reasons[row] = "the same crystal is in the training data"
    return reasons


def already_seen_lines(candidates: Catalogue, training: Catalogue) -> npt.NDArray[np.object_]:
    """(n,) the same, where structures are read only of formulas that both have, and candidates block by block."""
    reasons = np.full(len(candidates), "", dtype=object)
    reasons[candidates.lines.material_id.isin(training.lines.material_id)] = "its identifier is in the training data"
    shared = candidates.lines.formulas.isin(training.lines.formulas) & (reasons == "")
    if not shared.any():
        return reasons
    known = training.take(training.lines.formulas.isin(candidates.lines.formulas[shared])).structures()
    rows = np.flatnonzero(shared)
    for positions, block, _ in candidates.take(shared).blocks():
        reasons[rows[positions]] = already_seen(block, known)
    return reasons
