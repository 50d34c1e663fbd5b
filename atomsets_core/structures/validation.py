"""What makes a structure unusable, one clear reason for each refusal."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from pymatgen.core import Element

from atomsets_core.structures.batch import FloatArray, IntArray, Refusal, Structures
from atomsets_core.structures.formulas import LARGEST_ATOMIC_NUMBER


def partial_occupancy(structures: Structures, i: int) -> str:
    """Why a disordered structure has no graph."""
    rows = slice(structures.offsets[i], structures.offsets[i + 1])
    row = int(np.argmax(structures.shares[rows] != 1))
    symbol, share = Element.from_Z(int(structures.numbers[rows][row])).symbol, structures.shares[rows][row]
    return f"partial occupancy ({symbol}:{share:.3g}): only ordered structures have a graph"


def check_occupancy(shares: FloatArray, lengths: IntArray, sites: IntArray, reasons: dict[int, str]) -> None:
    """A reason for each row whose occupancies are not one number above 0 and up to 1 for each site."""
    for row in np.flatnonzero(lengths != sites):
        reasons.setdefault(int(row), f"{lengths[row]} occupancies for {sites[row]} sites")
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for entry in np.flatnonzero(~((shares > 0) & (shares <= 1))):
        reasons.setdefault(int(owner[entry]), f"an occupancy is {shares[entry]:g}; it must be above 0 and up to 1")


def validate(batch: Structures) -> tuple[Structures, list[Refusal]]:
    """The structures that describe a crystal, and one reason for each that doesn't.

    Refused are: NaN or infinite lattice or coordinates, a cell without volume, an atomic number outside 1..118.
    """
    mask, refusals = check(batch)
    return (batch if mask.all() else batch.take(np.flatnonzero(mask))), refusals


def check(batch: Structures) -> tuple[npt.NDArray[np.bool_], list[Refusal]]:
    """(n,) bool, which structures are usable, and a refusal with its reason for each other one."""
    n = len(batch)
    owner = np.repeat(np.arange(n), batch.n_atoms)
    with np.errstate(invalid="ignore", over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = np.abs(np.linalg.det(np.nan_to_num(batch.lattice, posinf=0, neginf=0)))
        size = np.prod(np.linalg.norm(batch.lattice, axis=2), axis=1)
    bad_cell = ~np.asarray(np.isfinite(batch.lattice).all(axis=(1, 2)))
    flat_cell = ~bad_cell & ~(volume > 1e-6 * size)
    bad_site = np.zeros(n, dtype=bool)
    bad_site[owner[~np.isfinite(batch.frac).all(axis=1)]] = True
    wrong = np.asarray((batch.numbers < 1) | (batch.numbers > LARGEST_ATOMIC_NUMBER))
    bad_element = np.zeros(n, dtype=bool)
    bad_element[owner[wrong]] = True
    no_sites = batch.n_atoms == 0
    refusals = []
    for i in np.flatnonzero(bad_cell | flat_cell | bad_site | bad_element | no_sites):
        if no_sites[i]:
            reason = "it has no sites"
        elif bad_cell[i]:
            reason = "the lattice has a NaN or infinite entry, a negative length, or angles that close no cell"
        elif flat_cell[i]:
            reason = f"the cell has no volume ({volume[i]:.3g} cubic Angstrom)"
        elif bad_site[i]:
            reason = "a coordinate is NaN or infinite"
        else:
            sites = batch.numbers[batch.offsets[i] : batch.offsets[i + 1]]
            reason = f"unknown element: atomic number {int(sites[(sites < 1) | (sites > LARGEST_ATOMIC_NUMBER)][0])}"
        refusals.append(Refusal(str(batch.material_id[i]), "validate", reason))
    return ~(bad_cell | flat_cell | bad_site | bad_element | no_sites), refusals
