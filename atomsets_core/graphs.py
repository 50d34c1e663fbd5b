"""Neighbour lists under periodic boundaries, joined into one flat graph for a whole batch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pymatgen.optimization.neighbors import find_points_in_spheres

from atomsets_core.structures import FloatArray, IntArray, Refusal, Structures

SELF_TOLERANCE = 1e-8
"""Angstrom: an atom is its own neighbour only through another image, farther than this."""

OVERLAP = 0.3
"""Angstrom: two atoms nearer than this are a broken structure (the shortest bond, H-H, has 0.74)."""

DENSEST = 2.0
"""Atoms per cubic Angstrom above which a cell is refused unseen (diamond has 0.18)."""

EMPTIEST = 1e7
"""Cells of cutoff size in the box around the atoms above which a cell is refused unseen: it is nearly all vacuum."""

_PERIODIC = np.array([1, 1, 1], dtype=np.int64)


@dataclass(frozen=True)
class CrystalGraphs:
    """Flat graph of a batch of structures.

    Attributes:
        numbers: (n_atoms_total,) int64, atomic numbers.
        n_atoms: (n,) int64, atoms of each structure.
        n_bonds: (n,) int64, directed bonds of each structure.
        centre: (n_bonds_total,) int64, row of the centre atom in the batch, ascending.
        neighbour: (n_bonds_total,) int64, row of the neighbour atom in the batch.
        distance: (n_bonds_total,) float32, Angstrom.
    """

    numbers: IntArray
    n_atoms: IntArray
    n_bonds: IntArray
    centre: IntArray
    neighbour: IntArray
    distance: npt.NDArray[np.float32]


def neighbours(
    lattice: FloatArray, frac: FloatArray, cutoff: float
) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Directed neighbour list of one structure, images of the atom itself included.

    Args:
        lattice: (3, 3) row vectors, Angstrom.
        frac: (n_atoms, 3) fractional coordinates.
        cutoff: Angstrom, inclusive.

    Returns:
        centre (ascending), neighbour and distance (Angstrom), each (n_bonds,).
    """
    cell = np.ascontiguousarray(lattice, dtype=np.float64)
    cart = np.ascontiguousarray((frac % 1.0) @ cell)
    centre, neighbour, _, distance = find_points_in_spheres(
        cart, cart, r=float(cutoff), pbc=_PERIODIC, lattice=cell, tol=SELF_TOLERANCE
    )
    keep = (centre != neighbour) | (distance > SELF_TOLERANCE)
    return centre[keep], neighbour[keep], distance[keep]


def graph_batches(
    structures: Structures, cutoff: float, max_bonds: int, refused: list[Refusal]
) -> Iterator[tuple[IntArray, CrystalGraphs]]:
    """Graphs of the structures in batches of at most `max_bonds` bonds (one structure at least).

    Args:
        structures: the batch.
        cutoff: neighbour radius, Angstrom.
        max_bonds: directed bonds after which a batch is closed.
        refused: gets a row for each structure with overlapping atoms or an atom without neighbours.

    Yields:
        Row numbers of the structures in the batch, and their graph.
    """
    kernel = neighbour_kernel()
    if kernel is None:
        yield from _batches_one_by_one(structures, cutoff, max_bonds, refused)
    else:
        yield from _batches_compiled(kernel, structures, cutoff, max_bonds, refused)


@cache
def neighbour_kernel() -> Any:
    """The module of compiled neighbour lists; None without numba."""
    try:
        return importlib.import_module("atomsets_core.neighbour_kernel")
    except ImportError:
        return None


def _batches_compiled(
    kernel: Any, structures: Structures, cutoff: float, max_bonds: int, refused: list[Refusal]
) -> Iterator[tuple[IntArray, CrystalGraphs]]:
    n = len(structures)
    skip = _are_hopeless(structures.lattice, structures.n_atoms, cutoff)
    columns = [np.ascontiguousarray(structures.lattice), np.ascontiguousarray(structures.frac), structures.offsets]
    n_bonds, status, culprit = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros((n, 3))
    room = max_bonds + 65_536
    centre, neighbour, distance = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64), np.empty(room)
    first = 0
    while first < n:
        start = first
        first, total = kernel.fill(
            *columns,
            skip,
            start,
            float(cutoff),
            OVERLAP,
            max_bonds,
            centre,
            neighbour,
            distance,
            n_bonds,
            status,
            culprit,
        )
        for i in start + np.flatnonzero(status[start:first] != kernel.FINE):
            if skip[i]:
                reason = _hopeless(structures.lattice[i], int(structures.n_atoms[i]), cutoff)
            else:
                reason = _describe(kernel, int(status[i]), culprit[i], cutoff)
            refused.append(Refusal(str(structures.material_id[i]), "featurize", reason, str(structures.hashes[i])))
        if total < 0:
            room *= 2
            centre, neighbour, distance = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64), np.empty(room)
        elif total:
            rows = start + np.flatnonzero(status[start:first] == kernel.FINE)
            chosen = structures.take(rows)
            bonds = centre[:total].copy(), neighbour[:total].copy(), distance[:total].astype(np.float32)
            yield rows, CrystalGraphs(chosen.numbers, chosen.n_atoms, n_bonds[rows], *bonds)


def _describe(kernel: Any, status: int, culprit: FloatArray, cutoff: float) -> str:
    if status == kernel.OVERLAPPING:
        return _overlapping(int(culprit[0]), int(culprit[1]), float(culprit[2]))
    return _isolated(int(culprit[0]), cutoff)


def _batches_one_by_one(
    structures: Structures, cutoff: float, max_bonds: int, refused: list[Refusal]
) -> Iterator[tuple[IntArray, CrystalGraphs]]:
    rows: list[int] = []
    parts: list[tuple[IntArray, IntArray, npt.NDArray[np.float64]]] = []
    bonds = 0
    for i in range(len(structures)):
        start, stop = structures.offsets[i], structures.offsets[i + 1]
        reason = _hopeless(structures.lattice[i], int(stop - start), cutoff)
        if not reason:
            part = neighbours(structures.lattice[i], structures.frac[start:stop], cutoff)
            reason = _unusable(part, int(stop - start), cutoff)
        if reason:
            refused.append(Refusal(str(structures.material_id[i]), "featurize", reason, str(structures.hashes[i])))
            continue
        if rows and bonds + len(part[0]) > max_bonds:
            yield np.array(rows), _join(structures, rows, parts)
            rows, parts, bonds = [], [], 0
        rows.append(i)
        parts.append(part)
        bonds += len(part[0])
    if rows:
        yield np.array(rows), _join(structures, rows, parts)


def _are_hopeless(lattice: FloatArray, n_atoms: IntArray, cutoff: float) -> npt.NDArray[np.bool_]:
    """(n,) whether a neighbour list would be meaningless or would exhaust the memory, from (n, 3, 3) and (n,)."""
    extent = np.abs(lattice).sum(axis=1) / cutoff + 2.0
    return (n_atoms > DENSEST * np.abs(np.linalg.det(lattice))) | (np.prod(extent, axis=1) > EMPTIEST)


def _hopeless(lattice: FloatArray, n_atoms: int, cutoff: float) -> str:
    """Why `_are_hopeless`; "" for a structure that is not."""
    if not _are_hopeless(lattice[None], np.array([n_atoms]), cutoff)[0]:
        return ""
    density = n_atoms / abs(float(np.linalg.det(lattice)))
    if density > DENSEST:
        return f"overlapping atoms: {density:.3g} atoms per cubic Angstrom"
    extent = np.abs(lattice).sum(axis=0) / cutoff + 2.0
    return f"isolated atoms: {n_atoms} in a cell of {'x'.join(f'{e * cutoff:.0f}' for e in extent)} Angstrom"


def _unusable(part: tuple[IntArray, IntArray, npt.NDArray[np.float64]], n_atoms: int, cutoff: float) -> str:
    centre, neighbour, distance = part
    if len(distance):
        nearest = int(distance.argmin())
        if distance[nearest] < OVERLAP:
            return _overlapping(int(centre[nearest]), int(neighbour[nearest]), float(distance[nearest]))
    lonely = np.bincount(centre, minlength=n_atoms) == 0
    if lonely.any():
        return _isolated(int(lonely.argmax()), cutoff)
    return ""


def _overlapping(first: int, second: int, distance: float) -> str:
    return f"overlapping atoms: sites {first} and {second} are {distance:.3f} Angstrom apart"


def _isolated(site: int, cutoff: float) -> str:
    return f"isolated atom: site {site} has no neighbour within {cutoff:g} Angstrom"


def _join(
    structures: Structures, rows: list[int], parts: list[tuple[IntArray, IntArray, npt.NDArray[np.float64]]]
) -> CrystalGraphs:
    chosen = structures.take(rows)
    n_bonds = np.array([len(part[0]) for part in parts], dtype=np.int64)
    shift = np.repeat(chosen.offsets[:-1], n_bonds)
    return CrystalGraphs(
        chosen.numbers,
        chosen.n_atoms,
        n_bonds,
        np.concatenate([part[0] for part in parts]) + shift,
        np.concatenate([part[1] for part in parts]) + shift,
        np.concatenate([part[2] for part in parts]).astype(np.float32),
    )
