"""Neighbour lists under periodic boundaries, joined into one flat graph for a whole batch; atoms too near each other.

Wrong symmetry, wrong units and sites that stand twice put atoms on top of each other, and a network predicts from them
as from any crystal. One distance for all elements can't tell: H-H is 0.74 Angstrom long, and a metal 0.9 Angstrom from
oxygen is as impossible as one at 0.3. So two atoms overlap below half the sum of their covalent radii.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pymatgen.core import Element
from pymatgen.optimization.neighbors import find_points_in_spheres

from atomsets_core.compiled import compiled_module
from atomsets_core.structures.batch import LARGEST_ATOMIC_NUMBER, FloatArray, IntArray, Refusal, Structures, ragged_rows
from atomsets_core.structures.reading import partial_occupancy

SELF_TOLERANCE = 1e-8
"""Angstrom: an atom is its own neighbour only through another image, farther than this."""

DENSEST = 2.0
"""Atoms per cubic Angstrom above which a cell is refused unseen (diamond has 0.18)."""

EMPTIEST = 1e7
"""Cells of cutoff size in the box around the atoms above which a cell is refused unseen: it is nearly all vacuum."""

NEAREST = 0.5
"""Share of the sum of two covalent radii. The shortest bond of 51,149 crystals of the Materials Project is 0.61 of
it, and of 154,925 of today 28 have a shorter one than 0.5, V-O at 0.97 and H-N at 0.47 Angstrom among them:
benchmarks/contacts.py."""

COVALENT_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.73, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06,
    2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.50, 1.42, 1.38, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16,
    2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40,
    2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75,
    1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15, 2.06,
    2.00, 1.96, 1.90, 1.87, 1.80, 1.69,
)  # fmt: skip
"""Angstrom, of hydrogen to curium: Cordero et al., Dalton Trans. 2832 (2008), of sp2 carbon and low-spin metals."""

_RADII = np.full(LARGEST_ATOMIC_NUMBER + 1, COVALENT_RADII[-1])

_RADII[1 : len(COVALENT_RADII) + 1] = COVALENT_RADII

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
        vector: (n_bonds_total, 3) float64, from the centre to the neighbour, Angstrom; None unless asked for.
        image: (n_bonds_total, 3) int64, cell of the neighbour relative to the centre's (both wrapped into their
            cell); None unless asked for.
    """

    numbers: IntArray
    n_atoms: IntArray
    n_bonds: IntArray
    centre: IntArray
    neighbour: IntArray
    distance: npt.NDArray[np.float32]
    vector: npt.NDArray[np.float64] | None = None
    image: IntArray | None = None


@dataclass(frozen=True)
class AngleGraph:
    """The short bonds of a `CrystalGraphs` and the angles between them.

    Attributes:
        bond: (n_short,) int64, rows of the directed bonds that are short, ascending.
        undirected: (n_short,) int64, number of the undirected bond; a bond and its reverse share it.
        n_undirected: how many undirected short bonds there are.
        first: (n_angles,) int64, position in `bond` of one side of each angle, ascending.
        second: (n_angles,) int64, position in `bond` of the other side. Both start at the same centre and are
            different directed bonds; every angle is there twice, once from each side.
    """

    bond: IntArray
    undirected: IntArray
    n_undirected: int
    first: IntArray
    second: IntArray


class Bonds(NamedTuple):
    """Directed bonds of one structure: as in `CrystalGraphs`, but rows count from 0 and distances are float64.

    Attributes:
        centre: (n_bonds,) int64, row of the centre atom, ascending.
        neighbour: (n_bonds,) int64, row of the neighbour atom.
        distance: (n_bonds,) float64, Angstrom.
        vector: (n_bonds, 3) float64, from the centre to the neighbour, Angstrom; None unless asked for.
        image: (n_bonds, 3) int64, cell of the neighbour relative to the centre's; None unless asked for.
    """

    centre: IntArray
    neighbour: IntArray
    distance: npt.NDArray[np.float64]
    vector: npt.NDArray[np.float64] | None = None
    image: IntArray | None = None


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
    bonds = find_bonds(lattice, frac, cutoff)
    return bonds.centre, bonds.neighbour, bonds.distance


def find_bonds(lattice: FloatArray, frac: FloatArray, cutoff: float, *, vectors: bool = False) -> Bonds:
    """The same as `neighbours`, with `vectors` also the vectors and images of the bonds."""
    cell = np.ascontiguousarray(lattice, dtype=np.float64)
    # Wrapped first, so that images count from the cell itself, as `CrystalGraphs.image` says.
    cart = np.ascontiguousarray((frac % 1.0) @ cell)
    centre, neighbour, image, distance = find_points_in_spheres(
        cart, cart, r=float(cutoff), pbc=_PERIODIC, lattice=cell, tol=SELF_TOLERANCE
    )
    keep = (centre != neighbour) | (distance > SELF_TOLERANCE)
    centre, neighbour, distance = centre[keep], neighbour[keep], distance[keep]
    if not vectors:
        return Bonds(centre, neighbour, distance)
    image = image[keep]
    # r_ij = r_j + n L - r_i, lattice vectors being the rows of L.
    vector = cart[neighbour] + image @ cell - cart[centre]
    return Bonds(centre, neighbour, distance, vector, image.astype(np.int64))


def graph_batches(
    structures: Structures,
    cutoff: float,
    max_bonds: int,
    refused: list[Refusal],
    *,
    vectors: bool = False,
    angle_cutoff: float = 0.0,
) -> Iterator[tuple[IntArray, CrystalGraphs]]:
    """Graphs of the structures in batches of at most `max_bonds` bonds (one structure at least).

    Args:
        structures: the batch.
        cutoff: neighbour radius, Angstrom.
        max_bonds: directed bonds after which a batch is closed.
        refused: gets a row for each structure with partial occupancy, overlapping atoms or an atom without neighbours.
        vectors: give the bond vectors and images too.
        angle_cutoff: Angstrom; the angles between bonds shorter than this count as bonds in the size of a batch.

    Yields:
        (k,) int64 row numbers of the structures in the batch, and their graph.
    """
    whole = np.flatnonzero(~structures.disordered)
    for i in np.flatnonzero(structures.disordered):
        name, reason = str(structures.material_id[i]), partial_occupancy(structures, int(i))
        refused.append(Refusal(name, "featurize", reason, str(structures.hashes[i])))
    ordered = structures if len(whole) == len(structures) else structures.take(whole)
    # The compiled lists know neither vectors nor angles.
    kernel = None if vectors else compiled_module("structures.neighbour_kernel")
    if kernel is None:
        batches = _batches_one_by_one(ordered, cutoff, max_bonds, refused, vectors, angle_cutoff)
    else:
        batches = _batches_compiled(kernel, ordered, cutoff, max_bonds, refused)
    for rows, graphs in batches:
        yield whole[rows], graphs


def _batches_compiled(
    kernel: Any, structures: Structures, cutoff: float, max_bonds: int, refused: list[Refusal]
) -> Iterator[tuple[IntArray, CrystalGraphs]]:
    n = len(structures)
    skip = _are_hopeless(structures.lattice, structures.n_atoms, cutoff)
    columns = [np.ascontiguousarray(structures.lattice), np.ascontiguousarray(structures.frac), structures.offsets]
    near = reach(structures.numbers)
    n_bonds, status, culprit = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros((n, 3))
    # The kernel writes pairs down before it knows whether they are bonds, so lists need room beyond `max_bonds`.
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
            near,
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
                reason = _describe(kernel, int(status[i]), culprit[i], _numbers(structures, i), cutoff)
            refused.append(Refusal(str(structures.material_id[i]), "featurize", reason, str(structures.hashes[i])))
        if total < 0:
            room *= 2
            centre, neighbour, distance = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64), np.empty(room)
        elif total:
            rows = start + np.flatnonzero(status[start:first] == kernel.FINE)
            chosen = structures.take(rows)
            # Distances are found and compared with the cutoff in float64; the networks that read them are float32.
            bonds = centre[:total].copy(), neighbour[:total].copy(), distance[:total].astype(np.float32)
            yield rows, CrystalGraphs(chosen.numbers, chosen.n_atoms, n_bonds[rows], *bonds)


def _describe(kernel: Any, status: int, culprit: FloatArray, numbers: IntArray, cutoff: float) -> str:
    if status == kernel.OVERLAPPING:
        return overlapping(int(culprit[0]), int(culprit[1]), float(culprit[2]), numbers)
    return _isolated(int(culprit[0]), cutoff)


def _batches_one_by_one(
    structures: Structures,
    cutoff: float,
    max_bonds: int,
    refused: list[Refusal],
    vectors: bool,
    angle_cutoff: float,
) -> Iterator[tuple[IntArray, CrystalGraphs]]:
    rows: list[int] = []
    parts: list[Bonds] = []
    size = 0
    for i in range(len(structures)):
        start, stop = structures.offsets[i], structures.offsets[i + 1]
        reason = _hopeless(structures.lattice[i], int(stop - start), cutoff)
        if not reason:
            part = find_bonds(structures.lattice[i], structures.frac[start:stop], cutoff, vectors=vectors)
            reason = _unusable(part, _numbers(structures, i), cutoff)
        if reason:
            refused.append(Refusal(str(structures.material_id[i]), "featurize", reason, str(structures.hashes[i])))
            continue
        more = len(part.centre) + (count_angles(part, angle_cutoff) if angle_cutoff else 0)
        if rows and size + more > max_bonds:
            yield np.array(rows), _join(structures, rows, parts)
            rows, parts, size = [], [], 0
        rows.append(i)
        parts.append(part)
        size += more
    if rows:
        yield np.array(rows), _join(structures, rows, parts)


def count_angles(part: Bonds | CrystalGraphs, cutoff: float) -> int:
    """Ordered pairs of different directed bonds that share a centre and are both shorter than `cutoff` Angstrom."""
    per_atom = np.bincount(part.centre[part.distance < cutoff])
    return int((per_atom * (per_atom - 1)).sum())


def angle_graph(graphs: CrystalGraphs, cutoff: float) -> AngleGraph:
    """Short bonds and the angles between them, for a whole batch at once.

    Args:
        graphs: with images.
        cutoff: Angstrom, exclusive.

    Raises:
        ValueError: the graphs were made without images.
    """
    if graphs.image is None:
        raise ValueError("angles need a graph with images: graph_batches(..., vectors=True)")
    bond = np.flatnonzero(graphs.distance < cutoff)
    centre = graphs.centre[bond]
    undirected, n_undirected = _undirected(centre, graphs.neighbour[bond], graphs.image[bond])
    per_atom = np.bincount(centre, minlength=len(graphs.numbers))
    first_of_atom = np.concatenate([[0], np.cumsum(per_atom)])
    # All pairs that share a centre: bond p of an atom with k bonds meets rows 0..k-1 of that atom, itself among them.
    first = np.repeat(np.arange(len(bond)), per_atom[centre])
    second = ragged_rows(first_of_atom, centre)
    different = first != second
    return AngleGraph(bond, undirected, n_undirected, first[different], second[different])


def _undirected(centre: IntArray, neighbour: IntArray, image: IntArray) -> tuple[IntArray, int]:
    """Number of the undirected bond of each directed one, and how many there are.

    The bond (i, j, image) and its reverse (j, i, -image) become one row when both are written in the direction that
    comes first; equal rows then get equal numbers.
    """
    # 21 bits for each component of the image keep the order of the triples in one integer.
    there, back = (((i[:, 0] << 42) + (i[:, 1] << 21) + i[:, 2]) for i in (image, -image))
    flip = (neighbour < centre) | ((neighbour == centre) & (back < there))
    low, high = np.where(flip, neighbour, centre), np.where(flip, centre, neighbour)
    cell = np.where(flip, back, there)
    order = np.lexsort((cell, high, low))
    low, high, cell = low[order], high[order], cell[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (np.diff(low) != 0) | (np.diff(high) != 0) | (np.diff(cell) != 0)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(is_new) - 1
    return number, int(is_new.sum())


def _are_hopeless(lattice: FloatArray, n_atoms: IntArray, cutoff: float) -> npt.NDArray[np.bool_]:
    """(n,) whether a neighbour list would be meaningless or would exhaust the memory, from (n, 3, 3) and (n,)."""
    # Boxes of the cutoff along x, y, z around the cell (whose extent is the sum of its vectors'), one more at each end.
    extent = np.abs(lattice).sum(axis=1) / cutoff + 2.0
    return (n_atoms > DENSEST * np.abs(np.linalg.det(lattice))) | (np.prod(extent, axis=1) > EMPTIEST)


def _hopeless(lattice: FloatArray, n_atoms: int, cutoff: float) -> str:
    """Why `_are_hopeless`; "" for a structure that is not."""
    if not _are_hopeless(lattice[None], np.array([n_atoms]), cutoff)[0]:
        return ""
    density = n_atoms / abs(float(np.linalg.det(lattice)))
    if density > DENSEST:
        return _too_dense(density)
    extent = np.abs(lattice).sum(axis=0) / cutoff + 2.0
    return f"isolated atoms: {n_atoms} in a cell of {'x'.join(f'{e * cutoff:.0f}' for e in extent)} Angstrom"


def _unusable(part: Bonds, numbers: IntArray, cutoff: float) -> str:
    if reason := _overlap(part, numbers):
        return reason
    lonely = np.bincount(part.centre, minlength=len(numbers)) == 0
    if lonely.any():
        return _isolated(int(lonely.argmax()), cutoff)
    return ""


def _too_dense(density: float) -> str:
    return f"overlapping atoms: {density:.3g} atoms per cubic Angstrom"


def _overlap(part: Bonds, numbers: IntArray) -> str:
    near = reach(numbers)
    rows = np.flatnonzero(part.distance < near[part.centre] + near[part.neighbour])
    if not len(rows):
        return ""
    nearest = int(rows[part.distance[rows].argmin()])
    return overlapping(int(part.centre[nearest]), int(part.neighbour[nearest]), float(part.distance[nearest]), numbers)


def without_overlaps(structures: Structures) -> tuple[IntArray, list[Refusal]]:
    """Which structures have no two atoms nearer than `atomsets_core.structures.graphs` allows.

    What no parent can take is so known before a structure is kept. Sites with partial occupancy may stand on each
    other, so that structures which have them aren't looked at.

    Args:
        structures: (n) of them.

    Returns:
        (k,) ascending row numbers of those that can be kept, and a refusal for each other one.
    """
    reasons = _overlaps(structures)
    refused = [
        Refusal(str(structures.material_id[i]), "validate", reasons[i], str(structures.hashes[i]))
        for i in sorted(reasons)
    ]
    return np.setdiff1d(np.arange(len(structures)), np.array(list(reasons), dtype=np.int64)), refused


def _overlaps(structures: Structures) -> dict[int, str]:
    """Row of each ordered structure with overlapping atoms, and the reason it is refused."""
    near, volume = reach(structures.numbers), np.abs(np.linalg.det(structures.lattice))
    dense = ~structures.disordered & (structures.n_atoms > DENSEST * volume)
    skip = dense | structures.disordered
    reasons = {int(i): _too_dense(structures.n_atoms[i] / volume[i]) for i in np.flatnonzero(dense)}
    if (kernel := compiled_module("structures.neighbour_kernel")) is not None:
        culprit = np.empty((len(structures), 3))
        columns = np.ascontiguousarray(structures.lattice), np.ascontiguousarray(structures.frac), structures.offsets
        kernel.overlaps(*columns, near, skip, culprit)
        for i in np.flatnonzero(~skip & (culprit[:, 2] >= 0)):
            first, second, distance = culprit[i]
            reasons[int(i)] = overlapping(int(first), int(second), float(distance), _numbers(structures, i))
        return reasons
    cutoff = 2 * float(near.max(initial=0))
    for i in np.flatnonzero(~skip & ~_are_hopeless(structures.lattice, structures.n_atoms, max(cutoff, 1.0))):
        frac = structures.frac[structures.offsets[i] : structures.offsets[i + 1]]
        if reason := _overlap(find_bonds(structures.lattice[i], frac, cutoff), _numbers(structures, i)):
            reasons[int(i)] = reason
    return reasons


def _numbers(structures: Structures, i: int | np.integer[Any]) -> IntArray:
    return structures.numbers[structures.offsets[i] : structures.offsets[i + 1]]


def _isolated(site: int, cutoff: float) -> str:
    return f"isolated atom: site {site} has no neighbour within {cutoff:g} Angstrom"


def _join(structures: Structures, rows: list[int], parts: list[Bonds]) -> CrystalGraphs:
    chosen = structures.take(rows)
    n_bonds = np.array([len(part.centre) for part in parts], dtype=np.int64)
    shift = np.repeat(chosen.offsets[:-1], n_bonds)
    vectors = [part.vector for part in parts if part.vector is not None]
    images = [part.image for part in parts if part.image is not None]
    return CrystalGraphs(
        chosen.numbers,
        chosen.n_atoms,
        n_bonds,
        np.concatenate([part.centre for part in parts]) + shift,
        np.concatenate([part.neighbour for part in parts]) + shift,
        np.concatenate([part.distance for part in parts]).astype(np.float32),
        np.concatenate(vectors) if vectors else None,
        np.concatenate(images) if images else None,
    )


def radii(numbers: IntArray) -> FloatArray:
    """(n,) covalent radii in Angstrom of (n,) atomic numbers, in their shape; those beyond curium have curium's."""
    return np.asarray(_RADII[numbers])


def reach(numbers: IntArray) -> FloatArray:
    """(n,) Angstrom, from (n,) atomic numbers: two atoms nearer than the sum of theirs overlap."""
    return NEAREST * radii(numbers)


def overlapping(first: int, second: int, distance: float, numbers: IntArray) -> str:
    """Why a structure with two atoms so near is refused.

    Args:
        first: one of them, a row of `numbers`.
        second: the other.
        distance: Angstrom.
        numbers: (n,) atomic numbers of the structure.
    """
    pair = numbers[[first, second]]
    names = " and ".join(Element.from_Z(int(number)).symbol for number in pair)
    usual = float(radii(pair).sum())
    return (
        f"overlapping atoms: sites {first} and {second} are {distance:.3f} Angstrom apart ({names}, whose covalent "
        f"radii add up to {usual:.2f})"
    )
