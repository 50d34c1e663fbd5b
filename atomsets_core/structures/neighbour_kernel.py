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
    reach: Any,
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
        reach: (n_atoms_total,) float64, Angstrom: atoms nearer than the sum of theirs overlap.
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
    total, atoms = np.int64(0), np.int64(0)  # of one type from the start: numba compiles for a literal 0 apart
    for i in range(first, len(atom_start) - 1):
        n_bonds[i] = 0
        if skip[i]:
            status[i] = SKIPPED
            continue
        low, high = atom_start[i], atom_start[i + 1]
        found = _one(lattice[i], frac[low:high], cutoff, total, centre, neighbour, distance)
        if found < 0 or (total > 0 and total + found > max_bonds):
            return (i, total) if total > 0 else (i, -1)
        rows = slice(total, total + found)
        status[i], which = _judge(centre[rows], neighbour[rows], distance[rows], reach[low:high])
        if status[i] == FINE:
            for b in range(total, total + found):
                centre[b] += atoms
                neighbour[b] += atoms
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
def _judge(centre: Any, neighbour: Any, distance: Any, reach: Any) -> Any:
    """Status of a structure, and the shortest bond of atoms that overlap or the atom without neighbours."""
    nearest, n_atoms = -1, len(reach)
    for b in range(len(distance)):
        near = distance[b] < reach[centre[b]] + reach[neighbour[b]]
        if near and (nearest < 0 or distance[b] < distance[nearest]):
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
def overlaps(lattice: Any, frac: Any, atom_start: Any, reach: Any, skip: Any, culprit: Any) -> None:
    """The two atoms of each structure that are nearest to each other among those that overlap.

    Nearly all pairs are passed over by their fractional coordinates alone: two atoms are at least as far apart as the
    lattice planes through them.

    Args:
        lattice: (n, 3, 3) float64, row vectors, Angstrom.
        frac: (n_atoms_total, 3) float64.
        atom_start: (n + 1,) int64, first atom of each structure.
        reach: (n_atoms_total,) float64, Angstrom: atoms nearer than the sum of theirs overlap.
        skip: (n,) bool, structures to leave out.
        culprit: (n, 3) float64, filled: two atoms and their distance, which is -1 where none overlap.
    """
    for i in range(len(atom_start) - 1):
        culprit[i, 2] = -1.0
        if not skip[i]:
            low, high = atom_start[i], atom_start[i + 1]
            if _any_overlap(lattice[i], frac[low:high], reach[low:high]):
                _nearest_overlap(lattice[i], frac[low:high], reach[low:high], culprit[i])


@compiled
def _any_overlap(cell: Any, frac: Any, reach: Any) -> bool:
    """Whether two atoms, or an atom and its image, overlap."""
    n, largest = len(frac), 0.0
    spacing = _plane_distances(cell)
    # Atoms are sorted along the axis whose planes lie farthest apart, and compared with those that follow within reach.
    first = int(np.argmax(spacing))
    second, third = (first + 1) % 3, (first + 2) % 3
    p, q, r, du, dv, dw = cell[first], cell[second], cell[third], spacing[first], spacing[second], spacing[third]
    x, y, z, near = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        x[i] = _wrapped(frac[i, first])
        largest = max(largest, reach[i])
    # Every atom is as far from its own images.
    limit = 2.0 * largest
    if _nearest_image(p, q, r, 0.0, 0.0, 0.0, limit / du, limit / dv, limit / dw, True) < limit * limit:
        return True
    order = np.argsort(x)
    x = x[order]
    for i in range(n):
        row = order[i]
        y[i], z[i], near[i] = _wrapped(frac[row, second]), _wrapped(frac[row, third]), reach[row]
    width = limit / du
    for i in range(n):
        # Once over the end of the cell, for which a turn of less than one is enough.
        for k in range(i + 1, i + n):
            j = k if k < n else k - n
            u = x[j] - x[i] if k < n else x[j] - x[i] + 1.0
            if u >= width:
                break
            # 0.5 - |0.5 - |v|| is the distance to the nearest whole number.
            limit, v, w = near[i] + near[j], y[j] - y[i], z[j] - z[i]
            if (0.5 - abs(0.5 - abs(v))) * dv >= limit or (0.5 - abs(0.5 - abs(w))) * dw >= limit:
                continue
            if _nearest_image(p, q, r, u, v, w, limit / du, limit / dv, limit / dw, False) < limit * limit:
                return True
    return False


@compiled
def _nearest_image(
    p: Any, q: Any, r: Any, u: float, v: float, w: float, ru: float, rv: float, rw: float, itself: bool
) -> float:
    """Square of the distance from (u, v, w) to its nearest image, infinite where none lies within reach.

    Args:
        p: (3,) lattice vector of u.
        q: (3,) that of v.
        r: (3,) that of w.
        u: fractional difference of two atoms along p.
        v: the same along q.
        w: the same along r.
        ru: reach along p, in distances between the lattice planes.
        rv: the same along q.
        rw: the same along r.
        itself: both are one atom, whose own place doesn't count.
    """
    best = np.inf
    # The first and last image whose planes are near enough.
    for a in range(math.ceil(-ru - u), math.floor(ru - u) + 1):
        for b in range(math.ceil(-rv - v), math.floor(rv - v) + 1):
            for c in range(math.ceil(-rw - w), math.floor(rw - w) + 1):
                if itself and a == 0 and b == 0 and c == 0:
                    continue
                square = 0.0
                for axis in range(3):
                    part = (u + a) * p[axis] + (v + b) * q[axis] + (w + c) * r[axis]
                    square += part * part
                best = min(best, square)
    return best


@compiled
def _nearest_overlap(cell: Any, frac: Any, reach: Any, culprit: Any) -> None:
    n, best = len(frac), np.inf
    spacing, place = _plane_distances(cell), np.empty((n, 3))
    for i in range(n):
        for axis in range(3):
            place[i, axis] = _wrapped(frac[i, axis])
    for i in range(n):
        for j in range(i, n):
            limit, far = reach[i] + reach[j], False
            for axis in range(3):
                gap = abs(place[j, axis] - place[i, axis])
                far |= min(gap, 1.0 - gap) * spacing[axis] >= limit
            if far:
                continue
            u, v, w = place[j, 0] - place[i, 0], place[j, 1] - place[i, 1], place[j, 2] - place[i, 2]
            ru, rv, rw = limit / spacing[0], limit / spacing[1], limit / spacing[2]
            # The first and last image whose planes are near enough.
            u_low, u_high = math.ceil(-ru - u), math.floor(ru - u)
            v_low, v_high = math.ceil(-rv - v), math.floor(rv - v)
            w_low, w_high = math.ceil(-rw - w), math.floor(rw - w)
            for a in range(int(u_low), int(u_high) + 1):
                for b in range(int(v_low), int(v_high) + 1):
                    for c in range(int(w_low), int(w_high) + 1):
                        if i == j and a == 0 and b == 0 and c == 0:
                            continue
                        square = 0.0
                        for axis in range(3):
                            part = (u + a) * cell[0, axis] + (v + b) * cell[1, axis] + (w + c) * cell[2, axis]
                            square += part * part
                        if square < limit * limit and square < best:
                            best = square
                            culprit[0], culprit[1], culprit[2] = i, j, math.sqrt(square)


@compiled
def _plane_distances(cell: Any) -> Any:
    """(3,) Angstrom: distance between the lattice planes along each vector, volume over area of the opposite face."""
    spacing = np.empty(3)
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        x = cell[u, 1] * cell[v, 2] - cell[u, 2] * cell[v, 1]
        y = cell[u, 2] * cell[v, 0] - cell[u, 0] * cell[v, 2]
        z = cell[u, 0] * cell[v, 1] - cell[u, 1] * cell[v, 0]
        volume = abs(x * cell[axis, 0] + y * cell[axis, 1] + z * cell[axis, 2])
        spacing[axis] = volume / math.sqrt(x * x + y * y + z * z)
    return spacing


@compiled
def _one(cell: Any, frac: Any, cutoff: float, total: int, centre: Any, neighbour: Any, distance: Any) -> int:
    """Append one structure's bonds at row `total`; their number, or -1 where the lists are too short."""
    n_atoms = len(frac)
    low, high = _image_range(cell, frac, cutoff)
    cart, corner, size = _positions(cell, frac, cutoff)
    point, n_points = _images(cell, cart, low, high, corner, size)
    # Boxes of half the cutoff: the 5 x 5 x 5 around an atom hold 15.6 cutoff^3, the 3 x 3 x 3 of boxes as wide as the
    # cutoff 27, and the sphere itself 4.2. In a cell that is mostly vacuum so many boxes would take more memory than
    # the points in them: then they are doubled until there are at most eight or so for each point.
    edge = 0.5 * cutoff
    boxes = np.empty(3, np.int64)
    for _ in range(64):
        for axis in range(3):
            boxes[axis] = int(size[axis] / edge) + 1
        if float(boxes[0]) * float(boxes[1]) * float(boxes[2]) <= 64 + 8 * n_points:
            break
        edge *= 2.0
    reach = 2 if edge < cutoff else 1
    x, y, z, index, box_start = _sort_into_boxes(point, n_points, corner, boxes, edge)
    limit = cutoff * cutoff + SQUARE_TOLERANCE
    bond = total
    for i in range(n_atoms):
        cx, cy, cz = cart[i, 0], cart[i, 1], cart[i, 2]
        bx, by, bz = int((cx - corner[0]) / edge), int((cy - corner[1]) / edge), int((cz - corner[2]) / edge)
        z_low, z_high = max(bz - reach, 0), min(bz + reach + 1, boxes[2])
        # The boxes of one column along z follow each other, so their points are one stretch of memory.
        for jx in range(max(bx - reach, 0), min(bx + reach + 1, boxes[0])):
            for jy in range(max(by - reach, 0), min(by + reach + 1, boxes[1])):
                column = (jx * boxes[1] + jy) * boxes[2]
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
                    # 1e-16 is the square of `graphs.SELF_TOLERANCE`: an atom is no neighbour of itself, its images are.
                    bond += (square < limit) & ((index[p] != i) | (square > 1e-16))
    for b in range(total, bond):
        # Roots are taken of bonds alone, not of every pair that was looked at.
        distance[b] = math.sqrt(distance[b])
    return bond - total


@compiled
def _wrapped(value: float) -> float:
    value -= math.floor(value)
    # For -1e-17 the sum is 1.0 in float64, which is the same place as 0.
    return value if value < 1.0 else 0.0


@compiled
def _positions(cell: Any, frac: Any, cutoff: float) -> Any:
    """Positions in the cell (n, 3), and corner and size of the box around them that holds every neighbour."""
    cart = np.empty((len(frac), 3))
    corner, size = np.empty(3), np.empty(3)
    # An image at the very cutoff must not fall out of the box because its coordinates were rounded.
    margin = cutoff + 1e-6
    for axis in range(3):
        least, most = np.inf, -np.inf
        for i in range(len(frac)):
            value = _wrapped(frac[i, 0]) * cell[0, axis] + _wrapped(frac[i, 1]) * cell[1, axis]
            value += _wrapped(frac[i, 2]) * cell[2, axis]
            cart[i, axis] = value
            least, most = min(least, value), max(most, value)
        corner[axis], size[axis] = least - margin, most - least + 2.0 * margin
    return cart, corner, size


@compiled
def _image_range(cell: Any, frac: Any, cutoff: float) -> Any:
    """First and last image along each lattice vector that can hold a neighbour of an atom in the cell."""
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        x = cell[u, 1] * cell[v, 2] - cell[u, 2] * cell[v, 1]
        y = cell[u, 2] * cell[v, 0] - cell[u, 0] * cell[v, 2]
        z = cell[u, 0] * cell[v, 1] - cell[u, 1] * cell[v, 0]
        volume = abs(x * cell[axis, 0] + y * cell[axis, 1] + z * cell[axis, 2])
        # x, y, z is the cross product of the other two vectors: its length is the area of the face they span, and
        # volume over area is the distance between lattice planes along this axis.
        # The cutoff in units of the distance between lattice planes.
        reach = cutoff * math.sqrt(x * x + y * y + z * z) / volume + 1e-6
        least, most = np.inf, -np.inf
        for i in range(len(frac)):
            value = _wrapped(frac[i, axis])
            least, most = min(least, value), max(most, value)
        # Image n of an atom at g can reach one at f only if |g + n - f| <= reach, and f - g is at most most - least.
        high[axis] = math.floor(most - least + reach)
        low[axis] = -high[axis]
    return low, high


@compiled
def _images(cell: Any, cart: Any, low: Any, high: Any, corner: Any, size: Any) -> Any:
    """Images of the atoms inside the box: x, y, z and atom of each, flat, and their number."""
    n = len(cart)
    point = np.empty(4 * (64 + 32 * n))
    count = 0
    top_x, top_y, top_z = corner[0] + size[0], corner[1] + size[1], corner[2] + size[2]
    for a in range(low[0], high[0] + 1):
        for b in range(low[1], high[1] + 1):
            for c in range(low[2], high[2] + 1):
                if 4 * (count + n) > len(point):
                    longer = np.empty(2 * len(point))
                    for j in range(4 * count):
                        longer[j] = point[j]
                    point = longer
                sx = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                sy = a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                sz = a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                for i in range(n):
                    x, y, z = sx + cart[i, 0], sy + cart[i, 1], sz + cart[i, 2]
                    j = 4 * count
                    point[j], point[j + 1], point[j + 2], point[j + 3] = x, y, z, i
                    inside = (x > corner[0]) & (x < top_x) & (y > corner[1]) & (y < top_y)
                    count += inside & (z > corner[2]) & (z < top_z)
    return point, count


@compiled
def _sort_into_boxes(point: Any, n: int, corner: Any, boxes: Any, edge: float) -> Any:
    """Points box after box (the last axis runs fastest), and the first point of each box."""
    n_boxes = boxes[0] * boxes[1] * boxes[2]
    box = np.empty(n, np.int64)
    start = np.zeros(n_boxes + 2, np.int64)
    for p in range(n):
        jx, jy = int((point[4 * p] - corner[0]) / edge), int((point[4 * p + 1] - corner[1]) / edge)
        box[p] = (jx * boxes[1] + jy) * boxes[2] + int((point[4 * p + 2] - corner[2]) / edge)
        start[box[p] + 2] += 1
    for j in range(n_boxes):
        start[j + 2] += start[j + 1]
    x, y, z = np.empty(n), np.empty(n), np.empty(n)
    index = np.empty(n, np.int64)
    # start[j + 1] counts up from the first point of box j to its last, and so ends as start of box j + 1.
    for p in range(n):
        q = start[box[p] + 1]
        start[box[p] + 1] += 1
        x[q], y[q], z[q], index[q] = point[4 * p], point[4 * p + 1], point[4 * p + 2], int(point[4 * p + 3])
    return x, y, z, index, start
