"""Neighbour lists of many structures in one compiled loop: a list of linked boxes, as pymatgen's, without its overhead.

A pair counts when the square of its distance is below cutoff^2 + 1e-8, which is pymatgen's inclusive cutoff.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from atomsets_core.compiled import compiled

SQUARE_TOLERANCE = 1e-8
"""Square Angstrom, added to the square of the cutoff."""

FINE, OVERLAPPING, ISOLATED, SKIPPED = 0, 1, 2, 3
"""What `fill` found about a structure."""


@compiled
def fill(
    lattice: Any,
    frac: Any,
    atom_start: Any,
    skip: Any,
    first: int,
    cutoff: float,
    overlap: float,
    max_bonds: int,
    centre: Any,
    neighbour: Any,
    distance: Any,
    n_bonds: Any,
    status: Any,
    culprit: Any,
) -> Any:
    """Neighbour lists of structures `first`, first + 1, ... until they hold `max_bonds` bonds.

    Args:
        lattice: (n, 3, 3) float64, row vectors, Angstrom.
        frac: (n_atoms_total, 3) float64.
        atom_start: (n + 1,) int64, first atom of each structure.
        skip: (n,) bool, structures to leave out.
        first: structure to begin with.
        cutoff: Angstrom, inclusive.
        overlap: Angstrom, distance below which two atoms overlap.
        max_bonds: a structure that would exceed it is left to the next call, unless it is the first with bonds.
        centre: (capacity,) int64, filled: atoms counted from the first accepted structure of this call.
        neighbour: (capacity,) int64, filled.
        distance: (capacity,) float64, filled: Angstrom.
        n_bonds: (n,) int64, filled: bonds of each structure.
        status: (n,) int64, filled: FINE, OVERLAPPING, ISOLATED or SKIPPED.
        culprit: (n, 3) float64, filled: the two atoms that overlap and their distance, or the atom without neighbours.

    Returns:
        The structure to go on with, and the number of bonds; -1 bonds when the lists are too short for it alone.
    """
    total, atoms = 0, 0
    for i in range(first, len(atom_start) - 1):
        n_bonds[i] = 0
        if skip[i]:
            status[i] = SKIPPED
            continue
        low, high = atom_start[i], atom_start[i + 1]
        found = _one(lattice[i], frac[low:high], cutoff, total, centre, neighbour, distance)
        if found < 0 or (total > 0 and total + found > max_bonds):
            return (i, total) if total > 0 else (i, -1)
        status[i], which = _judge(centre[total : total + found], distance[total : total + found], high - low, overlap)
        if status[i] == FINE:
            centre[total : total + found] += atoms
            neighbour[total : total + found] += atoms
            n_bonds[i] = found
            total += found
            atoms += high - low
        elif status[i] == OVERLAPPING:
            row = total + which
            culprit[i, 0], culprit[i, 1], culprit[i, 2] = centre[row], neighbour[row], distance[row]
        else:
            culprit[i, 0] = which
    return len(atom_start) - 1, total


@compiled
def _judge(centre: Any, distance: Any, n_atoms: int, overlap: float) -> Any:
    """Status of a structure, and the shortest bond or the atom without neighbours."""
    nearest = -1
    for b in range(len(distance)):
        if distance[b] < overlap and (nearest < 0 or distance[b] < distance[nearest]):
            nearest = b
    if nearest >= 0:
        return OVERLAPPING, nearest
    expected = 0
    for b in range(len(centre)):
        if centre[b] > expected:
            break
        if centre[b] == expected:
            expected += 1
    # The atoms before `expected` have a bond; all have one when it has run past the last.
    return (FINE, 0) if expected == n_atoms else (ISOLATED, expected)


@compiled
def _one(cell: Any, frac: Any, cutoff: float, total: int, centre: Any, neighbour: Any, distance: Any) -> int:
    """Append one structure's bonds at row `total`; their number, or -1 where the lists are too short."""
    cart, point, source = _images(cell, frac, cutoff)
    n_atoms, n_points = len(frac), len(source)
    corner = np.empty(3)
    size = np.empty(3, dtype=np.int64)
    edge = 0.5 * cutoff
    for _ in range(64):
        for axis in range(3):
            corner[axis] = cart[:, axis].min() - cutoff - 1e-6
            size[axis] = int((cart[:, axis].max() + cutoff + 1e-6 - corner[axis]) / edge) + 1
        if float(size[0]) * float(size[1]) * float(size[2]) <= 64 + 8 * n_points:
            break
        edge *= 2.0
    reach = 2 if edge < cutoff else 1
    x, y, z, index, box_start = _sort_into_boxes(point, source, corner, size, edge)
    limit = cutoff * cutoff + SQUARE_TOLERANCE
    bond = total
    for i in range(n_atoms):
        cx, cy, cz = cart[i, 0], cart[i, 1], cart[i, 2]
        bx, by, bz = int((cx - corner[0]) / edge), int((cy - corner[1]) / edge), int((cz - corner[2]) / edge)
        z_low, z_high = max(bz - reach, 0), min(bz + reach + 1, size[2])
        for jx in range(max(bx - reach, 0), min(bx + reach + 1, size[0])):
            for jy in range(max(by - reach, 0), min(by + reach + 1, size[1])):
                column = (jx * size[1] + jy) * size[2]
                start, stop = box_start[column + z_low], box_start[column + z_high]
                if bond + (stop - start) > len(centre):
                    return -1
                for p in range(start, stop):
                    dx, dy, dz = x[p] - cx, y[p] - cy, z[p] - cz
                    square = dx * dx + dy * dy + dz * dz
                    # Written always, kept when it is a bond: cheaper than a branch that can't be predicted.
                    centre[bond] = i
                    neighbour[bond] = index[p]
                    distance[bond] = square
                    bond += (square < limit) & ((index[p] != i) | (square > 1e-16))
    for b in range(total, bond):
        distance[b] = math.sqrt(distance[b])
    return bond - total


@compiled
def _images(cell: Any, frac: Any, cutoff: float) -> Any:
    """Positions in the cell, and those of every image within the cutoff of the box around them, with their atom."""
    n = len(frac)
    wrapped = np.empty((n, 3))
    cart = np.empty((n, 3))
    for i in range(n):
        for axis in range(3):
            value = frac[i, axis] - math.floor(frac[i, axis])
            wrapped[i, axis] = value if value < 1.0 else 0.0
        for axis in range(3):
            cart[i, axis] = (
                wrapped[i, 0] * cell[0, axis] + wrapped[i, 1] * cell[1, axis] + wrapped[i, 2] * cell[2, axis]
            )
    low = np.empty(3, dtype=np.int64)
    high = np.empty(3, dtype=np.int64)
    smallest, largest, reach = np.empty(3), np.empty(3), np.empty(3)
    for axis in range(3):
        u, v = cell[(axis + 1) % 3], cell[(axis + 2) % 3]
        cross = np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])
        volume = abs(cross[0] * cell[axis, 0] + cross[1] * cell[axis, 1] + cross[2] * cell[axis, 2])
        # The cutoff in fractions of the distance between lattice planes.
        reach[axis] = cutoff * math.sqrt(cross[0] ** 2 + cross[1] ** 2 + cross[2] ** 2) / volume + 1e-6
        smallest[axis], largest[axis] = wrapped[:, axis].min(), wrapped[:, axis].max()
        low[axis] = math.ceil(smallest[axis] - largest[axis] - reach[axis])
        high[axis] = math.floor(largest[axis] - smallest[axis] + reach[axis])
    box_low, box_high = np.empty(3), np.empty(3)
    for axis in range(3):
        box_low[axis] = cart[:, axis].min() - cutoff - 1e-6
        box_high[axis] = cart[:, axis].max() + cutoff + 1e-6
    point = np.empty((64 + 32 * n, 3))
    source = np.empty(64 + 32 * n, dtype=np.int64)
    count = 0
    for a in range(low[0], high[0] + 1):
        for b in range(low[1], high[1] + 1):
            for c in range(low[2], high[2] + 1):
                sx = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                sy = a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                sz = a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                if count + n > len(source):
                    point = np.concatenate((point, np.empty_like(point)))
                    source = np.concatenate((source, np.empty_like(source)))
                for i in range(n):
                    px, py, pz = sx + cart[i, 0], sy + cart[i, 1], sz + cart[i, 2]
                    point[count, 0], point[count, 1], point[count, 2] = px, py, pz
                    source[count] = i
                    inside = (px > box_low[0]) & (px < box_high[0]) & (py > box_low[1]) & (py < box_high[1])
                    count += inside & (pz > box_low[2]) & (pz < box_high[2])
    return cart, point[:count], source[:count]


@compiled
def _sort_into_boxes(point: Any, source: Any, corner: Any, size: Any, edge: float) -> Any:
    """Points box after box (the last axis runs fastest), and the first point of each box."""
    n = len(source)
    n_boxes = size[0] * size[1] * size[2]
    box = np.empty(n, dtype=np.int64)
    start = np.zeros(n_boxes + 1, dtype=np.int64)
    for p in range(n):
        jx, jy = int((point[p, 0] - corner[0]) / edge), int((point[p, 1] - corner[1]) / edge)
        box[p] = (jx * size[1] + jy) * size[2] + int((point[p, 2] - corner[2]) / edge)
        start[box[p] + 1] += 1
    for j in range(n_boxes):
        start[j + 1] += start[j]
    place = start[:-1].copy()
    x, y, z = np.empty(n), np.empty(n), np.empty(n)
    index = np.empty(n, dtype=np.int64)
    for p in range(n):
        q = place[box[p]]
        place[box[p]] += 1
        x[q], y[q], z[q], index[q] = point[p, 0], point[p, 1], point[p, 2], source[p]
    return x, y, z, index, start
