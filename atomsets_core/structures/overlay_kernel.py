"""The laying of one crystal on another, in compiled loops.

`overlay` does for two primitive cells, their volumes made equal, what pymatgen's StructureMatcher does: it goes through
the mappings of one lattice on the other within the tolerances, and every translation that lays the first atom of the
rarest kind on one of its kind; of the assignment of atoms with the least sum of squared distances counts the largest
distance once the mean shift is taken off. The work is bounded: of lattices that map on each other in very many ways, as
long thin ones do when sheared, only the least strained ways are tried.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from atomsets_core.compiled import compiled
from atomsets_core.structures.primitive_kernel import cell_volume, plane_spacings

FAR = 1e12
"""Square Angstrom: the cost of laying an atom on one that is out of reach."""

MOST_MAPPINGS = 96
"""Mappings of one lattice on another that are tried, least strained first; a cubic lattice has 48 on itself."""


@compiled
def overlay(
    cell: Any,
    frac: Any,
    other_cell: Any,
    other_frac: Any,
    start: Any,
    length: float,
    angle: float,
    site: float,
    within: float,
) -> bool:
    """Whether one primitive cell can be laid on another of the same sites.

    Args:
        cell: (3, 3) float64, row vectors, Angstrom.
        frac: (n, 3) float64, kind after kind, the rarest first.
        other_cell: (3, 3) float64, reduced.
        other_frac: (n, 3) float64, in the same order of kinds.
        start: (n_kinds + 1,) int64, first site of each kind.
        length: share by which lengths of the cell may differ, volumes made equal.
        angle: degrees by which its angles may differ.
        site: how far sites may lie apart, as a share of (volume a site)^(1/3).
        within: Angstrom that neither a site nor a vector of the cell may be farther off, besides.
    """
    n = len(frac)
    volume, other_volume = cell_volume(cell), cell_volume(other_cell)
    factor = (other_volume / volume) ** (1.0 / 6.0)
    goal, goal_angle = _parameters(_scaled(other_cell, 1.0 / factor))
    count, index, own, own_angle = _mappings(_scaled(cell, factor), goal, goal_angle, length, angle, within)
    moved = np.empty((n, 3))
    scratch = _scratch(n)
    inverse = np.empty((3, 3))
    for m in range(count):
        _inverted(index[m, 0], index[m, 1], index[m, 2], inverse)
        for s in range(n):
            for x in range(3):
                moved[s, x] = frac[s, 0] * inverse[0, x] + frac[s, 1] * inverse[1, x] + frac[s, 2] * inverse[2, x]
        metric, spacing, mean_volume = _mean_lattice(own[m], own_angle[m], goal, goal_angle)
        limit = min(within, site * (mean_volume / n) ** (1.0 / 3.0))
        for t in range(start[1]):
            if _lay(moved, other_frac, start, t, metric, spacing, limit, scratch) < limit:
                return True
    return False


@compiled
def _mappings(cell: Any, goal: Any, goal_angle: Any, length: float, angle: float, within: float) -> Any:
    """Bases of a lattice that are about like a cell: the `MOST_MAPPINGS` that are most like it, best first.

    Args:
        cell: (3, 3) float64, a basis of the lattice, Angstrom.
        goal: (3,) float64, lengths of the other cell, Angstrom.
        goal_angle: (3,) float64, its angles, degrees.
        length: share by which lengths may differ.
        angle: degrees by which angles may differ.
        within: Angstrom by which a vector may be off.

    Returns:
        Their number m, and the first m rows of (k, 3, 3) int64 bases as multiples of the vectors in `cell`, of their
        (k, 3) lengths and of their (k, 3) angles.
    """
    length = min(length, within / min(goal[0], goal[1], goal[2]))
    n, vector, norm, index = _lattice_points(cell, max(goal[0], goal[1], goal[2]) * (1.0 + length))
    low, high = 1.0 / (1.0 + length), 1.0 + length
    room = MOST_MAPPINGS + 1
    basis, own, own_angle = np.empty((room, 3, 3), np.int64), np.empty((room, 3)), np.empty((room, 3))
    strain, inverse, count = np.empty(room), np.empty((3, 3)), 0
    lengths, angles = np.empty(3), np.empty(3)
    for i in range(n):
        if not low < norm[i] / goal[0] < high:
            continue
        for j in range(n):
            if not low < norm[j] / goal[1] < high:
                continue
            angles[2] = _angle(vector[i], vector[j], norm[i], norm[j])
            if abs(angles[2] - goal_angle[2]) >= angle:
                continue
            for k in range(n):
                if not low < norm[k] / goal[2] < high:
                    continue
                angles[1] = _angle(vector[i], vector[k], norm[i], norm[k])
                if abs(angles[1] - goal_angle[1]) >= angle:
                    continue
                angles[0] = _angle(vector[j], vector[k], norm[j], norm[k])
                if abs(angles[0] - goal_angle[0]) >= angle or not _inverted(index[i], index[j], index[k], inverse):
                    continue
                lengths[0], lengths[1], lengths[2] = norm[i], norm[j], norm[k]
                worst = _strain(lengths, angles, goal, goal_angle)
                if worst >= within:
                    continue
                # Sorted as they come, by moving up those that are worse; of equal ones the first stays first.
                at = count
                while at > 0 and strain[at - 1] > worst:
                    strain[at] = strain[at - 1]
                    for x in range(3):
                        own[at, x], own_angle[at, x] = own[at - 1, x], own_angle[at - 1, x]
                        for y in range(3):
                            basis[at, x, y] = basis[at - 1, x, y]
                    at -= 1
                strain[at] = worst
                for x in range(3):
                    own[at, x], own_angle[at, x] = lengths[x], angles[x]
                    basis[at, 0, x], basis[at, 1, x], basis[at, 2, x] = index[i, x], index[j, x], index[k, x]
                count = min(count + 1, MOST_MAPPINGS)
    return count, basis, own, own_angle


@compiled
def _scaled(cell: Any, factor: float) -> Any:
    out = np.empty((3, 3))
    for x in range(3):
        for y in range(3):
            out[x, y] = cell[x, y] * factor
    return out


@compiled
def _scratch(n: int) -> Any:
    """Room for `_lay`: costs, nearest site of each, who is taken, and displacements."""
    return np.empty((n, n)), np.empty(n, np.int64), np.empty(n, np.bool_), np.empty((n, 3))


@compiled
def _lay(moved: Any, other: Any, start: Any, onto: int, metric: Any, spacing: Any, limit: float, scratch: Any) -> float:
    """Angstrom of the site farthest off with the other's first site laid on site `onto`; infinity if out of reach."""
    cost, partner, taken, apart = scratch
    n = len(moved)
    shift = np.empty(3)
    for x in range(3):
        shift[x] = moved[onto, x] - other[0, x]
    # The first site is laid on its partner, and the mean shift, of at most `limit`, comes off later.
    reach = 2.0 * limit
    for kind in range(len(start) - 1):
        low, high = start[kind], start[kind + 1]
        for j in range(low, high):
            taken[j] = False
        clash = False
        for j in range(low, high):
            least, nearest = FAR, -1
            for i in range(low, high):
                square = _square(moved[i], other[j], shift, metric, spacing, reach)
                cost[j, i] = square
                if square < least:
                    least, nearest = square, i
            if nearest < 0:
                return np.inf
            clash |= taken[nearest]
            taken[nearest] = True
            partner[j] = nearest
        # Where each has a nearest of its own, that is the assignment with the least sum.
        if clash and not _assign(cost, low, high, partner):
            return np.inf
    mean = np.zeros(3)
    for j in range(n):
        _displacement(moved[partner[j]], other[j], shift, metric, spacing, reach, apart[j])
        for x in range(3):
            mean[x] += apart[j, x] / n
    worst = 0.0
    for j in range(n):
        a, b, c = apart[j, 0] - mean[0], apart[j, 1] - mean[1], apart[j, 2] - mean[2]
        worst = max(worst, _form(metric, a, b, c))
    return math.sqrt(worst)


@compiled
def _form(metric: Any, a: float, b: float, c: float) -> float:
    """Square of the length of a fractional vector."""
    diagonal = a * a * metric[0, 0] + b * b * metric[1, 1] + c * c * metric[2, 2]
    return diagonal + 2.0 * (a * b * metric[0, 1] + a * c * metric[0, 2] + b * c * metric[1, 2])


@compiled
def _square(here: Any, there: Any, shift: Any, metric: Any, spacing: Any, reach: float) -> float:
    """Square distance of the nearest images; FAR where they are farther apart than `reach`."""
    a = here[0] - there[0] - shift[0]
    a -= np.rint(a)
    b = here[1] - there[1] - shift[1]
    b -= np.rint(b)
    c = here[2] - there[2] - shift[2]
    c -= np.rint(c)
    if 2.0 * reach < min(spacing[0], spacing[1], spacing[2]):
        # Lattice planes are far apart: no image but this one can be within reach.
        if abs(a) * spacing[0] > reach or abs(b) * spacing[1] > reach or abs(c) * spacing[2] > reach:
            return FAR
        square = _form(metric, a, b, c)
        return square if square <= reach * reach else FAR
    best = FAR
    for u in range(-1, 2):
        for v in range(-1, 2):
            for w in range(-1, 2):
                best = min(best, _form(metric, a + u, b + v, c + w))
    return best if best <= reach * reach else FAR


@compiled
def _displacement(here: Any, there: Any, shift: Any, metric: Any, spacing: Any, reach: float, out: Any) -> None:
    """The fractional vector to the nearest image, into `out`."""
    for x in range(3):
        out[x] = here[x] - there[x] - shift[x]
        out[x] -= np.rint(out[x])
    if 2.0 * reach < min(spacing[0], spacing[1], spacing[2]):
        return
    a, b, c = out[0], out[1], out[2]
    best = FAR
    for u in range(-1, 2):
        for v in range(-1, 2):
            for w in range(-1, 2):
                square = _form(metric, a + u, b + v, c + w)
                if square < best:
                    best = square
                    out[0], out[1], out[2] = a + u, b + v, c + w


@compiled
def _assign(cost: Any, low: int, high: int, partner: Any) -> bool:
    """Assignment of rows low to high to columns low to high with the least sum, by the Hungarian method.

    Kuhn and Munkres, with potentials: rows join one by one, each along the shortest augmenting path. False where some
    row has nothing within reach.
    """
    m = high - low
    u, v = np.zeros(m + 1), np.zeros(m + 1)
    row_of, way = np.zeros(m + 1, np.int64), np.zeros(m + 1, np.int64)
    for i in range(1, m + 1):
        row_of[0] = i
        column = 0
        least = np.full(m + 1, np.inf)
        used = np.zeros(m + 1, np.bool_)
        while True:
            used[column] = True
            row, delta, following = row_of[column], np.inf, 0
            for j in range(1, m + 1):
                if not used[j]:
                    reduced = cost[low + row - 1, low + j - 1] - u[row] - v[j]
                    if reduced < least[j]:
                        least[j] = reduced
                        way[j] = column
                    if least[j] < delta:
                        delta, following = least[j], j
            if delta > 0.5 * FAR:
                return False
            for j in range(m + 1):
                if used[j]:
                    u[row_of[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            column = following
            if row_of[column] == 0:
                break
        while column != 0:
            row_of[column] = row_of[way[column]]
            column = way[column]
    for j in range(1, m + 1):
        partner[low + row_of[j] - 1] = low + j - 1
    return True


@compiled
def _angle(first: Any, second: Any, one: float, two: float) -> float:
    """Degrees between two vectors of lengths one and two."""
    cosine = (first[0] * second[0] + first[1] * second[1] + first[2] * second[2]) / (one * two)
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


@compiled
def _parameters(cell: Any) -> Any:
    """Lengths (Angstrom) and angles (degrees) of a cell."""
    lengths, angles = np.empty(3), np.empty(3)
    for x in range(3):
        lengths[x] = math.sqrt(cell[x, 0] ** 2 + cell[x, 1] ** 2 + cell[x, 2] ** 2)
    for x in range(3):
        u, v = (x + 1) % 3, (x + 2) % 3
        angles[x] = _angle(cell[u], cell[v], lengths[u], lengths[v])
    return lengths, angles


@compiled
def _lattice_points(cell: Any, radius: float) -> Any:
    """How many vectors of the lattice are up to a length, and in the first rows they, their lengths and indices."""
    spacing = plane_spacings(cell)
    most = np.empty(3, np.int64)
    for x in range(3):
        most[x] = int(radius / spacing[x])
    total = (2 * most[0] + 1) * (2 * most[1] + 1) * (2 * most[2] + 1)
    vector, norm, index = np.empty((total, 3)), np.empty(total), np.empty((total, 3), np.int64)
    count = 0
    for a in range(-most[0], most[0] + 1):
        for b in range(-most[1], most[1] + 1):
            for c in range(-most[2], most[2] + 1):
                x = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                y = a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                z = a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                square = x * x + y * y + z * z
                if 0.0 < square <= radius * radius:
                    norm[count] = math.sqrt(square)
                    vector[count, 0], vector[count, 1], vector[count, 2] = x, y, z
                    index[count, 0], index[count, 1], index[count, 2] = a, b, c
                    count += 1
    return count, vector, norm, index


@compiled
def _inverted(first: Any, second: Any, third: Any, inverse: Any) -> bool:
    """Inverse of a matrix of three integer rows, where its determinant is 1 or -1."""
    x = second[1] * third[2] - second[2] * third[1]
    y = second[2] * third[0] - second[0] * third[2]
    z = second[0] * third[1] - second[1] * third[0]
    determinant = first[0] * x + first[1] * y + first[2] * z
    if abs(determinant) != 1:
        return False
    inverse[0, 0], inverse[1, 0], inverse[2, 0] = x * determinant, y * determinant, z * determinant
    inverse[0, 1] = (first[2] * third[1] - first[1] * third[2]) * determinant
    inverse[1, 1] = (first[0] * third[2] - first[2] * third[0]) * determinant
    inverse[2, 1] = (first[1] * third[0] - first[0] * third[1]) * determinant
    inverse[0, 2] = (first[1] * second[2] - first[2] * second[1]) * determinant
    inverse[1, 2] = (first[2] * second[0] - first[0] * second[2]) * determinant
    inverse[2, 2] = (first[0] * second[1] - first[1] * second[0]) * determinant
    return True


@compiled
def _strain(own: Any, own_angle: Any, goal: Any, goal_angle: Any) -> float:
    """Angstrom by which the vectors of one cell miss those of another."""
    worst = 0.0
    for x in range(3):
        u, v = (x + 1) % 3, (x + 2) % 3
        turn = math.radians(abs(own_angle[x] - goal_angle[x])) * max(goal[u], goal[v])
        worst = max(worst, abs(own[x] - goal[x]), turn)
    return worst


@compiled
def _mean_lattice(own: Any, own_angle: Any, goal: Any, goal_angle: Any) -> Any:
    """Metric tensor, spacings of lattice planes and volume of the cell with the mean lengths and angles of two."""
    metric = np.empty((3, 3))
    for x in range(3):
        metric[x, x] = (0.5 * (own[x] + goal[x])) ** 2
    for x in range(3):
        u, v = (x + 1) % 3, (x + 2) % 3
        cosine = math.cos(math.radians(0.5 * (own_angle[x] + goal_angle[x])))
        metric[u, v] = metric[v, u] = math.sqrt(metric[u, u] * metric[v, v]) * cosine
    spacing = np.empty(3)
    minor = np.empty(3)
    for x in range(3):
        u, v = (x + 1) % 3, (x + 2) % 3
        minor[x] = metric[u, u] * metric[v, v] - metric[u, v] ** 2
    determinant = metric[0, 0] * minor[0]
    determinant -= metric[0, 1] * (metric[0, 1] * metric[2, 2] - metric[0, 2] * metric[1, 2])
    determinant += metric[0, 2] * (metric[0, 1] * metric[1, 2] - metric[0, 2] * metric[1, 1])
    for x in range(3):
        spacing[x] = math.sqrt(determinant / minor[x])
    return metric, spacing, math.sqrt(determinant)
