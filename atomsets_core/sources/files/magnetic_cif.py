"""Magnetic moments of a magnetic CIF (MAGNDATA's .mcif), as columns beside the structure.

Atoms come of the magnetic operations and centrings without their time reversal, and moments don't tell atoms apart for
any network, so that a magnetic cell may hold the same crystal several times. Moments are kept as text for whoever wants
them, with the largest and the sum as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymatgen.core import Structure

from atomsets_core.structures import FloatArray

LABEL = "_atom_site_moment_label"

AXES = tuple(f"_atom_site_moment_crystalaxis_{axis}" for axis in "xyz")

SAME_PLACE = 2e-3
"""Difference of fractional coordinates up to which a place is the same: some files have three decimals only."""


def moment_columns(structure: Structure, data: Mapping[str, Any], operations: Sequence[Any]) -> dict[str, Any]:
    """Columns `moments`, `max_moment` and `net_moment` of a block that lists moments.

    Args:
        structure: of n sites, which carry the labels of the block.
        data: the block, as pymatgen's parser holds it.
        operations: pymatgen's MagSymmOp, each rotation, translation and +1 or -1 for the time.

    Returns:
        `moments` is JSON, n lists of three Cartesian components in Bohr magnetons; `max_moment` is the longest of them
        and `net_moment` the length of their sum in the cell. `moments_unread` says why there are none.
    """
    try:
        moments = _moments(structure, data, operations)
    except (KeyError, TypeError, ValueError) as error:
        return {"moments_unread": f"moments can't be read: {error}"}
    longest = float(np.linalg.norm(moments, axis=1).max(initial=0.0))
    return {
        "moments": json.dumps((np.round(moments, 6) + 0.0).tolist()),
        "max_moment": longest,
        "net_moment": float(np.linalg.norm(moments.sum(axis=0))),
    }


def _moments(structure: Structure, data: Mapping[str, Any], operations: Sequence[Any]) -> FloatArray:
    """(n, 3) Cartesian moments in Bohr magnetons, zero for sites that list none.

    Raises:
        ValueError: a moment isn't made of numbers, or is given in other axes than those of the crystal.
    """
    if not all(axis in data for axis in AXES):
        raise ValueError("they aren't given along the axes of the crystal")
    cell = structure.lattice.matrix
    along = cell / np.linalg.norm(cell, axis=1)[:, None]
    components = np.array([[_number(text) for text in data[axis]] for axis in AXES]).T
    listed = dict(zip(data[LABEL], components @ along, strict=True))
    first: dict[str, npt.NDArray[np.float64]] = {}
    names = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
    for label, *place in zip(data["_atom_site_label"], *(data[name] for name in names), strict=True):
        first.setdefault(label, np.array([_number(text) for text in place]))
    found = np.zeros((len(structure), 3))
    for row, site in enumerate(structure):
        if site.label in listed:
            found[row] = _moved(listed[site.label], first[site.label], site.frac_coords, operations, cell)
    return found


def _moved(moment: FloatArray, place: FloatArray, target: FloatArray, operations: Sequence[Any], cell: Any) -> Any:
    """The moment of a site at `place`, moved to `target` by the operation that leads there.

    Raises:
        ValueError: none does.
    """
    for operation in operations:
        rotation = np.asarray(operation.rotation_matrix)
        away = rotation @ place + np.asarray(operation.translation_vector) - target
        if np.abs(away - np.round(away)).max() < SAME_PLACE:
            # Rows of the cell are its vectors, so that a fractional rotation turns Cartesian columns by this.
            turn = cell.T @ rotation @ np.linalg.inv(cell.T)
            # A moment is an axial vector, which an inversion leaves and time reversal turns round.
            return np.linalg.det(rotation) * getattr(operation, "time_reversal", 1) * (turn @ moment)
    raise ValueError("no operation leads from a listed site to its images")


def _number(text: str) -> float:
    return float(str(text).split("(")[0])
