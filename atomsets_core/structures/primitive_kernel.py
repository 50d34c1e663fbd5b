"""Pure translations of a structure, the lattice they span, and the sites of one primitive cell, in compiled loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from atomsets_core.compiled import compiled


@compiled
def translations(cell: Any, frac: Any, kind: Any, rare: Any, order: Any, axis: int, tolerance: float) -> Any:
    """Translations that lay a structure on itself.

    Args:
        cell: (3, 3) float64, row vectors, Angstrom.
        frac: (n, 3) float64, within [0, 1).
        kind: (n,) int64, what is on each site.
        rare: (m,) int64, the sites of the rarest kind.
        order: (n,) int64, the sites by their coordinate along an axis.
        axis: which one.
        tolerance: Angstrom by which a site may miss.

    Returns:
        (k, 3) float64 fractional translations, the first 0, and (k, n) int64, the site that each site comes to.
    """
    n, m = len(frac), len(rare)
    spacing = plane_spacings(cell)
    place = np.empty(n)
    for i in range(n):
        place[i] = frac[order[i], axis]
    shift = np.empty((m, 3))
    onto = np.empty((m, n), np.int64)
    found = 0
    for c in range(m):
        for x in range(3):
            shift[found, x] = frac[rare[c], x] - frac[rare[0], x]
        if _lies_on_itself(cell, frac, kind, order, place, axis, spacing[axis], shift[found], tolerance, onto[found]):
            found += 1
    return shift[:found], onto[:found]


@compiled
def _lies_on_itself(
    cell: Any,
    frac: Any,
    kind: Any,
    order: Any,
    place: Any,
    axis: int,
    spacing: float,
    shift: Any,
    tolerance: float,
    onto: Any,
) -> bool:
    n = len(frac)
    width = tolerance / spacing
    for i in range(n):
        target = frac[i, axis] + shift[axis]
        target -= math.floor(target)
        first, last = 0, n
        while first < last:
            middle = (first + last) // 2
            if place[middle] < target - width:
                first = middle + 1
            else:
                last = middle
        hit, nearest = -1, tolerance * tolerance
        # The window may reach over the end of the cell: then its places go on from the other end.
        for step in range(n):
            at = first + step
            lap = 0.0
            if at >= n:
                at -= n
                lap = 1.0
            if place[at] + lap > target + width:
                break
            nearest, hit = _nearer(cell, frac, kind, shift, i, order[at], nearest, hit)
        if target - width < 0.0:
            for at in range(n - 1, -1, -1):
                if place[at] - 1.0 < target - width:
                    break
                nearest, hit = _nearer(cell, frac, kind, shift, i, order[at], nearest, hit)
        if hit < 0:
            return False
        onto[i] = hit
    return True


@compiled
def _nearer(cell: Any, frac: Any, kind: Any, shift: Any, i: int, j: int, nearest: float, hit: int) -> Any:
    """The square distance and site of the nearest so far, j considered."""
    if kind[i] != kind[j]:
        return nearest, hit
    a = frac[i, 0] + shift[0] - frac[j, 0]
    b = frac[i, 1] + shift[1] - frac[j, 1]
    c = frac[i, 2] + shift[2] - frac[j, 2]
    a, b, c = a - np.rint(a), b - np.rint(b), c - np.rint(c)
    x = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
    y = a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
    z = a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
    square = x * x + y * y + z * z
    return (square, j) if square <= nearest else (nearest, hit)


@compiled
def lattice_of(shift: Any) -> Any:
    """Basis of the lattice that fractional translations span together with the cell's own.

    Args:
        shift: (k, 3) float64, a group of k translations.

    Returns:
        (3, 3) float64, rows in fractions of the cell, and whether the translations are a group: then its volume is
        1 / k of the cell's.
    """
    k = len(shift)
    basis = np.zeros((3, 3), np.int64)
    for x in range(3):
        basis[x, x] = k
    row = np.empty(3, np.int64)
    for t in range(k):
        for x in range(3):
            # Each element of a group of order k is, k times over, a translation of the lattice.
            row[x] = int(np.rint(k * shift[t, x])) % k
        for column in range(3):
            while row[column] != 0:  # Euclid's algorithm on the rows keeps the basis triangular
                times = basis[column, column] // row[column]
                for x in range(3):
                    rest = basis[column, x] - times * row[x]
                    basis[column, x] = row[x]
                    row[x] = rest
            for x in range(column + 1, 3):
                row[x] %= k  # multiples of k along an axis are in the lattice anyway
    volume = abs(basis[0, 0] * basis[1, 1] * basis[2, 2])
    out = np.empty((3, 3))
    for x in range(3):
        for y in range(3):
            out[x, y] = basis[x, y] / k
    return out, volume == k * k


@compiled
def mean_sites(frac: Any, shift: Any, onto: Any) -> Any:
    """One site of each that translations lay on each other, at the mean of their places, and its row.

    Args:
        frac: (n, 3) float64.
        shift: (k, 3) float64.
        onto: (k, n) int64, both from `translations`.

    Returns:
        (n_primitive, 3) float64 fractional coordinates in the given cell, and (n_primitive,) int64 rows.
    """
    n, k = len(frac), len(shift)
    taken = np.zeros(n, np.bool_)
    where, rows = np.empty((n, 3)), np.empty(n, np.int64)
    count = 0
    for i in range(n):
        if taken[i]:
            continue
        for x in range(3):
            where[count, x] = frac[i, x]
        for t in range(k):
            j = onto[t, i]
            taken[j] = True
            for x in range(3):
                off = frac[j, x] - shift[t, x] - frac[i, x]
                where[count, x] += (off - np.rint(off)) / k
        rows[count] = i
        count += 1
    return where[:count], rows[:count]


@compiled
def cell_volume(cell: Any) -> float:
    """Cubic Angstrom of a cell of (3, 3) row vectors."""
    x = cell[0, 1] * cell[1, 2] - cell[0, 2] * cell[1, 1]
    y = cell[0, 2] * cell[1, 0] - cell[0, 0] * cell[1, 2]
    z = cell[0, 0] * cell[1, 1] - cell[0, 1] * cell[1, 0]
    return abs(x * cell[2, 0] + y * cell[2, 1] + z * cell[2, 2])


@compiled
def plane_spacings(cell: Any) -> Any:
    """(3,) Angstrom between lattice planes along each axis."""
    spacing, volume = np.empty(3), cell_volume(cell)
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        x = cell[u, 1] * cell[v, 2] - cell[u, 2] * cell[v, 1]
        y = cell[u, 2] * cell[v, 0] - cell[u, 0] * cell[v, 2]
        z = cell[u, 0] * cell[v, 1] - cell[u, 1] * cell[v, 0]
        spacing[axis] = volume / math.sqrt(x * x + y * y + z * z)
    return spacing
